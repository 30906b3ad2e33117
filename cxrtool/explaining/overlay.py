"""Heatmaps for the eye: the picture beside the picture with its map, with the scale of the colours; and contact sheets.

The map is laid on with its colour where it is high and lets the picture through where it is low, so that what it does
not mark stays a radiograph. The colours are matplotlib's `inferno`, whose lightness grows evenly, which people with any
kind of colour vision, and a black and white print, can read (van der Walt & Smith 2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxrtool.errors import OutputError
from cxrtool.imaging.sheet import fitting, font

Picture = NDArray[np.uint8]
"""(h, w, 3), red first."""

COLOURS = "inferno"
STRONGEST = 0.7
"""How much of the picture the highest value covers."""

SMALLEST = 384
"""The longer side, in pixels, to which a smaller picture is enlarged, so that its caption has room."""

TILE = 208
SEAM = 2
COLUMNS = 4
GAP = 8
LINE = 18
OUTLINE = (110, 215, 255)
PEAK = (255, 255, 255)
INK, DIM = (30, 30, 30), (110, 110, 110)


@dataclass
class Layer:
    """A map to be laid on a picture: (h, w) in [0, 1], and its peak as shares of width and height, or None."""

    values: NDArray[np.float32]
    peak: tuple[float, float] | None = None


@dataclass
class Exhibit:
    """One picture with its map, or with several side by side.

    Attributes:
        pixels: Grey values (h, w), uint8 or uint16, at the map's size.
        values: (h, w) in [0, 1].
        mask: (h, w), above 0 inside, whose outline is drawn; None draws none.
        peak: x and y of the map's largest value, as shares of width and height; None draws none.
        caption: Lines of text; the last one may say what is wrong with the map.
        others: Further maps of the same picture.
        titles: What to write above each map of a large overlay, where there are several.
    """

    pixels: NDArray[Any]
    values: NDArray[np.float32]
    mask: NDArray[np.uint8] | None = None
    peak: tuple[float, float] | None = None
    caption: Sequence[str] = ()
    others: Sequence[Layer] = ()
    titles: Sequence[str] = ()


@cache
def table() -> NDArray[np.uint8]:
    """The colours of 256 values from 0 to 1, (256, 3), red first."""
    from matplotlib import colormaps

    colours: NDArray[np.uint8] = np.asarray(colormaps[COLOURS](np.arange(256), bytes=True)[:, :3])
    return colours


def blend(pixels: NDArray[Any], values: NDArray[np.float32]) -> Picture:
    """Lay a map (h, w) in [0, 1] on grey values (h, w).

    A map that is 0 everywhere gives the picture back, in grey.
    """
    grey = eight_bit(pixels)[..., None].astype(np.float32)
    colour = table()[np.rint(values * 255).astype(np.uint8)].astype(np.float32)
    cover = (STRONGEST * np.sqrt(values))[..., None]
    return np.asarray(np.rint(grey * (1 - cover) + colour * cover), np.uint8)


def draw_overlay(exhibit: Exhibit, highest: float | None) -> Picture:
    """The picture beside its overlays and the scale, with a caption above.

    Args:
        exhibit: What to show.
        highest: The raw value that has the last colour, written at the scale; None where each map has its own.
    """
    panels = _panels(exhibit, SMALLEST)
    height, width = panels[0].shape[:2]
    count = len(panels)
    head = LINE * (len(exhibit.caption) + bool(exhibit.titles)) + GAP
    bar = 14
    room = bar + GAP + 64
    canvas = Image.new("RGB", (count * width + room + (count + 2) * GAP, head + height + 2 * GAP), "white")
    draw = ImageDraw.Draw(canvas)
    _write(draw, exhibit.caption, canvas.width - 2 * GAP)
    top = head + GAP
    for place, panel in enumerate(panels):
        canvas.paste(Image.fromarray(panel), (GAP + place * (width + GAP), top))
    for place, text in enumerate(exhibit.titles):
        draw.text((GAP + (place + 1) * (width + GAP), top - 4), fitting(text, 13, width), INK, font(13), "ls")
    colours = np.repeat(table()[np.linspace(255, 0, height).round().astype(int)][:, None], bar, 1)
    x = count * width + (count + 1) * GAP
    canvas.paste(Image.fromarray(np.ascontiguousarray(colours)), (x, top))
    for value, anchor, word in ((1.0, "lt", "highest"), (0.5, "lm", "half"), (0.0, "lb", "0")):
        y = top + round((1 - value) * (height - 1))
        draw.line([(x + bar, y), (x + bar + 4, y)], INK)
        draw.text((x + bar + GAP, y), word if highest is None else f"{value * highest:.3g}", DIM, font(12), anchor)
    return np.asarray(canvas)


def draw_sheet(exhibits: Sequence[Exhibit], title: str) -> Picture:
    """Many pictures, each beside its overlays, in rows."""
    panels = 2 + max(len(exhibit.others) for exhibit in exhibits)
    columns = min(2 * COLUMNS // panels, len(exhibits))
    cell = panels * TILE + 2 * GAP
    lines = max(len(exhibit.caption) for exhibit in exhibits)
    step = TILE + lines * LINE + GAP
    rows = math.ceil(len(exhibits) / columns)
    canvas = Image.new("RGB", (max(columns * cell + GAP, 640), LINE * 2 + GAP + rows * step), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), fitting(title, 15, canvas.width - 2 * GAP), INK, font(15))
    for index, exhibit in enumerate(exhibits):
        x, y = GAP + index % columns * cell, LINE * 2 + index // columns * step
        for side, picture in enumerate(_panels(exhibit, TILE, exact=True)):
            height, width = picture.shape[:2]
            offset = x + side * (TILE + SEAM) + (TILE - width) // 2, y + (TILE - height) // 2
            canvas.paste(Image.fromarray(picture), offset)
        for number, text in enumerate(exhibit.caption):
            place = x, y + TILE + 2 + number * LINE
            draw.text(place, fitting(text, 12, cell - GAP), INK if number == 0 else DIM, font(12))
    return np.asarray(canvas)


def write_picture(path: Path, picture: Picture) -> int:
    """Write it as PNG and return the number of bytes.

    Raises:
        OutputError: It cannot be encoded.
    """
    done, data = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise OutputError(f"cannot encode {path} as PNG")
    with open(path, "wb") as file:  # noqa: PTH123
        return file.write(data.data)


def _panels(exhibit: Exhibit, side: int, *, exact: bool = False) -> list[Picture]:
    """The picture and its overlays; enlarged to `side` where they are smaller, or brought to it exactly."""
    height, width = exhibit.pixels.shape
    factor = side / max(height, width)
    layers = [Layer(exhibit.values, exhibit.peak), *exhibit.others]
    pixels, mask = exhibit.pixels, exhibit.mask
    if exact or factor > 1:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, size, interpolation=how)
        layers = [
            Layer(
                np.asarray(np.clip(cv2.resize(layer.values, size, interpolation=how), 0.0, 1.0), np.float32), layer.peak
            )
            for layer in layers
        ]
        mask = None if mask is None else np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    return [np.repeat(eight_bit(pixels)[..., None], 3, 2), *(_overlay(pixels, layer, mask) for layer in layers)]


def _overlay(pixels: NDArray[Any], layer: Layer, mask: NDArray[np.uint8] | None) -> Picture:
    laid = blend(pixels, layer.values)
    if mask is not None:
        contours, _ = cv2.findContours((mask > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(laid, contours, -1, OUTLINE, 1, cv2.LINE_AA)
    if layer.peak is not None:
        place = round(layer.peak[0] * laid.shape[1]), round(layer.peak[1] * laid.shape[0])
        cv2.drawMarker(laid, place, (0, 0, 0), cv2.MARKER_CROSS, 13, 3)
        cv2.drawMarker(laid, place, PEAK, cv2.MARKER_CROSS, 11, 1)
    return laid


def eight_bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values for a screen: the upper half of 16 bits, 8 bits as they are."""
    return np.asarray(pixels >> 8 if pixels.dtype == np.uint16 else pixels, np.uint8)


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[str], width: int) -> None:
    for number, text in enumerate(lines):
        draw.text((GAP, GAP + number * LINE), fitting(text, 13, width), INK if number == 0 else DIM, font(13))
