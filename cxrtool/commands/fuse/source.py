"""The sources of `fuse`, with predictions by image, repeat, fold and subset; and the steps that all kinds share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cxrtool.data.file_names import FITTED_ON, MANIFEST, PREDICTIONS, SPLITS
from cxrtool.data.files import STDIN, is_stream
from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.splitting.splits import Run, read_splits
from cxrtool.data.tables.manifest import read_table
from cxrtool.data.tables.predictions import Predictions, dump_predictions, write_predictions
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.folder import touch
from cxrtool.flow.fusing import TEST, Key, key_of
from cxrtool.flow.replacing import check_file, is_predictions
from cxrtool.flow.run import fold_name, is_fold, is_run, read_run_predictions
from cxrtool.flow.settings import Settings

SHARED = ("out", "force", "dry_run", "quiet", "config")
"""The shared options that every kind takes."""


@dataclass(frozen=True)
class Source:
    """Predictions and their path: a run, the folder of a fold, or a table."""

    path: Path
    predictions: Predictions

    @cached_property
    def indices(self) -> dict[Key, int]:
        """The row index of every prediction; an `InputError` if an image is predicted twice."""
        found: dict[Key, int] = {}
        for index, row in enumerate(self.predictions.rows):
            key = key_of(row)
            if found.setdefault(key, index) != index:
                repeat, fold = key[1:3]
                raise InputError(
                    f"{self.predictions.name}: expected one prediction per image in each repeat, fold and subset, "
                    f"found '{key[0]}' twice (repeat '{repeat}', fold '{fold}', {key[3]})"
                )
        return found

    def folder_of(self, run: Run) -> Path | None:
        """The model folder of a repeat and fold, if the source is a run, one of its folds, or the table in one."""
        if self.path.is_dir() and is_run(self.path):
            return self.path / fold_name(*(part or "0" for part in run))
        folder = self.path.parent if self.path.name == PREDICTIONS and self.path.is_file() else self.path
        return folder if is_fold(folder) and (folder / FITTED_ON).is_file() else None

    def fitted_on(self, run: Run) -> set[str]:
        """The images that a fold was trained or validated on, from its model and the splits of the run."""
        folder = self.folder_of(run)
        names: set[str] = set()
        if folder is not None and (folder / FITTED_ON).is_file():
            names |= {original_of(row) for row in read_table(folder / FITTED_ON).rows}
        if folder is not None and (folder.parent / SPLITS).is_file():
            repeat, fold = (part or "0" for part in run)
            subsets = read_splits(folder.parent).runs.get((repeat, fold), {})
            names |= {name for name, subset in subsets.items() if subset != TEST}
        return names


def wrong_count(call: str, wanted: str, sources: Sequence[Path]) -> UsageError:
    """The error for too few or too many sources; `call` is the kind with its arguments, `wanted` their number."""
    return UsageError(f"expected {wanted} RUN or CSV, found {len(sources)}", f"cxrtool fuse {call}")


def fuse(
    paths: Sequence[Path], make: Callable[[Sequence[Source]], Predictions], settings: Settings, *, partial: bool
) -> Predictions | None:
    """Read the sources, fuse them with `make`, and write the file of `-o`; None on a dry run, which reads nothing.

    Paths are runs, tables of predictions, or - for standard input. `partial` accepts a run that lacks folds.

    Raises:
        InputError: A source cannot be read.
        IncompleteError: A run lacks folds and `partial` is false.
    """
    if settings.dry_run:
        settings.report.say(f"would fuse {', '.join(map(str, paths))}")
        return None
    check_file(settings.out, is_predictions, paths, settings)
    fused = make([Source(path, _read(path, partial=partial)) for path in paths])
    if settings.out is not None:
        _write(settings.out, fused, paths)
    return fused


def show(fused: Predictions | None, settings: Settings) -> None:
    """Print fused predictions, unless they were written to a file."""
    if fused is not None and settings.out is None:
        settings.output.write(dump_predictions(fused))


def _read(path: Path, *, partial: bool) -> Predictions:
    predictions = read_run_predictions(path, partial=partial)
    predictions.name = predictions.name if path == STDIN else str(path)
    return predictions


def _write(out: Path, fused: Predictions, paths: Sequence[Path]) -> None:
    """Write the file; an identical one is only touched if a source is newer, so that Make stops here."""
    if write_predictions(out, fused, keep=True):
        return
    files = [path for path in paths if path.exists() and not is_stream(path)]
    newest = [path / MANIFEST if (path / MANIFEST).is_file() else path for path in files]
    if any(path.stat().st_mtime > out.stat().st_mtime for path in newest):
        touch(out)
