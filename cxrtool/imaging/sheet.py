"""Contact sheets: small images with captions, images in rows and columns, and outlines of masks on radiographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cxrtool.imaging.channels import as_colour
from cxrtool.imaging.resize import Pixels

Picture = NDArray[np.uint8]
"""(h, w, 3), red first."""

Grey = NDArray[np.uint8]
"""(h, w)."""

TRUE, FOUND = (40, 210, 90), (255, 70, 60)
"""Green for the reference, red for the prediction."""

TILE, GAP, LINE = 240, 8, 17
INK, DIM = (30, 30, 30), (110, 110, 110)

SIDE = 300
"""The longer side of each image of `draw_strips`, in pixels."""


def grey_tile(pixels: Pixels, side: int = TILE) -> Picture:
    """An image (h, w) or (h, w, 3) of 8 or 16 bits, resized so that its longer side is `side`."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    small = cv2.resize(pixels, (max(1, round(width * factor)), max(1, round(height * factor))), interpolation=how)
    eight = np.asarray(np.asarray(small) // 257 if pixels.dtype == np.uint16 else small, np.uint8)
    return as_colour(eight)


def outline(tile: Picture, mask: Pixels, colour: tuple[int, int, int]) -> None:
    """Draw the outline of a mask (h, w), above 0 inside, on a tile of the same proportions."""
    small = cv2.resize((mask > 0).astype(np.uint8) * 255, tile.shape[1::-1], interpolation=cv2.INTER_AREA)
    contours, _ = cv2.findContours((small > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tile, contours, -1, colour, 1, cv2.LINE_AA)


def draw_sheet(tiles: Sequence[tuple[Picture, Sequence[str]]], title: str, columns: int = 5) -> Picture:
    """Arrange images in rows, each with lines of text below it."""
    columns = min(columns, max(1, len(tiles)))
    wide = max([TILE, *(picture.shape[1] for picture, _ in tiles)])
    high = max([1, *(picture.shape[0] for picture, _ in tiles)])
    lines = max((len(caption) for _, caption in tiles), default=0)
    cell, step = wide + GAP, high + lines * LINE + 2 * GAP
    top = 2 * LINE
    size = max(columns * cell + GAP, 480), top + math.ceil(len(tiles) / columns) * step
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), fitting(title, 14, canvas.width - 2 * GAP), INK, font(14))
    for index, (picture, caption) in enumerate(tiles):
        x, y = GAP + index % columns * cell, top + index // columns * step
        canvas.paste(Image.fromarray(picture), (x + (wide - picture.shape[1]) // 2, y + (high - picture.shape[0]) // 2))
        for number, text in enumerate(caption):
            position = x, y + high + 2 + number * LINE
            draw.text(position, fitting(text, 12, wide), INK if number == 0 else DIM, font(12))
    return np.asarray(canvas)


def draw_strips(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]]) -> NDArray[np.uint8]:
    """Arrange rows of images under the titles of their columns.

    Args:
        titles: One for each column.
        rows: For each row a caption and its images, (h, w) or (h, w, 3) with red first, no side above `SIDE`.

    Returns:
        (H, W), or (H, W, 3) where one of the images has colours.
    """
    coloured = any(picture.ndim == 3 for _, pictures in rows for picture in pictures)
    ink, dim = (INK, DIM) if coloured else (INK[0], DIM[0])
    width = GAP + len(titles) * (SIDE + GAP)
    heights = [LINE + max(picture.shape[0] for picture in pictures) + GAP for _, pictures in rows]
    canvas = Image.new("RGB" if coloured else "L", (width, 2 * GAP + LINE + sum(heights)), "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        x = GAP + column * (SIDE + GAP) + SIDE // 2
        draw.text((x, GAP), fitting(title, 14, SIDE), ink, font(14), "ma")
    top = 2 * GAP + LINE
    for (caption, pictures), height in zip(rows, heights, strict=True):
        draw.text((GAP, top), fitting(caption, 12, width - 2 * GAP), dim, font(12))
        for column, picture in enumerate(pictures):
            x = GAP + column * (SIDE + GAP) + (SIDE - picture.shape[1]) // 2
            canvas.paste(Image.fromarray(picture), (x, top + LINE))
        top += height
    return np.asarray(canvas)


def fitting(text: str, size: int, width: int) -> str:
    """The text, shortened to `width` pixels."""
    letters = font(size)
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib, so that it is the same on every machine."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
