"""Fingerprints of an image: a digest for identical pixels, a perceptual hash, and near-duplicates among many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

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

    Two such hashes agree in one of `near` + 1 bands of bits: only hashes with an equal band are compared.

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
    origin = list(firsts.values())
    packed = np.frombuffer(bytes.fromhex("".join(firsts)), np.uint8).reshape(len(origin), -1)
    found: dict[tuple[int, int], int] = {}
    for band in _bands(packed, near + 1):
        for left, right in _sharing(band):
            distance = np.bitwise_count(packed[left] ^ packed[right]).sum(axis=1, dtype=np.int64)
            for hit in np.flatnonzero(distance <= near):
                one, other = sorted((origin[left[hit]], origin[right[hit]]))
                found[one, other] = int(distance[hit])
    return sorted(pairs + [(one, other, distance) for (one, other), distance in found.items()])


def _bands(packed: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.void]]:
    """One key a hash and band; a band's bits are far apart, because neighbouring cells of a chest are similar."""
    bits = np.unpackbits(packed, axis=1)
    for band in range(count):
        keys = np.ascontiguousarray(np.packbits(bits[:, band::count], axis=1))
        yield keys.view(np.dtype((np.void, keys.shape[1]))).ravel()


def _sharing(keys: NDArray[np.void]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the pairs of indices with equal keys, one distance in sorted order at a time, so that memory is bounded."""
    order = np.argsort(keys, kind="stable")
    groups = np.concatenate(([0], np.cumsum(keys[order[1:]] != keys[order[:-1]]))) if len(keys) else np.zeros(0, int)
    here = np.arange(len(keys))
    shift = 0
    while True:
        shift += 1
        here = here[here + shift < len(keys)]
        here = here[groups[here] == groups[here + shift]]
        if not len(here):
            return
        yield order[here], order[here + shift]
