"""What a report is about: predictions, their run, its images and the steps that made them, and the audit."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.report.heatmaps import Explained
from cxrtool.data.digests import check
from cxrtool.data.file_names import (
    AUDIT,
    CURVES,
    HISTORY,
    MANIFEST,
    MODEL,
    MODEL_WEIGHTS,
    PREDICTIONS,
    REJECTS,
    RUN_FILE,
    SPLITS,
)
from cxrtool.data.files import no_such
from cxrtool.data.splitting.grouping import PATIENT, group_images, original_of
from cxrtool.data.splitting.made_by import parse as parse_line
from cxrtool.data.splitting.splits import SUBSETS, Splits, read_splits
from cxrtool.data.structured import load_json
from cxrtool.data.tables.foreign import ForeignColumns, is_own
from cxrtool.data.tables.manifest import Row, read_manifest, read_table
from cxrtool.data.tables.twins import MARK, is_twin, radiograph_id, split_class
from cxrtool.data.tables.workbook import is_workbook
from cxrtool.errors import InputError
from cxrtool.flow import run as runs
from cxrtool.flow.audits import Audit, audit_of, audits_near, for_predictions, read_audit
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.origins import Origin, manifest_of_run, trace
from cxrtool.flow.predicted import beside

if TYPE_CHECKING:
    from cxrtool.reporting.flow_chart import Flow, Stage


def radiographs(rows: Sequence[Row]) -> list[Row]:
    """One row per radiograph, under its own id, for any number of versions or twins."""
    found: dict[str, Row] = {}
    for row in rows:
        identity = radiograph_id(row) if is_twin(row) else original_of(row)
        label = row.get("label", "")
        own = {"label": split_class(label)[0]} if is_twin(row) and MARK in label else {}
        found.setdefault(identity, {**row, **own, "image_id": identity})
    return list(found.values())


SHOWN_REASONS = 5

WORDS = {
    "prepare": "read as grey images (prepare)",
    "select": "selected (select)",
    "segment": "lungs found (segment)",
    "enhance": "enhanced (enhance)",
    "transform": "transformed (transform)",
    "phantom": "drawn (phantom)",
}
"""Titles of the steps in the flow of images."""

NO_REASON = "reason not recorded (`cxrtool select -o FOLDER` records it)"


def flow_of(
    origins: Sequence[Origin], rows: Sequence[Row], splits: Splits | None, unread: Sequence[Row], tested: Sequence[Row]
) -> Flow:
    """The flow of a study.

    Args:
        origins: The steps behind it, the earliest first.
        rows: The images that were trained and tested on, one row per radiograph; or those of the predictions.
        splits: The subset of each image; None for predictions without a run.
        unread: Images that training could not read.
        tested: The labelled images whose predictions are evaluated, one row per radiograph.
    """
    from cxrtool.reporting.flow_chart import Flow

    stages = _steps(origins)
    notes = [] if origins else ["The origin of the images is not known: the folders of the earlier steps are missing."]
    parts: list[tuple[str, str]] = []
    if splits is not None:
        known = splits.ids()
        labelled = [row for row in rows if row.get("label")]
        divided = [row for row in labelled if row["image_id"] in known]
        left = [(len(rows) - len(labelled), "no label"), (len(labelled) - len(divided), "in no subset of the splits")]
        left += _reasons(unread)
        gone = {reject["path"] for reject in unread}
        readable = [row for row in divided if row.get("path") not in gone]
        stages.append(_stage("divided for training and test", readable, left))
        parts = parts_of(readable, splits)
        lost = len({row["image_id"] for row in readable} - {row["image_id"] for row in tested})
        if tested and lost and len(splits.runs) > 1:
            notes.append(f"{lost} of these images are not tested in any fold that is evaluated here.")
    else:
        stages.append(_stage("evaluated", tested, []))
    return Flow(stages, parts, notes)


def parts_of(rows: Sequence[Row], splits: Splits) -> list[tuple[str, str]]:
    """The subsets with their sizes: exact for one fold, as a range for several."""
    by_id = {row["image_id"]: row for row in rows}
    sizes: dict[str, list[tuple[int, int | None]]] = {name: [] for name in SUBSETS}
    for subsets in splits.runs.values():
        for name in SUBSETS:
            own = [by_id[identity] for identity, subset in subsets.items() if subset == name and identity in by_id]
            sizes[name].append((len(own), _patients(own)))
    several = len(splits.runs) > 1
    found = []
    for name, pairs in sizes.items():
        if not any(images for images, _ in pairs):
            continue
        people = [patients for _, patients in pairs if patients is not None]
        text = f"{_span([images for images, _ in pairs])} images" + (f"\n{_span(people)} patients" if people else "")
        title = "training" if name == "train" else name
        found.append((f"{title}, in each fold" if several else title, text))
    return found


def _steps(origins: Sequence[Origin]) -> list[Stage]:
    from cxrtool.reporting.flow_chart import Stage

    stages: list[Stage] = []
    before: set[str] = set()
    for origin in origins:
        rows = radiographs(origin.manifest.rows)
        counts = origin.made.get("counts", {}) if origin.made else {}
        if not stages and counts.get("inputs"):
            stages.append(Stage("files of the source", int(counts["inputs"])))
        left = _reasons(origin.rejects)
        now = {row["image_id"] for row in rows}
        gone = len(before - now) - sum(count for count, _ in left)
        if before and gone > 0:
            left.append((gone, NO_REASON if not origin.made else "not in the input table of this step"))
        title = WORDS.get(origin.command, origin.command) or f"listed in {origin.path.name}"
        stages.append(_stage(title, rows, left))
        before = now
    return stages


def _stage(title: str, rows: Sequence[Row], left: Sequence[tuple[int, str]]) -> Stage:
    from cxrtool.reporting.flow_chart import Stage

    return Stage(title, len(rows), _patients(rows), [(count, reason) for count, reason in left if count])


def _patients(rows: Sequence[Row]) -> int | None:
    return len(set(group_images(rows))) if any(row.get(PATIENT, "").strip() for row in rows) else None


def _reasons(rejects: Sequence[Row]) -> list[tuple[int, str]]:
    """Counts of each reason, the most common first; names of single images are removed."""
    counts = Counter(re.sub(r"'[^']*'|\S*/\S+", "…", row.get("reason", "")) or "no reason given" for row in rejects)
    common = counts.most_common()
    rest = sum(count for _, count in common[SHOWN_REASONS:])
    found = [(count, reason) for reason, count in common[:SHOWN_REASONS]]
    return found + ([(rest, "other reasons, in rejects.csv of the step")] if rest else [])


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


TEST, SOURCE = "test", "source"


@dataclass(frozen=True)
class Source:
    """One RUN or CSV.

    Attributes:
        name: The name before `=`; empty where none was given.
        path: As given.
        run: The folder of the run, where it is a run or one of its folds.
        folds: The folders of its folds that are evaluated; empty for a CSV.
        tables: The tables of predictions.
    """

    name: str
    path: Path
    run: Path | None
    folds: Sequence[Path]
    tables: Sequence[Path]

    @property
    def asked(self) -> str:
        """The model that `predict` or `evaluate` asked about new images, and which refused those it was trained on.

        Empty where that is not what the table is, or where leakage was allowed.
        """
        if self.run is not None:
            return ""
        file = self.path / RUN_FILE if self.path.is_dir() else beside(self.path, RUN_FILE)
        try:
            made = load_json(file)
            name = {"predict": "model", "evaluate": "inputs"}[made["command"]]
            value, allowed = made["options"][name]["value"], "--allow-leakage" in made["argv"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return "" if allowed else str(value if isinstance(value, str) else value[0])

    @classmethod
    def of(cls, name: str, path: Path, *, partial: bool) -> Source:
        """The source at a path.

        Raises:
            IncompleteError: A run lacks folds and `partial` is false.
            InputError: There is no run and no table of predictions.
        """
        if path.is_dir() and runs.is_run(path):
            folds = [path / runs.fold_name(*pair) for pair in runs.check_whole(path, partial=partial)]
            return cls(name, path, path, folds, [fold / PREDICTIONS for fold in folds])
        if path.is_dir() and (path / PREDICTIONS).is_file():
            of_run = runs.is_fold(path.absolute()) and runs.is_model(path)
            return cls(
                name, path, path.absolute().parent if of_run else None, [path] if of_run else [], [path / PREDICTIONS]
            )
        if not path.exists():
            raise InputError(no_such(path, "run or file"), "a run is the folder that `cxrtool train -o` wrote")
        if path.is_dir():
            raise InputError(f"{path}: expected a run or a {PREDICTIONS}, found neither")
        return cls(name, path, None, [], [path])


@dataclass
class Study:
    """All that a report reads, except images and figures.

    Attributes:
        sources: What is evaluated.
        tested: The labelled test rows of all predictions.
        rows: The images, one row per radiograph: of the manifest, otherwise of the predictions.
        named: The name of the manifest of `rows`; empty for predictions.
        splits: The subset of each image; None where there is no run.
        origins: The steps behind the images.
        audit: The audit of the images, or None.
        explained: The scores of heatmaps of the test images, or None.
        made: `run.json` of the first run; empty where there is none.
        fold: `run.json` of its first fold.
        model: `model.json` of its first fold.
        unread: Images that its training could not read.
        files: All input files of the report, except the figures of the audit.
        by_name: The rows of `tested` by the name before `=`; of a single evaluation the name is empty.
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
    by_name: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    explained: Explained | None = None

    @classmethod
    def read(
        cls,
        sources: Mapping[str, Sequence[Path]],
        *,
        partial: bool,
        manifest: Path | None,
        audit: Path | None,
        explained: Path | None = None,
        positive: str | None = None,
    ) -> Study:
        """Read it; `positive` is the class of a single score in predictions of another tool.

        Raises:
            IncompleteError: A run lacks folds and `partial` is false.
            InputError: Predictions, a manifest, an audit or scores of heatmaps cannot be read.
        """
        found = [Source.of(name, path, partial=partial) for name, paths in sources.items() for path in paths]
        by_name: dict[str, list[Row]] = {}
        for source in found:
            rows_of = [row for table in source.tables for row in _tested(table, positive)]
            by_name.setdefault(source.name, []).extend(rows_of)
        tested = [row for own in by_name.values() for row in own]
        first = next((source for source in found if source.run is not None), None)
        run = first.run if first else None
        folds = list(first.folds) if first else []
        made = (read_run_file(run) if run else None) or (read_run_file(folds[0]) if folds else None) or {}
        rows, named, table = radiographs(tested), "", None
        own = run / MANIFEST if run else None
        table = manifest or (own if own and own.is_file() else None)
        if table is not None:
            rows, named = radiographs(read_manifest(table).rows), str(table)
        splits = read_splits(run) if run and (run / SPLITS).is_file() else None
        origins = trace([manifest] if manifest else manifest_of_run(run, made) if run else [], rows)
        paths = [source.path for source in found]
        known = for_predictions(read_audit(audit), paths) if audit else audit_of(tested, audits_near(paths), paths)
        models = [fold for source in found for fold in source.folds]
        scored = Explained.read(explained, {row["image_id"] for row in tested}, models) if explained else None
        unread = read_table(run / REJECTS).rows if run and (run / REJECTS).is_file() else []
        for row in unread:
            row["path"] = os.path.normpath((run or Path()).absolute() / row.get("path", ""))
        files = [path for source in found for path in _files_of(source)]
        files += [path for origin in origins for path in origin.files()] + ([table] if table else [])
        files += [known.folder / AUDIT] if known else []
        files += scored.files if scored else []
        fold = (read_run_file(folds[0]) if folds else None) or {}
        return cls(
            found,
            tested,
            rows,
            named,
            splits,
            origins,
            known,
            made,
            fold,
            _read_json(folds[0] / MODEL) if folds else {},
            unread,
            list(dict.fromkeys(files)),
            by_name,
            scored,
        )

    @property
    def run(self) -> Path | None:
        """The first run."""
        return next((source.run for source in self.sources if source.run is not None), None)

    @property
    def folds(self) -> list[Path]:
        """The folders of the folds of the first run."""
        return next((list(source.folds) for source in self.sources if source.folds), [])

    def radiographs_tested(self, name: str | None = None) -> list[Row]:
        """The images that were tested, one row a radiograph; with a name those of one evaluation."""
        return radiographs(self.tested if name is None else self.by_name[name])

    def sources_apart(self) -> bool:
        """Whether each fold tests a source that was excluded from its training (`split --leave-out source`)."""
        lines = self.splits.made_by if self.splits else ()
        commands = [parse_line(line) for line in lines]
        return bool(commands) and all(command[0].get("leave_out") == SOURCE for command in commands)

    def counts(self, column: str) -> dict[str, int]:
        """Number of images with each value of a column, the most common first, without missing values."""
        labels = [row.get(column, "").strip() for row in self.rows]
        return dict(Counter(label for label in labels if label).most_common())


def divided_in_words(study: Study) -> str:
    """The division of the images, as a paragraph for the methods; empty for predictions alone."""
    from cxrtool.reporting.division import division_in_words

    if study.splits is None:
        return ""
    unread = {reject["path"] for reject in study.unread}
    rows = [row for row in study.rows if row.get("path") not in unread]
    words = [str(word) for word in study.made.get("argv", [])]
    return division_in_words(study.splits, rows, allowed="--allow-leakage" in words if study.made else None)


def _tested(path: Path, positive: str | None) -> list[Row]:
    """The labelled test rows of a table of predictions; all labelled rows where none is marked as test."""
    table = None if is_workbook(path) else read_table(path)
    if table is None or not is_own(table):
        rows = runs.read_table_of_predictions(path, ForeignColumns(positive=positive)).rows
        return [row for row in rows if row.get("label")]
    base = table.origin.absolute().parent if table.origin else Path.cwd()
    marked = any(row.get("subset") == TEST for row in table.rows)
    rows = [row for row in table.rows if row.get("label") and (row.get("subset") == TEST or not marked)]
    for row in rows:
        if row.get("path"):
            row["path"] = os.path.normpath(base / row["path"])
    return rows


def _files_of(source: Source) -> list[Path]:
    names = (MODEL, MODEL_WEIGHTS, RUN_FILE, HISTORY, CURVES)
    files = [*source.tables, *(fold / name for fold in source.folds for name in names)]
    if source.run is not None:
        files += [source.run / name for name in (SPLITS, RUN_FILE, REJECTS, MANIFEST)]
    return [path for path in files if path.is_file()]


def _read_json(path: Path) -> dict[str, Any]:
    check(path)
    try:
        content = load_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
