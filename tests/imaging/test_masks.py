"""Clean-up against scikit-image, agreement against sets of pixels, and what is called implausible."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label, regionprops
from skimage.segmentation import clear_border

from cxrtool.imaging import masks


def blobs(seed, side=120, scale=6.0):
    """A smooth random field in [0, 1], whose upper half is islands with holes of all sizes."""
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(side, side + 30)), (0, 0), scale)
    return (0.5 + field / field.std() / 6).clip(0, 1).astype(np.float32)


def cleaned_by_skimage(probability, threshold):
    """The same rules, written with scikit-image."""
    mask = probability > threshold
    least = masks.SMALL * mask.size
    objects = label(mask, connectivity=2)
    for one in regionprops(objects):
        if one.area < least:
            mask[objects == one.label] = False
    holes = label(~mask, connectivity=1)
    inner = clear_border(holes)
    for one in regionprops(inner):
        if one.area < least:
            mask[inner == one.label] = True
    lungs = sorted(regionprops(label(mask, connectivity=2)), key=lambda one: -one.area)
    kept = lungs[:1]
    for other in lungs[1:]:
        (_, left, _, right), (_, start, _, end) = lungs[0].bbox, other.bbox
        aside = max(min(right, end) - max(left, start), 0) < 0.5 * min(right - left, end - start)
        if aside and other.area >= 0.15 * lungs[0].area:
            kept.append(other)
            break
    result = np.zeros(mask.shape, np.uint8)
    for one in kept:
        result[tuple(one.coords.T)] = 255
    return result


@pytest.mark.parametrize("scale", [3.0, 6.0, 14.0])
@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.6])
def test_cleaning_is_what_scikit_image_makes_of_the_same_rules(scale, threshold):
    changed = 0
    for seed in range(12):
        probability = blobs(seed, scale=scale)
        found = masks.clean(probability, threshold)
        assert np.array_equal(found, cleaned_by_skimage(probability, threshold))
        changed += not np.array_equal(found > 0, probability > threshold)
    assert changed


def chest(*, left=True, right=True, joined=False, side=200):
    mask = np.zeros((side, side), np.uint8)
    if right:
        cv2.ellipse(mask, (60, 100), (30, 60), 0, 0, 360, 255, -1)
    if left:
        cv2.ellipse(mask, (140, 100), (30, 60), 0, 0, 360, 255, -1)
    if joined:
        mask[80:90, 60:140] = 255
    return mask


def share_of(mask):
    return (mask / 255).astype(np.float32)


def test_two_clean_lungs_stay_as_they_are():
    assert np.array_equal(masks.clean(share_of(chest())), chest())


def test_both_lungs_in_one_component_stay_whole():
    joined = chest(joined=True)
    with_speck = joined.copy()
    # Below them, and more than 2 % of the picture: a stomach.
    with_speck[170:195, 70:130] = 255
    assert np.array_equal(masks.clean(share_of(with_speck)), joined)


def test_an_arm_beside_both_lungs_is_no_lung():
    joined = cv2.copyMakeBorder(chest(joined=True), 0, 0, 0, 60, cv2.BORDER_CONSTANT, value=0)
    with_arm = joined.copy()
    with_arm[20:120, 220:232] = 255
    assert np.array_equal(masks.clean(share_of(with_arm)), joined)


def test_specks_go_holes_are_filled_and_only_the_largest_either_side_stays():
    mask = chest()
    dirty = mask.copy()
    dirty[5:10, 5:10] = 255
    dirty[95:105, 55:65] = 0
    # A third object, larger than 2 %, under the right lung.
    dirty[170:195, 20:90] = 255
    assert np.array_equal(masks.clean(share_of(dirty)), mask)


def test_what_is_just_the_threshold_is_outside():
    assert not masks.clean(np.full((40, 40), 0.5, np.float32)).any()
    assert masks.clean(np.full((40, 40), 0.5, np.float32), 0.499).all()


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_dice_and_iou_are_those_of_sets(seed, first, second):
    rng = np.random.default_rng(seed)
    one, other = (np.where(rng.random((6, 7)) < part, 255, 0).astype(np.uint8) for part in (first, second))
    a, b = ({*zip(*np.nonzero(mask), strict=True)} for mask in (one, other))
    assert masks.dice(one, other) == pytest.approx(2 * len(a & b) / (len(a) + len(b)) if a | b else 1)
    assert masks.iou(one, other) == pytest.approx(len(a & b) / len(a | b) if a | b else 1)
    assert masks.share(one) == len(a) / 42


def test_sureness_is_one_for_an_answer_without_doubt_and_falls_with_grey():
    sharp = share_of(chest())
    assert masks.sureness(sharp) == 1
    values = [masks.sureness(cv2.GaussianBlur(sharp, (0, 0), sigma)) for sigma in (2, 6, 18)]
    assert 1 > values[0] > values[1] > values[2]
    assert masks.sureness(np.zeros((4, 4), np.float32)) == 0


def test_nothing_speaks_against_two_lungs():
    assert masks.doubt(chest()) == ""
    assert masks.doubt(chest(joined=True)) == ""


def _running_out():
    mask = np.zeros((200, 200), np.uint8)
    mask[40:160, 0:60] = mask[40:160, 120:180] = 255
    return mask


def _unlike():
    mask = chest(left=False)
    mask[90:110, 120:160] = 255
    return mask


def _flat():
    mask = np.zeros((200, 400), np.uint8)
    mask[80:130, 20:190] = mask[80:130, 210:380] = 255
    return mask


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.zeros((50, 50), np.uint8), "no lungs found"),
        (cv2.copyMakeBorder(chest(), 300, 300, 300, 300, cv2.BORDER_CONSTANT), "far too small (2% of the image)"),
        (np.full((50, 50), 255, np.uint8), "far too large (100% of the image)"),
        (chest(left=False), "only one"),
        (_running_out(), "running into the left border"),
        (_running_out().T.copy(), "running into the upper border"),
        (_running_out()[:, ::-1].copy(), "running into the right border"),
        (_running_out().T[::-1].copy(), "running into the lower border"),
        (_unlike(), "very different in size (one has"),
        (_flat(), "unusual proportions (7.2 times as wide as high)"),
    ],
)
def test_what_can_hardly_be_lungs_is_told(mask, told):
    assert told in masks.doubt(mask)


def test_an_unsure_network_is_told():
    assert masks.doubt(chest(), 0.8) == "implausible lungs: a network that is unsure (0.80)"
    assert masks.doubt(chest(), 0.95) == ""


@pytest.mark.parametrize("name", ["covid-cxr-336"])
def test_lungs_outlined_by_people_are_plausible(real_data, name):
    """All but those whose outline says why: none at all in a lateral view, and strokes across a lung."""
    paths = sorted((real_data / name / "lung_masks").glob("*.png"))
    doubts = {}
    for path in paths:
        mask = np.where(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127, 255, 0).astype(np.uint8)
        if text := masks.doubt(masks.clean(share_of(mask))):
            doubts[path.stem] = text
    assert len(paths) == 111
    assert list(doubts.values()) == ["no lungs found"]


def test_a_picture_that_is_odd_is_told_beside_what_is_odd_about_its_mask():
    assert masks.doubt(chest(), 0.95, "a negative") == "implausible lungs: a negative"
    assert masks.doubt(chest(), 0.8, "a negative").endswith("unsure (0.80), a negative")


@given(share=st.floats(0, 1), seed=st.integers(0, 50))
def test_the_most_probable_pixels_are_those_of_a_sorted_list(share, seed):
    rng = np.random.default_rng(seed)
    probability, region = rng.permutation(400).reshape(20, 20).astype(np.float32), rng.random((20, 20)) < 0.6
    found = masks.most_probable(probability, region.astype(np.uint8) * 255, share) > 0
    count = round(share * region.sum())
    assert found.sum() == count
    assert sorted(probability[found]) == sorted(probability[region])[region.sum() - count :]


def test_equally_probable_pixels_are_taken_together():
    probability = np.zeros((10, 10), np.float32)
    probability[:3] = 1
    for share, expected in ((0.0, 0.0), (0.1, 0.0), (0.2, 0.3), (0.3, 0.3), (0.5, 0.3), (0.8, 1.0)):
        assert (masks.most_probable(probability, None, share) > 0).mean() == pytest.approx(expected), share
