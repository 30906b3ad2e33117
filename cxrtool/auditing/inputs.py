"""The images of a manifest as an audit uses them: thumbnails, lungs, and properties of the files."""

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
"""Side of a thumbnail in pixels: coarse light and dark, no texture."""

Images = NDArray[np.float32]
"""(n, 64, 64) in [0, 1]."""


class Fold(Protocol):
    """One fold of the splits, as `flow.assignment.Assignment` is."""

    @property
    def repeat(self) -> str:
        """As in the splits."""

    @property
    def fold(self) -> str:
        """As in the splits."""

    @property
    def subsets(self) -> Mapping[str, Sequence[int]]:
        """Indices in the manifest of the images of `train`, `validation` and `test`."""


class Progress(Protocol):
    """Shows the progress of a long loop, as `flow.settings.Reporter` does."""

    def progress(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show it; the function takes the number of items finished since its last call."""


class NoProgress:
    """Shows no progress."""

    def progress(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show nothing."""
        return contextlib.nullcontext(lambda count: None)


@dataclass(frozen=True)
class ImageSet:
    """The n readable images of a manifest.

    Attributes:
        rows: Their rows, with `width`, `height`, `bits` and `kind` as the files have them.
        thumbs: (n, 64, 64) in [0, 1], averaged over areas; the whole image, whatever its proportions.
        lungs: (n, 64, 64) share of lung in [0, 1]; zero where no lung was found; None where it was not searched.
        width: (n,) in pixels.
        height: (n,) in pixels.
        bits: (n,) 8 or 16.
        kind: (n,) type of the original file: `jpeg`, `png`, `dicom`, ….
        index: (n,) index in the manifest.
        masks: A phrase: the origin of the lungs, or why there are none.
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
        """(n,) number of each image's group, from `data.splitting.grouping.group_images`."""
        return np.array(group_images(self.rows), np.intp)

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted."""
        return sorted(set(self.labels) - {""})

    def numbers(self, classes: Sequence[str]) -> IntArray:
        """(n,) index of each label in `classes`, -1 where it is none of them."""
        number = {name: k for k, name in enumerate(classes)}
        return np.array([number.get(label, -1) for label in self.labels], np.intp)

    def where(self, kept: NDArray[np.bool_] | IntArray) -> ImageSet:
        """A subset of the images."""
        indices = np.arange(len(self))[kept]
        return replace(
            self,
            rows=tuple(self.rows[i] for i in indices),
            thumbs=self.thumbs[indices],
            lungs=None if self.lungs is None else self.lungs[indices],
            width=self.width[indices],
            height=self.height[indices],
            bits=self.bits[indices],
            kind=tuple(self.kind[i] for i in indices),
            index=self.index[indices],
        )

    def at(self, indices: Sequence[int]) -> IntArray:
        """Positions of images by their indices in the manifest, without those that could not be read."""
        positions = {index: i for i, index in enumerate(self.index.tolist())}
        return np.array([positions[index] for index in indices if index in positions], np.intp)
