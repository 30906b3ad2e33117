"""Mask files of data sets: one file, or one for each lung; unlike radiographs, masks may be GIFs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.reading.images import MAX_PIXELS, read_image
from cxrtool.data.reading.radiograph import check_size
from cxrtool.errors import ImageError

GIF = b"GIF8"
_LABELS = 32
"""Most values of a map of labels."""

_LARGEST = 1 << 26
"""Largest size of a GIF in bytes."""


def read_mask(paths: Sequence[Path | str], *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a mask from one file, or join several files: 0 and 255, (height, width).

    A pixel is inside when it is above half of the file's highest value, so that masks of 0 and 1 and masks with soft
    edges are read correctly; in a map of labels (1 right lung, 2 left lung) every label is inside. A file of zeros is
    an empty mask.

    Raises:
        ImageError: A file cannot be read, or the files differ in size.
    """
    joined: NDArray[np.uint8] | None = None
    for path in map(Path, paths):
        try:
            if _is_gif(path):
                pixels = _read_gif(path, max_pixels)
            else:
                pixels = read_image(path, max_pixels=max_pixels, capture_decoder_errors=True).pixels
        except ImageError as error:
            raise ImageError(f"{path.name}: {error.message}" if len(paths) > 1 else error.message) from error
        lowest = 0 if _has_labels(pixels) else pixels.max() / 2
        mask = np.asarray((pixels > lowest) * np.uint8(255), np.uint8)
        if joined is not None and joined.shape != mask.shape:
            sizes = " and ".join(f"{shape[1]} x {shape[0]}" for shape in (joined.shape, mask.shape))
            raise ImageError(f"{path.name}: its parts are of different sizes, {sizes}")
        joined = mask if joined is None else np.asarray(joined | mask, np.uint8)
    if joined is None:
        raise ImageError("it has no files")
    return joined


def _has_labels(pixels: NDArray[Any]) -> bool:
    """Whether a mask (height, width) names regions by numbers, some of them at most half of the highest.

    Soft edges have such values too, in lines between inside and outside, and compression leaves many; a region has few,
    and lies around most of its own pixels.
    """
    import cv2

    values = np.flatnonzero(cv2.calcHist([pixels], [0], None, [1 << 16], [0, 1 << 16]))
    highest = int(values[-1])
    lower = [int(v) for v in values if max(1, highest / 16) <= v <= highest / 2]
    if not lower or values[0] != 0 or len(values) > _LABELS:
        return False
    # Beyond the edge of the image a region goes on.
    square = np.ones((3, 3), np.uint8)
    inner = (cv2.erode(pixels, square) == pixels) & (cv2.dilate(pixels, square) == pixels)
    return any(bool(inner[pixels == value].mean() > 0.5) for value in lower)


def _is_gif(path: Path) -> bool:
    # The reader of images reports a folder, a pipe or a missing file.
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == GIF


def _read_gif(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    from PIL import Image

    data = path.read_bytes()
    if len(data) > _LARGEST:
        raise ImageError(f"a GIF of {len(data):,} bytes is too large for a mask")
    try:
        with Image.open(io.BytesIO(data), formats=["GIF"]) as picture:
            check_size(*picture.size, 1, max_pixels)
            if getattr(picture, "n_frames", 1) > 1:
                raise ImageError("expected one image, found an animated GIF")
            return np.asarray(picture.convert("L"))
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise ImageError(f"the GIF cannot be decoded: {error}") from error
