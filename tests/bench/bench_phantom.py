"""How fast phantoms are drawn, on one processor and on all, and the memory of the command as sets grow."""

import sys
import time
from pathlib import Path

import cv2
import pytest

from cxrtool.commands.phantom import draw_one
from cxrtool.phantom.cohort import Cohort, draw_shots
from cxrtool.phantom.draw import draw

CXRTOOL = str(Path(sys.executable).with_name("cxrtool"))
COUNT = 200


@pytest.mark.bench
def test_one_processor(tmp_path):
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    shots = list(draw_shots(Cohort(COUNT + 10, seed=1)))
    spent = {"drawing": 0.0, "drawing and writing, without truth": 0.0, "drawing and writing, with all truth": 0.0}
    for number, shot in enumerate(shots):
        calls = {
            "drawing": lambda shot=shot: draw(shot.subject, shot.source, 256, ribless=False),
            "drawing and writing, without truth": lambda shot=shot: draw_one(
                shot, folder=tmp_path / "a", size=256, truth="none"
            ),
            "drawing and writing, with all truth": lambda shot=shot: draw_one(
                shot, folder=tmp_path / "b", size=256, truth="all"
            ),
        }
        for name, call in calls.items():
            start = time.process_time()
            call()
            # The first few load what is loaded once.
            spent[name] += (time.process_time() - start) if number >= 10 else 0.0
    cv2.setNumThreads(threads)
    print()
    for name, seconds in spent.items():
        print(f"{name}: {seconds / COUNT * 1e3:.1f} ms, {COUNT / seconds:.1f} images a second (wanted at least 20)")


@pytest.mark.bench
def test_the_command_and_its_memory(tmp_path, peak_and_seconds):
    for workers in (1, 2):
        options = ("--count", 300, "--workers", workers, "--quiet", "-o", tmp_path / f"w{workers}")
        _, seconds = peak_and_seconds((CXRTOOL, "phantom", *options))
        print(f"\n300 images at 256 pixels, {workers} workers: {seconds:.1f} s, {300 / seconds:.1f} images a second")
    peaks = {}
    for count in (400, 4000):
        options = ("--count", count, "--size", 64, "--truth", "none", "--quiet", "-o", tmp_path / f"n{count}")
        peaks[count], _ = peak_and_seconds((CXRTOOL, "phantom", *options))
    grown = peaks[4000] / peaks[400]
    print(f"peak memory at 400 and 4,000: {peaks[400]:.0f} and {peaks[4000]:.0f} MiB, {grown:.3f} (wanted at most 1.1)")
