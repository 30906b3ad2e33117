"""`torchrun -m cxrtool train`: several processes that share each training, over gloo."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

TOLERANCE = 1e-5
"""Largest difference of a weight after three epochs of Adam in fp32, where sums have another order; 3e-6 was seen."""


@pytest.fixture
def call(study, tmp_path):
    """Start `cxrtool train` on the study, in some processes of `torchrun`, or in one without it."""

    def start(out, *more, processes=2, restarts=0):
        line = [sys.executable, "-m"]
        if processes:
            line += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
            line += ["--max-restarts", str(restarts), "-m"]
        line += ["cxrtool", "train", study.folder, "--splits", study.splits, "--model", "covid-xnet", "--size", "32"]
        line += ["--threads", "1", "--workers", "1", "--precision", "fp32", "--epochs", "3", "--only", "r0f0"]
        line += ["--cache", tmp_path / "cache", *more, "-o", tmp_path / out]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*map(str, line)], stderr=subprocess.PIPE, text=True, env=environment)

    return start


def weights(folder):
    return load_file(folder / "r0f0" / "model.safetensors")


@pytest.mark.slow
def test_two_processes_train_what_one_does(call, tmp_path):
    more = ("--augment", "rotate=10,noise=0.05,flip=0.5", "--batch-size", "5")
    processes = [call("one", *more, processes=0), call("two", *more)]
    told = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max(np.abs(one[name] - two[name]).max() for name in one) < TOLERANCE
    assert any((one[name] != two[name]).any() for name in one)
    # One process speaks for both.
    assert told[1].count("epoch 3  train") == 1
    assert {path.name for path in (tmp_path / "one" / "r0f0").iterdir()} == {
        path.name for path in (tmp_path / "two" / "r0f0").iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_started_again_and_ends_with_the_same_bytes(call, tmp_path, rank):
    more = ("--epochs", "60", "--save-every", "0.2")
    whole = call("whole", *more)
    assert whole.wait(timeout=200) == 0, whole.stderr.read()
    killed = call("killed", *more, restarts=2)
    lines = []
    for line in killed.stderr:
        lines.append(line)
        if "epoch 10 " in line and sum("epoch 10 " in told for told in lines) == 1:
            os.kill(find(rank, tmp_path / "killed"), signal.SIGKILL)
    assert killed.wait(timeout=200) == 0, lines
    assert sum("epoch 1 " in line for line in lines) == 1, "it began again, instead of going on"
    for name in ("model.safetensors", "history.csv", "predictions.csv"):
        assert (tmp_path / "whole" / "r0f0" / name).read_bytes() == (tmp_path / "killed" / "r0f0" / name).read_bytes()


def find(rank, out):
    """The process of a rank that writes to `out`."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words, environment = ((folder / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except OSError:
            continue
        if os.fsencode(out) in words and f"RANK={rank}".encode() in environment:
            return int(folder.name)
    raise AssertionError("no such process")


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_at_one_batch(call, tmp_path):
    process = call("stopped", "--epochs", "2000", "--save-every", "1000")
    for line in process.stderr:
        if "epoch 2 " in line:
            os.kill(find(1, tmp_path / "stopped"), signal.SIGUSR1)
            break
    began, rest = time.monotonic(), process.stderr.read()
    process.wait(timeout=100)
    assert time.monotonic() - began < 60
    assert "stopped by SIGUSR1" in rest
    assert "exitcode  : 75" in rest
    assert list(tmp_path.glob("stopped/.r0f0*/state/last.pt"))


@pytest.mark.slow
def test_wrong_uses_are_told_in_one_line(call, study, tmp_path):
    process = call("norms", "--model", "resnet10t", "--weights", "none")
    told = process.communicate(timeout=100)[1]
    assert told.count("cxrtool train: --model resnet10t: expected a network without batch normalisation") == 1
    assert "exitcode  : 2" in told


@pytest.mark.parametrize(("rank", "said"), [("0", 2), ("1", 0)])
def test_a_command_that_cannot_be_divided_says_so_once(rank, said, tmp_path):
    environment = {**os.environ, "RANK": rank, "WORLD_SIZE": "2"}
    line = [sys.executable, "-m", "cxrtool", "predict", "run", "images", "-o", str(tmp_path / "p.csv")]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == said
    if said:
        assert done.stderr.startswith("cxrtool predict: expected one process, found that torchrun has started 2")
