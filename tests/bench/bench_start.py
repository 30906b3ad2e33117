"""How soon a command answers: its help, and a rerun that finds nothing to do. Whole processes, medians of nine."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

CXRTOOL = str(Path(sys.executable).with_name("cxrtool"))
ROUNDS = 9
IMAGES = 300


def seconds(*command: object, cwd: Path | None = None) -> float:
    start = time.perf_counter()
    subprocess.run([CXRTOOL, *map(str, command)], cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - start


def report(what: str, wanted: float, times: list[float]) -> None:
    print(f"\n{what}: {statistics.median(times):.3f} s ({min(times):.3f} to {max(times):.3f}; wanted under {wanted} s)")


@pytest.mark.bench
@pytest.mark.parametrize(("command", "wanted"), [(("--help",), 0.2), (("train", "--help"), 0.4)])
def test_help(command, wanted):
    seconds(*command)
    report(f"cxrtool {' '.join(command)}", wanted, [seconds(*command) for _ in range(ROUNDS)])


@pytest.mark.bench
def test_rerun_with_nothing_to_do(tmp_path):
    generator = np.random.default_rng(0)
    for index in range(IMAGES):
        folder = tmp_path / "raw" / ("covid", "normal")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"im{index}.png"), generator.integers(0, 256, (64, 64), np.uint8))
    prepare = ("prepare", "raw", "-o", "prepared")
    train = ("train", "prepared", "--splits", "splits.csv", "--model", "covid-xnet", "--size", "32", "--epochs", "1",
             "-o", "run")  # fmt: skip
    for command in (prepare, ("split", "prepared", "--holdout", "80/20", "-o", "splits.csv"), train):
        seconds(*command, cwd=tmp_path)
    for command in (prepare, train):
        times = [seconds(*command, cwd=tmp_path) for _ in range(ROUNDS)]
        report(f"no-op rerun of cxrtool {command[0]} on {IMAGES} images", 0.5, times)
