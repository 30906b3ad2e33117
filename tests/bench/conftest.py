"""What the benches share."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cxrtool.cli.main import run


@pytest.fixture
def phantoms(tmp_path: Path) -> Callable[[int], Path]:
    """Give a folder of raw phantoms: the one that CXRTOOL_PHANTOMS names, else so many newly drawn ones."""

    def folder(count: int) -> Path:
        if given := os.environ.get("CXRTOOL_PHANTOMS"):
            return Path(given).absolute()
        target = tmp_path / "phantoms"
        assert run(["phantom", "--count", str(count), "-o", str(target)]) == 0
        return target

    return folder


@pytest.fixture(scope="session")
def in_turns() -> Callable[..., list[float]]:
    """Time functions: the least seconds of each, over rounds in which each has its turn, after one to warm up."""

    def measure(*functions: Callable[[], object], rounds: int = 5) -> list[float]:
        best = [float("inf")] * len(functions)
        for number in range(rounds + 1):
            for place, function in enumerate(functions):
                start = time.perf_counter()
                function()
                if number:
                    best[place] = min(best[place], time.perf_counter() - start)
        return best

    return measure


@pytest.fixture(scope="session")
def peak_and_seconds() -> Callable[[Sequence[object]], tuple[float, float]]:
    """Run a command; give the largest sum of resident memory of all its processes, in MiB, and the time it took."""

    def watch(command: Sequence[object]) -> tuple[float, float]:
        start, peak = time.perf_counter(), 0
        with subprocess.Popen([str(word) for word in command], start_new_session=True) as process:
            while process.poll() is None:
                peak = max(peak, sum(_resident(entry, process.pid) for entry in Path("/proc").glob("[0-9]*")))
                time.sleep(0.05)
        assert process.returncode == 0
        return peak / 2**20, time.perf_counter() - start

    return watch


def _resident(entry: Path, session: int) -> int:
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
        return int(fields[21]) * 4096 if int(fields[3]) == session else 0
    except OSError:
        return 0
