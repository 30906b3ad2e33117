"""What each probe is shown: a picture of which something was taken away, or a few figures in place of one.

Maguolo & Nanni (2020, "A Critic Evaluation of Methods for COVID-19 Automatic Detection from X-Ray Images") blacked out
the centre and found networks to do as well; the other views ask the same of less and of more of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.auditing.classifier import Features
from cxrtool.auditing.factors import CATEGORY, FILE, factors
from cxrtool.auditing.inputs import SIDE, Images, Pictures
from cxrtool.evaluation.metrics.confusion import FloatArray
from cxrtool.evaluation.tables import count_of

BORDER = round(SIDE / 10)
"""Width of the border in thumbnail pixels: the outermost tenth on each side."""

FRAME = SIDE // 16
"""What is left around the blacked centre. In 330 adults and children, and in drawn ones, 98.7 % of the lungs lie
within; they reach nearer to an edge than is thought, in close crops to the edge itself."""

MARGIN = 3
"""Around the lungs before they are erased, in thumbnail pixels: a twentieth of the side."""

FEWEST_LUNGS = 0.5
"""Share of the pictures whose lungs must be known for a probe that needs them."""

IS_LUNG = 0.5


@dataclass(frozen=True)
class View:
    """What a probe is shown.

    Attributes:
        features: (n, d) what it is trained on; None where it cannot be made.
        shown: (n, 64, 64) the same as pictures; None where it is figures.
        lung: Share of the lungs' area that it still holds, where that is known.
        reason: Why it cannot be made, or what has to be known about it.
        alike: It cannot be made because it is the same of all images, which is an answer too.
    """

    features: Features | None
    shown: Images | None = None
    lung: float | None = None
    reason: str = ""
    alike: bool = False


def thumbnail(pictures: Pictures) -> View:
    """The whole picture."""
    return _of_pixels(pictures.thumbs, np.ones((SIDE, SIDE), np.bool_), pictures.lungs)


def border(pictures: Pictures) -> View:
    """The outermost tenth on each side."""
    return _framed(pictures, BORDER)


def centre_blacked(pictures: Pictures) -> View:
    """All but a box, the same in all pictures, that holds the lungs in practically every frontal radiograph."""
    return _framed(pictures, FRAME)


def lungs_erased(pictures: Pictures) -> View:
    """All but a box around both lungs, filled from its rim, so that the hole does not tell what filled it."""
    shown = pictures.thumbs.copy()
    for i, lung in enumerate(_lungs(pictures)):
        # Where no lung was found one may still be: then all is erased in which lungs may lie.
        inside = FRAME + MARGIN, SIDE - FRAME - MARGIN
        top, bottom, left, right = _box(lung) or inside * 2
        _fill(
            shown[i],
            slice(max(top - MARGIN, 0), min(bottom + MARGIN, SIDE)),
            slice(max(left - MARGIN, 0), min(right + MARGIN, SIDE)),
        )
    return View(shown.reshape(len(shown), -1), shown, 0.0)


def lungs_only(pictures: Pictures) -> View:
    """The lungs, all else black."""
    shown = pictures.thumbs * _lungs(pictures)
    return View(shown.reshape(len(shown), -1), shown, 1.0)


def mask_shape(pictures: Pictures) -> View:
    """Areas, extents and moments of the lungs' outline, without a single grey value."""
    lungs = _lungs(pictures)
    return View(_scaled(np.stack([_shape(lung) for lung in lungs])), lungs)


def size_and_shape(pictures: Pictures) -> View:
    """Width, height, proportions, bits and type of the files."""
    width, height = (np.log(side.astype(np.float64)) for side in (pictures.width, pictures.height))
    columns = [width, height, width - height, pictures.bits.astype(np.float64)]
    columns += _indicators(pictures.kind)
    features = _scaled(np.stack(columns, axis=1))
    return View(features) if features.any() else View(None, reason="all files are of one size and kind", alike=True)


def metadata(pictures: Pictures) -> View:
    """What the manifest says of the images, and what their names give away; what is missing too."""
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
        return View(None, reason="the manifest says nothing of the images, or the same of all", alike=True)
    return View(_scaled(np.stack(columns, axis=1)), reason=f"made of {', '.join(names)}")


def _framed(pictures: Pictures, width: int) -> View:
    seen = np.ones((SIDE, SIDE), np.bool_)
    seen[width : SIDE - width, width : SIDE - width] = False
    return _of_pixels(pictures.thumbs, seen, pictures.lungs)


def _of_pixels(thumbs: Images, seen: NDArray[np.bool_], lungs: Images | None) -> View:
    held = None
    if lungs is not None and lungs.any():
        held = float(lungs[:, seen].sum(dtype=np.float64) / lungs.sum(dtype=np.float64))
    return View(thumbs[:, seen], thumbs * seen, held)


def _scaled(columns: FloatArray) -> FloatArray:
    """Columns in units of their spread over all images, labels unseen; those that never vary become 0."""
    rest = columns - columns.mean(axis=0)
    spread = rest.std(axis=0)
    scaled: FloatArray = np.where(spread > 1e-9, rest / np.maximum(spread, 1e-9), 0.0)
    return scaled


def _indicators(values: Sequence[str]) -> list[FloatArray]:
    return [np.array([value == level for value in values], np.float64) for level in sorted(set(values))]


def about_lungs(pictures: Pictures) -> tuple[bool, str]:
    """Whether enough lungs are known for a probe that needs them; why not, or how many are lacking."""
    if pictures.lungs is None:
        return False, pictures.masks or "no masks of the lungs"
    lacking = int((pictures.lungs.max(axis=(1, 2), initial=0.0) < IS_LUNG).sum())
    if lacking > (1 - FEWEST_LUNGS) * len(pictures):
        return False, f"no lungs were found in {lacking} of {count_of(len(pictures), 'picture')}"
    return True, f"no lungs were found in {lacking} of {len(pictures)} pictures" if lacking else ""


def _lungs(pictures: Pictures) -> Images:
    """The lungs; where nobody looked, none."""
    return np.zeros_like(pictures.thumbs) if pictures.lungs is None else pictures.lungs


def _box(lung: NDArray[np.float32]) -> tuple[int, int, int, int] | None:
    """First row, row behind the last, first column and column behind the last of what is lung."""
    inside = lung >= IS_LUNG
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _fill(picture: NDArray[np.float32], rows: slice, columns: slice) -> None:
    """Fill a box of a picture, in place, with straight lines between its opposite rims, both ways averaged.

    Where the box reaches an edge of the picture the other rim is taken for both; where it reaches both, that way is
    left out; a box that is the whole picture becomes black.
    """
    across = _between(picture, rows, columns)
    down = _between(picture.T, columns, rows)
    ways = [way for way in (across, None if down is None else down.T) if way is not None]
    picture[rows, columns] = sum(ways) / len(ways) if ways else 0.0


def _between(picture: NDArray[np.float32], rows: slice, columns: slice) -> NDArray[np.float32] | None:
    before, behind = columns.start - 1, columns.stop
    if before < 0 and behind >= SIDE:
        return None
    first = picture[rows, before if before >= 0 else behind]
    last = picture[rows, behind if behind < SIDE else before]
    width = min(behind, SIDE) - columns.start
    share = ((np.arange(width) + 1) / (width + 1)).astype(np.float32)
    filled: NDArray[np.float32] = first[:, None] * (1 - share) + last[:, None] * share
    return filled


def _shape(lung: NDArray[np.float32]) -> FloatArray:
    """(13,) area, extents, middle, second moments, and how the area divides between the sides, as shares."""
    box = _box(lung)
    if box is None:
        return np.zeros(13)
    top, bottom, left, right = (edge / SIDE for edge in box)
    weight = lung.astype(np.float64)
    area = weight.sum()
    place = (np.arange(SIDE) + 0.5) / SIDE
    y, x = float(weight.sum(axis=1) @ place / area), float(weight.sum(axis=0) @ place / area)
    rest_y, rest_x = place - y, place - x
    moments = [
        float(weight.sum(axis=1) @ rest_y**2 / area),
        float(weight.sum(axis=0) @ rest_x**2 / area),
        float(rest_y @ weight @ rest_x / area),
    ]
    middle = int(np.clip(round(x * SIDE), 1, SIDE - 1))
    sides = weight[:, :middle].sum() / area
    whole = area / SIDE**2
    filled = whole / ((bottom - top) * (right - left))
    return np.array([whole, top, bottom, left, right, bottom - top, right - left, y, x, *moments, sides * filled])
