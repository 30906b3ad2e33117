"""The search space of COVID-XNet: depth and kernels (Duran-Lopez et al. 2020, section 2.3).

The paper searched "exhaustively" over the depth, from one layer to the deepest whose last map is larger than 1 x 1, and
over kernels from 3 to 11. With the same kernel in every layer there are 35 networks at 128 x 128 pixels, with any
kernels in any order 97,655. The paper does not state which of the two it searched. Kernels that never increase from
one layer to the next, as the 5, 5, 5, 3, 3 of the paper, are between the two, and are ours.

Every layer has twice the maps of the one before it, from 16 up to 256, which is the number of the fifth layer. Without
this limit the two deepest layers would hold most of the weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import overload

from cxrtool.errors import UsageError

KERNELS = (5, 5, 5, 3, 3)
"""Those of the paper."""

CHOICES = (3, 5, 7, 9, 11)
FIRST, MOST = 16, 256
LARGEST = 31


def parse(text: str | None) -> tuple[int, ...]:
    """Read the kernels of a network.

    >>> parse("5,5,3"), parse(None)
    ((5, 5, 3), ())

    Raises:
        UsageError: They are not odd numbers, separated by commas.
    """
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) % 2 and int(part) <= LARGEST for part in parts):
        raise UsageError(
            f"--kernels: expected odd numbers up to {LARGEST}, one per layer, separated by commas, found '{text}'",
            f"those of the paper are {show(KERNELS)}; for a search use --grid kernels={'|'.join(FAMILIES)}",
        )
    return tuple(int(part) for part in parts)


def show(kernels: Sequence[int]) -> str:
    """Kernels as text.

    >>> show((5, 3))
    '5,3'
    """
    return ",".join(map(str, kernels))


def filters(depth: int) -> tuple[int, ...]:
    """The number of maps of each layer.

    >>> filters(7)
    (16, 32, 64, 128, 256, 256, 256)
    """
    return tuple(min(MOST, FIRST << layer) for layer in range(depth))


def side_after(size: int, depth: int) -> int:
    """Side of the last map: every layer except the last halves it.

    >>> side_after(128, 5)
    8
    """
    return size >> (depth - 1)


def deepest(size: int) -> int:
    """Depth of the deepest network whose last map is larger than 1 x 1.

    >>> deepest(128), deepest(16)
    (7, 4)
    """
    return max(1, size.bit_length() - 1)


def _uniform(size: int) -> list[str]:
    return [show((kernel,) * depth) for depth in range(1, deepest(size) + 1) for kernel in CHOICES]


def _nonincreasing(size: int) -> list[str]:
    largest_first = CHOICES[::-1]
    return [
        show(kernels)
        for depth in range(1, deepest(size) + 1)
        for kernels in itertools.combinations_with_replacement(largest_first, depth)
    ]


class AllKernels(Sequence[str]):
    """All networks up to a depth, without a list in memory: 97,655 at 128 pixels, millions at 512.

    Args:
        depth: Of the deepest network.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def __len__(self) -> int:
        return self._shallower(self.depth + 1)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """The network at an index: shallower networks first, then sorted as numbers whose digits are the kernels."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        rest = index + len(self) * (index < 0)
        if not 0 <= rest < len(self):
            raise IndexError(index)
        depth = 1
        while rest >= len(CHOICES) ** depth:
            rest -= len(CHOICES) ** depth
            depth += 1
        digits = []
        for _ in range(depth):
            rest, digit = divmod(rest, len(CHOICES))
            digits.append(CHOICES[digit])
        return show(digits[::-1])

    def __contains__(self, text: object) -> bool:
        return self._index(text) is not None

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """The index of a network.

        Raises:
            ValueError: It is not one of these.
        """
        index = self._index(value)
        if index is None or not start <= index < (len(self) if stop is None else stop):
            raise ValueError(value)
        return index

    def _index(self, text: object) -> int | None:
        try:
            kernels = parse(str(text))
        except UsageError:
            return None
        if not set(kernels) <= set(CHOICES) or len(kernels) > self.depth:
            return None
        index = 0
        for kernel in kernels:
            index = index * len(CHOICES) + CHOICES.index(kernel)
        return self._shallower(len(kernels)) + index

    def _shallower(self, depth: int) -> int:
        """How many networks are shallower than `depth`."""
        return sum(len(CHOICES) ** layers for layers in range(1, depth))


FAMILIES: dict[str, Callable[[int], Sequence[str]]] = {
    "uniform": _uniform,
    "nonincreasing": _nonincreasing,
    "all": lambda size: AllKernels(deepest(size)),
}
"""By the name in `--grid kernels=NAME`, the networks for an input size in pixels."""


def expand(values: Sequence[str], size: int) -> Sequence[str]:
    """Values of `--grid kernels=`: names of families are replaced by their networks, duplicates are removed.

    Args:
        values: Names of families, or kernels.
        size: Side of the smallest input in pixels, which all networks must fit.

    Raises:
        UsageError: A value is neither.
    """
    if len(values) == 1 and values[0] in FAMILIES:
        return FAMILIES[values[0]](size)
    parts = (FAMILIES[value](size) if value in FAMILIES else [show(parse(value))] for value in values)
    return list(dict.fromkeys(itertools.chain.from_iterable(parts)))
