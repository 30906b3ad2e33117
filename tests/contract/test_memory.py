"""The main process needs little more memory for each further image."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrtool.cli.main import run as cxrtool

FEW, MANY = 100, 400
MOST = {"prepare": 4000, "predict": 5500}
"""Bytes of Python objects for an image; a dictionary for each image alone takes 2,000."""


def call(*words: object) -> None:
    assert cxrtool([*map(str, words), "--workers", "1", "-q"]) == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_small_study) -> Path:
    """A model, and folders of few and of many images, prepared and not."""
    folder = tmp_path_factory.mktemp("memory")
    study = make_small_study(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        way = ("--splits", study.splits, "--model", "covid-xnet", "--size", 16, "--epochs", 1, "--threads", 1)
        call("train", study.folder, *way, "--only", "r0f0", "-o", folder / "run")
    rng = np.random.default_rng(0)
    for count in (FEW, MANY):
        for index in range(count):
            path = folder / f"raw{count}" / ("covid", "normal")[index % 2] / f"image-{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 255, (20, 20), np.uint8))
        call("prepare", folder / f"raw{count}", "-o", folder / f"prepared{count}")
    return folder


@pytest.fixture(autouse=True)
def little_under_way(monkeypatch) -> None:
    """How many images are under way at the peak depends on the workers' timing: no more than four, then."""
    monkeypatch.setattr("cxrtool.flow.parallel.CHUNK", 1)


def peak(work: Callable[[int], None], count: int) -> int:
    """Bytes at the peak."""
    tracemalloc.start()
    work(count)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def growth(work: Callable[[int], None]) -> float:
    """Bytes at the peak for each image by which there are more, once all modules are there."""
    work(FEW)
    return (peak(work, MANY) - peak(work, FEW)) / (MANY - FEW)


def keeps_at_most(work: Callable[[int], None], most: int) -> bool:
    """Whether an image costs at most so many bytes: what is kept is there each time, what is under way is not."""
    return any(growth(work) < most for _ in range(3))


def test_prepare_keeps_little_of_an_image(place, tmp_path):
    def work(count):
        call("prepare", place / f"raw{count}", "-o", tmp_path / f"out{count}", "--force")

    assert keeps_at_most(work, MOST["prepare"])


def test_predict_keeps_little_of_an_image(place, tmp_path):
    def work(count):
        way = ("--allow-leakage", "--threads", 1, "--batch-size", 8, "--force")
        call("predict", place / "run/r0f0", place / f"prepared{count}", *way, "-o", tmp_path / f"a{count}.csv")

    assert keeps_at_most(work, MOST["predict"])
