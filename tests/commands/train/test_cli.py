import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cxrtool.data.tables.manifest import read_table, write_table
from cxrtool.flow import fold_training as fold_step
from cxrtool.flow.folder import read_run_file

FOLDS = [f"r{repeat}f{fold}" for repeat in range(2) for fold in range(3)]


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "boom")


def tree(folder):
    """Every file's content, but for what tells the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def same_making(one, other):
    """Whether two run.json tell of the same thing, made at another time and by another command line."""
    told = [read_run_file(path) for path in (one, other)]
    for made in told:
        for name in ("argv", "started", "seconds", "machine"):
            del made[name]
        made.get("training", {}).pop("seconds", None)
        for entry in made["options"].values():
            del entry["origin"]
    return told[0] == told[1]


@pytest.fixture
def arguments(study, tmp_path):
    """A command line that trains a tiny network; a later flag replaces an earlier one."""

    def build(*more, out="run"):
        return [
            "train",
            str(study.folder),
            "--splits",
            str(study.splits),
            "--model",
            "covid-xnet",
            "--size",
            "16",
            "--epochs",
            "2",
            "--batch-size",
            "8",
            "--threads",
            "1",
            "--workers",
            "1",
            "--device",
            "cpu",
            "--cache",
            str(tmp_path / "cache"),
            "-o",
            str(tmp_path / out),
            *map(str, more),
        ]

    return build


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
    torch.set_num_threads(1)


def start(arguments, **more):
    """The real command, in a process and a session of its own."""
    command = [sys.executable, "-m", "cxrtool", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, **more)


def left_of(session):
    """The processes that still belong to a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(path.parent.name)
    return found


def test_folds_in_any_order_by_four_tasks_at_once_make_the_run_of_one_command(arguments, cxr, tmp_path):
    parts = ["r1f0", "r0f2,r0f0", "r1f2", "r1f1,r0f1"]
    random.shuffle(parts)
    tasks = [start(arguments("--only", part, "--augment", "rotate=10,flip=0.5")) for part in parts]
    for task in tasks:
        _, told = task.communicate(timeout=300)
        assert task.returncode == 0, told
    assert cxr(*arguments("--augment", "rotate=10,flip=0.5", out="one")).code == 0
    assert tree(tmp_path / "run") == tree(tmp_path / "one")
    for name in ("", *FOLDS):
        assert same_making(tmp_path / "run" / name, tmp_path / "one" / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "one", "run", "splits.csv", "study"]


KILLS = [("r0f0", 4), ("r0f0", 20), ("r0f1", 2)]
"""The fold and the epoch after which a process is killed."""


def epochs_in(lines):
    """Fold and epoch of every line of progress."""
    found = (re.match(r"(r\df\d)  epoch (\d+) ", line) for line in lines)
    return [(match[1], int(match[2])) for match in found if match]


def train_and_kill(task, fold, epoch):
    """Let a task train past an epoch and kill it at some moment; return the epochs that it told of."""
    told = []
    for line in task.stderr:
        told += epochs_in([line])
        if told and told[-1] >= (fold, epoch):
            break
    time.sleep(random.uniform(0, 0.15))
    task.kill()
    told += epochs_in(task.stderr)
    assert task.wait() == -signal.SIGKILL
    task.stderr.close()
    return told


def test_killed_again_and_again_it_ends_as_if_it_never_was(arguments, cxr, tmp_path):
    more = (
        "--only",
        "r0f0,r0f1",
        "--epochs",
        "30",
        "--opt",
        "adadelta",
        "--lr",
        "1",
        "--augment",
        "rotate=10",
        "--save-every",
        "0",
    )
    past = ("r0f0", 0)
    for fold, epoch in KILLS:
        told = train_and_kill(start(arguments(*more)), fold, epoch)
        # It goes on where it was: at most the epoch that was not saved yet is trained again.
        assert told[0] >= past
        assert told == sorted(told)
        past = told[-1]
        assert not (tmp_path / "run" / "r0f1" / "predictions.csv").exists()
    assert cxr(*arguments(*more)).code == 0
    assert cxr(*arguments(*more, out="straight")).code == 0
    for name in ("r0f0", "r0f1"):
        assert set(tree(tmp_path / "run" / name)) >= {"model.safetensors", "predictions.csv", "history.csv"}
        assert tree(tmp_path / "run" / name) == tree(tmp_path / "straight" / name)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_a_terminated_command_leaves_a_checkpoint_and_no_process(arguments, cxr, tmp_path):
    more = ("--only", "r0f0", "--epochs", "3000", "--save-every", "1000")
    task = start(arguments(*more))
    for line in task.stderr:
        if epochs_in([line]):
            break
    began = time.monotonic()
    task.terminate()
    rest = task.stderr.read().splitlines()
    assert task.wait(timeout=30) == 143
    assert time.monotonic() - began < 30
    assert rest[-1:] == ["cxrtool train: stopped by SIGTERM; run the same command again to continue"]
    task.stderr.close()
    # Helpers notice by a closed pipe that their parent has left, and leave after it.
    while left_of(task.pid) and time.monotonic() - began < 30:
        time.sleep(0.05)
    assert left_of(task.pid) == []
    assert list((tmp_path / "run").glob(".r0f0.*.partial/state/last.pt"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 75)])
def test_a_signal_saves_and_the_same_command_goes_on(arguments, cxr, tmp_path, monkeypatch, no_pictures, number, code):
    more = ("--only", "r0f0", "--epochs", "5", "--save-every", "1000")
    assert cxr(*arguments(*more, out="straight")).code == 0
    original, epochs = fold_step.describe_epoch, []

    def describe(row):
        epochs.append(row["epoch"])
        if epochs == [1, 2]:
            os.kill(os.getpid(), number)
        return original(row)

    monkeypatch.setattr(fold_step, "describe_epoch", describe)
    stopped = cxr(*arguments(*more))
    assert stopped.code == code
    last = f"cxrtool train: stopped by {number.name}; run the same command again to continue"
    assert stopped.err.splitlines()[-1] == last
    assert not (tmp_path / "run" / "r0f0").exists()
    assert cxr(*arguments(*more)).code == 0
    assert epochs == [1, 2, 3, 4, 5]
    assert tree(tmp_path / "run" / "r0f0") == tree(tmp_path / "straight" / "r0f0")


def imported(arguments):
    """Run a command that has nothing to do; return what it imported and what it said."""
    command = [sys.executable, "-X", "importtime", "-m", "cxrtool", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = result.stderr.splitlines()
    names = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    return names, [line for line in lines if not line.startswith("import time:")]


def test_up_to_date_is_said_without_waking_torch(arguments, cxr, tmp_path, no_pictures):
    assert cxr(*arguments()).code == 0
    names, said = imported(arguments())
    assert said == [f"{tmp_path / 'run'}: up to date, nothing to do"]
    assert {"torch", "timm", "cv2", "matplotlib", "sklearn"}.isdisjoint(names)


def test_up_to_date_is_said_without_waking_timm(study, cxr, tmp_path, no_pictures):
    # The network's own size was not given, and only timm knows it.
    told = [
        "train",
        study.folder,
        "--splits",
        study.splits,
        "--model",
        "mobilenetv2_050",
        "--weights",
        "none",
        "--epochs",
        "1",
        "--threads",
        "1",
        "--workers",
        "1",
        "-o",
        tmp_path / "run",
    ]
    rows = [row for row in read_table(study.splits).rows if (row["repeat"], row["fold"]) == ("0", "0")]
    write_table(study.splits, list(rows[0]), rows)
    assert cxr(*told, "--cache", tmp_path / "cache").code == 0
    names, said = imported([str(word) for word in told])
    assert said == [f"{tmp_path / 'run'}: up to date, nothing to do"]
    assert {"torch", "timm"}.isdisjoint(names)
    assert read_run_file(tmp_path / "run")["options"]["size"] == {"value": 224, "origin": "default"}


def test_flag_config_preset_default(study, cxr, tmp_path, no_pictures):
    config = tmp_path / "mine.toml"
    config.write_text('lr = 0.25\nbatch-size = 6\naugment = "flip=0.5"\nepochs = 9\n')
    result = cxr(
        "train",
        study.folder,
        "--splits",
        study.splits,
        "--preset",
        "covid-xnet",
        "--config",
        config,
        "--size",
        "16",
        "--epochs",
        "1",
        "--only",
        "r0f0",
        "--threads",
        "1",
        "--workers",
        "1",
        "--cache",
        tmp_path / "c",
        "-o",
        tmp_path / "run",
    )
    assert result.code == 0, result.err
    told = read_run_file(tmp_path / "run")["options"]
    expected = {
        "epochs": (1, "flag"),
        "size": (16, "flag"),
        "lr": (0.25, "config"),
        "batch_size": (6, "config"),
        "augment": ("flip=0.5", "config"),
        "opt": ("adadelta", "preset"),
        "class_weights": ("balanced", "preset"),
        "model": ("covid-xnet", "preset"),
        "patience": (0, "default"),
        "preset": ("covid-xnet", "flag"),
    }
    assert {name: (told[name]["value"], told[name]["origin"]) for name in expected} == expected
    assert read_run_file(tmp_path / "run" / "r0f0")["options"]["lr"] == {"value": 0.25, "origin": "config"}
    assert json.loads((tmp_path / "run/r0f0/model.json").read_text())["trained"]["preset"] == "covid-xnet"


def test_a_run_is_repeated_from_its_run_json(study, arguments, cxr, tmp_path, no_pictures):
    told = [
        "train",
        study.folder,
        "--splits",
        study.splits,
        "--preset",
        "covid-xnet",
        "--size",
        "16",
        "--epochs",
        "1",
        "--seed",
        "5",
        "--precision",
        "fp32",
        "--threads",
        "1",
        "--workers",
        "1",
        "--cache",
        tmp_path / "c",
        "-o",
        tmp_path / "run",
    ]
    assert cxr(*told).code == 0
    again = ["train", "--config", tmp_path / "run" / "run.json", "--cache", tmp_path / "c"]
    result = cxr(*again, "-o", tmp_path / "again")
    assert result.code == 0, result.err
    assert tree(tmp_path / "again") == tree(tmp_path / "run")
    made = read_run_file(tmp_path / "again")
    assert made["digest"] == read_run_file(tmp_path / "run")["digest"]
    assert (made["seed"], made["threads"], made["options"]["lr"]["origin"]) == (5, 1, "config")
    assert "up to date" in cxr(*again, "-o", tmp_path / "run").err
    assert cxr(*again, "-o", tmp_path / "other", "--epochs", "2", "--only", "r0f0").code == 0
    assert len(read_table(tmp_path / "other" / "r0f0" / "history.csv")) == 2


def test_the_same_command_twice_gives_the_same_bytes(arguments, cxr, tmp_path):
    for out in ("a", "b"):
        assert cxr(*arguments("--only", "r0f0", "--augment", "rotate=10,noise=0.02,blur=1", out=out)).code == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_manifest_comes_through_a_pipe(study, arguments, cxr, tmp_path, monkeypatch, no_pictures):
    import io

    monkeypatch.chdir(study.folder)
    text = (study.folder / "manifest.csv").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    told = [word if word != str(study.folder) else "-" for word in arguments("--only", "r0f0")]
    result = cxr(*told)
    assert result.code == 0, result.err
    assert (tmp_path / "run" / "r0f0" / "predictions.csv").exists()


def test_progress_is_told_on_standard_error_a_line_an_epoch(arguments, cxr, no_pictures):
    result = cxr(*arguments("--only", "r0f0,r1f0"))
    assert result.out == ""
    assert epochs_in(result.err.splitlines()) == [("r0f0", 1), ("r0f0", 2), ("r1f0", 1), ("r1f0", 2)]
    assert re.search(r"r0f0: kept epoch \d, test accuracy \d\.\d+ of 8 images", result.err)
    assert cxr(*arguments("--quiet", "--force", "--only", "r0f0")).err == ""


def test_a_loss_that_is_no_number_is_told_and_no_model_is_left(arguments, cxr, tmp_path, no_pictures):
    result = cxr(*arguments("--opt", "sgd", "--lr", "1e30", "--only", "r0f0", "--save-every", "0"))
    assert result.code == 1
    assert len(result.err.splitlines()[-2:]) == 2
    assert re.search(r"the (validation )?loss is (not finite|nan|inf)|weights are not finite", result.err)
    assert "Traceback" not in result.err
    assert not list(tmp_path.rglob("*.safetensors"))
    assert list((tmp_path / "run").iterdir()) != []


def test_weights_that_would_run_code_do_not(arguments, cxr, tmp_path, no_pictures):
    trap = tmp_path / "trap"
    for name, save in (("a.pth", torch.save), ("b.pt", lambda value, path: path.write_bytes(pickle.dumps(value, 2)))):
        save({"state_dict": Bomb(trap)}, tmp_path / name)
        result = cxr(*arguments("--weights", tmp_path / name, "--only", "r0f0"))
        assert result.code == 1
        assert f"--weights {tmp_path / name}: cannot be read safely as a file of weights" in result.err
        assert "Traceback" not in result.err
    assert not trap.exists()


def test_a_state_that_would_run_code_does_not(arguments, cxr, tmp_path, monkeypatch, no_pictures):
    import hashlib
    import io

    def stop(row):
        os.kill(os.getpid(), signal.SIGTERM)
        return ""

    with monkeypatch.context() as patch:
        patch.setattr(fold_step, "describe_epoch", stop)
        assert cxr(*arguments("--only", "r0f0")).code == 143
    (state,) = (tmp_path / "run").glob(".r0f0.*.partial/state/last.pt")
    buffer = io.BytesIO()
    torch.save({"epoch": Bomb(tmp_path / "trap")}, buffer)
    state.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    result = cxr(*arguments("--only", "r0f0"))
    assert result.code == 0
    assert "warning: " in result.err
    assert "last.pt: damaged, or not a state saved by cxrtool; starting from the beginning" in result.err
    assert not (tmp_path / "trap").exists()


def test_imagenet_weights_that_cannot_be_had_are_one_line(study, cxr, tmp_path, monkeypatch, no_pictures):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    result = cxr(
        "train",
        study.folder,
        "--splits",
        study.splits,
        "--model",
        "resnet10t",
        "--size",
        "32",
        "--threads",
        "1",
        "--workers",
        "1",
        "--cache",
        tmp_path / "c",
        "-o",
        tmp_path / "run",
    )
    assert result.code == 1
    assert "Traceback" not in result.err
    # Before an image is decoded.
    told = [line for line in result.err.splitlines() if not line.startswith("warning: ")]
    assert len(told) == 2
    assert told[0].startswith("cxrtool train: --weights imagenet: the weights of resnet10t are not on this machine")
    assert "or --weights none" in told[1]


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        (("--model", "mobilenet2_100"), 2, "nearest: mobilenetv2_100"),
        (("--preset", "covid-net"), 2, "vgg16-portable, found 'covid-net'"),
        (("--augment", "spin=3"), 2, "--augment: expected rotate"),
        (("--hidden", "8"), 2, "--hidden: covid-xnet has a head of its own"),
        (("--freeze",), 2, "--freeze with --weights none"),
        (("--only", "r7f0"), 2, "the splits have no fold r7f0; they have r0f0"),
        (("--epochs", "many"), 2, "--epochs"),
        (("--epoch", "3"), 2, "no such option --epoch; did you mean --epochs?"),
        (("--weights", "gone.pth"), 1, "--weights gone.pth: no such file"),
        (("--splits", "gone.csv"), 1, "gone.csv: no such file"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(arguments, cxr, tmp_path, more, code, text):
    result = cxr(*arguments(*more))
    assert result.code == code
    assert text in result.err
    assert 1 <= len(result.err.splitlines()) <= 2
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


def test_leaking_splits_are_exit_code_4_unless_allowed(study, arguments, cxr, tmp_path, no_pictures):
    rows = read_table(study.splits).rows
    leaked = study.assigned(0, 0, "test")[0]
    moved = [
        {**row, "subset": "train"} if row["image_id"] == leaked and row["subset"] == "test" else row for row in rows
    ]
    write_table(study.splits, list(rows[0]), moved)
    result = cxr(*arguments("--only", "r0f0"))
    assert result.code == 4
    assert f"fold r0f0: 1 patient or duplicate image is in more than one subset, such as the images {leaked}" in (
        result.err
    )
    assert not (tmp_path / "run").exists()
    allowed = cxr(*arguments("--only", "r0f0", "--allow-leakage"))
    assert allowed.code == 0
    assert "warning: fold r0f0: 1 patient" in allowed.err


def test_unreadable_images_are_exit_code_3_where_that_is_asked_for(study, arguments, cxr, tmp_path, no_pictures):
    (study.folder / "im007.png").write_bytes(b"no picture")
    result = cxr(*arguments("--strict", "--epochs", "1"))
    assert result.code == 3
    assert (tmp_path / "run" / "manifest.csv").exists()
    assert [row["path"] for row in read_table(tmp_path / "run" / "rejects.csv").rows] == [
        str(study.folder / "im007.png")
    ]
    relaxed = cxr(*arguments("--epochs", "1", out="other"))
    assert relaxed.code == 0
    assert relaxed.err.count("cannot be read") == 1
