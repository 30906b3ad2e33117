import hashlib

import cv2
import numpy as np
import pytest

from cxrtool.imaging.hashing import dhash, pixel_sha256


def bits(one, other):
    return (int(one, 16) ^ int(other, 16)).bit_count()


@pytest.fixture
def picture():
    generator = np.random.default_rng(5)
    coarse = generator.integers(30, 220, (9, 7)).astype(np.uint8)
    noise = generator.normal(0, 3, (600, 480))
    return np.clip(cv2.resize(coarse, (480, 600), interpolation=cv2.INTER_CUBIC) + noise, 0, 255).astype(np.uint8)


def test_equal_pixels_have_equal_digests_and_nothing_else_has(picture):
    assert pixel_sha256(picture) == pixel_sha256(np.asfortranarray(picture)) == pixel_sha256(picture[::-1][::-1])
    others = [picture.T, picture[1:], picture.astype(np.uint16), picture ^ 1, picture.reshape(480, 600)]
    assert len({pixel_sha256(other) for other in [picture, *others]}) == 6


def test_byte_order_does_not_matter(picture):
    deep = picture.astype(np.uint16) * 250
    assert pixel_sha256(deep) == pixel_sha256(deep.astype(">u2"))


def test_the_digest_is_that_of_type_shape_and_values():
    values = np.arange(6, dtype=np.uint16).reshape(2, 3)
    expected = hashlib.sha256(b"uint16 2x3\n" + values.astype("<u2").tobytes()).hexdigest()
    assert pixel_sha256(values) == expected


def test_dhash_compares_the_means_of_cells(picture):
    # The definition itself, on a picture whose size is a multiple of the grid: averaging over every pixel.
    exact = picture[:592, :476].reshape(16, 37, 17, 28).mean(axis=(1, 3))
    expected = np.packbits(exact[:, 1:] > exact[:, :-1]).tobytes().hex()
    assert len(dhash(picture)) == 64
    assert bits(dhash(picture[:592, :476]), expected) <= 4


@pytest.mark.parametrize(
    "copy",
    [
        lambda p: cv2.resize(p, (333, 404), interpolation=cv2.INTER_AREA),
        lambda p: cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 0),
        lambda p: (p * 0.7 + 20).astype(np.uint8),
        lambda p: p.astype(np.uint16) * 257,
    ],
    ids=["resized", "compressed", "darker", "deeper"],
)
def test_copies_look_alike(picture, copy):
    assert bits(dhash(picture), dhash(copy(picture))) <= 12


def test_other_pictures_do_not(picture):
    for other in (picture[:, ::-1], picture[::-1], 255 - picture, np.roll(picture, 60, axis=1)):
        assert bits(dhash(picture), dhash(np.ascontiguousarray(other))) > 60


def test_a_picture_of_one_value_has_no_bit_set():
    assert int(dhash(np.full((5, 5), 9, np.uint8)), 16) == 0
