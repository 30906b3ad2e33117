"""A page as data: its first lines, and its sections with tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxrtool.evaluation.tables import Sheet


@dataclass(frozen=True)
class Picture:
    """An image or a figure on a page.

    Attributes:
        path: A PNG or JPEG, which is embedded in the page.
        caption: The caption, also for screen readers.
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
        folded: Whether it is closed on a screen until the reader opens it; in print it is open.
    """

    title: str
    lines: Sequence[str] = ()
    sheets: Sequence[Sheet] = ()
    pictures: Sequence[Picture] = ()
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A number in large letters: its name, its value, and its interval in words."""

    name: str
    value: str
    interval: str


@dataclass(frozen=True)
class Answer:
    """One answer on the first screen of a page.

    Attributes:
        question: What it answers.
        lines: Sentences.
        figures: The main numbers, above the sentences.
        marks: Pairs of a level and a sentence, as those of a page.
        more: Further ones, folded.
    """

    question: str
    lines: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    marks: Sequence[tuple[str, str]] = ()
    more: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: The title of the document.
        subtitle: One line about the content.
        marks: The first lines: pairs of a level (`alarm`, `warning`, `note`, `clear`, `unknown`) and a sentence.
        sections: In order; the table of contents lists them.
        footer: The last line: the program and its inputs.
        answers: What the first screen answers.
    """

    title: str
    subtitle: str
    marks: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default_factory=tuple)
    footer: str = ""
    answers: Sequence[Answer] = ()
