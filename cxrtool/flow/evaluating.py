"""Evaluate predictions: every metric with its interval, tables and plots."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.data.file_names import HISTORY, PREDICTIONS, SPLITS
from cxrtool.data.files import atomic_write
from cxrtool.data.tables.manifest import Row, dump_table, read_table
from cxrtool.data.tables.predictions import GROUPING, Predictions, join
from cxrtool.errors import InputError, UsageError
from cxrtool.flow import common_options
from cxrtool.flow.audits import audit_of, audits_near
from cxrtool.flow.decisions import DecisionOptions, Decisions, add_counts, check, draw_decisions, parse_prevalences
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.run import STDIN, check_whole, fold_name, folds_of, is_run, read_run_predictions, whole_folds
from cxrtool.flow.settings import RUNNING, Settings
from cxrtool.flow.within import keep_within, table_of
from cxrtool.options import Options, argument, option

if TYPE_CHECKING:
    from cxrtool.evaluation.groups import Grouping
    from cxrtool.evaluation.scores import Scores

Summary = dict[str, Any]

METRICS = "metrics.json"
TIDY = "metrics.csv"
TABLES = "tables.md"
REPETITIONS = "repetitions.csv"

_NAMED = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_-]*)=(.+)")


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """The options of `evaluate`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", "verify", *RUNNING, "style", "digits")

    inputs: tuple[str, ...] = argument(
        "A run, predictions of one or more folds, or -; side by side as internal=A.csv external=B.csv.",
        (),
        metavar="RUN|CSV...",
        shown="",
    )
    by: str | None = option(
        "Columns to group by: severity,view,source,age:0,40,65 (numbers are bins; grade:low/mid/high sets an order).",
        None,
        metavar="COLUMNS",
        shown="",
    )
    positive: str | None = common_options.positive()
    classes: str | None = option(
        "Only images of these classes, with their probabilities scaled to sum 1.", None, metavar="NAMES", shown=""
    )
    subset: str = option("Only rows of this subset.", "test")
    within: Path | None = option(
        "Only images that are listed there; for splits, in the same repeat, fold and subset.",
        None,
        metavar="SPLITS|MANIFEST",
        shown="",
    )
    partial: bool = common_options.partial()
    confusion_matrix: Path | None = option(
        "Counts instead of predictions: the first column has the true class, the header the predicted classes.",
        None,
        metavar="FILE",
        shown="",
    )
    resamples: int = 2000
    calibrated: bool = common_options.calibrated()
    sensitivity: float | None = common_options.sensitivity()
    prevalence: str | None = common_options.prevalence()
    abstain: bool = common_options.abstain()

    def decision_options(self, seed: int) -> DecisionOptions:
        """The options on decisions.

        Raises:
            UsageError: They exclude one another, or a prevalence is not in (0, 1).
        """
        options = DecisionOptions(
            self.positive,
            self.calibrated,
            self.sensitivity,
            parse_prevalences(self.prevalence),
            self.abstain,
            seed,
            self.resamples,
        )
        check(options, subset=self.subset, counts=self.confusion_matrix is not None)
        return options


def evaluate(options: EvaluateOptions, settings: Settings) -> dict[str, Summary]:
    """Evaluate predictions, or counts, and write the step folder of `-o`.

    Returns:
        Name to the content of `metrics.json`; a single evaluation has an empty name. Empty under `--dry-run`.

    Raises:
        UsageError: Options that exclude one another, an unknown class.
        IncompleteError: A run lacks folds.
        InputError: Predictions that cannot be evaluated.
    """
    sources = find_sources(options)
    options.decision_options(settings.seed)
    if settings.out is not None and any(STDIN in paths for paths in sources.values()):
        raise UsageError(
            "-o: a result from standard input cannot be checked for changes later", "save the predictions as CSV first"
        )
    if settings.out is None:
        if settings.dry_run:
            settings.report.say(
                f"would evaluate {', '.join(str(path) for paths in sources.values() for path in paths)}"
            )
            return {}
        return {name: summary for name, (_, summary) in _evaluate(options, settings, sources).items()}
    folder = StepFolder(settings.out, _plan(options, settings, sources), settings)
    if not folder.needs_work():
        return {} if settings.dry_run else read_metrics(folder.out / METRICS)
    with folder.build() as build:
        found = _evaluate(options, settings, sources)
        results = {name: summary for name, (_, summary) in found.items()}
        _write(build.path, found, sources)
        columns, rows = _images(found)
        counts = {"evaluated": sum(summary["images"] for summary in results.values())}
        build.finish(columns, rows, counts=counts)
    return results


def find_sources(options: EvaluateOptions) -> dict[str, list[Path]]:
    """The files to evaluate by their name; an empty name where none is given.

    Raises:
        UsageError: There is nothing to evaluate, or only some inputs have a name.
    """
    if options.confusion_matrix is not None:
        given = {
            "RUN|CSV": options.inputs,
            "--by": options.by,
            "--classes": options.classes,
            "--within": options.within,
        }
        for name, value in given.items():
            if value:
                raise UsageError(f"--confusion-matrix: cannot be combined with {name}, because it has only counts")
        return {"": [options.confusion_matrix]}
    if not options.inputs:
        raise UsageError("expected a RUN or predictions as CSV", "counts are given with --confusion-matrix FILE")
    sources: dict[str, list[Path]] = {}
    for text in options.inputs:
        name, path = named_path(text)
        sources.setdefault(name, []).append(path)
    if "" in sources and len(sources) > 1:
        raise UsageError(
            f"expected a name for every input or for none, found none for {sources[''][0]}",
            "side by side: internal=A.csv external=B.csv",
        )
    return sources


def named_path(text: str) -> tuple[str, Path]:
    """A name and its path; an empty name where none is given, or where the whole text is an existing path.

    >>> named_path("vgg=runs/vgg16"), named_path("runs/vgg16")
    (('vgg', PosixPath('runs/vgg16')), ('', PosixPath('runs/vgg16')))
    """
    match = None if Path(text).exists() else _NAMED.fullmatch(text)
    return (match[1], Path(match[2])) if match else ("", Path(text))


def read_metrics(path: Path) -> dict[str, Summary]:
    """Read the `metrics.json` of one evaluation or of several side by side."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return dict(content["sets"]) if "sets" in content else {"": content}


def dump_metrics(results: Mapping[str, Summary]) -> str:
    """`metrics.json` as text: one object, or `{"sets": {name: object}}` for several side by side."""
    content = results[""] if set(results) == {""} else {"sets": dict(results)}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _evaluate(
    options: EvaluateOptions, settings: Settings, sources: Mapping[str, Sequence[Path]]
) -> dict[str, tuple[Scores | None, Summary]]:
    from cxrtool.evaluation.groups import parse_groupings
    from cxrtool.evaluation.scores import scores_of
    from cxrtool.evaluation.summary import summarise

    if options.confusion_matrix is not None:
        return {"": (None, _from_counts(options.confusion_matrix, options, settings))}
    groupings: list[Grouping] = parse_groupings(options.by or "")
    classes = [name.strip() for name in (options.classes or "").split(",") if name.strip()]
    found: dict[str, tuple[Scores | None, Summary]] = {}
    audits = audits_near(chain.from_iterable(sources.values()))
    for name, paths in sources.items():
        predictions, missing = _read(paths, partial=options.partial)
        whole = replace(predictions)
        if options.within is not None:
            missing += keep_within(predictions, options.within, options.subset)
        scores = scores_of(predictions, subset=options.subset, classes=classes, abstaining=True)
        decisions = Decisions.make(scores, whole, classes, options.decision_options(settings.seed))
        scores = decisions.scores
        summary = summarise(
            scores, positive=options.positive, by=groupings, seed=settings.seed, resamples=options.resamples
        )
        summary["notes"] = missing + summary["notes"]
        decisions.complete(summary)
        audit = audit_of(scores.rows, audits)
        summary["audit"] = audit.summary() if audit else None
        found[name] = (scores, summary)
    return found


def _from_counts(path: Path, options: EvaluateOptions, settings: Settings) -> Summary:
    from cxrtool.evaluation.counts import read_counts
    from cxrtool.evaluation.summary import summarise_counts

    classes, counts = read_counts(path)
    summary = summarise_counts(
        classes, counts, positive=options.positive, seed=settings.seed, resamples=options.resamples
    )
    add_counts(summary, classes, counts, options.decision_options(settings.seed))
    return summary


def _read(paths: Sequence[Path], *, partial: bool) -> tuple[Predictions, list[str]]:
    parts, notes = [], []
    owner: dict[tuple[str, str], Path] = {}
    for path in paths:
        part = read_run_predictions(path, partial=partial)
        for run in part.runs():
            if run in owner:
                raise InputError(
                    f"{path}: expected repeats and folds that differ from those in {owner[run]}, found repeat "
                    f"'{run[0]}' fold '{run[1]}' in both",
                    "evaluate them side by side, as first=A.csv second=B.csv",
                )
            owner[run] = path
        parts.append(part)
        notes += _missing(path)
    return (parts[0] if len(parts) == 1 else join(parts, ", ".join(str(path) for path in paths))), notes


def _missing(path: Path) -> list[str]:
    if not (path.is_dir() and is_run(path) and (path / SPLITS).exists()):
        return []
    expected, whole = folds_of(read_table(path / SPLITS).rows), check_whole(path, partial=True)
    return [f"Only {len(whole)} of {len(expected)} folds exist."] if len(whole) < len(expected) else []


def _plan(options: EvaluateOptions, settings: Settings, sources: Mapping[str, Sequence[Path]]) -> Plan:
    files: list[Path] = []
    for path in (path for paths in sources.values() for path in paths):
        if path.is_dir() and is_run(path):
            files += [path / fold_name(*pair) / PREDICTIONS for pair in whole_folds(path)]
            files += [path / SPLITS] * (path / SPLITS).exists()
        else:
            files.append(path / PREDICTIONS if path.is_dir() else path)
    if options.within is not None:
        files.append(table_of(options.within))
    files += audits_near(chain.from_iterable(sources.values()))
    inputs = Inputs.of(files=files, verify=settings.verify)
    return Plan("evaluate", options.identity(), inputs, libraries=("numpy", "matplotlib"), seeded=True)


def _write(
    folder: Path, found: Mapping[str, tuple[Scores | None, Summary]], sources: Mapping[str, Sequence[Path]]
) -> None:
    from cxrtool.evaluation import tables
    from cxrtool.evaluation.plots import curves as plots

    results = {name: summary for name, (_, summary) in found.items()}
    atomic_write(folder / METRICS, dump_metrics(results))
    columns, rows = tables.tidy(results)
    atomic_write(folder / TIDY, dump_table(columns, [dict(zip(columns, row, strict=True)) for row in rows]))
    pictures = {}
    for name, (scores, summary) in found.items():
        (folder / name).mkdir(exist_ok=True)
        if scores is None:
            plots.draw_confusion(summary, folder / name / "confusion.png")
            pictures[name] = [folder / "confusion.png"]
        else:
            pictures[name] = plots.draw_scores(scores, summary, folder / name)
            pictures[name] += draw_decisions(summary, folder / name)
            pictures[name] += _write_repetitions(folder / name, sources[name])
    links = [f"![{path.stem}]({path.relative_to(folder).as_posix()})\n" for some in pictures.values() for path in some]
    atomic_write(folder / TABLES, tables.markdown(results) + "\n" + "\n".join(links))


def _write_repetitions(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Write and plot the training history over the folds of the runs, where there are several with a history."""
    from cxrtool.evaluation.plots import repetitions

    folds = [path / fold_name(*pair) for path in paths if path.is_dir() and is_run(path) for pair in whole_folds(path)]
    histories = [read_table(fold / HISTORY).rows for fold in folds if (fold / HISTORY).is_file()]
    averaged = repetitions.average(histories)
    if averaged is None:
        return []
    columns, rows = repetitions.tabulate(averaged)
    atomic_write(folder / REPETITIONS, dump_table(columns, rows))
    picture = (folder / REPETITIONS).with_suffix(".png")
    repetitions.draw(averaged, picture)
    return [picture]


def _images(found: Mapping[str, tuple[Scores | None, Summary]]) -> tuple[list[str], list[Row]]:
    """One row an image, with the share of the repeats in which it was predicted correctly."""
    columns = ["image_id", "path", "label", *GROUPING, "correct"]
    rows: list[Row] = []
    for name, (scores, _) in found.items():
        if scores is None:
            continue
        right: dict[str, list[bool]] = {}
        first: dict[str, Row] = {}
        for row, truth, predicted in zip(scores.rows, scores.truth, scores.predicted, strict=True):
            right.setdefault(row["image_id"], []).append(bool(truth == predicted))
            first.setdefault(row["image_id"], row)
        for identity, row in first.items():
            # A manifest needs images; a foreign table may have none.
            if row.get("path"):
                kept = {column: row[column] for column in columns if row.get(column)}
                share = sum(right[identity]) / len(right[identity])
                unique = f"{name}-{identity}" if name else identity
                rows.append({**kept, "image_id": unique, "correct": f"{share:.4g}"})
    present = [column for column in columns if any(column in row for row in rows)]
    return (present or ["image_id", "path"]), rows
