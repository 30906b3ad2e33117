import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from cxrtool.commands.train import run, train
from cxrtool.commands.train.implied import is_raw
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.tables.manifest import read_table, write_table
from cxrtool.errors import UsageError
from cxrtool.flow.folder import read_run_file

SIDE = 24
QUICK = ("--threads", "1", "--workers", "1")
TRAINING = ("--model", "thumbnail", "--epochs", "3", "--batch-size", "8", "--device", "cpu", *QUICK)


@pytest.fixture(autouse=True)
def quick(no_pictures, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("CXRTOOL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def raw(tmp_path):
    """A folder with a subfolder for each class, of 12 pictures."""
    for number, label in enumerate(("covid", "normal")):
        (tmp_path / "raw" / label).mkdir(parents=True)
        for index in range(12):
            pixels = np.random.default_rng(100 * number + index).integers(0, 100, (SIDE, SIDE + 4), np.uint8)
            pixels[:, slice(12 * number, 12 * number + 12)] += 120
            cv2.imwrite(str(tmp_path / "raw" / label / f"{number}{index:02}.png"), pixels)
    return tmp_path / "raw"


def weights(run):
    return {path.parent.name: path.read_bytes() for path in sorted(run.glob("r*f*/model.safetensors"))}


def predictions(run):
    """The predictions of each fold; the path is relative to the prepared images, which are elsewhere."""
    return {
        path.parent.name: [{**row, "path": row["path"].rpartition("/")[2]} for row in read_table(path).rows]
        for path in sorted(run.glob("r*f*/predictions.csv"))
    }


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("way", [("--folds", "3"), ("--holdout", "80/20"), ("--folds", "2", "--seed", "7")])
def test_one_command_is_the_three_commands(cxr, raw, tmp_path, way):
    done = cxr("train", raw, *way, *TRAINING, "-o", tmp_path / "run")
    assert done.code == 0, done.err
    seed = way[2:]
    assert cxr("prepare", raw, "--workers", 1, "-o", tmp_path / "prepared").code == 0
    assert cxr("split", tmp_path / "prepared", *way, "-o", tmp_path / "splits.csv").code == 0
    separate = (tmp_path / "prepared", "--splits", tmp_path / "splits.csv", *TRAINING, *seed)
    assert cxr("train", *separate, "-o", tmp_path / "separate").code == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "separate")
    assert predictions(tmp_path / "run") == predictions(tmp_path / "separate")
    assert (tmp_path / "run" / "splits.csv").read_bytes() == (tmp_path / "splits.csv").read_bytes()
    assert len(weights(tmp_path / "run")) == (int(way[1]) if way[0] == "--folds" else 1)
    for name in ("manifest.csv", "rejects.csv", "duplicates.csv"):
        assert (tmp_path / "run" / "prepared" / name).read_bytes() == (tmp_path / "prepared" / name).read_bytes()


def test_what_was_done_is_one_line_and_a_rerun_does_nothing(cxr, raw, tmp_path):
    call = ("train", raw, "--folds", "2", *TRAINING, "-o", tmp_path / "run")
    first = cxr(*call)
    place = tmp_path / "run"
    assert first.err.splitlines()[0] == (
        f"first: cxrtool prepare {raw} -o {place}/prepared; "
        f"cxrtool split {place}/prepared --folds 2 -o {place}/splits.csv"
    )
    before = files(place)
    again = cxr(*call)
    assert (again.code, again.err) == (0, f"{place}: up to date, nothing to do\n")
    assert files(place) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "raw", "run"]
    evaluated = cxr("evaluate", place, "--format", "csv")
    assert evaluated.code == 0
    # The run can be repeated and continued like any other.
    shutil.rmtree(place / "r0f1")
    (place / "manifest.csv").unlink()
    assert cxr("train", "--config", place / "run.json", "-o", place).code == 0
    changed = {path for path, (_, content) in files(place).items() if before[path][1] != content}
    assert {path.name for path in changed} <= {"run.json", "history.csv"}


def test_a_table_is_prepared_and_a_manifest_only_divided(cxr, raw, study, tmp_path):
    rows = [
        {"file": str(path.relative_to(tmp_path)), "class": path.parent.name, "patient": path.stem[:2]}
        for path in sorted(raw.rglob("*.png"))
    ]
    write_table(tmp_path / "table.csv", list(rows[0]), rows)
    assert cxr("train", tmp_path / "table.csv", "--holdout", "80/20", *TRAINING, "-o", tmp_path / "run").code == 0
    prepared = read_table(tmp_path / "run" / "prepared" / "manifest.csv").rows
    assert {row["label"] for row in prepared} == {"covid", "normal"}
    assert len({row["patient_id"] for row in prepared}) == 4
    done = cxr("train", study.folder, "--folds", "3", *TRAINING, "-o", tmp_path / "divided")
    assert done.err.startswith(f"first: cxrtool split {study.folder} --folds 3 -o")
    assert not (tmp_path / "divided" / "prepared").exists()
    assert len(weights(tmp_path / "divided")) == 3
    assert [is_raw(path) for path in (raw, tmp_path / "table.csv", study.folder, study.folder / "manifest.csv")] == [
        True,
        True,
        False,
        False,
    ]


def test_other_images_or_another_division_do_not_replace_finished_folds(cxr, raw, tmp_path):
    call = ("train", raw, "--folds", "2", *TRAINING, "-o", tmp_path / "run")
    assert cxr(*call).code == 0
    before = files(tmp_path / "run")
    other = ("train", raw, "--folds", "3", *TRAINING, "-o", tmp_path / "run")
    assert "found finished folds of others" in cxr(*other).err
    cv2.imwrite(str(raw / "covid" / "more.png"), np.full((SIDE, SIDE), 90, np.uint8))
    refused = cxr(*call)
    assert refused.code == 1
    assert "expected a new folder or a run of the same images and division" in refused.err
    assert files(tmp_path / "run") == before
    replaced = cxr(*call, "--replace")
    assert replaced.code == 0, replaced.err
    assert len(read_table(tmp_path / "run" / "manifest.csv").rows) == 25
    assert "up to date" in cxr(*call).err


def test_an_interrupted_step_is_repeated(cxr, raw, tmp_path, monkeypatch):
    call = ("train", raw, "--folds", "2", *TRAINING, "-o", tmp_path / "run")

    def stop(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cxrtool.commands.split._write", stop)
        assert cxr(*call).code == 130
    assert not (tmp_path / "run" / "splits.csv").exists()
    done = cxr(*call)
    assert done.code == 0
    assert f"{tmp_path / 'run' / 'prepared'}: up to date, nothing to do" in done.err
    assert len(weights(tmp_path / "run")) == 2


def test_single_folds_share_the_division(cxr, raw, tmp_path):
    for name in ("r0f1", "r0f0"):
        done = cxr("train", raw, "--folds", "2", *TRAINING, "--only", name, "-o", tmp_path / "run")
        assert done.code == 0
    assert "first:" not in done.err
    assert read_run_file(tmp_path / "run")["implied"]
    assert len(weights(tmp_path / "run")) == 2


def test_a_dry_run_writes_nothing(cxr, raw, tmp_path):
    line = ("train", raw, "--folds", "2", *TRAINING, "-o", tmp_path / "run", "--dry-run")
    dry = cxr(*line)
    assert dry.code == 0
    assert dry.err.startswith(f"would first run cxrtool prepare {raw} -o")
    assert not (tmp_path / "run").exists()
    assert cxr(*line[:-1]).code == 0
    assert "first" not in cxr(*line).err


def test_a_step_that_fails_ends_the_command(cxr, raw, tmp_path):
    (raw / "covid" / "broken.png").write_bytes(b"no picture")
    call = ("train", raw, "--folds", "2", *TRAINING, "--strict", "-o", tmp_path / "run")
    failed = cxr(*call)
    assert failed.code == 3
    assert "cxrtool prepare: 1 rejected" in failed.err
    assert weights(tmp_path / "run") == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("{raw}",), "expected exactly one of --splits, --folds and --holdout, found none"),
        (("{raw}", "--folds", "2", "--holdout", "80/20"), "found --folds and --holdout"),
        (("{raw}", "--holdout", "80"), "--holdout: expected shares that add up to 100"),
        (("{raw}", "--folds", "2", "-o", "{raw}/run"), "expected a folder outside of the images"),
        (("{raw}", "--folds", "2", "--model", "thumbnl"), "found 'thumbnl'"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(cxr, raw, tmp_path, arguments, told):
    given = [text.format(raw=raw) for text in arguments]
    outcome = cxr("train", "--model", "thumbnail", "-o", tmp_path / "run", *given)
    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.err
    assert len(outcome.err.splitlines()) <= 2
    assert not (tmp_path / "run").exists()
    assert not (raw / "run").exists()


def test_both_ways_are_named(cxr, raw, study, tmp_path):
    assert cxr("train", raw, "--model", "thumbnail", "-o", tmp_path / "run").err.splitlines()[1] == (
        f"  in one command: --folds 5, or --holdout 80/20; step by step: `cxrtool prepare {raw} -o prepared`, "
        "`cxrtool split prepared --folds 5 -o splits.csv`, then `cxrtool train prepared --splits splits.csv`"
    )
    told = cxr("train", study.folder, "--model", "thumbnail", "-o", tmp_path / "run").err
    assert "cxrtool prepare" not in told
    assert f"`cxrtool split {study.folder} --folds 5 -o splits.csv`" in told


def test_a_folder_of_another_command_is_refused(cxr, raw, tmp_path):
    assert cxr("prepare", raw, "--workers", 1, "-o", tmp_path / "run").code == 0
    before = files(tmp_path / "run")
    refused = cxr("train", raw, "--folds", "2", *TRAINING, "-o", tmp_path / "run")
    assert refused.code == 2
    assert "found one made by `cxrtool prepare`" in refused.err
    assert files(tmp_path / "run") == before
    assert "no such file or folder" in cxr("train", tmp_path / "nowhere", "--folds", "2", "-o", tmp_path / "x").err
    assert "needs -o DIR" in cxr("train", raw, "--folds", "2", "--model", "thumbnail").err


def test_from_python_the_steps_are_those_of_the_command(raw, settings, tmp_path):
    options = TrainOptions(raw, folds=2, model="thumbnail")
    with pytest.raises(UsageError, match="expected the splits of --folds"):
        train(options, replace(settings, out=tmp_path / "run"))
    called = []
    assert run(options, replace(settings, out=tmp_path / "run", call=lambda line: called.append(line[0]) or 4)) == 4
    assert called == ["prepare"]
