"""From a run back to its images: the steps that made them, as their folders and command lines tell."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from cxrtool.data.file_names import MANIFEST, REJECTS, RUN_FILE
from cxrtool.data.tables.manifest import SUFFIXES, Manifest, Row, read_header, read_manifest, read_table
from cxrtool.errors import ChangedError, InputError
from cxrtool.flow.folder import read_run_file

MOST_STEPS = 20
"""Most steps that are followed, in case folders refer to each other in a circle."""


@dataclass(frozen=True)
class Origin:
    """One step that led to the images of a run.

    Attributes:
        path: The folder of a step, or a manifest that is a plain file.
        manifest: Its images.
        made: Its `run.json`; None for a plain file.
        rejects: Excluded images, with reasons.
    """

    path: Path
    manifest: Manifest
    made: Mapping[str, Any] | None = None
    rejects: Sequence[Row] = field(default=())

    @property
    def command(self) -> str:
        """The step's name; empty for a plain file."""
        return str(self.made["command"]) if self.made else ""

    def files(self) -> list[Path]:
        """The files that describe it."""
        names = (MANIFEST, RUN_FILE, REJECTS) if self.made else ()
        return [self.path / name for name in names if (self.path / name).is_file()] or [self.path]


def trace(candidates: Iterable[Path], rows: Sequence[Row]) -> list[Origin]:
    """The steps behind images, the earliest first.

    Args:
        candidates: Possible paths of the manifest that was trained on.
        rows: The images; their folder is used where no candidate exists.
    """
    found: list[Origin] = []
    path = next((path for path in candidates if _is_table(path)), None) or step_folder(rows)
    while path is not None and len(found) < MOST_STEPS and all(path != origin.path for origin in found):
        origin = _read(path)
        if origin is None:
            break
        found.append(origin)
        inputs = inputs_of(path, origin.made) if origin.made else []
        if len(inputs) > 1:
            # It is not recorded which image came from which table.
            break
        path = inputs[0] if inputs else None if origin.made else step_folder(origin.manifest.rows)
    return found[::-1]


def manifest_of_run(run: Path, made: Mapping[str, Any] | None) -> list[Path]:
    """Possible paths of the manifest that a run was trained on: relative to where it was started, and to here."""
    if not made:
        return []
    name = (made.get("options", {}).get("manifest") or {}).get("value")
    return [base / str(name) for base in (base_of(run, made), Path.cwd()) if base is not None] if name else []


def inputs_of(folder: Path, made: Mapping[str, Any]) -> list[Path]:
    """The manifests on the command line of a step: its arguments, otherwise the first value of an option."""
    words, base = [str(word) for word in made.get("argv", [])], base_of(folder, made)
    command = made.get("command")
    if base is None or command not in words:
        return []
    words = words[words.index(str(command)) + 1 :]
    arguments: list[Path] = []
    after_options: list[Path] = []
    for number, word in enumerate(words):
        path = _plain(base / word)
        if word.startswith("-") or path == _plain(folder) or not _is_table(path):
            continue
        (after_options if number and words[number - 1].startswith("-") else arguments).append(path)
    # The manifest itself may follow an option that takes no value.
    return arguments or after_options[:1]


def base_of(folder: Path, made: Mapping[str, Any]) -> Path | None:
    """The working directory in which a step was started, derived from the value of its `-o`."""
    words = [str(word) for word in made.get("argv", [])]
    name = next((after for word, after in pairwise(words) if word in ("-o", "--out")), None)
    name = next((word.removeprefix("--out=") for word in words if word.startswith("--out=")), name)
    if name is None:
        return None
    parts = Path(os.path.normpath(name)).parts
    here = _plain(folder)
    if Path(name).is_absolute():
        return Path.cwd()
    if ".." in parts or here.parts[-len(parts) :] != parts:
        return None
    return Path(*here.parts[: -len(parts)])


def step_folder(rows: Sequence[Row]) -> Path | None:
    """The step folder that contains the first image."""
    for row in rows[:1]:
        folder = Path(row.get("path", "")).absolute().parent
        for ancestor in (folder, *list(folder.parents)[:2]):
            if (ancestor / MANIFEST).is_file() and read_run_file(ancestor) is not None:
                return ancestor
    return None


def words_of(made: Mapping[str, Any]) -> list[str]:
    """The command line of a step from the name of the command on."""
    words = [str(word) for word in made["argv"]]
    command = str(made.get("command"))
    # The words before the command only show how Python was started.
    return words[words.index(command) if command in words else 1 :]


def _read(path: Path) -> Origin | None:
    try:
        manifest = read_manifest(path)
        made = read_run_file(path) if path.is_dir() else None
        rejects = read_table(path / REJECTS).rows if made and (path / REJECTS).is_file() else []
    except ChangedError:
        raise
    except InputError:
        # A damaged folder of a step only shortens the flow of images.
        return None
    return Origin(path, manifest, made, rejects)


def _is_table(path: Path) -> bool:
    """Whether a path is a manifest (by its columns), or the folder of a step with one."""
    if path.is_dir():
        return (path / MANIFEST).is_file()
    if path.suffix.lower() not in (*SUFFIXES, ".txt") or not path.is_file():
        return False
    try:
        return {"image_id", "path"} <= set(read_header(path))
    except OSError:
        return False


def _plain(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))
