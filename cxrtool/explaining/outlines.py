"""Contact sheets of masks: images with the outlines of the mask and of a reference mask."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxrtool.explaining.overlay import DIM, GAP, INK, LINE, OUTLINE, Picture, eight_bit
from cxrtool.imaging.sheet import fitting, font

TILE, COLUMNS = 256, 6
REFERENCE = (255, 150, 40)
SUPERSAMPLED = 2
"""Outlines are traced at this multiple of the size of a tile."""


@dataclass
class Outlined:
    """One image with its masks.

    Attributes:
        pixels: Grey values (h, w), uint8 or uint16, at most of the size of a tile.
        found: (h', w') of the same aspect ratio, above 0 inside.
        reference: Another such mask, or None.
        caption: Lines of text; long ones are wrapped.
    """

    pixels: NDArray[Any]
    found: NDArray[np.uint8]
    reference: NDArray[np.uint8] | None
    caption: Sequence[str]


def thumbnail(pixels: NDArray[Any], *, mask: bool = False) -> NDArray[Any]:
    """An image or a mask resized to a tile, for an `Outlined`; masks keep more detail."""
    side = TILE * (SUPERSAMPLED if mask else 1)
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


def draw_sheet(shown: Sequence[Outlined], title: str) -> Picture:
    """Many images with their outlines, in rows, with captions below and a title that explains the colours."""
    columns = max(2, min(COLUMNS, len(shown)))
    rows = [_Row(shown[start : start + columns]) for start in range(0, len(shown), columns)]
    head = 2 * LINE + GAP
    canvas = Image.new("RGB", (columns * (TILE + GAP) + GAP, head + sum(row.height for row in rows)), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), fitting(title, 15, canvas.width - 2 * GAP), INK, font(15))
    top = head
    for row in rows:
        for index, (one, lines) in enumerate(zip(row.shown, row.lines, strict=True)):
            tile, left = draw_tile(one), GAP + index * (TILE + GAP)
            height, width = tile.shape[:2]
            canvas.paste(Image.fromarray(tile), (left + (TILE - width) // 2, top + row.side - height))
            for number, text in enumerate(lines):
                corner = left, top + row.side + 2 + number * LINE
                draw.text(corner, fitting(text, 12, TILE), INK if number == 0 else DIM, font(12))
        top += row.height
    return np.asarray(canvas)


class _Row:
    """A row of tiles, with the lines of their captions and its height."""

    def __init__(self, shown: Sequence[Outlined]) -> None:
        self.shown = shown
        self.lines = [
            [line for text in one.caption for line in textwrap.wrap(text, 36, max_lines=3, placeholder=" …")]
            for one in shown
        ]
        self.side = max(one.pixels.shape[0] for one in shown)
        self.height = self.side + max(map(len, self.lines)) * LINE + 2 * GAP
