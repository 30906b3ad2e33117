import json

import cv2
import numpy as np
import pytest
import torch

from cxrtool.data.tables.manifest import read_table
from cxrtool.flow.folder import AT
from cxrtool.flow.replaying import find_lungs
from cxrtool.imaging import lung_shapes, masks, plausibility
from cxrtool.models import parts
from cxrtool.training.opacify import Opacify

KINDS = ("lungs", "ribs")


@pytest.fixture(scope="module")
def phantoms(root):
    """Every tenth of the drawn radiographs that come as ordinary pictures, with their lungs."""
    folder = root / "sample_data" / "phantoms"
    rows = [row for row in read_table(folder / "metadata.csv").rows if row["path"].endswith((".png", ".jpg"))][::10]
    return [[cv2.imread(str(folder / row[name]), cv2.IMREAD_UNCHANGED) for name in ("path", "mask")] for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_whole_small_and_has_a_card(kind):
    part = parts.default_part(kind)
    assert part.shipped
    assert part.network == next(iter(parts.networks(kind)))
    parts.load_network(part.folder, kind)
    assert sum(file.stat().st_size for file in part.folder.iterdir()) < 4 * 2**20
    card = (part.folder / "README.md").read_text()
    for told in ("research", "icence", "Limits", part.network):
        assert told in card
    assert part.description["figures"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_tells_which_pictures_it_has_seen(kind):
    rows = read_table(parts.default_part(kind).folder / "fitted_on.csv").rows
    assert len(rows) > 100
    assert all(len(row["sha256"]) == 64 and row["patient_id"] is not None for row in rows)
    assert len({row["image_id"] for row in rows}) == len(rows)


def lungs_of(pixels):
    part = parts.default_part("lungs")
    return find_lungs(pixels, {AT: str(part.folder), "threshold": 0.5})


def test_the_lungs_of_phantoms_are_found(phantoms):
    found = [(*lungs_of(pixels), mask) for pixels, mask in phantoms if pixels.ndim == 2]
    scores = [masks.dice(lungs, (mask > 127).astype(np.uint8) * 255) for lungs, _, mask in found]
    assert np.mean(scores) > 0.93
    assert min(scores) > 0.75
    assert sum(bool(doubt) for _, doubt, _ in found) <= len(found) // 5


@pytest.mark.parametrize(("change", "share"), [(lambda pixels: pixels[::-1], 0.5), (lambda pixels: 255 - pixels, 0.9)])
def test_what_is_no_upright_positive_is_doubted(phantoms, change, share):
    pictures = [pixels for pixels, _ in phantoms if pixels.ndim == 2 and pixels.dtype == np.uint8]
    doubted = [lungs_of(np.ascontiguousarray(change(pixels)))[1] for pixels in pictures]
    assert sum(map(bool, doubted)) >= share * len(doubted)


def test_white_lungs_are_found_or_doubted(phantoms):
    scores, doubted = [], []
    for number, (pixels, mask) in enumerate(phantoms):
        if pixels.ndim != 2 or pixels.dtype != np.uint8:
            continue
        image, lungs = (
            torch.from_numpy(cv2.resize(x, (256, 256), interpolation=cv2.INTER_AREA) / np.float32(255))[None, None]
            for x in (pixels, mask)
        )
        opacify = Opacify(1.0, np.array([number], np.uint64), 0, 256, torch.device("cpu"))
        for epoch in range(3):
            white = opacify(image.clone(), lungs, np.array([0]), epoch)[0, 0].numpy()
            found, doubt = lungs_of(np.rint(white * 255).astype(np.uint8))
            scores.append(masks.dice(found, (lungs[0, 0].numpy() > 0.5).astype(np.uint8) * 255))
            doubted.append(bool(doubt))
    assert len(scores) >= 15
    assert np.mean(scores) > 0.93
    assert all(doubt for doubt, score in zip(doubted, scores, strict=True) if score < 0.75)
    assert sum(doubt for doubt, score in zip(doubted, scores, strict=True) if score > 0.9) <= 0.1 * len(scores)


def test_what_is_usual_is_kept_as_plain_values():
    usual = json.loads((parts.default_part("lungs").folder / parts.PART).read_text())["usual"]
    assert len(usual["shapes"]["modes"]) == lung_shapes.MODES
    assert len(usual["pattern"]) == plausibility.SIDE**2
    assert -1 < usual["least_correlation"] < 1
