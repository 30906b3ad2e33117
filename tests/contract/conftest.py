"""What the tests of all commands share."""

import contextlib
import io

import cv2
import numpy as np
import pytest

from cxrtool.cli.main import run
from cxrtool.data.splitting.splits import COLUMNS
from cxrtool.data.tables.manifest import write_table


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A model folder, trained for one epoch on noise."""
    folder = tmp_path_factory.mktemp("model")
    rows = []
    for k in range(12):
        cv2.imwrite(str(folder / f"{k}.png"), np.random.default_rng(k).integers(0, 256, (32, 32), np.uint8))
        rows.append({"image_id": str(k), "path": f"{k}.png", "label": "ab"[k % 2]})
    write_table(folder / "m.csv", list(rows[0]), rows)
    parts = [
        {"image_id": str(k), "repeat": "0", "fold": "0", "subset": ("train", "train", "validation", "test")[k // 2 % 4]}
        for k in range(12)
    ]
    write_table(folder / "s.csv", COLUMNS, parts)
    line = f"train {folder / 'm.csv'} --splits {folder / 's.csv'} --model covid-xnet --size 32 --epochs 1"
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run([*line.split(), "--workers", "1", "--threads", "1", "-o", str(folder / "run")])
    assert code == 0, said.getvalue()
    return folder / "run" / "r0f0"
