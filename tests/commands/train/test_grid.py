import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxrtool.commands.train.grid import Candidate, tabulate
from cxrtool.commands.train.options import TrainOptions
from cxrtool.commands.train.resolving import combine
from cxrtool.data.tables.manifest import read_table, write_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import DivergedError, InputError, LeakageError, UsageError
from cxrtool.flow import fold_training as fold_step
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.run import check_whole

LEARNS, IDLES = "0.003", "1e-09"
GRID = {"grid": (f"lr={IDLES},{LEARNS}",), "opt": "adam", "epochs": 12}
"""One combination that learns and one that stays as it was drawn."""


def tree(folder):
    """Every file's content, but for what tells the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "grid.csv")
    }


def rows_of(run, **wanted):
    """Rows of `grid.csv`, without what tells the time."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in read_table(run / "grid.csv").rows]
    return [row for row in rows if wanted.items() <= row.items()]


@pytest.fixture
def trained(monkeypatch):
    """Fold, learning rate and subsets asked about of every training, in order."""
    calls = []
    original = fold_step.FoldTrainer.fit

    def fit(self, assignment, store, asked, *rest):
        calls.append((assignment.name, self.options.lr, tuple(asked)))
        return original(self, assignment, store, asked, *rest)

    monkeypatch.setattr(fold_step.FoldTrainer, "fit", fit)
    return calls


def test_a_search_watches_no_test_image(settings):
    told = {"manifest": Path("m"), "splits": Path("s"), "model": "resnet18", "grid": ("lr=0.1,0.2",)}
    tried, _ = combine(TrainOptions.of(preset="makris", **told), replace(settings, origins={"watch": "preset"}))
    assert {combination.options.watch for combination in tried} == {"none"}
    with pytest.raises(UsageError, match="--watch: expected none with --grid"):
        combine(TrainOptions.of(watch="test", **told), replace(settings, origins={"watch": "flag"}))
    with pytest.raises(UsageError, match="found 'watch'"):
        combine(TrainOptions.of(**{**told, "grid": ("watch=none,test",)}), settings)


@pytest.fixture
def misleading(study):
    """The labels of the test images of fold r0f0 are swapped: whoever learns the class from training is wrong there."""
    table = read_table(study.folder / "manifest.csv")
    tested = study.assigned(0, 0, "test")
    for row in table.rows:
        if row["image_id"] in tested:
            row["label"] = {"covid": "normal", "normal": "covid"}[row["label"]]
    write_table(study.folder / "manifest.csv", table.columns, table.rows)
    return study


def accuracy(fold, subset):
    rows = [row for row in read_predictions(fold / "predictions.csv").rows if row["subset"] == subset]
    return np.mean([row["label"] == row["predicted"] for row in rows])


def test_a_combination_is_chosen_on_validation_and_not_on_test(misleading, train_study, trained):
    run = train_study(misleading, **GRID)
    (chosen,) = rows_of(run, chosen="yes")
    assert chosen["lr"] == LEARNS
    assert accuracy(run / "r0f0", "validation") == 1
    # The other one would have been better there.
    assert accuracy(run / "r0f0", "test") == 0
    idle = train_study(misleading, "idle", **{**GRID, "grid": (), "lr": float(IDLES)})
    assert accuracy(idle / "r0f0", "test") == 0.5
    assert trained[:2] == [("r0f0", 1e-9, ("validation",)), ("r0f0", 0.003, ("validation",))]


def test_nothing_in_the_run_tells_what_a_loser_says_of_test_images(study, train_study):
    run = train_study(study, **GRID)
    tested = study.assigned(0, 0, "test")
    for path in (run / "candidates").rglob("*"):
        assert (
            path.name
            in {"r0f0", "score.json", "history.csv", "run.json", "rejects.csv", "model.json", "model.safetensors"}
            or path.parent.name == "r0f0"
        )
        assert not path.is_file() or not any(name.encode() in path.read_bytes() for name in tested)
    assert set(read_run_file(run / "candidates" / "r0f0" / rows_of(run)[0]["candidate"])["counts"]) == {
        "train",
        "validation",
        "rejects",
    }


def test_the_chosen_fold_is_that_of_a_plain_training(study, train_study):
    run = train_study(study, **GRID)
    plain = train_study(study, "plain", **{**GRID, "grid": (), "lr": float(LEARNS)})
    assert tree(run / "r0f0") == tree(plain / "r0f0")
    made = [read_run_file(path / "r0f0") for path in (run, plain)]
    assert made[0]["training"].keys() == made[1]["training"].keys()
    values = [{name: entry["value"] for name, entry in told["options"].items()} for told in made]
    assert values[0] == values[1]
    assert made[0]["options"]["lr"] == {"value": 0.003, "origin": "grid"}
    assert made[0]["digest"] != made[1]["digest"]


def test_grid_csv_has_a_row_for_every_fold_and_combination(study, train_study, trained):
    run = train_study(study, only=None, grid=("lr=0.001,0.003", "batch-size=6,12"), epochs=1)
    table = read_table(run / "grid.csv")
    assert table.columns == [
        "repeat",
        "fold",
        "lr",
        "batch-size",
        "validation_accuracy",
        "validation_loss",
        "epoch_kept",
        "parameters",
        "macs",
        "seconds",
        "chosen",
        "reason",
        "candidate",
    ]
    assert len(table) == 6 * 4 == len(trained)
    assert sum(row["chosen"] == "yes" for row in table.rows) == 6
    for row in table.rows:
        assert 0 <= float(row["validation_accuracy"]) <= 1
        assert float(row["seconds"]) > 0
        assert (row["epoch_kept"], row["parameters"], row["reason"]) == ("1", "434050", "")
    assert check_whole(run) == [(str(r), str(f)) for r in range(2) for f in range(3)]


def test_validation_figures_are_those_of_the_chosen_fold_s_predictions(study, train_study):
    run = train_study(study, **{**GRID, "class_weights": "balanced", "epochs": 2})
    predictions = read_predictions(run / "r0f0" / "predictions.csv")
    own = [
        values[predictions.classes.index(row["label"])]
        for row, values in zip(predictions.rows, predictions.probabilities, strict=True)
        if row["subset"] == "validation"
    ]
    (chosen,) = rows_of(run, chosen="yes")
    assert float(chosen["validation_accuracy"]) == accuracy(run / "r0f0", "validation")
    assert float(chosen["validation_loss"]) == pytest.approx(-np.mean(np.log(own)), rel=1e-6)


def test_ties_go_to_the_lower_loss_then_to_fewer_parameters_then_to_the_earlier(tmp_path):
    def candidate(place, accuracy, loss, parameters, reason=""):
        score = {"validation_accuracy": accuracy, "validation_loss": loss, "parameters": parameters, "reason": reason}
        return Candidate(place, tmp_path, score if not reason else {"reason": reason})

    ranked = [
        candidate(5, 0.9, 0.7, 100),
        candidate(4, 0.8, 0.2, 100),
        candidate(3, 0.8, 0.3, 50),
        candidate(1, 0.8, 0.3, 60),
        candidate(2, 0.8, 0.3, 60),
        candidate(7, 0.0, 9.0, 1),
        candidate(0, 0, 0, 0, "broke down"),
    ]
    shuffled = [ranked[k] for k in (3, 0, 6, 2, 5, 1, 4)]
    assert sorted(shuffled, key=lambda found: found.rank) == ranked


def test_only_the_best_keeps_its_weights(study, train_study):
    run = train_study(study, grid=("lr=0.001,0.002,0.003,0.004",), epochs=1)
    kept = {path.parent.name for path in (run / "candidates").rglob("model.safetensors")}
    assert kept == {row["candidate"] for row in rows_of(run, chosen="yes")}


def test_folds_are_searched_one_by_one(study, train_study, trained):
    grid = {"grid": ("lr=0.001,0.003",), "epochs": 1}
    run = train_study(study, only="r0f1", **grid)
    assert [name for name, *_ in trained] == ["r0f1", "r0f1"]
    assert {(row["repeat"], row["fold"]) for row in rows_of(run)} == {("0", "1")}
    assert not (run / "manifest.csv").exists()
    train_study(study, only=None, **grid)
    whole = train_study(study, "whole", only=None, **grid)
    assert tree(run) == tree(whole)
    assert rows_of(run) == rows_of(whole)


def test_the_same_again_does_nothing(study, train_study, trained, listener):
    run = train_study(study, only=None, grid=("lr=0.001,0.003",), epochs=1)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    del trained[:], listener.said[:]
    train_study(study, only=None, grid=("lr=0.001", "lr=0.003"), epochs=1)
    assert trained == []
    assert listener.said == [f"{run}: up to date, nothing to do"]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_grid_that_has_grown_trains_only_what_is_new(study, train_study, trained):
    train_study(study, only="r0f0", grid=("lr=0.001,0.003",), epochs=1)
    del trained[:]
    run = train_study(study, only="r0f0", grid=("lr=0.001,0.002,0.003",), epochs=1)
    assert [lr for _, lr, _ in trained] == [0.002]
    clean = train_study(study, "clean", only="r0f0", grid=("lr=0.001,0.002,0.003",), epochs=1)
    assert rows_of(run) == rows_of(clean)
    assert tree(run / "r0f0") == tree(clean / "r0f0")


def test_what_lost_is_trained_again_when_it_wins_in_another_grid(study, train_study, trained):
    train_study(study, **{**GRID, "grid": (f"lr={IDLES},2e-09,{LEARNS}",)})
    del trained[:]
    run = train_study(study, **{**GRID, "grid": (f"lr={IDLES},2e-09",)})
    assert len(trained) == 1
    clean = train_study(study, "clean", **{**GRID, "grid": (f"lr={IDLES},2e-09",)})
    assert tree(run / "r0f0") == tree(clean / "r0f0")


def test_candidates_of_former_grids_and_plain_runs_leave_nothing_behind(study, train_study):
    run = train_study(study, only=None, grid=("lr=0.001,0.003",), epochs=1)
    train_study(study, only=None, grid=("lr=0.003,0.004",), epochs=1)
    assert tree(run) == tree(train_study(study, "clean", only=None, grid=("lr=0.003,0.004",), epochs=1))
    train_study(study, only=None, epochs=1)
    assert tree(run) == tree(train_study(study, "plain", only=None, epochs=1))
    assert not (run / "grid.csv").exists()


def test_who_needs_the_space_may_remove_what_was_tried(study, train_study, trained):
    run = train_study(study, only="r0f0", grid=("lr=0.001,0.003",), epochs=1)
    shutil.rmtree(run / "candidates")
    train_study(study, only="r0f0,r0f1", grid=("lr=0.001,0.003",), epochs=1)
    assert len(trained) == 4
    assert [row["validation_loss"] != "" for row in rows_of(run)] == [False, False, True, True]


def test_a_combination_that_breaks_down_is_told_of_and_not_chosen(study, train_study, listener):
    run = train_study(study, grid=("lr=1e30,0.003",), opt="sgd", epochs=2)
    broken, sound = rows_of(run)
    assert (broken["chosen"], broken["validation_accuracy"]) == ("no", "")
    assert "epoch 1" in broken["reason"]
    assert sound["chosen"] == "yes"
    assert any("r0f0  lr=1e+30" in text and "it cannot be chosen" in text for text in listener.warned)
    with pytest.raises(DivergedError, match="none of 2 combinations could be trained"):
        train_study(study, "none", grid=("lr=1e30,1e31",), opt="sgd", epochs=2)


def test_networks_and_sizes_are_searched_too(study, train_study):
    run = train_study(
        study, model=None, size=None, grid=("model=covid-xnet,mobilenetv2_050", "size=16,32"), weights="none", epochs=1
    )
    found = {(row["model"], row["size"]): (int(row["parameters"]), int(row["macs"])) for row in rows_of(run)}
    assert len(set(found.values())) == 4
    assert found["covid-xnet", "16"][0] == found["covid-xnet", "32"][0] == 434_050
    (chosen,) = rows_of(run, chosen="yes")
    description = json.loads((run / "r0f0" / "model.json").read_text())
    assert description["architecture"]["name"] == chosen["model"]
    assert str(description["input"]["size"]) == chosen["size"]


def test_folds_without_validation_are_refused(study, train_study, tmp_path):
    rows = read_table(study.splits).rows
    moved = [{**row, "subset": "train"} if (row["fold"], row["subset"]) == ("0", "validation") else row for row in rows]
    write_table(study.splits, list(rows[0]), moved)
    with pytest.raises(InputError, match="--grid: 2 of 6 folds have no validation images") as caught:
        train_study(study, only=None, **GRID)
    assert "--validation 0.1" in caught.value.hint
    assert not (tmp_path / "run").exists()
    train_study(study, only="r0f1", **{**GRID, "epochs": 1})


def test_validation_images_that_cannot_be_read_are_none(study, train_study):
    for name in study.assigned(0, 0, "validation"):
        (study.folder / f"{name}.png").unlink()
    with pytest.raises(InputError, match="no validation images to choose"):
        train_study(study, **GRID)


def test_leakage_is_refused_in_a_search_too(study, train_study):
    rows = read_table(study.splits).rows
    test = study.assigned(0, 0, "test")[0]
    leaking = [{**r, "subset": "train"} if r["image_id"] == test and r["subset"] == "test" else r for r in rows]
    write_table(study.splits, list(rows[0]), leaking)
    with pytest.raises(LeakageError):
        train_study(study, **GRID)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 3}, "--budget: expected --grid"),
        ({"grid": ("lr=0.1,-1",)}, "--grid lr=-1: --lr: expected a number above 0"),
        ({"grid": ("model=covid-xnet,resnet17",), "size": None}, "--grid model=resnet17: --model: expected"),
        ({"grid": ("hidden=0,64",)}, "--grid hidden=64: --hidden: covid-xnet has a head of its own"),
        ({"grid": ("fit=pad,stretch",)}, "--grid fit=stretch: --fit: expected one of"),
        ({"grid": ("freeze=no,yes",)}, "--grid freeze=yes: --freeze with --weights none"),
    ],
)
def test_wrong_combinations_are_named_before_anything_is_decoded(study, train_study, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        train_study(study, **changes)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


def test_the_plain_options_come_first_and_a_preset_counts(settings):
    options = TrainOptions.of("m", "s", preset="covid-xnet", grid=("lr=0.1,1,10", "batch-size=16,32"), budget=2)
    settings = replace(settings, origins={"opt": "preset", "patience": "default"})
    found, told = combine(options, settings)
    assert found[0].changes == {"lr": 1.0, "batch_size": 32}
    assert len(found) == 2
    assert (told.origins["lr"], told.origins["opt"], told.origins["patience"]) == ("grid", "preset", "default")
    again, _ = combine(replace(options, lr=10.0), settings)
    assert again[0].changes == {"lr": 10.0, "batch_size": 32}
    assert combine(options, replace(settings, seed=0))[0] == found


def test_a_random_body_is_told_of_once(settings, listener):
    options = TrainOptions.of("m", "s", preset="makris", weights="none", grid=("model=resnet18,vgg16", "lr=0.1,0.2"))
    by_preset = replace(settings, origins={"freeze": "preset"})
    assert all(combination.options.freeze is False for combination in combine(options, by_preset)[0])
    assert len(listener.warned) == 1


def test_the_table_averages_over_folds_and_puts_the_best_first():
    def row(fold, lr, accuracy, loss, chosen, reason=""):
        return {
            "repeat": "0",
            "fold": fold,
            "lr": lr,
            "validation_accuracy": accuracy,
            "validation_loss": loss,
            "epoch_kept": "1",
            "parameters": "" if reason else "1000",
            "macs": "1",
            "seconds": "" if reason else "2",
            "chosen": chosen,
            "reason": reason,
            "candidate": "x",
        }

    rows = [
        row("0", "1", "0.5", "1", "no"),
        row("0", "2", "0.75", "3", "yes"),
        row("0", "3", "", "", "no", "broke"),
        row("1", "1", "1", "2", "yes"),
        row("1", "2", "0.75", "1", "no"),
        row("1", "3", "", "", "no", "broke"),
    ]
    columns, lines = tabulate(rows)
    assert columns == ["lr", "val. accuracy", "val. loss", "parameters", "MACs", "seconds", "chosen in"]
    # Both have a mean accuracy of 0.75; the first has the lower loss.
    assert lines == [
        ["1", "0.750", "1.500", "1,000", "1", "2.0", "1 of 2"],
        ["2", "0.750", "2.000", "1,000", "1", "2.0", "1 of 2"],
        ["3", "", "", "", "1", "", "0 of 2 (2 failed)"],
    ]


def test_a_search_over_kernels_takes_the_cheapest_of_those_that_are_accurate_enough(study, train_study, listener):
    run = train_study(
        study,
        preset="covid-xnet",
        size=16,
        grid=("kernels=3|5,5,5,3,3|3,3",),
        opt="adam",
        lr=1e-3,
        augment="none",
        epochs=10,
        model=None,
    )
    rows = rows_of(run)
    # What the other options say is tried first.
    assert [row["kernels"] for row in rows] == ["5,5,5,3,3", "3", "3,3"]
    accuracies = [float(row["validation_accuracy"]) for row in rows]
    told = read_run_file(run / "r0f0")["grid"]
    assert told["rule"].startswith("of those within one standard error")
    images = len(study.assigned(0, 0, "validation"))
    least = max(accuracies) - (max(accuracies) * (1 - max(accuracies)) / images) ** 0.5
    cheapest = min((row for row in rows if float(row["validation_accuracy"]) >= least), key=lambda r: int(r["macs"]))
    (chosen,) = rows_of(run, chosen="yes")
    assert chosen == cheapest
    description = json.loads((run / "r0f0" / "model.json").read_text())
    assert description["architecture"]["kernels"] == [int(k) for k in chosen["kernels"].split(",")]
    assert {path.parent.name for path in (run / "candidates").rglob("model.safetensors")} == {chosen["candidate"]}


def test_families_of_networks_and_what_is_no_kernel(settings):
    options = TrainOptions.of("m", "s", preset="covid-xnet", grid=("kernels=uniform",))
    assert len(combine(options, settings)[0]) == 35
    assert len(combine(replace(options, size=64), settings)[0]) == 30
    drawn, _ = combine(replace(options, grid=("kernels=all",), budget=4), settings)
    assert drawn[0].changes == {"kernels": "5,5,5,3,3"}
    assert len(drawn) == 4
    with pytest.raises(UsageError, match="expected odd numbers"):
        combine(replace(options, grid=("kernels=unifrm",)), settings)
