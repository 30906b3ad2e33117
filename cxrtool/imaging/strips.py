"""Images in rows and columns with titles: the result of each step for a few images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxrtool.imaging.sheet import DIM, GAP, INK, LINE, fitting, font

SIDE = 300
"""The longer side of each image in pixels."""

Grey = NDArray[np.uint8]


def draw_strips(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[Grey]]]) -> Grey:
    """Arrange rows of images under the titles of their columns.

    Args:
        titles: One for each column.
        rows: For each row a caption and its images (h, w), no side above `SIDE`.

    Returns:
        (H, W).
    """
    width = GAP + len(titles) * (SIDE + GAP)
    heights = [LINE + max(picture.shape[0] for picture in pictures) + GAP for _, pictures in rows]
    canvas = Image.new("L", (width, 2 * GAP + LINE + sum(heights)), "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        x = GAP + column * (SIDE + GAP) + SIDE // 2
        draw.text((x, GAP), fitting(title, 14, SIDE), INK[0], font(14), "ma")
    top = 2 * GAP + LINE
    for (caption, pictures), height in zip(rows, heights, strict=True):
        draw.text((GAP, top), fitting(caption, 12, width - 2 * GAP), DIM[0], font(12))
        for column, picture in enumerate(pictures):
            x = GAP + column * (SIDE + GAP) + (SIDE - picture.shape[1]) // 2
            canvas.paste(Image.fromarray(picture), (x, top + LINE))
        top += height
    return np.asarray(canvas)
