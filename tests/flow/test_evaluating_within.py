from dataclasses import replace

import pytest

from cxrtool.data.splitting.splits import COLUMNS
from cxrtool.data.tables.manifest import write_table
from cxrtool.data.tables.predictions import write_predictions
from cxrtool.errors import InputError
from cxrtool.flow.evaluating import EvaluateOptions, evaluate, keep_within, table_of


@pytest.fixture
def predictions(make_predictions):
    return make_predictions(30, repeats=2, folds=3)


@pytest.fixture
def splits(predictions, tmp_path):
    """Splits in which only the first eighteen images are tested, each in the fold that answered it."""
    rows = [{**{name: row[name] for name in COLUMNS}, "subset": "test"} for row in predictions.rows]
    write_table(tmp_path / "s.csv", COLUMNS, [row for row in rows if row["image_id"] < "im0018"])
    return tmp_path / "s.csv"


def test_of_splits_an_image_counts_in_its_own_fold_and_subset(predictions, splits):
    other = replace(predictions, rows=[dict(row) for row in predictions.rows])
    other.rows[0]["fold"] = str((int(other.rows[0]["fold"]) + 1) % 3)
    assert keep_within(predictions, splits, "test") == ["Rows excluded because they are not listed in s.csv: 24."]
    assert {row["image_id"] for row in predictions.rows} == {f"im{k:04}" for k in range(18)}
    assert len(predictions.rows) == len(predictions.probabilities) == 36
    keep_within(other, splits, "test")
    assert len(other.rows) == 35
    with pytest.raises(InputError, match=r"expected images of synthetic, found none of its 35"):
        keep_within(other, splits, "validation")


def test_of_a_manifest_an_image_counts_in_every_fold(predictions, tmp_path):
    rows = [{"image_id": f"im{k:04}", "path": "x.png", "subset": "train"} for k in range(5)]
    write_table(tmp_path / "m.csv", list(rows[0]), rows)
    predictions.rows[0].update(image_id="im0000_r0f0", parent_id="im0000")
    keep_within(predictions, tmp_path / "m.csv", "test")
    assert [row["image_id"] for row in predictions.rows[:2]] == ["im0000_r0f0", "im0001"]
    assert len(predictions.rows) == 10


def test_nothing_is_told_where_nothing_is_left_out(predictions, tmp_path):
    write_table(tmp_path / "m.csv", ["image_id", "path"], [{**row, "path": "x"} for row in predictions.rows[:30]])
    assert keep_within(predictions, tmp_path / "m.csv", "test") == []


def test_answers_without_a_fold_need_splits_of_one(predictions, splits):
    for row in predictions.rows:
        row["repeat"] = row["fold"] = ""
    with pytest.raises(InputError, match="expected a repeat and a fold for every prediction"):
        keep_within(predictions, splits, "test")


def test_a_run_means_its_splits_and_a_step_its_manifest(tmp_path):
    with pytest.raises(InputError, match=r"expected splits.csv or manifest.csv in that folder, found neither"):
        table_of(tmp_path)
    (tmp_path / "manifest.csv").touch()
    assert table_of(tmp_path).name == "manifest.csv"
    (tmp_path / "splits.csv").touch()
    assert table_of(tmp_path).name == "splits.csv"


def test_an_evaluation_of_a_part_is_that_of_a_table_of_it(predictions, splits, settings, tmp_path):
    write_predictions(tmp_path / "all.csv", predictions)
    options = EvaluateOptions((str(tmp_path / "all.csv"),), resamples=50)
    found = evaluate(replace(options, within=splits), settings)[""]
    assert found["images"] == 18
    keep_within(predictions, splits, "test")
    write_predictions(tmp_path / "part.csv", predictions)
    part = evaluate(replace(options, inputs=(str(tmp_path / "part.csv"),)), settings)[""]
    assert {**found, "notes": part["notes"]} == part
    assert found["notes"] == ["Rows excluded because they are not listed in s.csv: 24.", *part["notes"]]


def test_other_splits_are_another_evaluation(predictions, splits, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("cxrtool.evaluation.plots.curves.draw_scores", lambda scores, summary, folder: [])
    write_predictions(tmp_path / "all.csv", predictions)
    options = EvaluateOptions((str(tmp_path / "all.csv"),), resamples=50, within=splits)
    settings = replace(settings, out=tmp_path / "out")
    before = evaluate(options, settings)[""]["images"]
    splits.write_text("".join(line for line in splits.open() if not line.startswith("im0000")))
    assert (before, evaluate(options, settings)[""]["images"]) == (18, 17)
