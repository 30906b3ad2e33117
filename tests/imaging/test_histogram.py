import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.exposure import match_histograms

from cxrtool.errors import InputError
from cxrtool.imaging.clahe import clahe
from cxrtool.imaging.histogram import Reference, count_levels, match, nearest_to_mean, pack, shares, unpack


def picture(seed, shape=(120, 90), depth=8, *, low=20, high=230):
    """A smooth scene with grain, some black border and some clipped white, in whole levels of its depth."""
    rng = np.random.default_rng(seed)
    scene = cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), 9)
    scene = (scene - scene.min()) / (scene.max() - scene.min()) + rng.normal(0, 0.02, shape)
    scene[:5] = -1
    white = 2**depth - 1
    return np.clip(np.rint((low + scene * (high - low)) / 255 * white), 0, white).astype(f"u{depth // 8}")


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("shape", [(120, 90), (64, 201)])
def test_it_is_that_of_scikit_image_within_a_level(depth, shape):
    for seed in range(4):
        image, reference = picture(seed, depth=depth), picture(seed + 9, shape, depth, low=-20, high=190)
        matched = match(image, Reference.of(unpack(pack(count_levels(reference)))))
        assert matched.dtype == image.dtype
        expected = match_histograms(image, reference)
        assert np.abs(matched - expected).max() <= 0.5
        assert np.abs(matched.astype(float) - image).max() > 5


@pytest.mark.parametrize(("depth", "other"), [(8, 16), (16, 8)])
def test_a_reference_of_another_depth_counts_by_its_share_of_white(depth, other):
    image, reference = picture(1, depth=depth), picture(2, (77, 80), other)
    expected = match_histograms(image.astype(float), reference * ((2**depth - 1) / (2**other - 1)))
    assert np.abs(match(image, Reference.of(count_levels(reference))) - expected).max() <= 0.5


@pytest.mark.parametrize("depth", [8, 16])
def test_earlier_images_of_the_same_or_another_size_change_nothing(depth):
    reference = count_levels(picture(9, depth=16, low=-20))
    shapes = [(700, 100), (700, 100), (100, 700), (120, 90), (700, 100), (700, 100), (600, 500), (600, 500)]
    images = [picture(seed, shape, depth) for seed, shape in enumerate(shapes)]
    used = Reference.of(reference)
    for image in [*images, np.full((700, 100), 3, images[0].dtype)]:
        assert (match(image, used) == match(image, Reference.of(reference))).all()


def test_an_opencv_that_looks_up_8_bits_only(monkeypatch):
    image, reference = picture(1, depth=16), Reference.of(count_levels(picture(2, depth=16)))
    expected = match(image, reference), clahe(image)

    def refuse(*_):
        raise cv2.error

    monkeypatch.setattr(cv2, "LUT", refuse)
    assert (match(image, reference) == expected[0]).all()
    assert (clahe(image) == expected[1]).all()


def test_a_picture_matched_to_itself_stays_itself():
    for depth in (8, 16):
        image = picture(3, depth=depth)
        assert (match(image, Reference.of(count_levels(image))) == image).all()


def test_a_picture_of_one_value_becomes_the_highest_value_of_the_reference():
    flat = np.full((4, 4), 7, np.uint8)
    assert (match(flat, Reference.of(count_levels(picture(0)))) == picture(0).max()).all()
    assert (match(picture(0), Reference.of(count_levels(flat))) == 7).all()


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(1, 10**9)), min_size=1, max_size=50), st.booleans())
def test_what_was_packed_is_unpacked(pairs, deep):
    counts = np.zeros(65536 if deep else 256, np.int64)
    for level, count in pairs:
        counts[level % len(counts)] = count
    assert (unpack(pack(counts)) == counts).all()


def test_a_reference_is_short():
    assert len(pack(count_levels(picture(0, (1024, 1024))))) < 2_000
    assert len(pack(count_levels(picture(0, (1024, 1024), 16)))) < 300_000


@pytest.mark.parametrize("text", ["", "-256", "1 2 3", "-255", "1 -254 x", "9" * 40, "-9999999999999", "0.5 -255"])
def test_what_is_no_histogram_is_refused(text):
    with pytest.raises(InputError, match="expected"):
        unpack(text)


def test_shares_do_not_depend_on_the_depth():
    image = picture(4)
    deep = image.astype(np.uint16) * 257
    assert (shares(count_levels(image)) == shares(count_levels(deep))).all()
    assert shares(count_levels(image)).sum() == pytest.approx(1)


def test_the_nearest_to_the_mean_is_the_one_in_the_middle():
    levels = [10, 100, 110, 120, 240]
    histograms = np.stack([shares(count_levels(np.full((3, 3), level, np.uint8))) for level in levels])
    by_hand = [sum(abs(level - other) for other in levels) for level in levels]
    assert nearest_to_mean(histograms) == int(np.argmin(by_hand)) == 2
    # One cell beside is near, however different the cells.
    assert nearest_to_mean(histograms[[0, 2, 2, 4]]) == 1
