"""The folder of a run while its folds are trained: its own files, and those written once every fold is complete.

Several tasks may write one run at once: the functions here use a lock, and give the same result in each task.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxrtool.data.file_names import REJECTS, SPLITS
from cxrtool.data.files import atomic_write, locked, saying_what_fails
from cxrtool.data.tables.manifest import Manifest, Row, order_columns, read_table, write_manifest, write_table
from cxrtool.errors import StrictError
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Assignment
from cxrtool.flow.folder import StepFolder, read_run_file, write_run_file
from cxrtool.flow.settings import Settings
from cxrtool.training.options import FittingOptions


def create_run_folder(container: StepFolder, splits: Path, shown: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Write the run's own files.

    A new run is first created under another name: a second task must never find it without `run.json`, and refuse it
    as a foreign folder.

    Args:
        container: The run's folder.
        splits: The splits file, which is copied.
        shown: The options in `run.json`.
        extra: Further entries of `run.json`.
    """
    run, settings = container.out, container.settings
    with saying_what_fails(run), locked(run.parent / f".{run.name}.lock"):
        made = read_run_file(run)
        fresh = run.parent / f".{run.name}.new"
        target = run if made else fresh
        if made is None:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
        if made is None or made.get("run_digest") != container.digest or settings.force:
            (target / container.marker).unlink(missing_ok=True)
            identity = {"digest": container.digest, "run_digest": container.digest, **extra}
            write_run_file(target, replace(container.plan, options=shown), settings, time.time(), {}, identity)
        atomic_write(target / SPLITS, splits.read_bytes())
        if target is fresh:
            fresh.replace(run)


def finished(container: StepFolder, names: Sequence[str]) -> tuple[list[str], list[Row]]:
    """The complete folds of this run, and all of their rejects, each once."""
    run = container.out
    done = [name for name in names if (read_run_file(run / name) or {}).get("run_digest") == container.digest]
    rejects = {tuple(row.items()): row for name in done for row in read_table(run / name / REJECTS).rows}
    return done, list(rejects.values())


def complete(container: StepFolder, names: Sequence[str], rejects: Sequence[Row], manifest: Manifest) -> None:
    """Write the files of the whole run, and remove folds of earlier splits."""
    run = container.out
    for folder in list(run.iterdir()):
        if runs.is_fold(folder) and folder.name not in names:
            shutil.rmtree(folder)
    write_table(run / REJECTS, ["path", "reason"], rejects)
    write_manifest(run / container.marker, order_columns(manifest.columns), manifest.rows)


Summary = tuple[list[str], list[list[str]], str]
"""Header, rows and title of a table of results."""


def warn_without_validation(folds: Sequence[Assignment], options: FittingOptions, settings: Settings) -> None:
    """Warn if an option needs validation images and a fold has none."""
    without = [a.name for a in folds if not a.subsets["validation"]]
    idle = [f"--checkpoint {options.checkpoint}"] if options.checkpoint != "last" else []
    idle += ["--patience"] if options.patience else []
    idle += ["--sched plateau"] if options.sched == "plateau" else []
    if without and idle:
        settings.report.warn(
            f"{len(without)} of {len(folds)} folds have no validation images, such as {without[0]}: in these "
            f"{', '.join(idle)} cannot be used, and the last epoch is kept"
        )


def raise_if_strict(rejects: Sequence[Row], settings: Settings) -> None:
    """Report rejected files as an error once everything is done.

    Raises:
        StrictError: `--strict`, and there are rejects.
    """
    if rejects and settings.strict:
        raise StrictError(f"{len(rejects)} rejected, each with its reason in {REJECTS}")
