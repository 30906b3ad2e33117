import random
import re
import signal
import subprocess
import sys
import time

import pytest

from cxrtool.data.tables.manifest import read_table
from cxrtool.flow.folder import read_run_file


def tree(folder):
    """Every file's content, but for what tells the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "grid.csv")
    }


def search_of(run):
    return [
        {name: cell for name, cell in row.items() if name != "seconds"} for row in read_table(run / "grid.csv").rows
    ]


@pytest.fixture
def arguments(study, tmp_path):
    """A command line that searches a small grid; a later flag replaces an earlier one."""

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
            "--grid",
            "lr=0.001,0.003",
            "--grid",
            "augment=none|rotate=10,flip=0.5",
            "-o",
            str(tmp_path / out),
            *map(str, more),
        ]

    return build


def start(arguments):
    return subprocess.Popen([sys.executable, "-m", "cxrtool", *arguments], stderr=subprocess.PIPE, text=True)


def test_a_search_ends_with_its_table_on_standard_error(arguments, cxr, tmp_path):
    result = cxr(*arguments("--only", "r0f0,r0f1"))
    assert (result.code, result.out) == (0, "")
    lines = result.err.splitlines()
    title = lines.index("Grid search on validation images, mean of the folds")
    assert lines[title + 1].split("  ")[0].strip() == "lr"
    *table, rule = lines[title + 3 :]
    assert rule.strip().startswith("Chosen in each fold: the highest validation accuracy")
    shown = [re.split(r"  +", line.strip()) for line in table]
    assert len(shown) == 4
    assert {(row[0], row[1]) for row in shown} == {
        (lr, augment) for lr in ("0.001", "0.003") for augment in ("none", "rotate=10,flip=0.5")
    }
    assert sum(int(row[-1].split(" of ")[0]) for row in shown) == 2
    assert cxr(*arguments("--only", "r0f0", "--quiet", "--force")).err == ""


def test_a_finished_search_is_told_of_without_waking_torch(arguments, cxr, tmp_path):
    assert cxr(*arguments("--epochs", "1")).code == 0
    command = [sys.executable, "-X", "importtime", "-m", "cxrtool", *arguments("--epochs", "1")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    names = {line.split("|")[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    said = [line for line in result.stderr.splitlines() if not line.startswith("import time:")]
    assert said == [f"{tmp_path / 'run'}: up to date, nothing to do"]
    assert {"torch", "timm", "numpy", "cv2"}.isdisjoint(names)


def test_networks_own_sizes_are_remembered(study, arguments, cxr, tmp_path):
    told = arguments("--only", "r0f0", "--weights", "none", "--epochs", "1")
    for flag in ("--size", "--model", "--grid", "--grid"):
        del told[told.index(flag) : told.index(flag) + 2]
    told += ["--grid", "model=covid-xnet,mobilenetv2_050"]
    assert cxr(*told).code == 0
    assert read_run_file(tmp_path / "run")["native_sizes"] == {"covid-xnet": 128, "mobilenetv2_050": 224}


def test_killed_again_and_again_it_ends_as_if_it_never_was(arguments, cxr, tmp_path):
    more = ("--only", "r0f0", "--epochs", "12", "--save-every", "0")
    for candidate, epoch in ((1, 3), (1, 8), (3, 2)):
        task = start(arguments(*more))
        begun = []
        for line in task.stderr:
            match = re.match(r"r0f0  (lr=\S+ augment=\S+)  epoch (\d+) ", line)
            if match and match[1] not in begun:
                begun.append(match[1])
            done = len(list((tmp_path / "run/candidates/r0f0").glob("[!.]*/score.json")))
            if match and done + 1 >= candidate and int(match[2]) >= epoch:
                break
        time.sleep(random.uniform(0, 0.1))
        task.kill()
        task.stderr.close()
        assert task.wait() == -signal.SIGKILL
        # Every attempt began where the one before was killed: candidates that were done are not trained again.
        assert len(begun) <= candidate
    assert not (tmp_path / "run" / "r0f0").exists()
    finished = cxr(*arguments(*more))
    assert finished.code == 0
    assert "r0f0  lr=0.001 augment=none  epoch" not in finished.err
    assert cxr(*arguments(*more, out="straight")).code == 0
    assert tree(tmp_path / "run") == tree(tmp_path / "straight")
    assert search_of(tmp_path / "run") == search_of(tmp_path / "straight")


def test_tasks_beside_each_other_make_one_search(arguments, cxr, tmp_path):
    parts = ["r0f0,r1f1", "r0f1,r0f2", "r1f0,r1f2"]
    tasks = [start(arguments("--only", part, "--epochs", "1")) for part in parts]
    for task in tasks:
        _, told = task.communicate(timeout=300)
        assert task.returncode == 0, told
    assert cxr(*arguments("--epochs", "1", out="one")).code == 0
    assert tree(tmp_path / "run") == tree(tmp_path / "one")
    assert search_of(tmp_path / "run") == search_of(tmp_path / "one")


def test_a_search_is_repeated_from_its_run_json(arguments, cxr, tmp_path):
    assert cxr(*arguments("--budget", "3", "--seed", "4", "--epochs", "1")).code == 0
    again = ["train", "--config", tmp_path / "run" / "run.json", "--cache", tmp_path / "cache", "-o"]
    assert "up to date" in cxr(*again, tmp_path / "run").err
    result = cxr(*again, tmp_path / "again")
    assert result.code == 0, result.err
    assert search_of(tmp_path / "again") == search_of(tmp_path / "run")
    assert len(search_of(tmp_path / "run")) == 3 * 6


def test_a_run_of_a_search_is_a_run(arguments, cxr, study, tmp_path):
    assert cxr(*arguments("--epochs", "1")).code == 0
    evaluated = cxr("evaluate", tmp_path / "run")
    assert evaluated.code == 0, evaluated.err
    assert "24 images" in evaluated.out or "24" in evaluated.out
    assert cxr("info", tmp_path / "run").code == 0
    model = cxr("info", tmp_path / "run" / "r0f0")
    assert "covid-xnet" in model.out
    asked = cxr("predict", tmp_path / "run", study.folder, "--allow-leakage", "--workers", "1", "--threads", "1")
    assert asked.code == 0, asked.err
    assert len(asked.out.splitlines()) == 25
