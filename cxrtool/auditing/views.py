"""The images of a manifest as an audit uses them, and what each probe sees of them.

A probe sees an image of which a part was removed, or a few numbers instead of an image. Maguolo & Nanni (2020, "A
Critic Evaluation of Methods for COVID-19 Automatic Detection from X-Ray Images") blacked out the centre and found
networks to do as well. The other views remove less or more of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cxrtool.auditing.classifier import Features
from cxrtool.auditing.factors import CATEGORY, FILE, factors
from cxrtool.data.splitting.grouping import group_images
from cxrtool.data.tables.manifest import Row
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.sheet import count_of

SIDE = 64
"""Side of a thumbnail in pixels: coarse light and dark, no texture."""

Images = NDArray[np.float32]
"""(n, 64, 64) in [0, 1]."""

BORDER = round(SIDE / 10)
"""Width of the border in thumbnail pixels: the outermost tenth on each side."""

FRAME = SIDE // 16
"""Width of the frame around the blacked-out centre, in thumbnail pixels. In 330 adults and children, and in phantoms,
98.7 % of the lungs are inside the centre; in close crops lungs reach to the edge of the image."""

MARGIN = 3
"""Margin around the erased lungs, in thumbnail pixels: a twentieth of the side."""

FEWEST_LUNGS = 0.5
"""Share of the images whose lungs must be known for a probe that needs them."""

IS_LUNG = 0.5


@dataclass(frozen=True)
class ImageSet:
    """The n readable images of a manifest.

    Attributes:
        rows: Their rows, with `width`, `height` (in pixels), `bits` (8 or 16) and `kind` as the files have them.
        thumbs: Averaged over areas; the whole image, whatever its proportions.
        lungs: Share of lung; zero where no lung was found; None where it was not searched.
        kind: Type of the original file: `jpeg`, `png`, `dicom`, ….
        index: Index in the manifest.
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
        """Some of the images."""
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


@dataclass(frozen=True)
class View:
    """What a probe sees.

    Attributes:
        features: Its input; None where it cannot be made.
        shown: The input as images; None where it is numbers.
        lung: Share of the lungs' area that is still visible, where known.
        reason: Why it cannot be made, or a remark about it.
        alike: It cannot be made because it is the same for all images, which is a result too.
    """

    features: Features | None
    shown: Images | None = None
    lung: float | None = None
    reason: str = ""
    alike: bool = False


def thumbnail(pictures: ImageSet) -> View:
    """The whole image."""
    return _framed(pictures, SIDE // 2)


def border(pictures: ImageSet) -> View:
    """The outermost tenth on each side."""
    return _framed(pictures, BORDER)


def centre_blacked(pictures: ImageSet) -> View:
    """All but a box, the same for all images, that contains the lungs in practically every frontal radiograph."""
    return _framed(pictures, FRAME)


def lungs_erased(pictures: ImageSet) -> View:
    """All but a box around both lungs, filled from its rim, so that the hole does not show what it contained."""
    shown = pictures.thumbs.copy()
    for image, lung in zip(shown, _lungs(pictures), strict=True):
        # Where no lung was found there may still be one: then the whole area of possible lungs is erased.
        top, bottom, left, right = _box(lung) or (FRAME + MARGIN, SIDE - FRAME - MARGIN) * 2
        rows, columns = (slice(max(a - MARGIN, 0), min(b + MARGIN, SIDE)) for a, b in ((top, bottom), (left, right)))
        _fill(image, rows, columns)
    return View(shown.reshape(len(shown), -1), shown, 0.0)


def lungs_only(pictures: ImageSet) -> View:
    """The lungs, all else black."""
    shown = pictures.thumbs * _lungs(pictures)
    return View(shown.reshape(len(shown), -1), shown, 1.0)


def mask_shape(pictures: ImageSet) -> View:
    """Areas, extents and moments of the lungs' outline, without a single grey value."""
    lungs = _lungs(pictures)
    return View(_scaled(np.stack([_shape(lung) for lung in lungs])), lungs)


def size_and_shape(pictures: ImageSet) -> View:
    """Width, height, proportions, bits and type of the files."""
    width, height = (np.log(side.astype(np.float64)) for side in (pictures.width, pictures.height))
    columns = [width, height, width - height, pictures.bits.astype(np.float64), *_indicators(pictures.kind)]
    features = _scaled(np.stack(columns, axis=1))
    return View(features) if features.any() else View(None, reason="all files have one size and type", alike=True)


def metadata(pictures: ImageSet) -> View:
    """The columns of the manifest, what is missing in them, and patterns of names."""
    columns: list[FloatArray] = []
    names = []
    for factor in factors(pictures.rows):
        if factor.origin == FILE or len(set(factor.values)) < 2:
            continue
        names.append(factor.name)
        if factor.kind == CATEGORY:
            columns += _indicators(factor.values)
            continue
        numbers = factor.numbers()
        absent = np.isnan(numbers)
        columns.append(np.where(absent, np.nanmean(numbers), numbers))
        columns += [absent.astype(np.float64)] if absent.any() else []
    if not columns:
        return View(None, reason="the manifest has the same metadata for all images, or none", alike=True)
    return View(_scaled(np.stack(columns, axis=1)), reason=f"made from {', '.join(names)}")


def _framed(pictures: ImageSet, width: int) -> View:
    seen = np.ones((SIDE, SIDE), np.bool_)
    seen[width : SIDE - width, width : SIDE - width] = False
    lungs, held = pictures.lungs, None
    if lungs is not None and lungs.any():
        held = float(lungs[:, seen].sum(dtype=np.float64) / lungs.sum(dtype=np.float64))
    return View(pictures.thumbs[:, seen], pictures.thumbs * seen, held)


def _scaled(columns: FloatArray) -> FloatArray:
    """Columns with mean 0 and SD 1 over all images (labels are not used); those that never vary become 0."""
    rest = columns - columns.mean(axis=0)
    spread = rest.std(axis=0)
    scaled: FloatArray = np.where(spread > 1e-9, rest / np.maximum(spread, 1e-9), 0.0)
    return scaled


def _indicators(values: Sequence[str]) -> list[FloatArray]:
    return [np.array([value == level for value in values], np.float64) for level in sorted(set(values))]


def about_lungs(pictures: ImageSet) -> tuple[bool, str]:
    """Whether enough lungs are known for a probe that needs them; and the reason, or how many are missing."""
    if pictures.lungs is None:
        return False, pictures.masks or "no masks of the lungs"
    lacking = int((pictures.lungs.max(axis=(1, 2), initial=0.0) < IS_LUNG).sum())
    if lacking > (1 - FEWEST_LUNGS) * len(pictures):
        return False, f"no lungs were found in {lacking} of {count_of(len(pictures), 'image')}"
    return True, f"no lungs were found in {lacking} of {count_of(len(pictures), 'image')}" if lacking else ""


def _lungs(pictures: ImageSet) -> Images:
    return np.zeros_like(pictures.thumbs) if pictures.lungs is None else pictures.lungs


def _box(lung: NDArray[np.float32]) -> tuple[int, int, int, int] | None:
    """The bounding box of the lung as (top, bottom, left, right), ends excluded; None where there is none."""
    inside = lung >= IS_LUNG
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _fill(image: NDArray[np.float32], rows: slice, columns: slice) -> None:
    """Fill a box of an image, in place, by linear interpolation between opposite rims, averaged over both directions.

    Where the box reaches an edge of the image, the opposite rim is used for both ends. Where it reaches both edges,
    that direction is skipped. A box that covers the whole image becomes black.
    """
    across = _interpolate(image, rows, columns)
    down = _interpolate(image.T, columns, rows)
    directions = [filled for filled in (across, None if down is None else down.T) if filled is not None]
    image[rows, columns] = sum(directions) / len(directions) if directions else 0.0


def _interpolate(image: NDArray[np.float32], rows: slice, columns: slice) -> NDArray[np.float32] | None:
    before, after = columns.start - 1, columns.stop
    if before < 0 and after >= SIDE:
        return None
    first = image[rows, before if before >= 0 else after]
    last = image[rows, after if after < SIDE else before]
    width = min(after, SIDE) - columns.start
    share = ((np.arange(width) + 1) / (width + 1)).astype(np.float32)
    filled: NDArray[np.float32] = first[:, None] * (1 - share) + last[:, None] * share
    return filled


def _shape(lung: NDArray[np.float32]) -> FloatArray:
    """(13,) area, extents, centre, second moments, and the share of the area left of the centre, as shares."""
    box = _box(lung)
    if box is None:
        return np.zeros(13)
    top, bottom, left, right = (edge / SIDE for edge in box)
    weight = lung.astype(np.float64)
    area = weight.sum()
    centres = (np.arange(SIDE) + 0.5) / SIDE
    y, x = float(weight.sum(axis=1) @ centres / area), float(weight.sum(axis=0) @ centres / area)
    rest_y, rest_x = centres - y, centres - x
    moments = [weight.sum(axis=1) @ rest_y**2, weight.sum(axis=0) @ rest_x**2, rest_y @ weight @ rest_x]
    middle = int(np.clip(round(x * SIDE), 1, SIDE - 1))
    sides = weight[:, :middle].sum() / area
    whole = area / SIDE**2
    filled = whole / ((bottom - top) * (right - left))
    return np.array(
        [whole, top, bottom, left, right, bottom - top, right - left, y, x, *(moments / area), sides * filled]
    )
