import json

import pytest

from cxrtool.data.file_names import FITTED_ON, PREDICTIONS
from cxrtool.data.tables.manifest import Manifest, write_table
from cxrtool.flow.cases import assign


@pytest.fixture
def folds(tmp_path):
    """Two folds: a is tested by the first, b by the second, c held by the first for validation, d by none."""
    answers = {"r0f0": [("a", "test", "1A"), ("c", "validation", "")], "r0f1": [("b", "test", "2b"), ("a", "test", "")]}
    for name, rows in answers.items():
        (tmp_path / name).mkdir()
        cells = [
            {"image_id": i, "subset": s, "predicted": f"said by {name}", "prob_x": "1", "sha256": h} for i, s, h in rows
        ]
        write_table(tmp_path / name / PREDICTIONS, list(cells[0]), cells)
        write_table(tmp_path / name / FITTED_ON, ["image_id"], [{"image_id": "d"}])
    return [tmp_path / "r0f0", tmp_path / "r0f1"]


def manifest(*names, sha256=""):
    rows = [{"image_id": name, "path": f"/{name}.png", "sha256": sha256} for name in names]
    return Manifest(["image_id", "path", "sha256"], rows)


def test_each_image_is_explained_by_the_first_fold_that_tested_it(folds):
    cases, rejects = assign(manifest("b", "a", "c", "d", "e"), folds, "test", of_run=True)
    assert [(case.row["image_id"], case.folder.name, case.subset, case.recorded) for case in cases] == [
        ("b", "r0f1", "test", "said by r0f1"),
        ("a", "r0f0", "test", "said by r0f0"),
    ]
    assert rejects == [
        {"path": "/c.png", "reason": "no fold of the run tested it: it is not among the images of the run"},
        {"path": "/d.png", "reason": "no fold of the run tested it: it was used in training"},
        {"path": "/e.png", "reason": "no fold of the run tested it: it is not among the images of the run"},
    ]


@pytest.mark.parametrize(("subset", "expected"), [("validation", ["c"]), ("all", ["a", "b", "c"])])
def test_validation_images_come_where_they_are_asked_for(folds, subset, expected):
    cases, rejects = assign(manifest("a", "b", "c", "d"), folds, subset, of_run=True)
    assert [case.row["image_id"] for case in cases] == expected
    assert len(rejects) == 4 - len(expected)


def test_an_image_with_other_pixels_under_the_same_id_is_refused(folds):
    cases, rejects = assign(manifest("a", sha256="1a"), folds, "test", of_run=True)
    assert len(cases) == 1
    cases, rejects = assign(manifest("a", sha256="ff"), folds, "test", of_run=True)
    assert cases == []
    assert rejects[0]["reason"] == "its pixels differ from those of the image 'a' that r0f0 predicted"


def test_a_single_model_explains_everything(folds):
    cases, rejects = assign(manifest("d", "z"), folds[:1], "test", of_run=False)
    assert [(case.row["image_id"], case.folder, case.subset, case.recorded) for case in cases] == [
        ("d", folds[0], "", ""),
        ("z", folds[0], "", ""),
    ]
    assert rejects == []


def test_an_image_that_a_fold_saw_after_more_steps_is_the_same_image(folds, tmp_path):
    # The fold saw what `enhance` made of it, under a name and with pixels of its own.
    made = tmp_path / "enhanced" / "images"
    made.mkdir(parents=True)
    (tmp_path / "enhanced" / "run.json").write_text(
        json.dumps({"command": "enhance", "chain": [{"step": "clahe", "version": 1, "clip": 2.0, "tiles": 8}]})
    )
    for name, answer in (("a", {"image_id": "a"}), ("b", {"image_id": "b-r0f0", "parent_id": "b"})):
        row = {
            "parent_id": "",
            "generator": "",
            **answer,
            "subset": "test",
            "predicted": "x",
            "prob_x": "1",
            "sha256": "ee",
            "path": str(made / f"{name}.png"),
        }
        write_table(folds[0] / PREDICTIONS, list(row), [row])
        cases, rejects = assign(manifest(name, sha256="ff"), folds[:1], "test", of_run=True)
        assert ([case.row["image_id"] for case in cases], rejects) == ([name], [])
        write_table(folds[0] / PREDICTIONS, list(row), [{**row, "path": f"/{name}.png"}])
        assert assign(manifest(name, sha256="ff"), folds[:1], "test", of_run=True)[0] == []
    derived = {**row, "generator": "covid"}
    write_table(folds[0] / PREDICTIONS, list(row), [derived])
    # A fold that was shown twins has tested the radiograph; what it says of one twin it has not said of that.
    (case,) = assign(manifest("b"), folds[:1], "test", of_run=True)[0]
    assert (case.row["image_id"], case.recorded) == ("b", "")


def test_what_was_made_for_a_fold_is_explained_by_that_fold_if_it_tested_it(folds):
    rows = [
        {"image_id": f"{name}_r0f{fold}", "path": f"/{fold}/{name}.png", "parent_id": name, "repeat": "0", "fold": fold}
        for fold in "01"
        for name in "abc"
    ]
    cases, rejects = assign(Manifest(list(rows[0]), rows), folds, "test", of_run=True)
    assert [(case.row["image_id"], case.folder.name, case.recorded) for case in cases] == [
        ("a_r0f0", "r0f0", "said by r0f0"),
        ("a_r0f1", "r0f1", "said by r0f1"),
        ("b_r0f1", "r0f1", "said by r0f1"),
    ]
    assert len(rejects) == 3
