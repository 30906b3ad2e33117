"""A page as one HTML file that needs nothing else: no network, no script, no file beside it.

It is read on wide and narrow screens and in print, by eyes and by screen readers: levels are words before they are
colours, tables have headers and may be wider than the screen, pictures say what they show, and what is folded on a
screen is open on paper. A strict content security policy forbids the browser to load anything from anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cxrtool
from cxrtool.evaluation.tables import Sheet
from cxrtool.reporting.page import Page, Picture
from cxrtool.reporting.pictures import Encoded, encode_all

if TYPE_CHECKING:
    from markupsafe import Markup

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
