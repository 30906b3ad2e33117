"""Random numbers by counter: those of an image in an epoch do not depend on batch, order or interruption.

Philox4x32-10 of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3, on arrays of
counters. There is no state to save: a number is a function of (seed, stream, epoch, image, position).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(counters: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Turn counters (n, 4) into random words (n, 4), both of uint32 values in an uint64 array.

    >>> [hex(word) for word in philox(np.zeros((1, 4), np.uint64), (0, 0))[0]]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = (counters[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1)


def uniforms(keys: np.ndarray, epoch: int | np.ndarray, count: int, seed: int, stream: int = 0) -> np.ndarray:
    """Uniform numbers in [0, 1), shape (n, count): row i belongs to the image with key `keys[i]`.

    Args:
        keys: One uint64 per image, as from `image_keys`.
        epoch: Number of the epoch, below 2**32; or one for each image.
        count: Numbers per image.
        seed: Of the run.
        stream: Separates purposes: two streams of one seed are independent.
    """
    blocks = -(-count // 4)
    counters = np.empty((len(keys), blocks, 4), np.uint64)
    counters[:, :, 0] = (keys & _LOW)[:, None]
    counters[:, :, 1] = (keys >> _SHIFT)[:, None]
    counters[:, :, 2] = np.asarray(epoch, np.uint64)[..., None]
    counters[:, :, 3] = np.arange(blocks, dtype=np.uint64)[None, :]
    words = philox(counters.reshape(-1, 4), (seed & 0xFFFFFFFF, ((seed >> 32) ^ (stream * 0x10001)) & 0xFFFFFFFF))
    return words.reshape(len(keys), -1)[:, :count] / 2.0**32


def image_keys(ids: Sequence[str]) -> np.ndarray:
    """A uint64 for each image id, so that its numbers do not depend on the other images of the manifest."""
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64) if digests else np.empty(0, np.uint64)


def permutation(count: int, epoch: int, seed: int) -> np.ndarray:
    """The order in which `count` items are visited in an epoch."""
    key = np.array([seed & (2**64 - 1), epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(count)
