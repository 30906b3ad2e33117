"""The file that a cell of a table names: as it is written, without its extension, or somewhere in a folder."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from cxrtool.data.datasets import folder
from cxrtool.data.datasets.record import Request
from cxrtool.data.files import existing
from cxrtool.data.tables.ids import stem_of

SHOWN = 3
"""Candidates that a message about a name lists."""


@dataclass
class Finder:
    """Finds the images of a table.

    Attributes:
        bases: The folders in which a relative name is looked for, the first one first.
        deep: A folder that is searched with its subfolders for names that are not directly in `bases`.
        exclude: Folders that are not searched, because the output may be inside.
    """

    bases: Sequence[Path]
    deep: Path | None = None
    exclude: frozenset[Path] = frozenset()
    _beside: dict[Path, list[str]] = field(default_factory=dict)

    def find(self, name: str) -> tuple[Path, list[str]]:
        """The file of a name, and the candidates where several files have this name.

        A name is tried as it is written, then without an extension, then in the subfolders, then without regard to
        upper and lower case. The path of a file that does not exist is where it was expected.
        """
        names = _spellings(name)
        paths = [Path(os.path.normpath(base / spelled)) for spelled in names for base in self.bases]
        found = (existing(path) for path in paths)
        folders: list[Path] = []
        for path in found:
            if path is not None and not path.is_dir():
                return path, []
            folders += [path] if path is not None else []
        for path in paths:
            same = [path.parent / file for file in self._files_in(path.parent) if _same(stem_of(file), path.name)]
            if same:
                return self._choose(same, path)
        # The last spelling of a relative Windows path has slashes.
        expected = paths[0 if _is_absolute(name) else -len(self.bases)]
        if self.deep is not None and not _is_absolute(name):
            parts = PurePosixPath(names[-1]).parts
            for same_text in (_same, _same_letters):
                for part in (_whole, stem_of):
                    if matching := self._below(parts, part, same_text):
                        return self._choose(matching, expected)
        return (folders[0] if folders else expected), []

    def _choose(self, files: Sequence[Path], expected: Path) -> tuple[Path, list[str]]:
        if len(files) == 1:
            return files[0], []
        base = self.deep or self.bases[0]
        return expected, sorted(Path(os.path.relpath(file, base)).as_posix() for file in files)

    def _files_in(self, here: Path) -> list[str]:
        if here not in self._beside:
            try:
                names = sorted(path.name for path in here.iterdir())
            except OSError:
                names = []
            self._beside[here] = [name for name in names if folder.may_be_image(name)]
        return self._beside[here]

    def _below(self, parts: Sequence[str], part: Callable[[str], str], same: Callable[[str, str], bool]) -> list[Path]:
        """The files below `deep` whose path ends with these parts."""
        return [
            path
            for path, below in self._index.get(_letters(parts[-1]), [])
            if same(part(below[-1]), parts[-1])
            and len(below) >= len(parts)
            and all(map(same, below[-len(parts) : -1], parts[:-1]))
        ]

    @cached_property
    def _index(self) -> dict[str, list[tuple[Path, tuple[str, ...]]]]:
        """All images below `deep` by their name, and by their name without the extension, in small letters."""
        found = defaultdict(list)
        if self.deep is not None:
            for record in folder.read(self.deep, Request(exclude=self.exclude)):
                name = record.path.name
                for key in dict.fromkeys((_letters(name), _letters(stem_of(name)))):
                    found[key].append((record.path, PurePosixPath(record.relative).parts))
        return found


def listed(candidates: Sequence[str]) -> str:
    """Candidates as text: the first few of them."""
    more = f" and {len(candidates) - SHOWN} more" if len(candidates) > SHOWN else ""
    return ", ".join(candidates[:SHOWN]) + more


def _spellings(name: str) -> list[str]:
    """The relative paths that a name may mean: as written, and, of a Windows path, with slashes."""
    names = [name]
    if "\\" in name or (_is_absolute(name) and not Path(name).exists()):
        parts = PureWindowsPath(name)
        tail = parts.parts[1:] if parts.anchor else parts.parts
        # An absolute path of another machine: its end may exist here.
        names += ["/".join(tail[start:]) for start in range(len(tail) if parts.anchor else 1)]
    return names


def _is_absolute(name: str) -> bool:
    return bool(PureWindowsPath(name).anchor)


def _whole(name: str) -> str:
    return name


def _same(one: str, other: str) -> bool:
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def _same_letters(one: str, other: str) -> bool:
    return _letters(one) == _letters(other)


def _letters(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
