"""Simple properties of images, their ranges among the training images of a model, and in what a new image differs.

A model was trained on images of certain sizes, brightness and kind. On others its probabilities mean less. This names
the property in which an image is outside of the training images; it cannot show that an image is inside in all others.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from cxrtool.imaging import plausibility
from cxrtool.imaging.channels import as_grey

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""The quantiles of each property that a summary of training images has."""

LOW, MIDDLE, HIGH = QUANTILES.index(0.01), QUANTILES.index(0.5), QUANTILES.index(0.99)
LIKE = QUANTILES.index(0.05)
"""Where an image would correlate at least as much as this quantile in another orientation, it may be turned."""

WIDEN = 0.25
"""An image is outside if it is further from the 1 % to 99 % range of the training images than this share of its
width: with 200 training images, their 1 % quantile is that of two images, and is not exact."""

RARE = 0.01
"""A bit depth or a warning that fewer of the training images have is unlike them."""

RULES = (
    "Size, grey values, lungs: the value is outside the range from the 1 % to the 99 % quantile of the training "
    f"images, after this range is widened on both sides by {WIDEN:.0%} of its width (sizes on a logarithmic scale).",
    f"Bit depth, warnings of the reader: fewer than {RARE:.0%} of the training images have them.",
    "Pattern: a thumbnail of 16 x 16 pixels correlates with the mean of the training images by "
    f"{plausibility.MARGIN} less than 99 % of the training images do. Orientation: it correlates better when it is "
    f"inverted or rotated, by {plausibility.MARGIN} more than 99 % of the training images would.",
)
"""When an image is unlike the training images, in words."""


@dataclass(frozen=True)
class Property:
    """A property of an image.

    Attributes:
        words: Its name in tables.
        low: What is said of an image below the range.
        high: What is said of an image above it.
        form: How a value is written.
        margin: The least distance outside the 1 % to 99 % range that counts, where all training images are alike.
        ratio: Whether values are compared by their logarithms.
    """

    words: str
    low: str
    high: str
    form: str
    margin: float
    ratio: bool = False

    def scale(self, value: float) -> float:
        """A value on the scale on which distances are compared."""
        return math.log(max(value, 1e-9)) if self.ratio else value

    def unscale(self, value: float) -> float:
        """The value at a point of that scale."""
        return math.exp(value) if self.ratio else value


PROPERTIES = {
    "shorter_side": Property("shorter side (pixels)", "small", "large", "{:.0f}", math.log(1.1), ratio=True),
    "aspect_ratio": Property("width / height", "narrow", "wide", "{:.2f}", math.log(1.05), ratio=True),
    "grey_mean": Property("mean grey value", "dark", "bright", "{:.2f}", 0.02),
    "grey_sd": Property("contrast (SD of grey values)", "low contrast", "high contrast", "{:.2f}", 0.02),
    "grey_p05": Property("dark parts (5 % quantile)", "dark parts too dark", "dark parts too bright", "{:.2f}", 0.02),
    "grey_p95": Property(
        "bright parts (95 % quantile)", "bright parts too dark", "bright parts too bright", "{:.2f}", 0.02
    ),
    "lung_area": Property("lungs (share of the image)", "lungs too small", "lungs too large", "{:.2f}", 0.02),
}
"""Column of `*.images.csv` to the property. Grey values are from 0, black, to 1, as the network sees the image."""

KEY = "training"
"""The entry of the input statistics in `model.json` with the summary of the training images."""

SIZE = ("width", "height")
BITS, CORRELATION, UNLIKE = "bits", "correlation", "unlike"
REMARKS, GAIN = "remarks", "gain"
"""Entries of a summary: warnings, and by how much an image correlates more in its best other orientation."""

COLUMNS = (*SIZE, *(name for name in PROPERTIES if name != "shorter_side"), BITS, CORRELATION, UNLIKE)
"""Of `*.images.csv`; the shorter side follows from the size."""


def measure(
    pixels: np.ndarray, height: float | None, width: float | None, lung_area: float | None = None
) -> dict[str, float]:
    """The properties of an image that are known.

    Args:
        pixels: The image as the network sees it, (S, S) or (S, S, 3), uint8 or uint16.
        height: Of the image before it was fitted to the network, in pixels.
        width: Likewise.
        lung_area: The share of the image that its lung mask covers.
    """
    white = float(np.iinfo(pixels.dtype).max)
    grey = as_grey(pixels)
    mean, spread = (float(value[0, 0]) / white for value in cv2.meanStdDev(grey))
    # By counts of the grey values, which is ten times as fast as sorting them.
    counts = cv2.calcHist([grey], [0], None, [int(white) + 1], [0, white + 1]).ravel().cumsum(dtype=np.float64)
    dark, bright = (float(np.searchsorted(counts, share * grey.size)) / white for share in (0.05, 0.95))
    found: dict[str, float] = {"grey_mean": mean, "grey_sd": spread, "grey_p05": dark, "grey_p95": bright}
    if height and width:
        found |= {"shorter_side": min(height, width), "aspect_ratio": width / height}
    return found | ({} if lung_area is None else {"lung_area": lung_area})


def of_row(pixels: np.ndarray, row: Mapping[str, str]) -> dict[str, float]:
    """The properties of an image whose size and share of lungs are those of its row of a manifest, where known."""
    height, width, lung_area = (_number(row.get(name, "")) for name in ("height", "width", "mask_area"))
    return measure(pixels, height, width, lung_area)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def bits_of(pixels: np.ndarray) -> int:
    """8 or 16: the depth of an image, also where it was widened to 16 bits by a factor of 257."""
    return 16 if pixels.dtype == np.uint16 and bool((pixels % 257).any()) else 8


_OF_ANOTHER = re.compile("near-duplicate of|same pixels as")
"""How the warnings start that compare an image with another."""


def remarks_of(warning: str) -> list[str]:
    """The kinds of warnings of a cell, without numbers; without those of the plausibility check and of other images.

    >>> remarks_of("very low contrast: grey values from 3 to 9 of 255; colour image, converted to grey")
    ['very low contrast', 'colour image, converted to grey']
    >>> remarks_of("out of range: the image is blank")
    []
    """
    kinds = (re.sub(r"-?\d[\d.,e+-]*", "…", re.split(r"[:(]", part)[0]).strip() for part in warning.split(";"))
    return [kind for kind in kinds if kind and kind != plausibility.OUT_OF_RANGE and not _OF_ANOTHER.match(kind)]


def fit(images: Iterable[tuple[np.ndarray, Mapping[str, str]]]) -> dict[str, Any]:
    """The input statistics of a model for `model.json`: those of `plausibility.fit`, and a summary of its images.

    The images are read one by one; a thumbnail and a few numbers are kept of each.

    Args:
        images: The training images as the network sees them, each with its row of a manifest.

    Returns:
        The entry `training` has quantiles of each property, and the shares of bit depths and of warnings.
    """
    thumbnails: list[np.ndarray] = []
    values: dict[str, list[float]] = {}
    depths: Counter[str] = Counter()
    remarks: Counter[str] = Counter()
    for pixels, row in images:
        thumbnails.append(plausibility.thumbnail(pixels))
        for name, value in of_row(pixels, row).items():
            values.setdefault(name, []).append(value)
        depths[str(bits_of(pixels))] += 1
        remarks.update(set(remarks_of(row.get("warning", ""))))
    number, usual = len(thumbnails), plausibility.fit(np.stack(thumbnails))
    values[CORRELATION] = [plausibility.correlate(small, usual) for small in thumbnails]
    values[GAIN] = [
        plausibility.reoriented(small, usual)[1] - upright
        for small, upright in zip(thumbnails, values[CORRELATION], strict=True)
    ]
    quantiles = {
        name: [float(f"{value:.5g}") for value in np.quantile(column, QUANTILES)]
        for name, column in values.items()
        # A property that only some images have is not compared.
        if len(column) == number
    }
    shares = {
        key: {name: round(count / number, 5) for name, count in sorted(counts.items())}
        for key, counts in ((BITS, depths), (REMARKS, remarks))
    }
    return {**usual, KEY: {"images": number, "quantiles": quantiles, **shares}}


def merge(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary for several models of one run: the widest ranges, mean medians, the largest shares.

    What belongs to the mean training image is that of the first model, with whose image the pattern is compared.
    """
    names = [name for name in summaries[0]["quantiles"] if all(name in one["quantiles"] for one in summaries)]
    quantiles = {}
    for name in names:
        table = np.array([one["quantiles"][name] for one in summaries])
        ends = np.where(np.array(QUANTILES) < 0.5, table.min(0), table.max(0))
        ends[MIDDLE] = table[:, MIDDLE].mean()
        quantiles[name] = [float(f"{value:.5g}") for value in ends]
    shares = {
        key: {
            name: max(one[key].get(name, 0.0) for one in summaries)
            for name in sorted({name for one in summaries for name in one[key]})
        }
        for key in (BITS, REMARKS)
    }
    quantiles |= {name: summaries[0]["quantiles"][name] for name in (CORRELATION, GAIN)}
    return {"images": max(one["images"] for one in summaries), "quantiles": quantiles, **shares}


BLANK, OTHER = "blank or without structure", "another kind of image, or another view"


@dataclass(frozen=True)
class Deviation:
    """One way in which an image differs from the training images; `kind` groups images, `text` is of this one."""

    kind: str
    text: str


def limits(name: str, quantiles: Sequence[float]) -> tuple[float, float]:
    """The values outside of which an image is unlike the training images, by the quantiles of a summary."""
    known = PROPERTIES[name]
    low, high = known.scale(quantiles[LOW]), known.scale(quantiles[HIGH])
    margin = max(WIDEN * (high - low), known.margin)
    return known.unscale(low - margin), known.unscale(high + margin)


def deviations(values: Mapping[str, float], bits: int, warning: str, training: Mapping[str, Any]) -> list[Deviation]:
    """In what an image differs from the training images.

    Args:
        values: From `measure`.
        bits: From `bits_of`.
        warning: The warnings of the image.
        training: From `Summary.as_json`.
    """
    found = []
    for name, quantiles in training["quantiles"].items():
        if name not in values or name not in PROPERTIES:
            continue
        known, value = PROPERTIES[name], values[name]
        low, high = limits(name, quantiles)
        if low <= value <= high:
            continue
        word = known.low if value < low else known.high
        span = f"{known.form.format(quantiles[LOW])} to {known.form.format(quantiles[HIGH])}"
        found.append(Deviation(word, f"{word}: {known.words} {known.form.format(value)}, training {span}"))
    for kind, share in [(f"{bits} bits", training[BITS].get(str(bits), 0.0))] + [
        (kind, training[REMARKS].get(kind, 0.0)) for kind in remarks_of(warning)
    ]:
        if share < RARE:
            number = training["images"]
            found.append(Deviation(kind, f"{kind}: {round(share * number)} of {number} training images"))
    return found


def strange(
    pixels: np.ndarray, usual: Mapping[str, Any] | None, training: Mapping[str, Any] | None
) -> tuple[float | None, Deviation | None]:
    """The correlation of an image with the mean training image, and how its pattern differs if it is unlike.

    `usual` and `training` are as for `describe`.
    """
    small = plausibility.thumbnail(pixels)
    if not small.any():
        return None, Deviation(BLANK, f"{BLANK}: its thumbnail has no contrast")
    if usual is None:
        return None, None
    correlation = plausibility.correlate(small, usual)
    text = f"correlation with the mean training image {correlation:.2f}"
    if training:
        turned, best = plausibility.reoriented(small, usual)
        gains, known = training["quantiles"][GAIN], training["quantiles"][CORRELATION]
        if best - correlation > gains[HIGH] + plausibility.MARGIN and best >= known[LIKE]:
            return correlation, Deviation(f"perhaps {turned}", f"perhaps {turned}: {text}, otherwise {best:.2f}")
    if correlation >= usual["least_correlation"]:
        return correlation, None
    return correlation, Deviation(OTHER, f"{OTHER}: {text}, training at least {usual['least_correlation']:.2f}")


def of_models(known: Iterable[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The summary of the training images of several models; None where a model, of an earlier cxrtool, has none."""
    found = [usual.get(KEY) if usual else None for usual in known]
    summaries = [one for one in found if one]
    return merge(summaries) if summaries and len(summaries) == len(found) else None


def describe(
    pixels: np.ndarray, row: Mapping[str, str], usual: Mapping[str, Any] | None, training: Mapping[str, Any] | None
) -> dict[str, str]:
    """The properties of an image, and in what it is unlike the training images, as cells of `COLUMNS`.

    Args:
        pixels: The image as the network sees it.
        row: With its height, width, lungs (`mask_area`) and warnings, where known.
        usual: The input statistics of the model.
        training: From `of_models`; None where nothing is known of the training images.
    """
    values, bits, warning = of_row(pixels, row), bits_of(pixels), row.get("warning", "")
    correlation, odd = strange(pixels, usual, training)
    found = [odd] if odd else []
    found += deviations(values, bits, warning, training) if training else []
    return {
        **{name: row.get(name, "") for name in SIZE},
        **{name: f"{values[name]:.4f}" if name in values else "" for name in PROPERTIES if name != "shorter_side"},
        BITS: str(bits),
        CORRELATION: "" if correlation is None else f"{correlation:.4f}",
        UNLIKE: "; ".join(one.text for one in found),
    }


def value_of(cells: Mapping[str, str], name: str) -> float | None:
    """The value of a property of `PROPERTIES` in a row of `*.images.csv`; None where it is not known."""
    if name != "shorter_side":
        return _number(cells.get(name, ""))
    sides = [_number(cells.get(side, "")) for side in SIZE]
    return min(side for side in sides if side is not None) if None not in sides else None


def kinds_of(cell: str) -> list[str]:
    """The kinds of deviations in a cell of the column `unlike`.

    >>> kinds_of("small: shorter side (pixels) 64, training 253 to 768; dark: mean grey value 0.1, training 0.3 to 0.6")
    ['small', 'dark']
    """
    return [part.split(": ")[0] for part in cell.split("; ") if part]
