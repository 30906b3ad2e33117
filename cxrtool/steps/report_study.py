"""What a report is about: the predictions, the run behind them, its images and where they come from, the audit."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxrtool.data.manifest import FILE_NAME, Row, read_manifest, read_table
from cxrtool.data.splits import FILE_NAME as SPLITS
from cxrtool.data.splits import SUBSETS, Splits, read_splits
from cxrtool.errors import InputError
from cxrtool.flow import run as runs
from cxrtool.flow.audits import FILE, Audit, audit_of, audits_near, read_audit
from cxrtool.flow.folder import REJECTS, RUN_FILE, read_run_file
from cxrtool.steps.report_origin import Origin, manifest_of_run, radiographs, trace

MODEL_FILE, HISTORY, CURVES = "model.json", "history.csv", "curves.png"
TEST = "test"


@dataclass(frozen=True)
class Source:
    """One RUN or CSV.

    Attributes:
        name: Before `=`; empty where none was given.
        path: As it was given.
        run: The run's folder, where it is one or one of its folds.
        folds: The folders of its folds that are evaluated; empty for a CSV.
        tables: The tables of predictions.
    """

    name: str
    path: Path
    run: Path | None
    folds: Sequence[Path]
    tables: Sequence[Path]

    @classmethod
    def of(cls, name: str, path: Path, *, partial: bool) -> Source:
        """Find what a path is.

        Raises:
            IncompleteError: A run lacks folds and `partial` is false.
            InputError: There is nothing.
        """
        if path.is_dir() and runs.is_run(path):
            folds = [path / runs.fold_name(*pair) for pair in runs.check_whole(path, partial=partial)]
            return cls(name, path, path, folds, [fold / runs.PREDICTIONS for fold in folds])
        if path.is_dir() and (path / runs.PREDICTIONS).is_file():
            of_run = runs.is_fold(path.absolute()) and runs.is_model(path)
            return cls(name, path, path.absolute().parent if of_run else None, [path] if of_run else [],
                       [path / runs.PREDICTIONS])  # fmt: skip
        if not path.exists():
            raise InputError(f"{path}: no such run or file", "a run is the folder that `cxrtool train -o` wrote")
        if path.is_dir():
            raise InputError(f"{path}: expected a run or a {runs.PREDICTIONS}, found neither")
        return cls(name, path, None, [], [path])


@dataclass
class Study:
    """All that a report reads, but for images and pictures.

    Attributes:
        sources: What is evaluated.
        tested: The labelled test rows of all predictions.
        rows: The images, one a radiograph: of the manifest, else of the predictions.
        named: Where `rows` come from, for the reader; empty for predictions.
        splits: Which image is in which subset; None where no run is there.
        origins: The steps behind the images.
        audit: What is known of the images, or None.
        made: `run.json` of the first run; empty where none is there.
        fold: That of its first fold.
        model: `model.json` of its first fold.
        unread: What its training could not read.
        files: All of which the report is made, but for the audit's pictures.
    """

    sources: list[Source]
    tested: list[Row]
    rows: list[Row]
    named: str
    splits: Splits | None
    origins: list[Origin]
    audit: Audit | None
    made: Mapping[str, Any]
    fold: Mapping[str, Any]
    model: Mapping[str, Any]
    unread: list[Row] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    @classmethod
    def read(
        cls, sources: Mapping[str, Sequence[Path]], *, partial: bool, manifest: Path | None, audit: Path | None
    ) -> Study:
        """Read it.

        Raises:
            IncompleteError: A run lacks folds and `partial` is false.
            InputError: Predictions, a manifest or an audit cannot be read.
        """
        found = [Source.of(name, path, partial=partial) for name, paths in sources.items() for path in paths]
        tested = [row for source in found for table in source.tables for row in _tested(table)]
        first = next((source for source in found if source.run is not None), None)
        run = first.run if first else None
        folds = list(first.folds) if first else []
        made = (read_run_file(run) if run else None) or (read_run_file(folds[0]) if folds else None) or {}
        rows, named, table = radiographs(tested), "", None
        own = run / FILE_NAME if run else None
        table = manifest or (own if own and own.is_file() else None)
        if table is not None:
            rows, named = radiographs(read_manifest(table).rows), str(table)
        splits = read_splits(run) if run and (run / SPLITS).is_file() else None
        origins = trace([manifest] if manifest else manifest_of_run(run, made) if run else [], rows)
        paths = [source.path for source in found]
        known = read_audit(audit) if audit else audit_of(tested, audits_near(paths))
        unread = read_table(run / REJECTS).rows if run and (run / REJECTS).is_file() else []
        for row in unread:
            row["path"] = os.path.normpath((run or Path()).absolute() / row.get("path", ""))
        files = [path for source in found for path in _files_of(source)]
        files += [path for origin in origins for path in origin.files()] + ([table] if table else [])
        files += [known.folder / FILE] if known else []
        fold = (read_run_file(folds[0]) if folds else None) or {}
        return cls(
            found, tested, rows, named, splits, origins, known, made, fold,
            _read_json(folds[0] / MODEL_FILE) if folds else {}, unread, list(dict.fromkeys(files)),
        )  # fmt: skip

    @property
    def run(self) -> Path | None:
        """The first run."""
        return next((source.run for source in self.sources if source.run is not None), None)

    @property
    def folds(self) -> list[Path]:
        """The folders of the folds of the first run."""
        return next((list(source.folds) for source in self.sources if source.folds), [])

    def radiographs_tested(self) -> list[Row]:
        """The images that were tested, one row a radiograph."""
        return radiographs(self.tested)

    def counts(self, column: str) -> dict[str, int]:
        """How many images have each value of a column, the commonest first; those without one are left out."""
        labels = [row.get(column, "").strip() for row in self.rows]
        return dict(Counter(label for label in labels if label).most_common())


def divided_in_words(splits: Splits | None, made: Mapping[str, Any]) -> str:
    """How the images were divided, as sentences for the methods."""
    if splits is None:
        return ""
    repeats = len({repeat for repeat, _ in splits.runs})
    folds = len(splits.runs)
    sizes = {name: [list(run.values()).count(name) for run in splits.runs.values()] for name in SUBSETS}
    spans = {name: f"{min(v)}" if min(v) == max(v) else f"{min(v)} to {max(v)}" for name, v in sizes.items()}
    if folds == 1:
        how = "Division. The images were divided once"
        told = f"{spans['train']} for training, {spans['validation']} for validation and {spans['test']} for test"
    else:
        per = folds // repeats
        if per > 1:
            times = f"{repeats} times " if repeats > 1 else ""
            how = f"Division. The images were divided {times}into {per} folds, of which each was the test set once"
        else:
            how = f"Division. The images were divided {repeats} times"
        told = f"in each division {spans['train']} were for training, {spans['validation']} for validation and "
        told += f"{spans['test']} for test"
    allowed = "--allow-leakage" in [str(word) for word in made.get("argv", [])]
    apart = (
        "Images of one patient, or equal pictures, may stand on two sides, which was allowed by hand."
        if allowed
        else "Before training it was checked that no patient and no picture, by the digest of its pixels, stands in "
        "two subsets of a division."
    )
    return f"{how}: {told}. {apart}"


def _tested(path: Path) -> list[Row]:
    """The labelled test rows of a table of predictions; all labelled ones where none is marked as test."""
    table = read_table(path)
    table.require("image_id")
    base = table.origin.absolute().parent if table.origin else Path.cwd()
    marked = any(row.get("subset") == TEST for row in table.rows)
    rows = [row for row in table.rows if row.get("label") and (row.get("subset") == TEST or not marked)]
    for row in rows:
        if row.get("path"):
            row["path"] = os.path.normpath(base / row["path"])
    return rows


def _files_of(source: Source) -> list[Path]:
    names = (MODEL_FILE, "model.safetensors", RUN_FILE, HISTORY, CURVES)
    files = [*source.tables, *(fold / name for fold in source.folds for name in names)]
    if source.run is not None:
        files += [source.run / name for name in (SPLITS, RUN_FILE, REJECTS, FILE_NAME)]
    return [path for path in files if path.is_file()]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
