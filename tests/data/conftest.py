"""What the tests of several readers share."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

READ = (
    "import sys, resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29))\n"
    "import cv2; cv2.setNumThreads(1)\n"
    "from cxrtool.data.reading.images import read_image; from cxrtool.errors import ImageError\n"
    "try: print(read_image(sys.argv[1]).pixels.shape)\n"
    "except ImageError as error: print('refused:', error)\n"
    # Not ru_maxrss, which a new process inherits from the one that started it.
    "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
)


@pytest.fixture
def read_bomb() -> Callable[[Path], str]:
    """Read a file in a process of 1.5 GiB; what came of it, in under 5 seconds and 300 MiB."""

    def read(path: Path) -> str:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-c", READ, str(path)]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
        assert time.monotonic() - began < 5
        outcome, peak = done.stdout.splitlines()[-2:]
        assert int(peak) < 300 * 2**10, done.stderr
        return outcome

    return read
