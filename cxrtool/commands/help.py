"""Print a page of the manual, or the list of its pages.

A page is the README.md of a folder of cxrtool. It explains a command, the files that commands exchange, or how a
number is computed. The options of a command are in its own --help.

Example: cxrtool help audit
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cxrtool
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, argument

PAGE = "README.md"


def topics() -> dict[str, Path]:
    """The page of every topic.

    A topic is the name of the folder, or its path inside the package where two folders have the same name.
    """
    package = Path(cxrtool.__file__).parent
    pages = sorted(package.rglob(PAGE))
    count = Counter(page.parent.name for page in pages)
    return {
        page.parent.name if count[page.parent.name] == 1 else page.parent.relative_to(package).as_posix(): page
        for page in pages
    }


def title_of(page: Path) -> str:
    """The first line of a page, without the mark of a heading."""
    with page.open(encoding="utf-8") as lines:
        return next(lines, "").strip().removeprefix("# ")


@dataclass(frozen=True)
class HelpOptions(Options):
    """The options of `help`."""

    SHARED: ClassVar[tuple[str, ...]] = ("quiet", "style")

    topic: str | None = argument(
        "The page to print; without it, the list of pages.", None, metavar="TOPIC", choices=topics, shown=""
    )


def run(options: HelpOptions, settings: Settings) -> None:
    """Print the page, or the list of pages."""
    pages = topics()
    if options.topic is not None:
        settings.output.write(pages[options.topic].read_text(encoding="utf-8"))
        return
    rows = [[topic, title_of(page)] for topic, page in pages.items()]
    if settings.style != "table":
        settings.output.table(["topic", "page"], rows)
        return
    width = max(map(len, pages))
    for topic, title in rows:
        settings.output.write(f"{topic.ljust(width)}  {title}\n")
