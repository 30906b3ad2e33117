"""What the tests of recipes share."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

WARM = Path(__file__).with_name("warm.py")


@pytest.fixture(scope="session")
def warm(tmp_path_factory):
    """The command line of a `cxrtool` whose libraries are loaded already, in words for a shell."""
    address = tmp_path_factory.mktemp("warm") / "socket"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, WARM, "serve", address], stdin=subprocess.PIPE, env=environment)
    while not address.exists():
        assert server.poll() is None, "the server ended"
        time.sleep(0.05)
    yield f"{sys.executable} -I -S {WARM} call {address}"
    server.communicate()
