"""Pictures as bytes for a page: as sharp as they need be, and together within a budget.

A drawing keeps its PNG, whose letters stay sharp; what a PNG holds badly, a sheet of radiographs, becomes a JPEG where
that is much smaller. Where all of them are too large together, the largest give way first.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

BUDGET = 5 * 2**20
"""Bytes of all pictures of a page before they are written as text, which takes a third more: a page under 8 MiB."""

STEPS = ((1600, 88), (1200, 82), (900, 75), (640, 65), (400, 50))
"""The widest a picture may be in pixels, and the quality of a JPEG, from the first try to the last resort."""

SMALL = 60_000
"""Bytes up to which a PNG stays as it is."""

WORTH = 0.6
"""A JPEG is taken where it needs at most this share of the bytes of the PNG."""


@dataclass(frozen=True)
class Encoded:
    """A picture for a page.

    Attributes:
        kind: `image/png` or `image/jpeg`.
        data: Its bytes.
        width: In pixels.
        height: In pixels.
    """

    kind: str
    data: bytes
    width: int
    height: int

    @property
    def url(self) -> str:
        """As the address of an `img`, which holds the picture itself."""
        return f"data:{self.kind};base64,{base64.b64encode(self.data).decode('ascii')}"


def encode_all(paths: Sequence[Path], budget: int = BUDGET) -> list[Encoded]:
    """Encode pictures so that they stay within a budget.

    Args:
        paths: PNG or JPEG files.
        budget: Bytes of all of them together; exceeded only where all are as small as they may become.

    Raises:
        InputError: One is missing or no picture.
    """
    levels = [0] * len(paths)
    found = [encode(path) for path in paths]
    while sum(len(one.data) for one in found) > budget:
        # The largest one that can still give way.
        open_ones = [place for place, level in enumerate(levels) if level + 1 < len(STEPS)]
        if not open_ones:
            break
        place = max(open_ones, key=lambda k: len(found[k].data))
        levels[place] += 1
        smaller = encode(paths[place], levels[place])
        if len(smaller.data) < len(found[place].data):
            found[place] = smaller
    return found


def encode(path: Path, level: int = 0) -> Encoded:
    """Encode one picture.

    Args:
        path: A PNG or JPEG.
        level: Index into `STEPS`.

    Raises:
        InputError: It is missing or no picture.
    """
    from PIL import Image, UnidentifiedImageError

    widest, quality = STEPS[level]
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            form = opened.format
            if form not in ("PNG", "JPEG"):
                raise InputError(f"{path}: expected a PNG or JPEG for the page, found {form}")
            picture = opened.convert("RGB" if opened.mode not in ("L", "RGB") or form == "JPEG" else opened.mode)
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path}: expected a picture for the page, found none that can be read") from error
    shrunk = picture.width > widest
    if shrunk:
        picture = picture.resize((widest, max(1, round(picture.height * widest / picture.width))), Image.Resampling.BOX
                                 if picture.width > 4 * widest else Image.Resampling.LANCZOS)  # fmt: skip
    if form == "JPEG":
        kept = data if not shrunk and level == 0 else _jpeg(picture, quality)
        return Encoded("image/jpeg", kept, *picture.size)
    png = data if not shrunk else _png(picture)
    if len(png) > SMALL:
        jpeg = _jpeg(picture, quality)
        if len(jpeg) <= WORTH * len(png):
            return Encoded("image/jpeg", jpeg, *picture.size)
    return Encoded("image/png", png, *picture.size)


def _png(picture: Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _jpeg(picture: Image, quality: int) -> bytes:
    stream = io.BytesIO()
    # Red or blue letters on white would be smeared where colour has half the resolution. Pillow's `optimize` fails on
    # pictures that need more than its buffer.
    picture.save(stream, "JPEG", quality=quality, subsampling=0 if quality > 75 else 2)
    return stream.getvalue()
