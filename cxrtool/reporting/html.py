"""A page as one HTML file: no network, no script, no other file.

It can be read on wide and narrow screens, in print, and by screen readers: levels are words as well as colours, tables
have headers and may be wider than the screen, figures have captions, and folded sections are open in print. A strict
content security policy forbids the browser to load anything.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxrtool
from cxrtool.errors import InputError
from cxrtool.evaluation.tables import Sheet
from cxrtool.reporting.page import Page, Picture

if TYPE_CHECKING:
    from markupsafe import Markup
    from PIL.Image import Image


BUDGET = 5 * 2**20
"""Bytes of all pictures of a page before base64 encoding, which adds a third: a page under 8 MiB."""

STEPS = ((1600, 88), (1200, 82), (900, 75), (640, 65), (400, 50))
"""Largest width of a picture in pixels, and JPEG quality, from the first step to the last."""

SMALL = 60_000
"""Bytes up to which a PNG is kept unchanged."""

WORTH = 0.6
"""A JPEG is used where it needs at most this share of the bytes of the PNG."""


@dataclass(frozen=True)
class Encoded:
    """A picture for a page; `kind` is `image/png` or `image/jpeg`, `width` and `height` are in pixels."""

    kind: str
    data: bytes
    width: int
    height: int

    @property
    def url(self) -> str:
        """The picture as a data URL."""
        return f"data:{self.kind};base64,{base64.b64encode(self.data).decode('ascii')}"


def encode_all(paths: Sequence[Path], budget: int = BUDGET) -> list[Encoded]:
    """Encode PNG or JPEG files within a budget in bytes, which is exceeded only where all are at the last step.

    Raises:
        InputError: A file is missing or is not a picture.
    """
    levels = [0] * len(paths)
    found = [encode(path) for path in paths]
    while sum(len(one.data) for one in found) > budget:
        shrinkable = [i for i, level in enumerate(levels) if level + 1 < len(STEPS)]
        if not shrinkable:
            break
        largest = max(shrinkable, key=lambda i: len(found[i].data))
        levels[largest] += 1
        smaller = encode(paths[largest], levels[largest])
        if len(smaller.data) < len(found[largest].data):
            found[largest] = smaller
    return found


def encode(path: Path, level: int = 0) -> Encoded:
    """Encode one PNG or JPEG file; `level` is an index into `STEPS`.

    Raises:
        InputError: The file is missing or is not a picture.
    """
    from PIL import Image, UnidentifiedImageError

    widest, quality = STEPS[level]
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            form = opened.format
            if form not in ("PNG", "JPEG"):
                raise InputError(f"{path}: expected a PNG or JPEG, found {form}")
            picture = opened.convert("RGB" if opened.mode not in ("L", "RGB") or form == "JPEG" else opened.mode)
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path}: expected a PNG or JPEG, found no readable picture") from error
    shrunk = picture.width > widest
    if shrunk:
        picture = picture.resize(
            (widest, max(1, round(picture.height * widest / picture.width))),
            Image.Resampling.BOX if picture.width > 4 * widest else Image.Resampling.LANCZOS,
        )
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
    # Half the colour resolution would blur red or blue letters on white. Pillow's `optimize` fails on pictures that
    # need more than its buffer.
    picture.save(stream, "JPEG", quality=quality, subsampling=0 if quality > 75 else 2)
    return stream.getvalue()


TEMPLATE = "page.html.j2"

LEVELS = {
    "alarm": ("Alarm", "✖"),
    "warning": ("Warning", "▲"),
    "note": ("Note", "●"),
    "clear": ("Clear", "✔"),
    "unknown": ("Not known", "?"),
}
"""The word and the sign before the sentence of each level."""

COMMAND = "$ "
"""Prefix of the lines of a section that are command lines."""

PIXELS_PER_INCH = 150
"""Resolution of figures; a CSS pixel is 1/96 inch."""

HALF = 480
"""CSS pixels of width up to which a figure is readable on half a page."""

WIDE = 900
"""CSS pixels of width from which a figure, of many panels, is readable on a whole page only."""

MOST_ROWS = 30
"""Rows up to which a table is not divided between printed pages."""

_FIGURE = re.compile(r"[-+−<>≤≥~±]?\s*\d.*|-|")
_LONG = 28


@dataclass(frozen=True)
class _Shown:
    picture: Picture
    encoded: Encoded

    @property
    def width(self) -> int:
        return round(self.encoded.width * 96 / PIXELS_PER_INCH)

    @property
    def kind(self) -> str:
        """`wide` for a whole page; `half` where two fit side by side in print and are readable; otherwise `single`."""
        if self.picture.wide or self.width > WIDE:
            return "wide"
        return "half" if self.width <= HALF or self.encoded.kind == "image/jpeg" else "single"

    @property
    def height(self) -> int:
        return round(self.encoded.height * 96 / PIXELS_PER_INCH)


def render(page: Page, digest: str = "") -> str:
    """The page as HTML.

    Args:
        page: The content.
        digest: Digest of all inputs of the page, for `read_digest`.

    Raises:
        InputError: A picture is missing or cannot be read.
    """
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    every = [picture for section in page.sections for picture in section.pictures]
    encoded = iter(encode_all([picture.path for picture in every]))
    pictures = [[_Shown(picture, next(encoded)) for picture in section.pictures] for section in page.sections]
    names = _anchors([section.title for section in page.sections])
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    titles = {section.title: name for section, name in zip(page.sections, names, strict=True)}
    template = environment.from_string((files("cxrtool.reporting") / TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        page=page,
        sections=list(zip(page.sections, names, pictures, strict=True)),
        levels=LEVELS,
        kinds=kinds_of_columns,
        pieces=lambda text: _pieces(text, titles),
        prose=_prose,
        command=COMMAND,
        most_rows=MOST_ROWS,
        digest=digest,
        version=cxrtool.__version__,
    )


def read_digest(start: str) -> str:
    """The digest of a page, from the start of its text; empty where there is none.

    >>> read_digest('<meta name="cxrtool-digest" content="0a1b">')
    '0a1b'
    """
    match = re.search(r'<meta name="cxrtool-digest" content="([0-9a-f]+)">', start)
    return match[1] if match else ""


def kinds_of_columns(sheet: Sheet) -> list[str]:
    """The CSS class of each column: `name` for the first, `figure` for numbers, `prose` for long text, else `word`.

    >>> kinds_of_columns(Sheet("", ["of", "value", "why"], [["a", "0.9 (0.8-1.0)", "because " * 9]], []))
    ['name', 'figure', 'prose']
    """
    kinds = []
    for column in range(len(sheet.columns)):
        cells = [row[column] for row in sheet.rows if column < len(row)]
        if column and any(cells) and all(_FIGURE.fullmatch(cell) for cell in cells):
            kinds.append("figure")
        elif any(len(cell) > _LONG for cell in cells):
            kinds.append("prose")
        else:
            kinds.append("name" if column == 0 else "word")
    return kinds


def _anchors(titles: Sequence[str]) -> list[str]:
    """A unique anchor for each section."""
    found: list[str] = []
    for title in titles:
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        name, number = stem, 2
        while name in found:
            name, number = f"{stem}-{number}", number + 1
        found.append(name)
    return found


def _prose(text: str) -> Markup:
    """A text with the parts between backticks as code."""
    from markupsafe import Markup, escape

    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:
        # An unpaired backtick is a plain character.
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if k % 2 else part for k, part in enumerate(parts))


def _pieces(text: str, titles: dict[str, str]) -> list[tuple[str, Any]]:
    """The parts of a cell between semicolons, each with the anchor of the section with this title, or None."""
    parts = text.split("; ")
    if not any(part in titles for part in parts):
        return [(text, None)]
    return [(part + ("; " if i + 1 < len(parts) else ""), titles.get(part)) for i, part in enumerate(parts)]
