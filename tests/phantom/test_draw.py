"""The whole picture: what its truth says is what is drawn."""

import itertools
import warnings
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from cxrtool.phantom.bones import draw_ribs
from cxrtool.phantom.draw import draw
from cxrtool.phantom.lesions import DISEASES, extent_of
from cxrtool.phantom.sources import SOURCES
from cxrtool.phantom.subject import KINDS, LABELS

MASKS = ("right_lung", "left_lung", "heart")
ARRAYS = ("image", "ribless", *MASKS, "lesions")
SIZE = 128


def lung_of(drawing):
    return (drawing.right_lung > 0) | (drawing.left_lung > 0)


def alike(one, other):
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


def check(drawing, shape):
    for name in ARRAYS:
        array = getattr(drawing, name)
        assert array.shape == shape, name
        assert array.dtype == (np.float32 if name in ("image", "ribless") else np.uint8), name
        assert np.isfinite(array).all()
    for grey in (drawing.image, drawing.ribless):
        assert grey.min() >= 0
        assert grey.max() <= 1
        assert np.ptp(grey) > 0.3
    for name in MASKS:
        assert set(np.unique(getattr(drawing, name))) == {0, 255}
    assert set(np.unique(drawing.lesions)) <= {0, *KINDS.values()}
    assert drawing.extent == tuple(map(extent_of, drawing.shares))


@pytest.fixture(scope="module")
def pairs(make, shoot):
    """Patients of every disease, each with lesions and without, the same in all else."""
    ill = [
        make(seed, label, extent)
        for seed, (label, extent) in enumerate(itertools.product(DISEASES, [(1, 1), (2, 3), (4, 4), (0, 3)]))
    ]
    return [(subject, shoot(subject), shoot(replace(subject, extent=(0, 0)))) for subject in ill]


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
@pytest.mark.parametrize("size", [32, 65, 97, 150])
def test_every_source_at_every_size(make, source, size):
    shape = (round(size * source.height), round(size * source.width))
    check(draw(make(size, "pathological", (2, 1)), source, size), shape)


@pytest.mark.parametrize(("size", "count"), [(64, 30), (640, 10)])
def test_nothing_warns(make, size, count):
    sources = list(SOURCES.values())
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        for seed in range(count):
            label = LABELS[seed % len(LABELS)]
            extent = (seed % 5, (seed // 3) % 5) if label != "normal" else (0, 0)
            draw(make(seed, label, extent), sources[(seed + seed // 5) % 5], size, ribless=False)


def test_the_same_is_drawn_as_the_same(make):
    for seed, source in enumerate(SOURCES.values()):
        subject = make(seed, "covid", (2, 3))
        assert alike(draw(subject, source, 96), draw(subject, source, 96))


def test_the_picture_without_ribs_is_drawn_only_if_it_is_wanted(make, plain_source, shoot):
    subject = make(0, "covid", (1, 1))
    spared = draw(subject, plain_source, SIZE, ribless=False)
    np.testing.assert_array_equal(spared.ribless, spared.image)
    np.testing.assert_array_equal(spared.image, shoot(subject).image)
    assert (shoot(subject).ribless != shoot(subject).image).any()


def test_another_shot_has_other_pixels_and_the_same_body(make, shoot, dice):
    for seed in range(10):
        one, other = (shoot(make(seed, "covid", (2, 2), exposure=(seed, shot))) for shot in (3, 4))
        assert np.abs(one.image - other.image).mean() > 0.01
        shift = cv2.phaseCorrelate(np.float64(one.right_lung > 0), np.float64(other.right_lung > 0))[0]
        assert np.hypot(*shift) < 3
        for name in MASKS:
            mask = getattr(one, name)
            moved = cv2.warpAffine(mask, np.float32([[1, 0, shift[0]], [0, 1, shift[1]]]), mask.shape[::-1])
            assert dice(moved > 127, getattr(other, name)) > 0.95, (seed, name)
        assert one.extent == other.extent


def test_another_day_has_another_posture_and_the_same_patient(make, shoot, dice):
    for seed in range(6):
        one, other = (shoot(make(seed, visit=(seed, day))) for day in (2, 9))
        assert dice(one.left_lung, other.left_lung) < 0.99
        assert 0.6 < (one.right_lung > 0).sum() / (other.right_lung > 0).sum() < 1.7


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
def test_at_another_size_it_is_the_same_body(make, dice, source):
    for seed in range(2):
        small, large = (draw(make(seed), source, size, ribless=False) for size in (128, 256))
        size = small.image.shape[::-1]
        for name in MASKS:
            shrunk = cv2.resize(getattr(large, name), size, interpolation=cv2.INTER_AREA)
            assert dice(getattr(small, name), shrunk > 127) > 0.97, name
        shrunk = cv2.resize(large.image, size, interpolation=cv2.INTER_AREA)
        assert np.corrcoef(small.image.ravel(), shrunk.ravel())[0, 1] > 0.97
        assert abs(small.image.mean() - shrunk.mean()) < 0.02


def test_lungs_are_darker_than_what_lies_beside_them(make, lay, shoot):
    for seed in range(20):
        subject = make(seed)
        drawing, scene = shoot(subject), lay(subject, (SIZE, SIZE))
        y = scene.pose.y
        clear = lung_of(drawing) & (drawing.heart == 0)
        middle = (np.abs(scene.middle) < 1.5) & (y > 10) & (y < 16)
        below = (np.abs(scene.middle) < 7) & (y > scene.body.lung + 4.5)
        dark = np.median(drawing.image[clear])
        assert dark < np.median(drawing.image[middle]) - 0.15
        if below.sum() > 50:
            assert dark < np.median(drawing.image[below]) - 0.12


def test_the_masks_are_those_of_the_thorax(make, lay, shoot):
    subject = make(2)
    drawing, scene = shoot(subject), lay(subject, (SIZE, SIZE))
    np.testing.assert_array_equal(drawing.right_lung > 0, scene.lungs[0])
    np.testing.assert_array_equal(drawing.left_lung > 0, scene.lungs[1])
    np.testing.assert_array_equal(drawing.heart > 0, scene.thorax.heart > 0.5)


def ribs_of(scene):
    return draw_ribs(scene.subject, scene.body, scene.pose, scene.thorax.across)


def test_without_sharpening_ribs_only_brighten(make, lay, plain_source):
    for seed in range(8):
        subject = make(seed, "covid", (1, 2))
        drawing = draw(subject, replace(plain_source, detail=0.0), SIZE)
        assert (drawing.image - drawing.ribless).min() > -0.012
        assert (drawing.image - drawing.ribless)[ribs_of(lay(subject, (SIZE, SIZE))) > 0.3].mean() > 0.015


def test_taking_the_ribs_away_changes_the_ribs(make, lay, shoot):
    for seed in range(8):
        subject = make(seed, "covid", (1, 2))
        drawing, scene = shoot(subject), lay(subject, (SIZE, SIZE))
        ribs, lung = ribs_of(scene), lung_of(drawing)
        less = drawing.image - drawing.ribless
        on, off = ribs > 0.15, ribs < 0.005
        assert less[on].mean() > 0.01
        assert less[on].mean() > 6 * np.abs(less[off]).mean()
        assert np.corrcoef(less[lung], ribs[lung])[0, 1] > 0.85
        # Sharpening draws a faint dark seam along a bright rib.
        assert np.quantile(less, 0.01) > -0.06
        # The same quanta fell on both.
        assert np.abs(less[off]).mean() < 0.01


def test_without_ribs_the_lungs_are_smoother(make, lay, shoot):
    left = []
    for seed in range(10):
        subject = make(seed)
        drawing, scene = shoot(subject), lay(subject, (SIZE, SIZE))
        inner = cv2.erode(lung_of(drawing).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=3) > 0

        def band(image, scale=scene.pose.scale, inner=inner):
            # Half a rib to half a rib's distance.
            shades = cv2.GaussianBlur(image, (0, 0), 0.15 * scale) - cv2.GaussianBlur(image, (0, 0), 0.5 * scale)
            return np.square(shades[inner]).mean()

        left.append(band(drawing.ribless) / band(drawing.image))
    assert max(left) < 1
    assert np.mean(left) < 0.85


def test_lesions_are_noted_as_they_are_drawn(pairs):
    for subject, ill, healthy in pairs:
        lung = lung_of(ill)
        assert not ill.lesions[~lung].any()
        assert not healthy.lesions.any()
        assert (healthy.shares, healthy.extent) == ((0, 0), (0, 0))
        for mask, share in zip((ill.right_lung, ill.left_lung), ill.shares, strict=True):
            assert (ill.lesions[mask > 0] > 0).mean() == pytest.approx(share, abs=0.002)
        if KINDS["nodule"] not in ill.lesions:
            assert ill.extent == subject.extent
        for name in MASKS:
            np.testing.assert_array_equal(getattr(ill, name), getattr(healthy, name))


def test_lesions_brighten_the_lungs(pairs):
    for subject, ill, healthy in pairs:
        brighter = (ill.image - healthy.image)[ill.lesions > 0]
        assert brighter.mean() > 0.008, subject
        assert (brighter > 0).mean() > 0.8, subject


def test_illness_does_not_tell_itself_outside_the_lungs(pairs, lay):
    for subject, ill, healthy in pairs:
        lung = lung_of(ill) | (lay(subject, (SIZE, SIZE)).thorax.air > 0)
        around = cv2.dilate(lung.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=10) > 0
        away = np.abs(ill.image - healthy.image)[~around]
        # What is left is scattered light.
        assert away.mean() < 0.003
        assert away.max() < 0.02


def test_without_lesions_no_class_looks_like_itself(make, plain_source):
    healthy = draw(make(3), plain_source, 96)
    for label in DISEASES:
        assert alike(draw(make(3, label), plain_source, 96), healthy)


def test_marks_are_put_on_the_picture_alone(make, plain_source, shoot):
    subject = make(1, "covid", (2, 2))
    marked = draw(subject, replace(plain_source, marker="L", border="white"), SIZE)
    clean = shoot(subject)
    for name in (*MASKS, "lesions"):
        np.testing.assert_array_equal(getattr(marked, name), getattr(clean, name))
    assert 0 < (marked.image != clean.image).mean() < 0.3
    np.testing.assert_array_equal(marked.image != clean.image, marked.ribless != clean.ribless)
