"""What an output may replace: its own earlier result, and never an input.

A command that writes one file calls `check_file`. For every command the command line calls `check_inputs`. Folders are
checked in `flow.folder`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from cxrtool.data.file_names import (
    FITTED_ON,
    MANIFEST,
    MODEL,
    MODEL_WEIGHTS,
    PART,
    PART_WEIGHTS,
    PREDICTIONS,
    REJECTS,
    RUN_FILE,
    SPLITS,
)
from cxrtool.data.files import is_stream, locked, saying_what_fails
from cxrtool.data.splitting.splits import COLUMNS, RECORDS
from cxrtool.data.tables.manifest import PATH_COLUMNS, Manifest, read_header
from cxrtool.errors import TakenError
from cxrtool.flow.folder import other_name, read_run_file
from cxrtool.flow.settings import Settings

Own = Callable[[Path], bool]
"""Whether an existing file is one that a command writes."""

TRAINING = ("train", "fit")
"""The commands whose folders have splits of their own."""

_MARKS = (RUN_FILE, MODEL, PART)
_FIXED = (MANIFEST, PREDICTIONS, REJECTS, RUN_FILE, FITTED_ON, MODEL, MODEL_WEIGHTS, PART, PART_WEIGHTS)


def is_splits(path: Path) -> bool:
    """Whether a file is a table that `split` writes."""
    header = set(read_header(path, ","))
    return set(COLUMNS) <= header <= {*COLUMNS, *RECORDS}


def is_manifest_file(path: Path) -> bool:
    """Whether a file is a manifest, as `select` writes it."""
    header = set(read_header(path, ","))
    return {"image_id", "path"} <= header and "predicted" not in header


def is_predictions(path: Path) -> bool:
    """Whether a file is a table of predictions, as `predict` and `fuse` write it."""
    return {"image_id", "path", "predicted"} <= set(read_header(path, ","))


def check_inputs(out: Path | None, inputs: Iterable[Path]) -> None:
    """Refuse an output that is an input itself, by whatever path or link it is named.

    Raises:
        TakenError: It is one.
    """
    if out is None or not out.exists():
        return
    for path in inputs:
        if not is_stream(path) and path.exists() and path.samefile(out):
            raise TakenError(
                f"-o {out}: expected another place than the input, found that it is {path} itself", other_name(out)
            )


@contextlib.contextmanager
def locked_output(out: Path | None) -> Iterator[None]:
    """Hold the lock of a file that is going to be written; there is none for a pipe or a device.

    Raises:
        OutputError: Another process writes it.
    """
    if out is None or (out.exists() and not out.is_file()):
        yield
        return
    target = Path(os.path.realpath(out))
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        with contextlib.ExitStack() as stack:
            with saying_what_fails(out):
                stack.enter_context(locked(target.parent / f".{target.name}.lock", wait=False))
            yield
    finally:
        for folder in made:
            # It stays where something was written.
            with contextlib.suppress(OSError):
                folder.rmdir()


def check_file(
    out: Path | None,
    own: Own,
    inputs: Iterable[Path | Manifest | None],
    settings: Settings,
    beside: Mapping[Path, Own] | None = None,
) -> None:
    """Refuse to write a file over an input, even with `--force`; and without it, over what another command wrote.

    Args:
        out: The file to write; what is no regular file, such as a pipe, replaces nothing.
        own: Whether an existing file may be an earlier output of this command.
        inputs: What the command reads: files, folders of steps, runs and models, and manifests with their images.
        settings: With `--force`.
        beside: Further files that are written with it, each with its own `own`.

    Raises:
        TakenError: It is refused.
    """
    if out is None or (out.exists() and not out.is_file() and not out.is_dir()):
        return
    for path, made in {out: own, **(beside or {})}.items():
        if path.is_dir():
            raise TakenError(
                f"-o {out}: expected a file to write, found a folder{_at(path, out)}",
                f"name a file in it: -o {out}/NAME.csv" if path == out else other_name(out),
            )
        if path.is_file():
            _check_existing(path, out, made, inputs, settings)


def _check_existing(
    path: Path, out: Path, own: Own, inputs: Iterable[Path | Manifest | None], settings: Settings
) -> None:
    mine = not path.stat().st_size or own(path)
    step = _step_of(path)
    for source in inputs:
        if source is not None and _reads(source, path, mine=mine and step is None):
            name = source.name if isinstance(source, Manifest) else source
            raise TakenError(
                f"-o {out}: expected another file than the input, found one that belongs to {name}{_at(path, out)}",
                other_name(out),
            )
    if not settings.force and (step is not None or not mine):
        what = f"one of the folder of {step}" if step else "another file"
        raise TakenError(
            f"-o {out}: expected a new file or one that this command wrote, found {what}{_at(path, out)}",
            f"{other_name(out)}, or replace it with --force",
        )


def _at(path: Path, out: Path) -> str:
    return "" if path == out else f": {path}, which is written beside it"


def _reads(source: Path | Manifest, out: Path, *, mine: bool) -> bool:
    """Whether a file belongs to an input; one that this command wrote into a folder of its input does not."""
    if isinstance(source, Manifest):
        if (origin := source.origin) is not None:
            # Of a step's folder, all is an input.
            step = origin.name == MANIFEST and (origin.parent / RUN_FILE).is_file()
            if _reads(origin.parent if step else origin, out, mine=mine):
                return True
        key = _key(out)
        return any(_key(row[name]) == key for row in source.records for name in PATH_COLUMNS if row.get(name))
    if is_stream(source) or not source.exists():
        return False
    if source.samefile(out) or (source.is_dir() and (source / MANIFEST).exists() and (source / MANIFEST).samefile(out)):
        return True
    return source.is_dir() and not mine and out.resolve().is_relative_to(source.resolve())


def _key(path: Path | str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _step_of(out: Path) -> str | None:
    """The command that wrote the folder of a file as a part of its result, in words; None where it is no such part."""
    folder = out.resolve().parent
    if not any((folder / name).is_file() for name in _MARKS):
        return None
    command = (read_run_file(folder) or {}).get("command")
    if out.name in _FIXED or (out.name == SPLITS and command in TRAINING):
        return f"`cxrtool {command}`" if command else "a model"
    return None
