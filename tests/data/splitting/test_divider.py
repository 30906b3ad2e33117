from collections import Counter

import pytest

from cxrtool.data.splitting.divider import Divider, equalise, parse_holdout
from cxrtool.data.splitting.splits import overlaps
from cxrtool.errors import InputError, UsageError


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("60/20/20", {"train": 0.6, "validation": 0.2, "test": 0.2}),
        ("75/25", {"train": 0.75, "test": 0.25}),
        ("0.8/0.2", {"train": 0.8, "test": 0.2}),
        ("80/0/20", {"train": 0.8, "test": 0.2}),
        ("1/0/99", {"train": 0.01, "test": 0.99}),
    ],
)
def test_shares(text, shares):
    assert parse_holdout(text) == pytest.approx(shares)


@pytest.mark.parametrize("text", ["", "80", "80-20", "60/20/30", "50/50/0/0", "-10/110", "100/0", "0/100", "nan/20"])
def test_what_are_no_shares_is_refused(text):
    with pytest.raises(UsageError):
        parse_holdout(text)


@pytest.fixture
def strange_rows(make_rows):
    """Patients with images of two classes, patients without id, duplicates across patients, derived images."""
    rows = make_rows(90, ("covid", "normal", "pneumonia"), per_patient=3)
    for index in range(0, 30, 7):
        rows[index]["patient_id"] = ""
    rows[4]["label"] = "pneumonia"
    rows[10]["sha256"] = rows[50]["sha256"] = "same"
    rows[20]["patient_id"] = rows[21]["patient_id"].upper() + " "
    rows += [
        {**rows[i], "image_id": f"gen{i}", "parent_id": rows[i]["image_id"], "patient_id": ""} for i in (0, 40, 41)
    ]
    return rows


def test_no_patient_is_ever_on_two_sides(strange_rows):
    rows = strange_rows
    ids = {row["image_id"] for row in rows}
    for seed in range(100):
        divider = Divider(rows, strata=("label", "severity"), seed=seed)
        divisions = [
            divider.holdout({"train": 0.6, "validation": 0.2, "test": 0.2}),
            *divider.folds(5, 0.1),
            *divider.leave_out("source", 0.1).values(),
        ]
        for number, subsets in enumerate(divisions):
            assert overlaps(rows, subsets) == []
            assert subsets.keys() == ids if number < 6 else subsets.keys() <= ids


def test_every_image_is_tested_once_in_a_cross_validation(strange_rows):
    rows = strange_rows
    tested = Counter(i for part in Divider(rows).folds(5, 0.1) for i, subset in part.items() if subset == "test")
    assert tested == Counter(row["image_id"] for row in rows)


def test_the_order_of_rows_does_not_matter_but_the_seed_does(shuffled, strange_rows):
    rows = strange_rows
    one = Divider(rows, strata=("label", "severity"), seed=3)
    for order in range(3):
        other = Divider(shuffled(rows, order), strata=("label", "severity"), seed=3)
        assert one.folds(5, 0.1) == other.folds(5, 0.1)
        assert one.holdout({"train": 0.8, "test": 0.2}) == other.holdout({"train": 0.8, "test": 0.2})
    assert len({str(Divider(rows, seed=seed).folds(5, 0.1)) for seed in range(10)}) == 10
    assert len({str(one.folds(5, 0.1, repeat)) for repeat in range(10)}) == 10


def test_strata_are_spread(make_rows):
    rows = make_rows(300, ("covid", "normal"), per_patient=1)
    total = Counter((row["label"], row["severity"]) for row in rows)
    of = {row["image_id"]: (row["label"], row["severity"]) for row in rows}
    for subsets in Divider(rows, strata=("label", "severity")).folds(5, 0.1):
        held = Counter(of[i] for i, subset in subsets.items() if subset == "test")
        assert all(abs(held[key] - total[key] / 5) < 1 for key in total)
        kept = Counter(of[i] for i, subset in subsets.items() if subset == "validation")
        assert all(abs(kept[key] - 0.08 * total[key]) < 1.5 for key in total)


def test_shares_are_kept(make_rows):
    rows = make_rows(1000, per_patient=2)
    sizes = Counter(Divider(rows).holdout({"train": 0.6, "validation": 0.2, "test": 0.2}).values())
    assert sizes == {"train": 600, "validation": 200, "test": 200}


def test_a_class_with_too_few_patients_is_named(make_rows):
    rows = make_rows(30, per_patient=1) + [
        {"image_id": f"r{i}", "path": "x", "label": "rare", "patient_id": f"rare{i // 10}"} for i in range(30)
    ]
    divider = Divider(rows)
    with pytest.raises(InputError, match="expected a patient of the class 'rare' for each of 5 folds, found 3"):
        divider.folds(5, 0)
    divider.folds(3, 0)
    with pytest.raises(InputError, match="the class 'covid' for each of 2 subsets, found 1"):
        Divider(rows[:1]).holdout({"train": 0.5, "test": 0.5})


def test_few_large_patients_still_reach_every_fold(make_rows):
    rows = make_rows(20, ("covid",), per_patient=1)
    for k in range(16):
        rows[k]["patient_id"] = "giant"
    for subsets in Divider(rows).folds(5, 0):
        assert "test" in subsets.values()


def test_leaving_out_tests_one_value_and_trains_on_the_others(make_rows):
    rows = make_rows(40, per_patient=1)
    rows[0]["source"] = ""
    parts = Divider(rows).leave_out("source", 0.2)
    source = {row["image_id"]: row["source"] for row in rows}
    assert list(parts) == ["a", "b"]
    for value, subsets in parts.items():
        assert {i for i, subset in subsets.items() if subset == "test"} == {i for i in source if source[i] == value}
        assert all(subsets[i] != "test" for i in source if source[i] != value)
        assert subsets["im000"] in ("train", "validation")


def test_a_patient_of_two_sources_trains_nowhere_it_is_tested(make_rows):
    rows = make_rows(40, per_patient=2)
    rows[0]["source"], rows[1]["source"] = "a", "b"
    for value, subsets in Divider(rows).leave_out("source", 0).items():
        inside, outside = ("im000", "im001") if value == "a" else ("im001", "im000")
        assert subsets[inside] == "test"
        assert outside not in subsets


def test_one_value_cannot_be_left_out(make_rows):
    rows = [{**row, "source": "a"} for row in make_rows(10)]
    with pytest.raises(InputError, match="expected at least two values in that column, found 1"):
        Divider(rows).leave_out("source", 0.1)


@pytest.fixture
def division(make_rows):
    """Two repeats of three folds of 60 images with three findings of unequal number, and the finding of each."""
    rows = make_rows(60)
    findings = {row["image_id"]: ("normal", "normal", "flu", "covid", "normal")[k % 5] for k, row in enumerate(rows)}
    divider = Divider(rows, strata=("label",))
    runs = {(str(r), str(f)): s for r in range(2) for f, s in enumerate(divider.folds(3, 0.2, r))}
    return runs, findings


def tally(subsets, values):
    counts = {}
    for name, subset in subsets.items():
        counts.setdefault(subset, Counter())[values[name]] += 1
    return counts


def test_every_subset_holds_as_many_of_each_value_as_of_its_rarest(division):
    runs, findings = division
    found = equalise(runs, findings)
    assert list(found) == list(runs)
    for run, subsets in found.items():
        before, after = tally(runs[run], findings), tally(subsets, findings)
        assert after == {subset: dict.fromkeys(counts, min(counts.values())) for subset, counts in before.items()}
        # Nothing changes sides.
        assert subsets.items() <= runs[run].items()


def test_what_is_kept_stays_whole_and_the_rest_is_drawn_alike(division):
    runs, findings = division
    thinned, kept = equalise(runs, findings), equalise(runs, findings, ["test"])
    for run, subsets in runs.items():
        assert {n for n, s in kept[run].items() if s == "test"} == {n for n, s in subsets.items() if s == "test"}
        rest = [{n: s for n, s in found[run].items() if s != "test"} for found in (thinned, kept)]
        assert rest[0] == rest[1]


def test_a_draw_hangs_on_seed_and_ids_alone(division, shuffled):
    runs, findings = division
    turned = {run: dict(shuffled(list(subsets.items()))) for run, subsets in runs.items()}
    assert equalise(turned, dict(shuffled(list(findings.items())))) == equalise(runs, findings)
    assert equalise(runs, findings, seed=1) != equalise(runs, findings)


def test_images_of_no_value_or_unknown_are_in_no_thinned_subset():
    runs = {("0", "0"): {"a": "train", "b": "train", "c": "train", "d": "test", "e": "test"}}
    values = {"a": "x", "b": "y", "c": "", "d": ""}
    assert equalise(runs, values, ["test"]) == {("0", "0"): {"a": "train", "b": "train", "d": "test"}}


def test_a_class_allows_as_many_folds_as_it_has_patients(make_rows):
    rows = make_rows(40)
    few = [row for row in rows if row["label"] == "normal"][:6]
    divider = Divider([row for row in rows if row["label"] == "covid"] + few)
    assert divider.most_folds() == len({row["patient_id"] for row in few})
    divider.folds(divider.most_folds(), 0.0)
    with pytest.raises(InputError, match="expected a patient of the class 'normal'"):
        divider.folds(divider.most_folds() + 1, 0.0)
