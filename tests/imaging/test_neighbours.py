import time

import numpy as np
import pytest

from cxrtool.imaging.neighbours import near_duplicates


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
