"""Where the images of a run come from: the steps behind it, as far as their folders and command lines tell.

A step folder's `run.json` has the command line, and so the names of its input and of itself. As the folder's own place
is known, relative names on its command line are too, even after a project was moved as a whole. A manifest that is a
plain file, as `select -o chosen.csv` writes it, has no `run.json`; what lies before it is the folder of its images.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from cxrtool.data.grouping import original_of
from cxrtool.data.manifest import FILE_NAME, Manifest, Row, read_manifest, read_table
from cxrtool.data.twins import MARK, is_twin, radiograph_id, split_class
from cxrtool.errors import InputError
from cxrtool.flow.folder import REJECTS, RUN_FILE, read_run_file

MOST_STEPS = 20
"""A chain that seems longer leads in a circle."""


@dataclass(frozen=True)
class Origin:
    """One step on the way to the images of a run.

    Attributes:
        place: A step's folder, or a manifest that is a plain file.
        manifest: Its images.
        made: Its `run.json`; None for a plain file.
        rejects: What it left out, with reasons.
    """

    place: Path
    manifest: Manifest
    made: Mapping[str, Any] | None = None
    rejects: Sequence[Row] = field(default=())

    @property
    def command(self) -> str:
        """The step's name; empty for a plain file."""
        return str(self.made["command"]) if self.made else ""

    def files(self) -> list[Path]:
        """The files that tell of it."""
        names = (FILE_NAME, RUN_FILE, REJECTS) if self.made else ()
        return [self.place / name for name in names if (self.place / name).is_file()] or [self.place]


def trace(first: Iterable[Path], rows: Sequence[Row]) -> list[Origin]:
    """The steps behind images, the earliest first.

    Args:
        first: Where the last step may be: the manifest that was trained on, by its possible places.
        rows: The images; their own folder is taken where none of the places is there.
    """
    found: list[Origin] = []
    place = next((path for path in first if _is_table(path)), None) or step_folder(rows)
    while place is not None and len(found) < MOST_STEPS and all(place != origin.place for origin in found):
        origin = _read(place)
        if origin is None:
            break
        found.append(origin)
        named = inputs_of(place, origin.made) if origin.made else []
        if len(named) > 1:
            # Which image came from which of several tables is not told.
            break
        place = named[0] if named else None if origin.made else step_folder(origin.manifest.rows)
    return found[::-1]


def manifest_of_run(run: Path, made: Mapping[str, Any] | None) -> list[Path]:
    """Where the manifest that a run was trained on may be: by its command line, and by the name that was given."""
    if not made:
        return []
    told = (made.get("options", {}).get("manifest") or {}).get("value")
    return [base / str(told) for base in (base_of(run, made), Path.cwd()) if base is not None] if told else []


def inputs_of(place: Path, made: Mapping[str, Any]) -> list[Path]:
    """The manifests on the command line of a step folder, those first that do not stand behind an option."""
    words, base = [str(word) for word in made.get("argv", [])], base_of(place, made)
    command = made.get("command")
    if base is None or command not in words:
        return []
    words = words[words.index(str(command)) + 1 :]
    bare: list[Path] = []
    behind: list[Path] = []
    for number, word in enumerate(words):
        path = _plain(base / word)
        if word.startswith("-") or path == _plain(place) or not _is_table(path):
            continue
        (behind if number and words[number - 1].startswith("-") else bare).append(path)
    # Behind an option without a value there may stand the manifest itself.
    return bare or behind[:1]


def base_of(place: Path, made: Mapping[str, Any]) -> Path | None:
    """The folder in which a step was called, found by the name that it was given for its output."""
    words = [str(word) for word in made.get("argv", [])]
    name = next((after for word, after in pairwise(words) if word in ("-o", "--out")), None)
    name = next((word.removeprefix("--out=") for word in words if word.startswith("--out=")), name)
    if name is None:
        return None
    parts = Path(os.path.normpath(name)).parts
    here = _plain(place)
    if Path(name).is_absolute():
        return Path.cwd()
    if ".." in parts or here.parts[-len(parts) :] != parts:
        return None
    return Path(*here.parts[: -len(parts)])


def step_folder(rows: Sequence[Row]) -> Path | None:
    """The step folder in which the first image lies."""
    for row in rows[:1]:
        folder = Path(row.get("path", "")).absolute().parent
        for ancestor in (folder, *list(folder.parents)[:2]):
            if (ancestor / FILE_NAME).is_file() and read_run_file(ancestor) is not None:
                return ancestor
    return None


def radiographs(rows: Sequence[Row]) -> list[Row]:
    """One row a radiograph, under its own id, however many versions or twins of it there are."""
    found: dict[str, Row] = {}
    for row in rows:
        identity = radiograph_id(row) if is_twin(row) else original_of(row)
        label = row.get("label", "")
        own = {"label": split_class(label)[0]} if is_twin(row) and MARK in label else {}
        found.setdefault(identity, {**row, **own, "image_id": identity})
    return list(found.values())


def _read(place: Path) -> Origin | None:
    try:
        manifest = read_manifest(place)
        made = read_run_file(place) if place.is_dir() else None
        rejects = read_table(place / REJECTS).rows if made and (place / REJECTS).is_file() else []
    except InputError:
        # A step whose folder was damaged since ends what can be told, and nothing else.
        return None
    return Origin(place, manifest, made, rejects)


def _is_table(path: Path) -> bool:
    """Whether a path is a manifest, by its columns, or a step's folder with one."""
    if path.is_dir():
        return (path / FILE_NAME).is_file()
    if path.suffix.lower() not in (".csv", ".tsv", ".txt") or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.readline(100_000).decode("utf-8-sig", "replace")
    except OSError:
        return False
    names = {name.strip().strip('"') for name in head.replace(";", ",").replace("\t", ",").split(",")}
    return {"image_id", "path"} <= names


def _plain(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))
