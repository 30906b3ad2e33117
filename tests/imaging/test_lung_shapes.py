import json

import cv2
import numpy as np
import pytest

from cxrtool.imaging import lung_shapes, masks


def chest(seed, cut=0.0):
    """Two lungs (128, 120); of the left one, `cut` of the height is missing below."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((128, 120), np.uint8)
    for middle in (35, 85):
        centre = (int(middle + rng.integers(-4, 5)), int(64 + rng.integers(-6, 7)))
        cv2.ellipse(mask, centre, (int(rng.integers(16, 21)), int(rng.integers(38, 48))), 0, 0, 360, 255, -1)
    if cut:
        rows = np.flatnonzero(mask[:, 60:].any(1))
        mask[int(rows[-1] - cut * len(rows)) :, 60:] = 0
    return mask


@pytest.fixture(scope="module")
def shapes():
    return lung_shapes.fit(chest(seed) for seed in range(60))


def test_shapes_of_lungs_are_alike_and_half_a_lung_is_not(shapes):
    whole = [lung_shapes.unlike(chest(seed), shapes) for seed in range(100, 130)]
    half = [lung_shapes.unlike(chest(seed, 0.5), shapes) for seed in range(100, 130)]
    assert max(whole) < min(half)


def test_place_size_and_side_do_not_matter(shapes):
    mask = chest(200)
    known = lung_shapes.unlike(mask, shapes)
    moved = np.zeros((300, 300), np.uint8)
    moved[150:278, 20:140] = mask
    assert lung_shapes.unlike(moved, shapes) == pytest.approx(known, abs=1e-6)
    large = cv2.resize(mask, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    assert lung_shapes.unlike(large, shapes) == pytest.approx(known, abs=0.01)
    assert lung_shapes.unlike(np.ascontiguousarray(mask[:, ::-1]), shapes) == pytest.approx(known, abs=0.03)


def test_the_residual_is_that_of_principal_components():
    decomposition = pytest.importorskip("sklearn.decomposition")
    found = np.stack([lung_shapes.describe(chest(seed)) for seed in range(60)])
    both = np.concatenate([found, found.reshape(-1, 16, 16)[:, :, ::-1].reshape(-1, 256)])
    oracle = decomposition.PCA(lung_shapes.MODES).fit(both)
    shapes = lung_shapes.fit(chest(seed) for seed in range(60))
    compared = 0
    for described, seed in zip(found, range(60), strict=True):
        along = oracle.transform(described[None])
        if (np.abs(along) < lung_shapes.REACH * np.array(shapes["spread"])).all():
            rest = described - oracle.inverse_transform(along)
            assert lung_shapes.unlike(chest(seed), shapes) == pytest.approx(float(np.sqrt(np.mean(rest**2))), abs=2e-3)
            compared += 1
    assert compared > 20


def test_of_few_outlines_nothing_is_learnt():
    assert lung_shapes.fit(chest(seed) for seed in range(lung_shapes.FEWEST - 1)) == {}
    assert lung_shapes.fit(np.zeros((8, 8), np.uint8) for _ in range(40)) == {}


def test_what_is_learnt_is_plain(shapes):
    assert json.loads(json.dumps(shapes)) == shapes
    assert len(json.dumps(shapes)) < 16_000


def test_an_empty_mask_is_unlike_lungs(shapes):
    assert lung_shapes.unlike(np.zeros((20, 20), np.uint8), shapes) > 0.4


def test_a_poor_dice_is_a_doubt():
    mask = chest(1)
    assert masks.doubt(mask, 0.95, "", 0.9) == ""
    assert masks.doubt(mask, 0.95, "", 0.7) == "implausible lungs: probably a poor outline (expected Dice 0.70)"
