"""What is drawn on radiographs: heatmaps beside the image, with their colour scale, outlines of masks, contact sheets.

A map is opaque where it is high and transparent where it is low, so that unmarked regions stay a radiograph. The
colours are matplotlib's `inferno`, whose lightness grows uniformly, so that it can be read with any kind of colour
vision and in black and white (van der Walt & Smith 2015).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxrtool.data.confinement import check_inside
from cxrtool.errors import OutputError
from cxrtool.imaging.sheet import fitting, font

Picture = NDArray[np.uint8]
"""(h, w, 3), red first."""

COLOURS = "inferno"
STRONGEST = 0.7
"""Opacity of the highest value."""

SMALLEST = 384
"""The longer side, in pixels, to which a smaller image is enlarged, so that its caption fits."""

TILE, COLUMNS = 208, 4
OUTLINED_TILE, OUTLINED_COLUMNS = 256, 6
SEAM = 2
GAP = 8
LINE = 18
OUTLINE, REFERENCE = (110, 215, 255), (255, 150, 40)
POINTED = (120, 255, 120)
"""The outline of the reference of a heatmap: a colour that neither the map nor the outline of the lungs has."""

PEAK = (255, 255, 255)
INK, DIM = (30, 30, 30), (110, 110, 110)

SUPERSAMPLED = 2
"""Outlines of masks are traced at this multiple of the size of a tile."""


@dataclass
class Layer:
    """A map to be drawn over an image: (h, w) in [0, 1], and its peak as shares of width and height, or None."""

    values: NDArray[np.float32]
    peak: tuple[float, float] | None = None


@dataclass
class Exhibit:
    """One image with its map, or with several side by side.

    Attributes:
        pixels: Grey values (h, w), uint8 or uint16, at the size of the map.
        values: (h, w) in [0, 1].
        mask: (h, w), above 0 inside, whose outline is drawn.
        peak: x and y of the highest value, as shares of width and height.
        caption: Lines of text; the last one may be a warning.
        others: Further maps of the same image.
        titles: Title of each map of a large overlay, where there are several.
        references: (h, w), above 0 inside, whose outlines are drawn in another colour, also on the image itself.
    """

    pixels: NDArray[Any]
    values: NDArray[np.float32]
    mask: NDArray[np.uint8] | None = None
    peak: tuple[float, float] | None = None
    caption: Sequence[str] = ()
    others: Sequence[Layer] = ()
    titles: Sequence[str] = ()
    references: Sequence[NDArray[np.uint8]] = ()


@dataclass
class Outlined:
    """One image (h, w), uint8 or uint16, at most of the size of a tile, with masks (h', w') of its aspect ratio.

    Masks are above 0 inside. Long lines of the caption are wrapped.
    """

    pixels: NDArray[Any]
    found: NDArray[np.uint8]
    reference: NDArray[np.uint8] | None
    caption: Sequence[str]


@cache
def table() -> NDArray[np.uint8]:
    """The colours of 256 values from 0 to 1, (256, 3), red first."""
    from matplotlib import colormaps

    colours: NDArray[np.uint8] = np.asarray(colormaps[COLOURS](np.arange(256), bytes=True)[:, :3])
    return colours


def blend(pixels: NDArray[Any], values: NDArray[np.float32]) -> Picture:
    """Draw a map (h, w) in [0, 1] over grey values (h, w); where it is 0 the grey values do not change."""
    grey = eight_bit(pixels)[..., None].astype(np.float32)
    colour = table()[np.rint(values * 255).astype(np.uint8)].astype(np.float32)
    cover = (STRONGEST * np.sqrt(values))[..., None]
    return np.asarray(np.rint(grey * (1 - cover) + colour * cover), np.uint8)


def draw_overlay(exhibit: Exhibit, highest: float | None) -> Picture:
    """The image beside its overlays and the colour scale, with a caption above.

    The scale is labelled with `highest`, the raw value of the last colour; None where each map has its own.
    """
    panels = _panels(exhibit, SMALLEST)
    height, width = panels[0].shape[:2]
    count = len(panels)
    head = LINE * (len(exhibit.caption) + bool(exhibit.titles)) + GAP
    bar = 14
    room = bar + GAP + 64
    canvas = Image.new("RGB", (count * width + room + (count + 2) * GAP, head + height + 2 * GAP), "white")
    draw = ImageDraw.Draw(canvas)
    _write(draw, exhibit.caption, (GAP, GAP), 13, canvas.width - 2 * GAP)
    top = head + GAP
    for column, panel in enumerate(panels):
        canvas.paste(Image.fromarray(panel), (GAP + column * (width + GAP), top))
    for column, text in enumerate(exhibit.titles, 1):
        draw.text((GAP + column * (width + GAP), top - 4), fitting(text, 13, width), INK, font(13), "ls")
    colours = np.repeat(table()[np.linspace(255, 0, height).round().astype(int)][:, None], bar, 1)
    x = count * width + (count + 1) * GAP
    canvas.paste(Image.fromarray(np.ascontiguousarray(colours)), (x, top))
    for value, anchor, word in ((1.0, "lt", "highest"), (0.5, "lm", "half"), (0.0, "lb", "0")):
        y = top + round((1 - value) * (height - 1))
        draw.line([(x + bar, y), (x + bar + 4, y)], INK)
        draw.text((x + bar + GAP, y), word if highest is None else f"{value * highest:.3g}", DIM, font(12), anchor)
    return np.asarray(canvas)


def draw_sheet(exhibits: Sequence[Exhibit], title: str) -> Picture:
    """Many images, each beside its overlays, in rows."""
    panels = 2 + max(len(exhibit.others) for exhibit in exhibits)
    columns = min(2 * COLUMNS // panels, len(exhibits))
    cell = panels * TILE + 2 * GAP
    lines = max(len(exhibit.caption) for exhibit in exhibits)
    step = TILE + lines * LINE + GAP
    rows = math.ceil(len(exhibits) / columns)
    canvas, draw = _titled(title, max(columns * cell + GAP, 640), LINE * 2 + GAP + rows * step)
    for index, exhibit in enumerate(exhibits):
        x, y = GAP + index % columns * cell, LINE * 2 + index // columns * step
        for side, picture in enumerate(_panels(exhibit, TILE, exact=True)):
            height, width = picture.shape[:2]
            offset = x + side * (TILE + SEAM) + (TILE - width) // 2, y + (TILE - height) // 2
            canvas.paste(Image.fromarray(picture), offset)
        _write(draw, exhibit.caption, (x, y + TILE + 2), 12, cell - GAP)
    return np.asarray(canvas)


def thumbnail(pixels: NDArray[Any], *, mask: bool = False) -> NDArray[Any]:
    """An image or a mask resized to a tile, for an `Outlined`; masks keep more detail."""
    side = OUTLINED_TILE * (SUPERSAMPLED if mask else 1)
    factor = side / max(pixels.shape)
    size = tuple(max(1, round(length * factor)) for length in pixels.shape[::-1])
    how = cv2.INTER_NEAREST if mask else cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=how))


def draw_tile(outlined: Outlined) -> Picture:
    """The image with its outlines: first that of the reference, over it that of the mask."""
    height, width = outlined.pixels.shape
    tile = np.repeat(eight_bit(outlined.pixels)[..., None], 3, 2)
    for mask, colour in ((outlined.reference, REFERENCE), (outlined.found, OUTLINE)):
        if mask is None:
            continue
        outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        scale = np.array([width / mask.shape[1], height / mask.shape[0]])
        # In sixteenths of a pixel, for anti-aliasing in OpenCV, where integers are the centres of pixels.
        fine = [np.rint(((one + 0.5) * scale - 0.5) * 16).astype(np.int32) for one in outlines]
        cv2.polylines(tile, fine, isClosed=True, color=colour, thickness=1, lineType=cv2.LINE_AA, shift=4)
    return tile


def draw_outlines(shown: Sequence[Outlined], title: str) -> Picture:
    """Many images with their outlines, in rows, with captions below and a title that explains the colours."""
    columns = max(2, min(OUTLINED_COLUMNS, len(shown)))
    head, cell = 2 * LINE + GAP, OUTLINED_TILE + GAP
    lines = [
        [line for text in one.caption for line in textwrap.wrap(text, 36, max_lines=3, placeholder=" …")]
        for one in shown
    ]
    rows = [range(start, min(start + columns, len(shown))) for start in range(0, len(shown), columns)]
    sides = [max(shown[index].pixels.shape[0] for index in row) for row in rows]
    below = [max(len(lines[index]) for index in row) * LINE + 2 * GAP for row in rows]
    canvas, draw = _titled(title, columns * cell + GAP, head + sum(sides) + sum(below))
    bottom = head
    for row, side, room in zip(rows, sides, below, strict=True):
        bottom += side
        for column, index in enumerate(row):
            tile, left = draw_tile(shown[index]), GAP + column * cell
            height, width = tile.shape[:2]
            canvas.paste(Image.fromarray(tile), (left + (OUTLINED_TILE - width) // 2, bottom - height))
            _write(draw, lines[index], (left, bottom + 2), 12, OUTLINED_TILE)
        bottom += room
    return np.asarray(canvas)


def write_picture(path: Path, picture: Picture) -> int:
    """Write a picture as PNG and return the number of bytes; an `OutputError` if it cannot be encoded or is outside."""
    check_inside(path)
    done, data = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise OutputError(f"cannot encode {path} as PNG")
    with open(path, "wb") as file:  # noqa: PTH123
        return file.write(data.data)


def _panels(exhibit: Exhibit, side: int, *, exact: bool = False) -> list[Picture]:
    """The image and its overlays; enlarged to `side` where they are smaller, or resized to it exactly."""
    height, width = exhibit.pixels.shape
    factor = side / max(height, width)
    layers = [Layer(exhibit.values, exhibit.peak), *exhibit.others]
    pixels = exhibit.pixels
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
    plain = np.repeat(eight_bit(pixels)[..., None], 3, 2)
    pointed = [(reference, POINTED) for reference in exhibit.references]
    for mask, colour in pointed:
        _outline(plain, mask, colour)
    outlines = [*([(exhibit.mask, OUTLINE)] if exhibit.mask is not None else []), *pointed]
    return [plain, *(_overlay(pixels, layer, outlines) for layer in layers)]


def _outline(drawn: Picture, mask: NDArray[np.uint8], colour: tuple[int, int, int]) -> None:
    size = drawn.shape[1::-1]
    inside = (mask if mask.shape == drawn.shape[:2] else cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)) > 0
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, colour, 1, cv2.LINE_AA)


def _overlay(
    pixels: NDArray[Any], layer: Layer, outlines: Sequence[tuple[NDArray[np.uint8], tuple[int, int, int]]]
) -> Picture:
    drawn = blend(pixels, layer.values)
    for mask, colour in outlines:
        _outline(drawn, mask, colour)
    if layer.peak is not None:
        centre = round(layer.peak[0] * drawn.shape[1]), round(layer.peak[1] * drawn.shape[0])
        cv2.drawMarker(drawn, centre, (0, 0, 0), cv2.MARKER_CROSS, 13, 3)
        cv2.drawMarker(drawn, centre, PEAK, cv2.MARKER_CROSS, 11, 1)
    return drawn


def eight_bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values for display: the upper 8 of 16 bits; 8 bits unchanged."""
    return np.asarray(pixels >> 8 if pixels.dtype == np.uint16 else pixels, np.uint8)


def _titled(title: str, width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), fitting(title, 15, width - 2 * GAP), INK, font(15))
    return canvas, draw


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[str], corner: tuple[int, int], size: int, width: int) -> None:
    x, y = corner
    for number, text in enumerate(lines):
        draw.text((x, y + number * LINE), fitting(text, size, width), INK if number == 0 else DIM, font(size))
