"""The drawn radiographs that come with the project."""

import csv
import re
import shlex
from collections import Counter

import numpy as np
import pytest

from cxrtool.cli.main import run
from cxrtool.data.reading.images import read_image
from cxrtool.phantom.cohort import SEVERITIES, severity_of
from cxrtool.phantom.sources import SOURCES
from cxrtool.phantom.subject import LABELS


@pytest.fixture(scope="module")
def samples(root):
    return root / "sample_data"


@pytest.fixture(scope="module")
def rows(samples):
    with (samples / "phantoms" / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def command(samples):
    """The words of the command that the README gives for drawing them anew."""
    line = re.search(r"(cxrtool phantom .*)", (samples / "README.md").read_text(encoding="utf-8"))[1]
    return shlex.split(line)[1:]


def test_they_hold_every_class_severity_source_and_kind_of_file(rows):
    assert {row["label"] for row in rows} == set(LABELS)
    assert {row["severity"] for row in rows if row["label"] == "covid"} == set(SEVERITIES)
    assert {row["source"] for row in rows} == set(SOURCES)
    assert {row["path"].rsplit(".", 1)[1] for row in rows} == {"jpg", "png", "dcm"}
    assert {row["view"] for row in rows} == {"PA", "AP"}
    assert max(Counter(row["patient_id"] for row in rows).values()) > 1
    assert min(int(row["age"]) for row in rows) < 13 < max(int(row["age"]) for row in rows)


def test_severity_follows_from_the_extent(rows):
    for row in rows:
        assert row["severity"] == severity_of(row["label"], int(row["extent"]))


def test_every_picture_and_mask_is_readable_and_they_are_small(samples, rows):
    depths = Counter()
    for row in rows:
        pixels = read_image(samples / "phantoms" / row["path"]).pixels
        mask = read_image(samples / "phantoms" / row["mask"]).pixels
        depths[pixels.dtype.name] += 1
        assert mask.shape == pixels.shape
        assert set(np.unique(mask)) == {0, 255}
    assert min(depths["uint8"], depths["uint16"]) >= 5
    assert sum(path.stat().st_size for path in samples.rglob("*") if path.is_file()) < 4 * 2**20


def test_the_command_in_their_readme_draws_them(samples, rows, command, tmp_path):
    # The first of them: a set of fewer begins in the same way.
    shown = dict(zip(command[1::2], command[2::2], strict=True))
    assert shown["-o"] == "sample_data/phantoms"
    assert int(shown["--count"]) == len(rows)
    again = {**shown, "--count": "6", "-o": str(tmp_path / "set"), "--workers": "1"}
    assert run([command[0], *(word for pair in again.items() for word in pair), "--quiet"]) == 0
    for row in rows[:6]:
        here, there = (read_image(folder / row["path"]).pixels for folder in (samples / "phantoms", tmp_path / "set"))
        # Another version of a library may round in another way.
        assert np.abs(here / np.iinfo(here.dtype).max - there / np.iinfo(there.dtype).max).mean() < 0.01
