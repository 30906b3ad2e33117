"""List what is cached: path, size, files, age and what made it.

Decoded images are those of the folder that --cache names, or CXRTOOL_CACHE. ImageNet weights are in the folder of
Hugging Face, which other programs use, too: they are listed, and never removed by cxrtool.

Example: cxrtool cache list --format csv
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cxrtool.commands.cache.words import age, megabytes
from cxrtool.data.cache import default_cache, entries_of
from cxrtool.errors import count_of
from cxrtool.flow.settings import Settings
from cxrtool.options import Options

COLUMNS = ("what", "size", "files", "last used", "made by", "where")


@dataclass(frozen=True)
class ListOptions(Options):
    """The options of `cache list`."""

    SHARED: ClassVar[tuple[str, ...]] = ("cache", "quiet", "style")


def run(options: ListOptions, settings: Settings) -> None:
    """Print the list."""
    folder = settings.cache or default_cache()
    entries, weights = entries_of(folder), _weights()
    rows = []
    for entry in entries:
        what = "unfinished images" if entry.images is None else count_of(entry.images, "decoded image")
        rows.append(
            [what, megabytes(entry.size), str(entry.files), age(entry.used), entry.made_by or "-", str(entry.path)]
        )
    rows += weights
    if rows:
        settings.output.table(COLUMNS, rows)
    size = megabytes(sum(entry.size for entry in entries))
    last = "; next: cxrtool cache empty --older-than 30" if entries else ""
    settings.report.say(f"{folder}: {count_of(len(entries), 'set')} of decoded images, {size}{last}")


def _weights() -> list[list[str]]:
    """A row for the weights of each network of timm in the cache of Hugging Face."""
    from cxrtool.models.pretrained import hub_folder

    rows = []
    for folder in sorted(hub_folder().glob("models--timm--*")):
        files = [file.lstat() for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
        if files:
            name = folder.name.removeprefix("models--timm--")
            size, used = sum(file.st_size for file in files), max(file.st_mtime for file in files)
            rows.append(
                [f"weights {name}", megabytes(size), str(len(files)), age(used), "timm, when needed", str(folder)]
            )
    return rows
