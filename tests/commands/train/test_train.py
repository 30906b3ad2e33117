import contextlib
import json
import multiprocessing
import os
from dataclasses import replace

import pytest

from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.tables.manifest import read_manifest, read_table, write_table
from cxrtool.errors import InputError, LeakageError, OutputError, StoppedError, StrictError, UsageError
from cxrtool.flow import fold_training as fold_step
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.run import check_whole
from cxrtool.options import declared
from cxrtool.training.options import TrainingOptions


def tree(folder):
    """Every file's content, but for what tells the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


@pytest.fixture
def trained(monkeypatch):
    """The folds whose training was begun, in order."""
    names = []
    original = fold_step.FoldTrainer.fit

    def fit(self, assignment, *rest):
        names.append(assignment.name)
        return original(self, assignment, *rest)

    monkeypatch.setattr(fold_step.FoldTrainer, "fit", fit)
    return names


@pytest.mark.parametrize(
    "changes",
    [
        {"opt": "lion"},
        {"weights": "gone.pth"},
        {"augment": "spin=1"},
        {"precision": "fp8"},
        {"device": "gpu"},
        {"only": "r9f9"},
        {"dropout": 0.5},
        {"batch_size": 0},
    ],
)
def test_a_wrong_option_costs_no_decoding_and_leaves_nothing(study, train_study, tmp_path, changes):
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises((UsageError, InputError)):
        train_study(study, **changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_wrong_option_leaves_a_finished_run_as_it_is(study, train_study):
    run = train_study(study, only=None, epochs=1)
    before = tree(run)
    with pytest.raises(UsageError):
        train_study(study, only=None, epochs=1, opt="lion")
    assert tree(run) == before
    assert len(check_whole(run)) == 6


def test_a_run_holds_its_folds_and_what_they_share(study, train_study, trained, listener):
    run = train_study(study, only=None)
    assert trained == ["r0f0", "r0f1", "r0f2", "r1f0", "r1f1", "r1f2"]
    assert {path.name for path in run.iterdir()} == {*trained, "manifest.csv", "rejects.csv", "run.json", "splits.csv"}
    assert (run / "splits.csv").read_bytes() == study.splits.read_bytes()
    ours, theirs = read_manifest(run), read_manifest(study.folder)
    assert (ours.columns, ours.rows) == (theirs.columns, theirs.rows)
    assert (run / "rejects.csv").read_text() == "path,reason\n"
    assert listener.said[-1] == f"{run}: all 6 folds are complete; next: cxrtool evaluate {run}"
    assert check_whole(run) == [(str(r), str(f)) for r in range(2) for f in range(3)]
    assert not [path.name for path in run.parent.iterdir() if path.name.startswith(".")]


def test_run_json_of_the_run_tells_every_option_and_its_origin(study, train_study):
    made = read_run_file(train_study(study, seed=3, origins={"epochs": "flag"}))
    told = {name: entry["value"] for name, entry in made["options"].items()}
    assert declared(TrainingOptions).keys() <= set(told)
    assert told["manifest"] == str(study.folder)
    assert told["splits"] == str(study.splits)
    assert (told["size"], told["epochs"], told["precision"]) == (16, 2, "auto")
    assert made["options"]["epochs"]["origin"] == "flag"
    assert (made["seed"], made["threads"]) == (3, 1)
    assert set(made["versions"]) == {"cxrtool", "numpy", "opencv-python-headless", "torch", "timm"}


def test_a_run_is_finished_fold_by_fold(study, train_study, trained, listener):
    run = train_study(study, only="r1f1")
    assert not (run / "manifest.csv").exists()
    assert listener.said[-1] == f"{run}: 1 of 6 folds are complete"
    train_study(study, only="r0f0,r1f1")
    assert trained == ["r1f1", "r0f0"]
    train_study(study, only=None)
    assert sorted(trained) == ["r0f0", "r0f1", "r0f2", "r1f0", "r1f1", "r1f2"]
    assert (run / "manifest.csv").exists()


def test_the_same_again_does_nothing(study, train_study, trained, listener):
    run = train_study(study, only=None, epochs=1)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    del trained[:], listener.said[:]
    train_study(study, only=None, epochs=1)
    assert trained == []
    assert listener.said == [f"{run}: up to date, nothing to do"]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_the_same_splits_written_again_only_touch_the_run(study, train_study, trained):
    run = train_study(study, only=None, epochs=1)
    del trained[:]
    later = (run / "manifest.csv").stat().st_mtime + 100
    os.utime(study.splits, (later, later))
    before = (run / "manifest.csv").stat().st_mtime_ns
    train_study(study, only=None, epochs=1)
    assert trained == []
    assert (run / "manifest.csv").stat().st_mtime_ns > before


@pytest.mark.parametrize("checkpoint", ["last", "best-loss"])
def test_watching_test_images_changes_the_history_alone(study, train_study, tmp_path, checkpoint):
    told = {"only": "r0f0", "epochs": 3, "checkpoint": checkpoint, "augment": "flip=0.5"}
    alone = train_study(study, out=tmp_path / "alone", **told) / "r0f0"
    watching = train_study(study, out=tmp_path / "watching", watch="test", **told) / "r0f0"
    ours, theirs = tree(watching), tree(alone)
    differing = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert differing - {"curves.png"} == {"history.csv"}
    before, after = (read_table(fold / "history.csv") for fold in (alone, watching))
    assert [name for name in after.columns if name not in before.columns] == ["test_loss", "test_accuracy"]
    assert [{name: row[name] for name in before.columns} for row in after.rows] == before.rows
    tested = [row for row in read_table(watching / "predictions.csv").rows if row["subset"] == "test"]
    kept = json.loads((watching / "model.json").read_text())["trained"]["epoch"]
    share = sum(row["label"] == row["predicted"] for row in tested) / len(tested)
    assert float(after.rows[kept - 1]["test_accuracy"]) == pytest.approx(share, abs=1e-6)


def test_who_watches_without_test_images_sees_none(study, train_study, tmp_path):
    table = read_table(study.splits)
    write_table(study.splits, table.columns, [row for row in table.rows if row["subset"] != "test"])
    run = train_study(study, only="r0f0", epochs=1, watch="test")
    assert read_table(run / "r0f0" / "history.csv").rows[0]["test_loss"] == ""


CHANGES = [
    {"epochs": 3},
    {"watch": "test"},
    {"lr": 0.01},
    {"augment": "flip=0.5"},
    {"fit": "pad"},
    {"seed": 1},
    {"threads": 2},
    {"precision": "fp32"},
    {"batch_size": 7},
    {"checkpoint": "last"},
]


@pytest.mark.parametrize("change", CHANGES, ids=[next(iter(change)) for change in CHANGES])
def test_a_changed_option_trains_again(study, train_study, trained, change):
    train_study(study)
    train_study(study, **change)
    assert trained == ["r0f0", "r0f0"]
    train_study(study, **change)
    assert trained == ["r0f0", "r0f0"]


def test_finished_folds_of_other_options_or_data_are_not_replaced_unasked(study, train_study, trained):
    train_study(study)
    with pytest.raises(OutputError, match=r"found 1 finished folds with epochs 2 instead of 3") as refused:
        train_study(study, epochs=3, replace=False)
    assert "--replace" in refused.value.hint
    assert "--force" in refused.value.hint
    os.utime(study.folder / "im000.png", (1, 1))
    with pytest.raises(OutputError, match="of other images, splits or versions"):
        train_study(study, replace=False)
    assert trained == ["r0f0"]
    train_study(study, epochs=3, replace=False, force=True)
    assert trained == ["r0f0", "r0f0"]


@pytest.mark.parametrize("change", [{"workers": 2}, {"save_every": 1.0}, {"device": "cpu"}, {"strict": True}])
def test_what_bears_on_nothing_trains_nothing(study, train_study, trained, change):
    train_study(study)
    train_study(study, **change)
    assert trained == ["r0f0"]


def test_changed_images_labels_and_splits_train_again(study, train_study, trained):
    train_study(study)
    image = study.folder / "im000.png"
    os.utime(image, (1, 1))
    train_study(study)
    assert len(trained) == 2
    text = (study.folder / "manifest.csv").read_text()
    (study.folder / "manifest.csv").write_text(text.replace(",mild,", ",severe,"))
    train_study(study)
    assert len(trained) == 3
    rows = read_table(study.splits).rows
    swapped = {"validation": "test", "test": "validation"}
    write_table(study.splits, list(rows[0]), [{**r, "subset": swapped.get(r["subset"], r["subset"])} for r in rows])
    train_study(study)
    assert len(trained) == 4


def test_force_trains_again_to_the_same_bytes(study, train_study, trained):
    run = train_study(study, only=None, epochs=1)
    before = tree(run)
    train_study(study, only=None, epochs=1, force=True)
    assert len(trained) == 12
    assert tree(run) == before


def test_verify_does_not_trust_what_was_decoded(study, train_study):
    """A picture that was changed behind its size and time."""
    import cv2
    import numpy as np

    image = study.folder / f"{study.assigned(0, 0, 'train')[0]}.png"
    run = train_study(study, verify=True)
    before = (run / "r0f0" / "model.safetensors").read_bytes()
    status, size = image.stat(), image.stat().st_size
    cv2.imwrite(str(image), np.full((24, 28), 7, np.uint8))
    with image.open("ab") as file:
        file.write(bytes(size - image.stat().st_size))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert image.stat().st_size == size
    train_study(study, verify=True)
    assert (run / "r0f0" / "model.safetensors").read_bytes() != before


def test_a_dry_run_writes_nothing(study, train_study, tmp_path, listener):
    train_study(study, dry_run=True)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()
    assert listener.said == [f"would write {tmp_path / 'run'}: it is not there yet"]


def test_a_folder_of_somebody_else_is_refused(study, train_study, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.doc").write_text("years of work")
    with pytest.raises(OutputError, match="found one made by something else"):
        train_study(study)
    assert (tmp_path / "run" / "thesis.doc").read_text() == "years of work"
    assert not (tmp_path / "cache").exists()


def test_an_empty_folder_may_become_a_run(study, train_study, tmp_path):
    (tmp_path / "run").mkdir()
    assert (train_study(study) / "r0f0" / "predictions.csv").exists()


def test_without_an_output_nothing_is_trained(study, settings):
    with pytest.raises(UsageError, match="needs -o DIR"):
        train(TrainOptions(study.folder, study.splits, model="covid-xnet"), settings)


def test_leakage_is_refused_unless_it_is_allowed(study, train_study, listener):
    rows = read_table(study.splits).rows
    test = study.assigned(0, 0, "test")[0]
    leaking = [
        {**r, "subset": "train"} if (r["image_id"], r["repeat"], r["fold"]) == (test, "0", "0") else r for r in rows
    ]
    write_table(study.splits, list(rows[0]), leaking)
    with pytest.raises(LeakageError, match="fold r0f0: 1 patient"):
        train_study(study)
    run = train_study(study, allow_leakage=True)
    assert (run / "r0f0" / "predictions.csv").exists()
    assert any("fold r0f0: 1 patient" in text for text in listener.warned)


def test_strict_trains_all_folds_and_complains_at_the_end(study, train_study, trained):
    (study.folder / f"{study.assigned(0, 0, 'test')[0]}.png").write_bytes(b"no picture")
    with pytest.raises(StrictError, match="1 rejected") as caught:
        train_study(study, only=None, epochs=1, strict=True)
    assert caught.value.exit_code == 3
    assert len(trained) == 6


def test_rejects_of_the_run_are_told_once(study, train_study, listener):
    (study.folder / "im003.png").write_bytes(b"no picture")
    run = train_study(study, only=None, epochs=1)
    assert [row["path"] for row in read_table(run / "rejects.csv").rows] == [str(study.folder / "im003.png")]
    assert len([text for text in listener.warned if "cannot be read" in text]) == 1


def test_folds_that_the_splits_no_longer_have_go(study, train_study):
    run = train_study(study, only=None, epochs=1)
    rows = [row for row in read_table(study.splits).rows if row["repeat"] == "0"]
    write_table(study.splits, list(rows[0]), rows)
    train_study(study, only="r0f0", epochs=1)
    # Not before the new run is whole.
    assert (run / "r1f2").exists()
    train_study(study, only=None, epochs=1)
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == ["r0f0", "r0f1", "r0f2"]
    assert len(check_whole(run)) == 3


def test_the_splits_of_a_run_are_splits(study, train_study, trained):
    run = train_study(study, only=None, epochs=1)
    other = train_study(replace(study, splits=run), "other")
    assert (other / "splits.csv").read_bytes() == study.splits.read_bytes()
    # A run may be asked about its own splits, too.
    train_study(replace(study, splits=run), only=None, epochs=1)
    assert len(trained) == 7


def test_folds_without_validation_are_told_of_where_that_matters(study, train_study, listener):
    rows = read_table(study.splits).rows
    moved = [{**row, "subset": "train"} if (row["fold"], row["subset"]) == ("0", "validation") else row for row in rows]
    write_table(study.splits, list(rows[0]), moved)
    train_study(study, "a", only="r0f0,r0f1", epochs=1, patience=3)
    (warning,) = (text for text in listener.warned if "no validation images" in text)
    assert warning == (
        "1 of 2 folds have no validation images, such as r0f0: in these --checkpoint best-loss, --patience cannot be "
        "used, and the last epoch is kept"
    )
    train_study(study, "b", only="r0f0", epochs=1, checkpoint="last")
    train_study(study, "c", only="r0f1", epochs=1)
    assert [text for text in listener.warned if "no validation images" in text] == [warning]


def test_missing_splits_are_told(study, train_study, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        train_study(replace(study, splits=tmp_path / "none.csv"))


def test_what_is_not_numbered_is_fold_0_of_repeat_0(study, train_study):
    rows = [
        {k: r[k] for k in ("image_id", "subset")}
        for r in read_table(study.splits).rows
        if (r["repeat"], r["fold"]) == ("0", "1")
    ]
    write_table(study.splits, ["image_id", "subset"], rows)
    run = train_study(study, only=None, epochs=1)
    assert (run / "r0f0" / "predictions.csv").exists()
    assert (run / "manifest.csv").exists()


def test_weights_from_another_model_are_part_of_what_counts(study, train_study, trained):
    source = train_study(study)
    weights = source / "r0f0" / "model.safetensors"
    copy = source.parent / "start.safetensors"
    copy.write_bytes(weights.read_bytes())
    run = train_study(study, "tuned", weights=str(copy))
    assert json.loads((run / "r0f0" / "model.json").read_text())["trained"]["weights"].startswith("start.safetensors")
    os.utime(copy, (1, 1))
    train_study(study, "tuned", weights=str(copy))
    assert len(trained) == 3


def test_a_signal_between_folds_stops_there(study, train_study, trained, monkeypatch):
    import signal

    original = fold_step.FoldTrainer.close

    def write(self, *arguments):
        original(self, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(fold_step.FoldTrainer, "close", write)
    with pytest.raises(StoppedError) as caught:
        train_study(study, only=None)
    assert caught.value.exit_code == 143
    assert trained == ["r0f0"]


def test_a_signal_while_decoding_stops_there(study, train_study, trained, monkeypatch, tmp_path):
    import signal

    from cxrtool.training import store

    original = store._pass

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGUSR1)
        return original(*arguments)

    monkeypatch.setattr(store, "_pass", signalled)
    with pytest.raises(StoppedError) as caught:
        train_study(study)
    assert caught.value.exit_code == 75
    assert trained == []
    monkeypatch.setattr(store, "_pass", original)
    train_study(study)
    assert trained == ["r0f0"]


def _open_many_times(study, tmp_path, barrier, failures):
    """What several tasks of an array do first, again and again."""
    from cxrtool.commands import train as step
    from cxrtool.commands.train import training
    from cxrtool.flow.settings import Settings

    class Enough(Exception):  # noqa: N818
        pass

    def enough(*arguments):
        raise Enough

    training.FoldTrainer = enough
    for number in range(25):
        barrier.wait()
        told = TrainOptions(study.folder, study.splits, model="covid-xnet", size=16, epochs=1)
        try:
            step.train(told, Settings(out=tmp_path / f"run{number}"))
        except Enough:
            pass
        except Exception as error:
            failures.put(repr(error))


def test_tasks_that_start_together_open_one_run(study, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, failures = context.Barrier(3, timeout=60), context.Queue()
    tasks = [context.Process(target=_open_many_times, args=(study, tmp_path, barrier, failures)) for _ in range(3)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert failures.empty(), failures.get()
    for number in range(25):
        assert {path.name for path in (tmp_path / f"run{number}").iterdir()} == {"run.json", "splits.csv"}
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {tag: [event.step for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tracking_changes_nothing_and_is_written_beside_the_folds(study, train_study, tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra `track`")
    plain = train_study(study)
    tracked = train_study(study, "tracked", track="tensorboard")
    steps = scalars(tracked / "tensorboard" / "r0f0")
    assert steps["loss/train"] == steps["accuracy/validation"] == steps["lr"] == [1, 2]
    assert {name: data for name, data in tree(tracked).items() if not name.startswith("tensorboard")} == tree(plain)
    digest = [read_run_file(run / "r0f0")["digest"] for run in (plain, tracked)]
    assert digest[0] == digest[1]
    # Nothing to do, so nothing is written.
    before = tree(tracked)
    train_study(study, "tracked", track="tensorboard")
    train_study(study, "tracked")
    assert tree(tracked) == before
    elsewhere = train_study(study, "third", track="tensorboard", track_to=tmp_path / "boards")
    assert scalars(tmp_path / "boards" / "third" / "r0f0") == steps
    assert tree(elsewhere) == tree(plain)


def test_a_resumed_training_is_tracked_as_one(study, train_study, monkeypatch):
    pytest.importorskip("tensorboard", reason="needs the extra `track`")
    from cxrtool.training import tracking

    original = tracking.TRACKERS["tensorboard"].open

    @contextlib.contextmanager
    def dying(folder):
        with original(folder) as write:

            def once(rows):
                write(rows)
                if rows[-1]["epoch"] == 3:
                    raise StoppedError("stopped", 143)

            yield once

    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", tracking.Tracker("tensorboard", dying))
    with pytest.raises(StoppedError):
        train_study(study, epochs=4, track="tensorboard", save_every=1e-9)
    monkeypatch.undo()
    run = train_study(study, epochs=4, track="tensorboard", save_every=1e-9)
    assert scalars(run / "tensorboard" / "r0f0")["loss/train"] == [1, 2, 3, 4]


def test_a_place_without_a_tracker_is_refused(study, train_study, tmp_path):
    with pytest.raises(UsageError, match="--track-to: expected --track"):
        train_study(study, track_to=tmp_path)
