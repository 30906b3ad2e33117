"""Letters and borders stand where they belong, and nothing else is touched."""

from dataclasses import replace

import numpy as np
import pytest

from cxrtool.phantom.marks import put_marks
from cxrtool.phantom.sources import BORDERS, MARKERS, Source

PLAIN = Source("plain", "png", 1.0, 1.0)
SHAPES = [(160, 160), (137, 160), (160, 133), (96, 81)]
SHOTS = range(12)


def grey(shape, value=0.4):
    return np.full(shape, value, np.float32)


def marked(image, make, shot, **source):
    given = image.copy()
    result = put_marks(image, make(1, exposure=(shot,)), replace(PLAIN, **source))
    np.testing.assert_array_equal(given, image, "what was given was changed")
    return result


@pytest.mark.parametrize("border", ["", "none"])
def test_without_marks_a_picture_stays(make, border):
    image = np.random.default_rng(1).random((50, 61), dtype=np.float32)
    np.testing.assert_array_equal(marked(image, make, 1, border=border), image)


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_letter_stands_beside_its_shoulder(make, marker, shape):
    for shot in SHOTS:
        image = marked(grey(shape), make, shot, marker=marker)
        rows, columns = np.nonzero(np.abs(image - 0.4) > 0.02)
        assert image.dtype == np.float32
        assert image.min() >= 0.4 - 1e-5
        assert image.max() <= 1
        assert image.max() > 0.5
        assert rows.max() < 0.4 * shape[0]
        assert 4 <= len(rows) < 0.06 * image.size
        # R stands at the right side of the patient, on the left of the picture.
        if marker == "R":
            assert columns.max() < 0.3 * shape[1]
        else:
            assert columns.min() > 0.4 * shape[1]


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_markers_are_not_alike(make, shape):
    pictures = [marked(grey(shape), make, 3, marker=marker) for marker in MARKERS]
    for index, first in enumerate(pictures):
        assert all((first != other).any() for other in pictures[:index])


def test_text_tells_the_view(make):
    words = {
        view: [
            put_marks(grey((256, 256)), make(1, view=view, exposure=(shot,)), replace(PLAIN, marker="text"))
            for shot in SHOTS
        ]
        for view in ("PA", "AP")
    }
    assert all((one != other).any() for one, other in zip(words["PA"], words["AP"], strict=True))


def changed_depth(image, shape):
    """Pixels that are not what they were, and how deep they lie in the picture, over its shorter side."""
    row, column = np.indices(shape)
    depth = np.minimum(np.minimum(row, shape[0] - 1 - row), np.minimum(column, shape[1] - 1 - column)) / min(shape)
    changed = image != np.float32(0.4)
    return changed, depth


@pytest.mark.parametrize("border", [name for name in BORDERS if name != "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_border_changes_the_edge_alone(make, border, shape):
    drawn = 0
    for shot in SHOTS:
        image = marked(grey(shape), make, shot, border=border)
        changed, depth = changed_depth(image, shape)
        drawn += changed.any()
        assert image.dtype == np.float32, f"{border} gives {image.dtype}"
        assert image.min() >= 0
        assert image.max() <= 1
        assert not changed[depth > 0.14].any()
    assert drawn > 0.6 * len(SHOTS)


@pytest.mark.parametrize(("border", "value"), [("black", 0.0), ("white", 1.0)])
def test_an_even_border_is_black_or_white(make, border, value):
    for shot in SHOTS:
        image = marked(grey((160, 133)), make, shot, border=border)
        assert set(np.unique(image)) <= {np.float32(value), np.float32(0.4)}


def test_a_collimator_only_takes_light_away(make):
    image = np.random.default_rng(1).random((160, 160), dtype=np.float32)
    for shot in SHOTS:
        assert (marked(image, make, shot, border="collimated") <= image).all()


def test_a_frame_is_thin_and_of_one_grey(make):
    for shot in SHOTS:
        image = marked(grey((256, 215)), make, shot, border="frame")
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert len(np.unique(edge)) == 1
        assert (image[3:-3, 3:-3] == np.float32(0.4)).all()


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("border", BORDERS)
def test_the_same_shot_is_marked_alike_and_the_next_is_not(make, marker, border):
    shot = {"marker": marker, "border": border}
    one, again, other = (marked(grey((96, 96)), make, number, **shot) for number in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_marks_do_not_tell_the_class(make):
    source = replace(PLAIN, marker="text", border="collimated")
    one, other = (
        put_marks(grey((96, 96)), make(1, label, extent), source)
        for label, extent in (("normal", (0, 0)), ("covid", (4, 4)))
    )
    np.testing.assert_array_equal(one, other)
