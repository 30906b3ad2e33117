import hashlib
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrtool.imaging import hashing
from cxrtool.imaging.hashing import dhash, near_duplicates, pixel_sha256


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


def brute_force(hashes, near):
    pairs, numbers = [], [int(text, 16) for text in hashes]
    for later in range(len(hashes)):
        for earlier in range(later):
            distance = (numbers[later] ^ numbers[earlier]).bit_count()
            equal_to_an_earlier = hashes[later] in hashes[:later] or hashes[earlier] in hashes[:earlier]
            if distance == 0 and hashes.index(hashes[later]) == earlier:
                pairs.append((earlier, later, 0))
            elif 0 < distance <= near and not equal_to_an_earlier:
                pairs.append((earlier, later, distance))
    return sorted(pairs)


@pytest.mark.parametrize("near", [0, 1, 5, 12])
def test_finds_what_comparing_all_with_all_finds(near):
    generator = np.random.default_rng(near)
    bits = generator.integers(0, 2, (120, 256)).astype(np.uint8)
    for index in range(40, 120):
        # Copies with 0 to 15 bits changed, so that both sides of the limit occur.
        bits[index] = bits[index % 40]
        changed = generator.choice(256, index % 16, replace=False)
        bits[index, changed] ^= 1
    hashes = [np.packbits(row).tobytes().hex() for row in bits]
    found = near_duplicates(hashes, near)
    assert found == brute_force(hashes, near)
    assert len(found) > 3


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([0, 1, 3, 12]), st.sampled_from([8, 24, 64, 256]), st.booleans())
def test_an_index_of_one_band_and_of_two_finds_every_pair(data, near, size, many):
    generator = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    bits = generator.integers(0, 2, (data.draw(st.integers(1, 60)), size)).astype(np.uint8)
    for index in range(-(-len(bits) // 2), len(bits)):
        # Some pairs are just below the limit, some just above, and some differ in one place alone.
        bits[index] = bits[generator.integers(0, index)]
        bits[index, generator.choice(size, min(size, generator.integers(0, near + 3)), replace=False)] ^= 1
    hashes = [row.tobytes().hex() for row in np.packbits(bits, axis=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "MANY", 0 if many else 10**9)
        patch.setattr(hashing, "_BLOCK", 7)
        assert near_duplicates(hashes, near) == brute_force(hashes, near)


def test_nothing_and_one():
    assert near_duplicates([]) == []
    assert near_duplicates(["ab" * 32]) == []


def test_many_equal_hashes_are_not_compared_with_each_other():
    began = time.monotonic()
    assert len(near_duplicates(["12" * 32] * 50_000)) == 49_999
    assert time.monotonic() - began < 2


def test_tens_of_thousands_take_seconds():
    generator = np.random.default_rng(0)
    # Each is near one of 200 prototypes in the way in which chests are: most bits are shared by all of a kind.
    prototypes = generator.integers(0, 2, (200, 256))
    bits = prototypes[generator.integers(0, 200, 20_000)] ^ (generator.random((20_000, 256)) < 0.15)
    hashes = [row.tobytes().hex() for row in np.packbits(bits.astype(np.uint8), axis=1)]
    hashes[777] = hashes[19_000][:-1] + f"{int(hashes[19_000][-1], 16) ^ 1:x}"
    began = time.monotonic()
    assert (777, 19_000, 1) in near_duplicates(hashes)
    assert time.monotonic() - began < 10
