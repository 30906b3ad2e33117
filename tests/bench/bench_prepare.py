"""`prepare --size 512` against the bare decode, resize and encode of the same files, and its memory as data grow."""

import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrtool.commands.prepare import read_one
from cxrtool.data.datasets.record import Record
from cxrtool.data.reading.images import ENCODING, MAX_PIXELS

CXRTOOL = str(Path(sys.executable).with_name("cxrtool"))
SIZE = 512
ROUNDS = 5


def make(folder: Path, count: int, different: int) -> list[Path]:
    """JPEGs of 700 to 1100 pixels, grey and colour, a chest's smooth shapes under a detector's noise; then links."""
    files: list[Path] = []
    for index in range(count):
        path = folder / ("covid", "normal")[index % 2] / f"im{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index < different:
            generator = np.random.default_rng(index)
            shape = generator.integers(700, 1100, 2)
            coarse = generator.random((12, 12), np.float32)
            grey = cv2.resize(coarse, tuple(map(int, shape)), interpolation=cv2.INTER_CUBIC) * 200
            grey += generator.normal(20, 4, grey.shape)
            pixels = np.clip(grey, 0, 255).astype(np.uint8)
            cv2.imwrite(str(path), np.dstack([pixels] * 3) if index % 3 == 0 else pixels)
        else:
            path.symlink_to(files[index % different])
        files.append(path)
    return files


def bare(path: Path, target: Path, encoding: list[int]) -> None:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(target), cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA), encoding)


@pytest.fixture
def one_thread():
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


@pytest.mark.bench
@pytest.mark.usefixtures("one_thread")
def test_one_image(tmp_path):
    """Processor time, the two in turns, because other programs slow both."""
    files = make(tmp_path / "raw", 100, 100)
    (tmp_path / "images").mkdir()
    spent = {"bare": 0.0, "bare with OpenCV's own encoding": 0.0, "prepare": 0.0}
    for turn in range(ROUNDS):
        for index, path in enumerate(files):
            record = Record(path, {"image_id": f"a{index}"}, path.name)
            calls = {
                "bare": lambda path=path, name=f"b{index}.png": bare(path, tmp_path / name, ENCODING),
                "bare with OpenCV's own encoding": lambda path=path, name=f"c{index}.png": bare(
                    path, tmp_path / name, []
                ),
                "prepare": lambda record=record: read_one(
                    record, target=tmp_path, size=SIZE, fit="squash", max_pixels=MAX_PIXELS, root=None
                ),
            }
            for name, call in calls.items():
                start = time.process_time()
                call()
                spent[name] += (time.process_time() - start) if turn else 0.0
    milliseconds = {name: seconds / (ROUNDS - 1) / len(files) * 1e3 for name, seconds in spent.items()}
    print("\none image: " + ", ".join(f"{name} {value:.2f} ms" for name, value in milliseconds.items()))
    for name in ("bare", "bare with OpenCV's own encoding"):
        print(f"  {name} / prepare: {milliseconds[name] / milliseconds['prepare']:.3f} (wanted at least 0.85)")


@pytest.mark.bench
@pytest.mark.usefixtures("one_thread")
def test_the_command_and_its_memory(tmp_path, peak_and_seconds):
    peaks = {}
    for count in (300, 3000):
        files = make(tmp_path / f"raw{count}", count, 150)
        start = time.perf_counter()
        for path in files:
            bare(path, tmp_path / "bare.png", ENCODING)
        alone = time.perf_counter() - start
        options = ("--size", SIZE, "--workers", 1, "--quiet", "-o", tmp_path / f"out{count}")
        peaks[count], seconds = peak_and_seconds((CXRTOOL, "prepare", tmp_path / f"raw{count}", *options))
        print(f"\n{count} images, one worker: bare {alone:.1f} s, command {seconds:.1f} s, {alone / seconds:.3f}")
    grown = peaks[3000] / peaks[300]
    print(f"peak memory: {peaks[300]:.0f} and {peaks[3000]:.0f} MiB, {grown:.3f} (wanted at most 1.1)")
