"""Pairs of similar hashes among many, without comparing all pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

NEAR = 12
"""Bits of 256 in which a re-compressed, resized or brightened copy may differ; 95 % of copies differ in fewer."""


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
