"""The drawn radiographs that come with the project."""

import csv
import importlib.util
import sys
from collections import Counter

import numpy as np
import pytest

from cxrtool.data.images import read_image


@pytest.fixture(scope="module")
def samples(root):
    return root / "sample_data"


@pytest.fixture(scope="module")
def rows(samples):
    with (samples / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def drawing(samples):
    spec = importlib.util.spec_from_file_location("draw", samples / "draw.py")
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up by name.
    sys.modules["draw"] = module
    spec.loader.exec_module(module)
    return module


def test_they_hold_every_class_severity_source_and_kind_of_file(rows, drawing):
    assert set(drawing.PATIENTS) == {row["label"] for row in rows}
    assert set(drawing.SEVERITIES) == {row["severity"] for row in rows if row["label"] == "covid"}
    assert {source.name for source in drawing.SOURCES} == {row["source"] for row in rows}
    kinds = Counter(row["path"].rsplit(".", 1)[1] for row in rows)
    assert set(kinds) == {"jpg", "png", "dcm"}
    assert max(Counter(row["patient_id"] for row in rows).values()) == 2


def test_severity_follows_from_the_extent(rows, drawing):
    for row in rows:
        if row["severity"]:
            low, high = drawing.SEVERITIES[row["severity"]]
            assert low <= int(row["extent"]) <= high


def test_every_picture_and_mask_is_readable_and_they_are_small(samples, rows):
    depths = Counter()
    for row in rows:
        pixels = read_image(samples / row["path"]).pixels
        mask = read_image(samples / row["mask"]).pixels
        depths[pixels.dtype.name] += 1
        assert mask.shape == pixels.shape
        assert set(np.unique(mask)) == {0, 255}
        # The lungs hold air: darker than the rest of the body.
        assert np.median(pixels[mask > 0]) < np.median(pixels[mask == 0][pixels[mask == 0] > pixels.max() // 8])
    assert min(depths["uint8"], depths["uint16"]) >= 5
    assert sum(path.stat().st_size for path in samples.rglob("*") if path.is_file()) < 4 * 2**20


def test_drawing_depends_on_its_seed_alone(drawing):
    pictures = [drawing.draw(np.random.default_rng(seed), "covid", 5, 60)[0] for seed in (7, 7, 8)]
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_more_extent_covers_more_of_the_lungs(drawing):
    light = []
    for extent in (0, 2, 5, 8):
        # Before exposure, which stretches every picture to the same range.
        values = []
        for seed in range(6):
            generator = np.random.default_rng(seed)
            x, y = drawing.plane(generator, child=False)
            lungs = drawing.draw_lungs(generator, x, y, 0.0, np.zeros_like(x))
            values.append((drawing.draw_lesions(generator, x, y, lungs, "covid", extent) > 0.1).mean())
        light.append(np.mean(values))
    assert light == sorted(light)
    assert light[0] == 0
