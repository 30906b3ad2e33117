import json

import pytest

from cxrtool.data.tables.manifest import write_table
from cxrtool.errors import IncompleteError, InputError, UsageError
from cxrtool.flow.run import (
    check_whole,
    fold_name,
    folds_of,
    is_model,
    is_run,
    parse_fold,
    read_run_predictions,
    select_folds,
    whole_folds,
)

SIX = [("0", "0"), ("0", "1"), ("0", "2"), ("1", "0"), ("1", "1"), ("1", "2")]


@pytest.fixture
def run(tmp_path):
    """A run of two repeats and three folds, all of them whole."""
    path = tmp_path / "run"
    path.mkdir()
    rows = [{"image_id": "a", "repeat": r, "fold": f, "subset": "test"} for r, f in SIX]
    write_table(path / "splits.csv", ["image_id", "repeat", "fold", "subset"], rows)
    (path / "run.json").write_text(json.dumps({"command": "train", "run_digest": "abc"}))
    for r, f in SIX:
        add_fold(path, r, f)
    return path


def add_fold(path, r, f, digest="abc", classes=("a", "b")):
    fold = path / fold_name(r, f)
    fold.mkdir(exist_ok=True)
    (fold / "run.json").write_text(json.dumps({"command": "train", "run_digest": digest}))
    header = ",".join(f"prob_{name}" for name in classes)
    (fold / "predictions.csv").write_text(f"image_id,repeat,fold,{header}\nx,{r},{f},0.25,0.75\n")


def test_names_of_folds():
    assert fold_name(2, "3") == "r2f3"
    assert parse_fold(" r12f3 ") == ("12", "3")
    for wrong in ("f3", "r0", "r0f", "0f3", "r0f3x"):
        with pytest.raises(UsageError, match="expected folds like r0f3"):
            parse_fold(wrong)


def test_only_keeps_the_order_of_the_splits():
    assert select_folds(SIX, "r1f0,r0f2") == [("0", "2"), ("1", "0")]
    assert select_folds(SIX, None) == SIX
    with pytest.raises(UsageError, match="the splits have no fold r7f0; they have r0f0, r0f1"):
        select_folds(SIX, "r0f0,r7f0")


def test_folds_are_ordered_as_numbers_and_default_to_zero():
    rows = [{"repeat": "0", "fold": "10"}, {"repeat": "0", "fold": "9"}, {"fold": ""}]
    assert folds_of(rows) == [("0", "0"), ("0", "9"), ("0", "10")]


def test_kinds_of_folders(run, tmp_path):
    assert is_run(run)
    assert not is_run(tmp_path)
    assert not is_run(run / "r0f0")
    assert not is_model(run / "r0f0")
    (run / "r0f0" / "model.json").write_text("{}")
    assert is_model(run / "r0f0")


def test_a_whole_run_is_read_whole(run):
    assert whole_folds(run) == SIX
    assert check_whole(run) == SIX
    predictions = read_run_predictions(run)
    assert predictions.runs() == SIX
    assert predictions.probabilities.shape == (6, 2)


def test_missing_folds_are_named_unless_partial(run):
    (run / "r0f2" / "predictions.csv").unlink()
    add_fold(run, "1", "1", digest="made with other options")
    with pytest.raises(IncompleteError, match=r"4 of 6 folds; missing r0f2, r1f1$"):
        read_run_predictions(run)
    assert len(read_run_predictions(run, partial=True).rows) == 4


def test_a_run_without_any_fold_is_refused_even_as_partial(run):
    for r, f in SIX:
        (run / fold_name(r, f) / "predictions.csv").unlink()
    with pytest.raises(IncompleteError, match="none of its 6 folds is complete"):
        read_run_predictions(run, partial=True)


def test_one_fold_and_one_file_are_predictions_too(run):
    assert len(read_run_predictions(run / "r0f0").rows) == 1
    assert len(read_run_predictions(run / "r0f0" / "predictions.csv").rows) == 1


def test_folds_of_different_classes_do_not_mix(run):
    add_fold(run, "1", "2", classes=("a", "c"))
    with pytest.raises(InputError, match="expected the classes a, b"):
        read_run_predictions(run)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such run or file"):
        read_run_predictions(tmp_path / "nothing")
    with pytest.raises(InputError, match="expected a run or a predictions"):
        read_run_predictions(tmp_path)
