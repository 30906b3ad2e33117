"""A page as one HTML file that needs nothing else: no network, no script, no file beside it.

It is read on wide and narrow screens and in print, by eyes and by screen readers: levels are words before they are
colours, tables have headers and may be wider than the screen, pictures say what they show, and what is folded on a
screen is open on paper. A strict content security policy forbids the browser to load anything from anywhere.
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


TEMPLATE = "page.html.j2"

LEVELS = {
    "alarm": ("Alarm", "✖"),
    "warning": ("Warning", "▲"),
    "note": ("Note", "●"),
    "clear": ("Clear", "✔"),
    "unknown": ("Not known", "?"),
}
"""The word, and the sign, that stand before the sentence of each level."""

COMMAND = "$ "
"""A line of a section that begins so is shown as it is typed."""

PIXELS_PER_INCH = 150
"""At which drawings are made; a screen's pixel is a 96th of an inch."""

HALF = 460
"""Pixels of a screen up to which a drawing's letters can be read on half a page."""

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
        """`wide`, or `half` for what two of fit beside each other on paper and can still be read."""
        if self.picture.wide:
            return "wide"
        return "half" if self.width <= HALF or self.encoded.kind == "image/jpeg" else "single"

    @property
    def height(self) -> int:
        return round(self.encoded.height * 96 / PIXELS_PER_INCH)


def render(page: Page, digest: str = "") -> str:
    """The page as HTML.

    Args:
        page: What it says.
        digest: Of all that it was made of; `read_digest` finds it again.

    Raises:
        InputError: A picture is missing, or no picture.
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
        digest=digest,
        version=cxrtool.__version__,
    )


def read_digest(start: str) -> str:
    """The digest that `render` was given, from the beginning of a page; empty where there is none.

    >>> read_digest('<meta name="cxrtool-digest" content="0a1b">')
    '0a1b'
    """
    match = re.search(r'<meta name="cxrtool-digest" content="([0-9a-f]+)">', start)
    return match[1] if match else ""


def kinds_of_columns(sheet: Sheet) -> list[str]:
    """How the cells of each column are set: the first as a header; figures to the right; long text with room to wrap.

    >>> kinds_of_columns(Sheet("", ["of", "value", "why"], [["a", "0.9 (0.8-1.0)", "because " * 9]], []))
    ['name', 'figure', 'prose']
    """
    kinds = []
    for place in range(len(sheet.columns)):
        cells = [row[place] for row in sheet.rows if place < len(row)]
        if place and any(cells) and all(_FIGURE.fullmatch(cell) for cell in cells):
            kinds.append("figure")
        elif any(len(cell) > _LONG for cell in cells):
            kinds.append("prose")
        else:
            kinds.append("name" if place == 0 else "word")
    return kinds


def _anchors(titles: Sequence[str]) -> list[str]:
    """A name for the address of each section, each only once."""
    found: list[str] = []
    for title in titles:
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        name, number = stem, 2
        while name in found:
            name, number = f"{stem}-{number}", number + 1
        found.append(name)
    return found


def _prose(text: str) -> Markup:
    """A text in which what stands between backticks is set as code."""
    from markupsafe import Markup, escape

    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:
        # One backtick without its other is just one.
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if k % 2 else part for k, part in enumerate(parts))


def _pieces(text: str, titles: dict[str, str]) -> list[tuple[str, Any]]:
    """The parts of a cell between semicolons, each with the section that it names, so that a table can lead there."""
    parts = text.split("; ")
    if not any(part in titles for part in parts):
        return [(text, None)]
    return [(part + ("; " if place + 1 < len(parts) else ""), titles.get(part)) for place, part in enumerate(parts)]
