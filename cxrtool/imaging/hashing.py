"""Fingerprints of an image: a digest for identical pixels, a perceptual hash, and near-duplicates among many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.imaging.resize import Pixels

SIDE = 16
"""Cells of the difference hash a row and a column.

The common value 8 is too small here: of the 136,000 pairs among 523 adult radiographs, 26 differ in at most 2 of 64
bits, but only one pair is a duplicate. With 16 this pair is the only one below 22 of 256 bits.
"""

NEAR = 12
"""Bits of 256 in which a re-compressed, resized or brightened copy may differ; 95 % of copies differ in fewer."""

MANY = 300_000
"""Different hashes from which the sorts for two equal bands cost less than the comparisons that they save."""

_BLOCK = 1 << 16
"""Hashes whose bits are apart in memory at once."""

_OVERSAMPLING = 4


def pixel_sha256(pixels: Pixels) -> str:
    """SHA-256 over type, shape and values of an image: equal for equal images, whatever their file format.

    >>> pixel_sha256(np.zeros((2, 2), np.uint8)) == pixel_sha256(np.zeros((1, 4), np.uint8))
    False
    """
    values = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{pixels.dtype.name} {'x'.join(map(str, pixels.shape))}\n".encode())
    digest.update(values.data)
    return digest.hexdigest()


def dhash(pixels: Pixels) -> str:
    """The difference hash of an image (H, W), uint8 or uint16, as 64 hexadecimal digits.

    Each of the 256 bits is whether a cell is brighter than the one to its left. After N. Krawetz, "Kind of Like That"
    (2013), with 16 x 16 instead of 8 x 8 cells.
    """
    # Averaging a few samples a cell costs a thirtieth of averaging every pixel.
    samples = (SIDE + 1) * _OVERSAMPLING, SIDE * _OVERSAMPLING
    sampled = cv2.resize(pixels, samples, interpolation=cv2.INTER_LINEAR)
    cells = cv2.resize(sampled, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes().hex()


def near_duplicates(hashes: Sequence[str], near: int = NEAR) -> list[tuple[int, int, int]]:
    """Find the pairs of hashes that differ in at most `near` bits.

    Two such hashes agree in one of `near` + 1 bands of bits, and in two of `near` + 2: only hashes with equal bands are
    compared. Every pair is found, as by comparing all with all. Of chests, one band of 13 leaves 9 pairs in 1,000 to
    compare, two of 14 leave 2, for 91 sorts instead of 13.

    Args:
        hashes: Hexadecimal, of one length.
        near: The largest number of differing bits.

    Returns:
        (earlier index, later index, differing bits), sorted. Each of several equal hashes is paired with the first
        alone.

    >>> near_duplicates(["00ff", "00fe", "ff00", "00ff"], near=1)
    [(0, 1, 1), (0, 3, 0)]
    """
    if not hashes:
        return []
    firsts: dict[str, int] = {}
    pairs = []
    for index, text in enumerate(hashes):
        first = firsts.setdefault(text, index)
        if first != index:
            pairs.append((first, index, 0))
    origin = np.fromiter(firsts.values(), np.int64, len(firsts))
    packed = np.frombuffer(bytes.fromhex("".join(firsts)), np.uint8).reshape(len(origin), -1)
    words = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64).T
    shared = 1 if len(origin) < MANY or near + 2 > 8 * packed.shape[1] else 2
    bands = _bands(packed, near + shared)
    found = [np.zeros((3, 0), np.int64)]
    for chosen in combinations(bands, shared):
        keys = chosen[0] if shared == 1 else chosen[0] * len(origin) + chosen[1]
        found += [np.stack(hits) for hits in _close(keys, words, near)]
    one, other, distance = np.unique(np.concatenate(found, axis=1), axis=1)
    one, other = np.sort(origin[[one, other]], axis=0)
    return sorted(pairs + list(zip(one.tolist(), other.tolist(), distance.tolist(), strict=True)))


def _bands(packed: NDArray[np.uint8], count: int) -> list[NDArray[np.int64]]:
    """A number a hash for each band, equal where its bits are; they are far apart: neighbouring cells are similar."""
    parts: list[list[NDArray[np.uint8]]] = [[] for _ in range(count)]
    for begin in range(0, len(packed), _BLOCK):
        bits = np.unpackbits(packed[begin : begin + _BLOCK], axis=1)
        for band, part in enumerate(parts):
            part.append(np.packbits(bits[:, band::count], axis=1))
    numbers = []
    for part in parts:
        keys = np.concatenate(part)
        wide = max(8, -(-keys.shape[1] // 8) * 8)
        keys = np.ascontiguousarray(np.pad(keys, ((0, 0), (0, wide - keys.shape[1]))))
        values = keys.view(np.uint64 if wide == 8 else np.dtype((np.void, wide))).ravel()
        numbers.append(np.unique(values, return_inverse=True)[1].astype(np.int64))
    return numbers


def _close(
    keys: NDArray[np.int64], words: NDArray[np.uint64], near: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the close pairs with equal keys, one distance in sorted order at a time, so that memory is bounded."""
    order = np.argsort(keys)
    ordered, rows = keys[order], [np.ascontiguousarray(word[order]) for word in words]
    here = np.arange(len(keys))
    shift = 0
    while True:
        shift += 1
        here = here[: np.searchsorted(here, len(keys) - shift)]
        here = here[ordered[here] == ordered[here + shift]]
        if not len(here):
            return
        # Word by word: most pairs are too far apart in the first.
        left, distance = here, np.zeros(len(here), np.int64)
        for row in rows:
            distance = distance + np.bitwise_count(row[left] ^ row[left + shift])
            close = distance <= near
            left, distance = left[close], distance[close]
        if len(left):
            both = np.sort([order[left], order[left + shift]], axis=0)
            yield both[0], both[1], distance
