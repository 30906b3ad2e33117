import numpy as np
import pytest

from cxrtool.auditing.factors import CATEGORY, FILE, FILES, MANIFEST, NAMESPACE, NAMING, NUMBER, PATIENTS, factors


def by_name(rows):
    return {factor.name: factor for factor in factors(rows)}


def test_columns_are_groups_or_numbers_or_neither(make_rows):
    rows = make_rows(40)
    for index, row in enumerate(rows):
        row |= {
            "scanner": "xy"[index % 2],
            "dose": str(0.5 * (index % 30)),
            "accession": str(1000 + index),
            "remark": f"said {index}",
            "severity_mean": str(index % 3),
            "width": "200",
            "height": str(100 + index % 2),
        }
    found = by_name(rows)
    assert {name for name, factor in found.items() if factor.origin == MANIFEST} == {
        "source",
        "view",
        "age",
        "sex",
        "scanner",
        "dose",
    }
    assert (found["scanner"].kind, found["dose"].kind, found["age"].kind) == (CATEGORY, NUMBER, NUMBER)
    assert found["aspect"].numbers().tolist() == pytest.approx([200 / (100 + i % 2) for i in range(40)])
    assert found["kind"].values == ("png",) * 40


def test_what_only_repeats_the_label_is_no_factor(make_rows):
    rows = make_rows(40)
    for row in rows:
        row |= {"finding": row["label"], "arm": row["label"].upper()}
    assert {"finding", "arm"} & by_name(rows).keys() == set()


def test_missing_cells_stay_missing(make_rows):
    rows = make_rows(40)
    for row in rows[:10]:
        row |= {"age": "unknown", "view": "", "width": ""}
    for row in rows[10:]:
        row |= {"age": "045Y", "width": "300", "height": "200"}
    found = by_name(rows)
    ages = found["age"].numbers()
    assert np.isnan(ages[:10]).all()
    assert (ages[10:] == 45).all()
    assert found["view"].values[:10] == ("",) * 10
    assert np.isnan(found["aspect"].numbers()[:10]).all()


def test_names_give_families_away(make_rows):
    rows = make_rows(40)
    for index, row in enumerate(rows):
        who = "ward" if index < 20 else "clinic"
        row |= {
            "patient_id": f"set:{who}-{index}",
            "original": f"raw/{who}/IM-{index:04}.png" if index < 20 else f"raw/{who}/person{index}_a_{index}.png",
        }
    found = by_name(rows)
    assert found[PATIENTS].values == ("ward",) * 20 + ("clinic",) * 20
    assert found[NAMESPACE].values == ("set",) * 40
    assert found[FILES].values == ("IM-0000",) * 20 + ("person20_a_20",) * 20
    assert {found[name].origin for name in (PATIENTS, NAMESPACE, FILES)} == {NAMING}
    assert found["kind"].origin == FILE


def test_hidden_ids_tell_no_family(make_rows):
    rows = make_rows(400, per_patient=1)
    rng = np.random.default_rng(0)
    for row in rows:
        row["patient_id"] = "set:" + rng.bytes(8).hex()
    assert PATIENTS not in by_name(rows)


def test_a_namespace_that_says_what_the_source_says_is_told_once(make_rows):
    rows = make_rows(40)
    for row in rows:
        row["patient_id"] = f"{row['source']}:{row['patient_id']}"
    assert NAMESPACE not in by_name(rows)
