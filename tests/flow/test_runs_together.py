import csv
import io
import json
from statistics import fmean, stdev

import pytest

from cxrtool.data.tables.manifest import read_table, write_table
from cxrtool.data.tables.predictions import write_predictions
from cxrtool.errors import UsageError
from cxrtool.flow.runs_together import check_together


@pytest.fixture
def runs(make_predictions, tmp_path):
    """Predictions of three runs of two folds, each with a `run.json` as `train` writes it."""
    found = []
    for seed in range(3):
        folder = tmp_path / f"s{seed}"
        folder.mkdir()
        write_predictions(folder / "predictions.csv", make_predictions(60, folds=2, seed=seed))
        values = {"model": "thumbnail", "size": 64, "lr": 0.0003, "manifest": f"m{seed}"}
        options = {name: {"value": value, "origin": "flag"} for name, value in values.items()}
        (folder / "run.json").write_text(json.dumps({"command": "train", "seed": seed, "options": options}))
        found.append(folder)
    return found


def evaluated(cxr, *arguments):
    outcome = cxr("evaluate", *arguments, "--format", "json", "-q")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.mark.parametrize("positive", [(), ("--positive", "covid")])
def test_mean_and_spread_are_those_of_the_runs_alone(cxr, runs, positive):
    alone = [evaluated(cxr, path, *positive) for path in runs]
    together = evaluated(cxr, *runs, "--together", *positive)["together"]
    for name in ("accuracy", "balanced_accuracy", "macro_auc", "mcc"):
        values = [found["overall"][name]["value"] for found in alone]
        assert together["mean"][name]["value"] == pytest.approx(fmean(values))
        assert together["mean"][name]["sd"] == pytest.approx(stdev(values))
    values = [found["per_class"]["covid"]["sensitivity"]["value"] for found in alone]
    assert together["mean"]["sensitivity of covid"]["value"] == pytest.approx(fmean(values))
    for run, found, path in zip(together["runs"], alone, runs, strict=True):
        assert run["run"] == str(path)
        assert run["accuracy"] == found["overall"]["accuracy"]
        auc = found["per_class"]["covid"]["auc"] if positive else found["overall"]["macro_auc"]
        assert run["auc"] == auc
    # Each run is a repeat of the whole.
    whole = evaluated(cxr, *runs, "--together", *positive)
    assert (whole["runs"], whole["repeats"]) == (6, 3)
    assert whole["overall"]["accuracy"]["value"] == pytest.approx(together["mean"]["accuracy"]["value"])
    assert whole["overall"]["accuracy"]["sd_repeats"] == pytest.approx(together["mean"]["accuracy"]["sd"])


def test_the_wide_table_is_printed_and_written(cxr, runs, tmp_path):
    outcome = cxr("evaluate", *runs, "--together", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert "3 runs together" in lines
    header = lines[lines.index("Each run") + 1].split()
    assert header == ["run", "seed", "model", "size", "lr", "images", "accuracy", "low", "high", "AUC"]
    first = lines[lines.index("Each run") + 3].split()
    assert first[:6] == [str(runs[0]), "0", "thumbnail", "64", "0.0003", "60"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "runs.csv").read_text())))
    assert [row["seed"] for row in rows] == ["0", "1", "2"]
    for row, path in zip(rows, runs, strict=True):
        found = evaluated(cxr, path)["overall"]
        assert float(row["accuracy"]) == found["accuracy"]["value"]
        assert (float(row["low"]), float(row["high"])) == (found["accuracy"]["low"], found["accuracy"]["high"])
        assert float(row["auc"]) == found["macro_auc"]["value"]
    again = cxr("evaluate", *runs, "--together", "-o", tmp_path / "out")
    assert "up to date, nothing to do" in again.err
    assert again.out == outcome.out


def test_files_without_a_run_have_empty_settings(cxr, runs):
    together = evaluated(cxr, *(path / "predictions.csv" for path in runs), "--together")["together"]
    assert [run["seed"] for run in together["runs"]] == ["", "", ""]


def test_runs_that_are_not_one_method_get_a_note(cxr, runs, make_predictions):
    content = json.loads((runs[1] / "run.json").read_text())
    content["options"]["lr"]["value"] = 0.01
    (runs[1] / "run.json").write_text(json.dumps(content))
    write_predictions(runs[2] / "predictions.csv", make_predictions(54, folds=2))
    notes = evaluated(cxr, *runs, "--together")["notes"]
    assert "The runs differ in more than the seed, so that they are not one method: lr (0.0003, 0.01)." in notes
    assert "The runs were tested on different images." in notes


def test_within_splits_applies_to_each_run_by_its_own_repeat(cxr, runs, tmp_path):
    rows = [
        {"image_id": row["image_id"], "repeat": row["repeat"], "fold": row["fold"], "subset": "test"}
        for row in read_table(runs[0] / "predictions.csv").rows[:30]
    ]
    write_table(tmp_path / "splits.csv", list(rows[0]), rows)
    found = evaluated(cxr, *runs, "--together", "--within", tmp_path / "splits.csv")
    assert [run["images"] for run in found["together"]["runs"]] == [30, 30, 30]
    assert found["repeats"] == 3


def test_mistakes_are_told_in_two_lines(cxr, runs, tmp_path):
    for arguments, told in (
        ((runs[0],), "--together: expected two runs or more, found 1"),
        ((runs[0], runs[0]), "found"),
        ((f"a={runs[0]}", f"b={runs[1]}"), "--together: expected runs without names"),
    ):
        outcome = cxr("evaluate", *arguments, "--together")
        assert (outcome.code, outcome.out) == (2, "")
        assert told in outcome.err
        assert len(outcome.err.splitlines()) <= 2
    (tmp_path / "m.csv").write_text(",a,b\na,8,1\nb,1,4\n")
    assert (
        "cannot be combined with --together"
        in cxr("evaluate", "--confusion-matrix", tmp_path / "m.csv", "--together").err
    )
    assert "--together" in cxr("evaluate", *runs).err
    with pytest.raises(UsageError, match="twice"):
        check_together({"": [runs[0], runs[1], runs[0]]})
