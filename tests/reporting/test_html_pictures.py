import io

import numpy as np
import pytest
from PIL import Image

from cxrtool.errors import InputError
from cxrtool.reporting.html import STEPS, encode, encode_all


@pytest.fixture
def write(tmp_path):
    """Write a picture: `noise` that no format holds well, or a `drawing` of few colours."""

    def call(name, kind, size=(500, 400)):
        width, height = size
        if kind == "noise":
            pixels = np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), np.uint8)
        else:
            pixels = np.full((height, width, 3), 255, np.uint8)
            pixels[::20], pixels[:, ::20] = (0, 114, 178), 0
        path = tmp_path / name
        Image.fromarray(pixels).save(path)
        return path

    return call


def test_a_drawing_keeps_its_bytes(write):
    path = write("a.png", "drawing")
    encoded = encode(path)
    assert (encoded.kind, encoded.data, encoded.width, encoded.height) == ("image/png", path.read_bytes(), 500, 400)
    assert encoded.url.startswith("data:image/png;base64,iVBOR")


def test_a_photograph_becomes_a_jpeg(write):
    encoded = encode(write("a.png", "noise"))
    assert encoded.kind == "image/jpeg"
    assert len(encoded.data) < 0.6 * 500 * 400 * 3
    with Image.open(io.BytesIO(encoded.data)) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (500, 400)


def test_what_is_too_wide_is_shrunk_in_proportion(write):
    encoded = encode(write("a.png", "drawing", (3200, 100)))
    assert (encoded.width, encoded.height) == (STEPS[0][0], 50)


def test_the_largest_give_way_until_all_are_within_the_budget(write):
    paths = [write("large.png", "noise", (1500, 1500)), write("small.png", "drawing"), write("mean.png", "noise")]
    free = encode_all(paths)
    budget = sum(len(one.data) for one in free) // 3
    kept = encode_all(paths, budget)
    assert sum(len(one.data) for one in kept) <= budget
    assert kept[0].width < free[0].width
    assert kept[1] == free[1], "a small picture is left alone"


def test_a_budget_that_cannot_be_kept_ends_with_the_smallest(write):
    (only,) = encode_all([write("a.png", "noise", (1500, 1500))], 10)
    assert only.width == STEPS[-1][0]


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "no.png").write_bytes(b"text")
    for name in ("no.png", "gone.png"):
        with pytest.raises(InputError, match=name):
            encode(tmp_path / name)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif")
    with pytest.raises(InputError, match="found GIF"):
        encode(tmp_path / "a.gif")
