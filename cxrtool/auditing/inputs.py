"""What an audit has seen of the pictures of a manifest: thumbnails, lungs, and what files they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.splitting.grouping import group_images
from cxrtool.data.tables.manifest import Row
from cxrtool.evaluation.metrics.confusion import IntArray

SIDE = 64
"""Of a thumbnail, in pixels: coarse light and dark, no texture."""

Images = NDArray[np.float32]
"""(n, 64, 64) in [0, 1]."""


class Fold(Protocol):
    """One fold of the splits, as `flow.assignment.Assignment` is."""

    @property
    def repeat(self) -> str:
        """As it stands in the splits."""

    @property
    def fold(self) -> str:
        """As it stands in the splits."""

    @property
    def subsets(self) -> Mapping[str, Sequence[int]]:
        """Places in the manifest of the images of `train`, `validation` and `test`."""


class Progress(Protocol):
    """Whoever shows how far a long loop is, as `flow.settings.Reporter` does."""

    def progress(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show it; called with the number of items that were finished since the last call."""


class Unseen:
    """Nobody asked how far it is."""

    def progress(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show nothing."""
        return contextlib.nullcontext(lambda count: None)


@dataclass(frozen=True)
class Pictures:
    """The readable pictures of a manifest, n of them.

    Attributes:
        rows: Their rows, with `width`, `height`, `bits` and `kind` as the files have them.
        thumbs: (n, 64, 64) in [0, 1], averaged over areas; the whole picture, whatever its proportions.
        lungs: (n, 64, 64) share of lung in [0, 1]; empty where no lung was found; None where nobody looked.
        width: (n,) in pixels.
        height: (n,) in pixels.
        bits: (n,) 8 or 16.
        kind: (n,) type of the original file: `jpeg`, `png`, `dicom`, ….
        index: (n,) place in the manifest.
        masks: In a few words where the lungs are from, or why there are none.
    """

    rows: tuple[Row, ...]
    thumbs: Images
    lungs: Images | None
    width: IntArray
    height: IntArray
    bits: IntArray
    kind: tuple[str, ...]
    index: IntArray
    masks: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> tuple[str, ...]:
        """(n,) label, empty where there is none."""
        return tuple(row.get("label", "") for row in self.rows)

    @property
    def sources(self) -> tuple[str, ...]:
        """(n,) source, empty where it is not known."""
        return tuple(row.get("source", "") for row in self.rows)

    @property
    def patients(self) -> IntArray:
        """(n,) number of the group whose images belong together, from `data.grouping.group_images`."""
        return np.array(group_images(self.rows), np.intp)

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted."""
        return sorted(set(self.labels) - {""})

    def numbers(self, classes: Sequence[str]) -> IntArray:
        """(n,) number of each label among `classes`, -1 where it is none of them."""
        place = {name: number for number, name in enumerate(classes)}
        return np.array([place.get(label, -1) for label in self.labels], np.intp)

    def where(self, kept: NDArray[np.bool_] | IntArray) -> Pictures:
        """Some of the pictures."""
        places = np.arange(len(self))[kept]
        return replace(
            self,
            rows=tuple(self.rows[i] for i in places),
            thumbs=self.thumbs[places],
            lungs=None if self.lungs is None else self.lungs[places],
            width=self.width[places],
            height=self.height[places],
            bits=self.bits[places],
            kind=tuple(self.kind[i] for i in places),
            index=self.index[places],
        )

    def at(self, places: Sequence[int]) -> IntArray:
        """Which pictures stand at these places of the manifest; those that could not be read are left out."""
        here = {place: i for i, place in enumerate(self.index.tolist())}
        return np.array([here[place] for place in places if place in here], np.intp)
