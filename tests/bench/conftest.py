"""What the benches of the phantoms share."""

import os
from collections.abc import Callable
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
