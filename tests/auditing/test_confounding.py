import json
from dataclasses import replace

import numpy as np
import pytest

from cxrtool.auditing.association import Numerical
from cxrtool.auditing.confounding import _separation, examine
from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING
from cxrtool.data.tables.manifest import read_table
from cxrtool.phantom.cohort import Cohort, draw_shots

GRAVE = {ALARM, WARNING}


def phantoms(count=300, seed=0, plants=(), **options):
    """The table of a set of phantoms, none of which is drawn."""
    return [
        {
            "image_id": shot.image_id,
            "path": f"/nowhere/{shot.image_id}.png",
            "label": shot.subject.label,
            "patient_id": f"phantoms:{shot.patient_id}",
            "source": shot.source.name,
            "view": shot.subject.view,
            "age": str(shot.subject.age),
            "sex": shot.subject.sex,
            "kind": shot.source.file,
            "width": str(round(256 * shot.source.width)),
            "height": str(round(256 * shot.source.height)),
        }
        for shot in draw_shots(Cohort(count, seed, plants=plants, **options))
    ]


def collections(count=120, seed=0, **named):
    """Two collections of one class each; what is told apart is given as a function of the class and a generator."""
    rng, rows = np.random.default_rng(seed), []
    for index in range(count):
        ill = index % 2 == 0
        row = {"image_id": f"i{index}", "path": f"/nowhere/{index}.png", "label": "covid" if ill else "normal"}
        row |= {
            "patient_id": f"set:{index}",
            "source": "set",
            "age": str(rng.integers(20, 80)),
            "sex": "FM"[index % 3 % 2],
        }
        rows.append(row | {name: make(ill, index) for name, make in named.items()})
    return rows


def levels(part):
    return {finding.level for finding in part.findings}


def texts(part, level):
    return [finding.text for finding in part.findings if finding.level == level]


def entry(part, name):
    return next(found for found in part.content["associations"] if found["name"] == name)


def test_phantoms_without_shortcuts_give_no_alarm_over_twenty_seeds():
    found = [levels(examine(phantoms(240, seed), seed=seed)) & (GRAVE | {NOTE}) for seed in range(20)]
    # One in twenty may be chance; no more, and nothing but a note.
    assert sum(bool(some) for some in found) <= 1
    assert not set().union(*found) & GRAVE


def test_labels_that_were_dealt_out_give_no_alarm():
    rows = collections(age=lambda ill, i: str(20 + i % 60), view=lambda ill, i: ("PA", "AP", "")[i % 3])
    rng = np.random.default_rng(1)
    for seed in range(20):
        dealt = rng.permutation([row["label"] for row in rows])
        assert (
            not levels(examine([row | {"label": label} for row, label in zip(rows, dealt, strict=True)], seed=seed))
            & GRAVE
        )


@pytest.mark.parametrize(
    ("plant", "words"),
    [("source", "Source and label coincide"), ("age", "Age is associated"), ("size", "Width is associated")],
)
def test_what_is_planted_is_found(plant, words):
    part = examine(phantoms(300, 1, (plant,)))
    assert any(text.startswith(words) for text in texts(part, ALARM)), part.findings


def test_sources_that_hold_one_label_each_are_told_with_the_label_they_hold():
    part = examine(phantoms(200, 2, ("source",), classes=("normal", "covid")))
    (told,) = [text for text in texts(part, ALARM) if text.startswith("Source and label coincide")]
    assert "all images of covid are from 'county', all of normal from 'university', and no source contains both" in told
    assert part.content["apart"][0]["islands"] == (("covid",), ("normal",))
    table = next(sheet for sheet in part.sheets if sheet.title == "Label by source")
    assert [row[0] for row in table.rows] == ["county", "university"]
    assert {row[1] == "0" or row[2] == "0" for row in table.rows} == {True}


def test_one_image_that_crosses_is_no_coincidence_but_still_an_alarm():
    rows = phantoms(200, 2, ("source",), classes=("normal", "covid"))
    rows[0]["source"] = {"county": "university", "university": "county"}[rows[0]["source"]]
    part = examine(rows)
    assert part.content["apart"] == []
    assert any(text.startswith("Source is associated with the label") for text in texts(part, ALARM))


def families(**more):
    return collections(patient_id=lambda ill, i: f"set:{'ward' if ill else 'school'}-{i}", **more)


def test_names_of_two_collections_warn_and_with_missing_ages_they_prove():
    (told,) = texts(examine(families()), WARNING)
    assert told.startswith("Patient ids differ between the classes")
    proven = examine(families(age=lambda ill, i: str(30 + i % 40) if ill else ""))
    first = texts(proven, ALARM)[0]
    assert first.startswith("Source and label coincide, and so does whether the age is known")
    assert (
        "of covid begin with 'ward', those of normal with 'school'. In addition, age is known for 100 % of covid and "
        in first
    )
    assert any("The age is known for none of normal" in text for text in texts(proven, WARNING))


def test_size_alone_does_not_prove_what_names_suggest():
    part = examine(families(width=lambda ill, i: str(400 + i % 50 + 200 * ill), height=lambda ill, i: "500"))
    assert part.content["apart"][0]["level"] == WARNING
    assert any(text.startswith("Width") for text in texts(part, ALARM))


def test_a_sign_must_part_a_class_from_each_of_the_others():
    """Ages that only one class has say nothing of whether the two others are from two places."""
    rows = families(age=lambda ill, i: str(30 + i % 40) if ill else "")
    for index, row in enumerate(rows):
        if row["label"] == "normal" and index % 4 == 1:
            row |= {"label": "viral", "patient_id": f"set:farm-{index}"}
    part = examine(rows)
    divisions = {frozenset(map(frozenset, found["islands"])): found["level"] for found in part.content["apart"]}
    assert divisions[frozenset({frozenset({"covid"}), frozenset({"normal", "viral"})})] == ALARM
    assert list(divisions.values()).count(ALARM) == 1


def test_ids_that_repeat_the_label_tell_nothing():
    part = examine(
        collections(
            patient_id=lambda ill, i: f"set:{'COVID' if ill else 'Normal'}-{i}",
            age=lambda ill, i: str(30 + i % 40) if ill else "",
        )
    )
    assert not [text for text in texts(part, ALARM) if "coincide" in text]
    assert any("repeat the label" in text for text in texts(part, NOTE))


def test_missingness_is_a_row_of_its_own():
    part = examine(collections(sex=lambda ill, i: "F" if ill or i % 4 == 1 else ""))
    found = entry(part, "sex missing")
    assert found["counts"] == {"known": {"covid": 60, "normal": 30}, "missing": {"covid": 0, "normal": 30}}
    assert found["level"] == WARNING
    assert any("known for 100 % of covid, 50 % of normal" in text for text in texts(part, WARNING))
    assert entry(part, "sex")["v_corrected"] is None
    assert "age missing" not in {found["name"] for found in part.content["associations"]}


def test_a_patient_counts_once_whatever_the_number_of_images():
    rows = collections(60, view=lambda ill, i: ("PA", "AP")[i % 3 == 0])
    many = [row | {"image_id": f"{row['image_id']}-{k}"} for row in rows for k in range(5)]
    once, often = examine(rows), examine(many)
    assert entry(once, "view") == entry(often, "view")
    assert often.content["classes"] == {"covid": 30, "normal": 30}


def test_without_patients_images_count_and_it_is_said():
    rows = [row | {"patient_id": ""} for row in collections(60)]
    part = examine(rows)
    assert part.content["unit"] == "image"
    assert any(note.startswith("No patient_id") for note in part.sheets[0].notes)


def test_what_is_known_of_no_image_is_not_clear_but_unknown():
    rows = [{"image_id": f"i{k}", "path": f"/{k}.png", "label": "ab"[k % 2], "age": "", "view": ""} for k in range(40)]
    part = examine(rows)
    assert texts(part, UNKNOWN) == [
        "Age and view are not known for any image: whether the label is associated with them could not be tested."
    ]
    assert levels(part) == {UNKNOWN, CLEAR}


@pytest.mark.parametrize("labels", ["", "a"])
def test_fewer_than_two_classes_are_unknown(labels):
    part = examine([{"image_id": "i", "path": "/i.png", "label": labels}])
    assert levels(part) == {UNKNOWN}
    assert part.sheets == ()


def test_the_same_seed_says_the_same_and_a_further_column_changes_no_other_answer():
    rows = phantoms(120)
    first, second = examine(rows, seed=3), examine(rows, seed=3)
    assert json.dumps(first.as_json()) == json.dumps(second.as_json())
    wider = examine([row | {"ward": "ab"[i % 2]} for i, row in enumerate(rows)], seed=3)
    assert entry(wider, "view") | {"q": 0} == entry(first, "view") | {"q": 0}


@pytest.mark.parametrize(("name", "alarm"), [("covid-cxr-336", True), ("nih-adults", False)])
def test_real_sets_are_called_what_they_are_without_being_told(real_data, name, alarm):
    table = read_table(real_data / name / "metadata.csv")
    rows = [
        row | {"image_id": f"i{index}", "path": row["file"], "original": row["file"], "source": name}
        for index, row in enumerate(table.rows)
    ]
    part = examine(rows)
    coincide = [text for text in texts(part, ALARM) if "coincide, and so does whether the age is known" in text]
    assert len(coincide) == alarm
    assert bool(levels(part) & GRAVE) == alarm


def test_the_auc_of_a_table_is_that_of_its_sentence():
    answer = Numerical(smd=-1.7, auc=0.09, auc_interval=(0.05, 0.16))
    assert _separation(answer) == (0.91, (pytest.approx(0.84), pytest.approx(0.95)))
    assert _separation(replace(answer, auc=0.91, auc_interval=(0.84, 0.95))) == (0.91, (0.84, 0.95))
    assert _separation(replace(answer, auc=None, auc_interval=None)) == (None, None)
