"""`enhance` with ribs on a local cluster of one worker and of one for each processor, beside the same in processes.

What one image costs is the difference between many and one for each worker, since start and end are the same: seconds,
whose ratio is the speed-up on the processors there are, and processor seconds of all processes, which other programs
disturb less.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrtool import processors
from cxrtool.data.tables.manifest import write_manifest

IMAGES = int(os.environ.get("CXRTOOL_BENCH_IMAGES", "160"))
SIDE, ROUNDS = 512, 2
TICKS = os.sysconf("SC_CLK_TCK")


def used(session: int) -> dict[int, float]:
    """The processor seconds of every process of a session."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found[int(entry.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


def run(source: Path, out: Path, *more: str) -> tuple[float, float]:
    """The seconds that the command took, and the processor seconds of all its processes."""
    line = ["enhance", str(source), "--steps", "suppress-ribs,clahe", "--strips", "0", "--device", "cpu", "-q"]
    started, spent = time.perf_counter(), dict[int, float]()
    command = [sys.executable, "-m", "cxrtool", *line, "-o", str(out), "--force", *more]
    with subprocess.Popen(command, start_new_session=True) as process:
        while process.poll() is None:
            spent |= used(process.pid)
            time.sleep(0.05)
    assert process.returncode == 0
    return time.perf_counter() - started, sum(spent.values())


@pytest.mark.bench
def test_speed_up(tmp_path):
    rows = []
    for index in range(IMAGES):
        coarse = np.random.default_rng(index).random((12, 12), np.float32)
        cv2.imwrite(str(tmp_path / f"{index}.png"), (cv2.resize(coarse, (SIDE, SIDE)) * 255).astype(np.uint8))
        rows.append({"image_id": f"i{index}", "path": str(tmp_path / f"{index}.png")})
    cores = processors.usable()
    # A chunk for each worker, so that all load the network.
    few = 8 * cores
    for count in (few, IMAGES):
        write_manifest(tmp_path / f"{count}.csv", ["image_id", "path"], rows[:count])
    ways = [(what, workers) for what in ("processes", "local cluster") for workers in sorted({1, cores})]
    best: dict[tuple[object, ...], list[float]] = {}
    for _ in range(ROUNDS):
        for what, workers in ways:
            flags = ["--workers", str(workers), *(["--cluster", "local"] if what == "local cluster" else [])]
            for count in (few, IMAGES):
                found = run(tmp_path / f"{count}.csv", tmp_path / "out", *flags)
                best[what, workers, count] = [*map(min, best.get((what, workers, count), found), found)]
    print(f"\n{IMAGES} images of {SIDE} pixels, {cores} processors")
    cost = {}
    for what, workers in ways:
        (start, _), (seconds, _) = best[what, workers, few], best[what, workers, IMAGES]
        own = best[what, workers, IMAGES][1] - best[what, workers, few][1]
        cost[what, workers] = (seconds - start) / (IMAGES - few), own / (IMAGES - few)
        speed_up = cost[what, 1][0] / cost[what, workers][0]
        print(
            f"{what}, {workers}: {1000 * cost[what, workers][0]:.0f} ms an image, {speed_up:.2f} times one; "
            f"{1000 * cost[what, workers][1]:.0f} ms of processors; {start:.1f} s for {few}"
        )
    more = cost["local cluster", cores][1] / cost["processes", cores][1]
    print(f"processor seconds of a cluster over those of processes: {more:.2f}")
