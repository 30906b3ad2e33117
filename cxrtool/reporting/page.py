"""A page as data: its first lines, its sections with tables and pictures; and as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxrtool.evaluation.tables import Sheet


@dataclass(frozen=True)
class Picture:
    """A picture on a page.

    Attributes:
        path: A PNG or JPEG; its bytes become part of the page.
        caption: What it shows, for those who see it and for those who do not.
        wide: Whether it needs the whole width of the page.
    """

    path: Path
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        title: Its heading.
        lines: Paragraphs before its tables.
        sheets: Its tables, each with notes.
        pictures: Its pictures.
        folded: Whether a reader on a screen opens it first; in print it is open.
    """

    title: str
    lines: Sequence[str] = ()
    sheets: Sequence[Sheet] = ()
    pictures: Sequence[Picture] = ()
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: Of the document.
        subtitle: What it is about, in a line.
        marks: What a reader must see first: pairs of a level (`alarm`, `warning`, `note`, `clear`, `unknown`) and a
            sentence.
        sections: In order; the table of contents lists them.
        footer: The last line: what made the page, and when.
    """

    title: str
    subtitle: str
    marks: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default_factory=tuple)
    footer: str = ""
