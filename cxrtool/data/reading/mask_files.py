"""Masks as data sets keep them: one file, or one for each lung, and among them GIFs, which no radiograph is."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.reading.images import MAX_PIXELS, read_image
from cxrtool.data.reading.radiograph import check_size
from cxrtool.errors import ImageError

GIF = b"GIF8"
_LARGEST = 1 << 26
"""Bytes of a GIF that are read at most."""


def read_mask(paths: Sequence[Path | str], *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a mask from one file or from several that are joined: 0 and 255, (height, width).

    A pixel belongs to a file's mask when it is above half of that file's highest value, so that masks of 0 and 1 and
    masks with soft edges mean what they show. A file of zeros is an empty mask.

    Raises:
        ImageError: A file cannot be read, or the files differ in size.
    """
    joined: NDArray[np.uint8] | None = None
    for path in map(Path, paths):
        try:
            pixels = _read_gif(path, max_pixels) if _is_gif(path) else read_image(
                path, max_pixels=max_pixels, capture_decoder_errors=True).pixels  # fmt: skip
        except ImageError as error:
            raise ImageError(f"{path.name}: {error.message}" if len(paths) > 1 else error.message) from error
        mask = np.asarray((pixels > pixels.max() / 2) * np.uint8(255), np.uint8)
        if joined is not None and joined.shape != mask.shape:
            sizes = " and ".join(f"{shape[1]} x {shape[0]}" for shape in (joined.shape, mask.shape))
            raise ImageError(f"{path.name}: its parts are of different sizes, {sizes}")
        joined = mask if joined is None else np.asarray(joined | mask, np.uint8)
    if joined is None:
        raise ImageError("it has no file")
    return joined


def _is_gif(path: Path) -> bool:
    # A folder, a pipe or a missing file is told by the reader of images.
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == GIF


def _read_gif(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    from PIL import Image

    data = path.read_bytes()
    if len(data) > _LARGEST:
        raise ImageError(f"a GIF of {len(data):,} bytes is no mask")
    try:
        with Image.open(io.BytesIO(data), formats=["GIF"]) as picture:
            check_size(*picture.size, 1, max_pixels)
            if getattr(picture, "n_frames", 1) > 1:
                raise ImageError("expected one picture, found an animated GIF")
            return np.asarray(picture.convert("L"))
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise ImageError(f"the GIF cannot be decoded: {error}") from error
