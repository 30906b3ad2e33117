"""Evaluate predictions: every metric with its interval, choices on validation images, tables and plots."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.data.digests import check
from cxrtool.data.file_names import HISTORY, MANIFEST, PREDICTIONS, RUN_FILE, SPLITS
from cxrtool.data.files import atomic_write
from cxrtool.data.splitting.splits import known_as, read_splits
from cxrtool.data.structured import load_json
from cxrtool.data.tables.foreign import ForeignColumns, as_runs, as_table, notes_of
from cxrtool.data.tables.manifest import Row, dump_table, read_table
from cxrtool.data.tables.predictions import GROUPING, PROBABILITIES, RANKING, Predictions, join, write_predictions
from cxrtool.data.tables.views import Columns, cells_of
from cxrtool.errors import InputError, StrictError, UsageError, count_of
from cxrtool.flow import common_options
from cxrtool.flow.audits import audit_of, audits_near
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.new_images import NewImages, find_new_images
from cxrtool.flow.run import check_whole, folds_of, is_run, read_run_predictions, whole_folders
from cxrtool.flow.runs_together import RunsTogether, check_together
from cxrtool.flow.settings import COMPUTING, RUNNING, Settings
from cxrtool.options import Options, argument, option

if TYPE_CHECKING:
    from cxrtool.evaluation.groups import Grouping
    from cxrtool.evaluation.plots.repetitions import Repetitions
    from cxrtool.evaluation.scores import Scores


def table_of(argument: Path) -> Path:
    """The file of an argument: for a folder its splits, otherwise its manifest; an `InputError` if it has neither."""
    if not argument.is_dir():
        return argument
    for name in (SPLITS, MANIFEST):
        if (argument / name).is_file():
            return argument / name
    raise InputError(f"--within {argument}: expected {SPLITS} or {MANIFEST} in that folder, found neither")


def keep_within(predictions: Predictions, argument: Path, subset: str) -> list[str]:
    """Exclude the predictions, in place, for images that are not listed in a table.

    `argument` has splits, in which an image must be in the same repeat and fold, and in `subset`; or a manifest, which
    must list it or its original. Predictions without a repeat need splits with only one.

    Returns:
        A note on the excluded rows, if there are any.

    Raises:
        InputError: No row remains, or the table is neither splits nor a manifest.
    """
    path = table_of(argument)
    table = read_table(path)
    if "path" not in table.columns and "subset" in table.columns:
        runs = read_splits(path).runs
        wanted = {run: {name: where for name, where in s.items() if where == subset} for run, s in runs.items()}
        if len(runs) > 1 and not all(predictions.column("repeat")):
            raise InputError(
                f"{predictions.name}: expected a repeat and a fold for every prediction, because {path} has "
                f"{len(runs)} of them, found rows without"
            )
        pairs = zip(predictions.column("repeat"), predictions.column("fold"), strict=True)
        own = [(repeat or "0", fold or "0") for repeat, fold in pairs]
        kept = [i for i, row in enumerate(predictions.records) if known_as(row, wanted.get(own[i], {}))]
    else:
        table.require("image_id")
        known = dict.fromkeys(table.column("image_id"), subset)
        kept = [i for i, row in enumerate(predictions.records) if known_as(row, known)]
    of_subset = [mark == subset for mark in predictions.column("subset")]
    if not any(of_subset):
        # Where no row is marked, an evaluation uses all.
        of_subset = [True] * len(of_subset)
    excluded = sum(of_subset) - sum(of_subset[i] for i in kept)
    if not any(of_subset[i] for i in kept):
        raise InputError(f"--within {path}: expected images of {predictions.name}, found none of its {sum(of_subset)}")
    predictions.keep(kept)
    return [f"Rows excluded because they are not listed in {path.name}: {excluded}."] if excluded else []


Summary = dict[str, Any]

METRICS = "metrics.json"
TIDY = "metrics.csv"
TABLES = "tables.md"
REPETITIONS = "repetitions.csv"
RUNS = "runs.csv"

_NAMED = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_-]*)=(.+)")


def parse_prevalences(text: str | None) -> tuple[float, ...]:
    """Read `--prevalence`: shares separated by commas.

    Raises:
        UsageError: One is not a number between 0 and 1.

    >>> parse_prevalences("0.01,0.1")
    (0.01, 0.1)
    """
    found = []
    for part in (text or "").split(","):
        if not part.strip():
            continue
        try:
            value = float(part)
        except ValueError:
            value = -1.0
        if not 0 < value < 1:
            raise UsageError(f"--prevalence: expected shares above 0 and below 1 such as 0.05, found '{part.strip()}'")
        found.append(value)
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """The options of `evaluate`."""

    SHARED: ClassVar[tuple[str, ...]] = (
        "out",
        "seed",
        "verify",
        *RUNNING,
        "style",
        "digits",
        *COMPUTING,
        "precision",
        "allow_leakage",
        "root",
        "strict",
    )

    inputs: tuple[str, ...] = argument(
        "A run, predictions of one or more folds, or -; side by side as internal=A.csv external=B.csv. Or a run or "
        "model and images with labels: a folder with a subfolder for each class, a manifest, a table, a step's folder, "
        "images or a list of paths whose folders are named after their classes.",
        (),
        metavar="RUN|CSV|IMAGES...",
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
    relabel: tuple[str, ...] = option(
        "Labels of IMAGES as classes of the model, as a,b=c,d=e; repeatable. Nothing after = excludes the images.",
        (),
        metavar="OLD=NEW",
        shown="",
    )
    together: bool = option(
        "Several runs that differ in their seed as one method: mean ± SD over the runs, and one row a run.", False
    )
    id_column: str | None = option(
        "The column of image names in predictions of another tool.", None, metavar="COLUMN", shown="filename, image, …"
    )
    label_column: str | None = option(
        "The column of true classes there.", None, metavar="COLUMN", shown="label, y_true, target, …"
    )
    score_column: str | None = option(
        "The column with the score of --positive, or the columns of all classes with commas between.",
        None,
        metavar="COLUMN",
        shown="y_score, score, prob_<class>, …",
    )
    predicted_column: str | None = option(
        "The column of predicted classes there.", None, metavar="COLUMN", shown="y_pred, prediction, …"
    )
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

    def foreign(self) -> ForeignColumns:
        """The columns of predictions of another tool."""
        columns = self.id_column, self.label_column, self.score_column, self.predicted_column
        return ForeignColumns(*columns, self.positive)

    def check_decisions(self) -> None:
        """Raise a `UsageError` for options on decisions that need another, or are not possible with this input."""
        prevalences = parse_prevalences(self.prevalence)
        chosen = {"--calibrated": self.calibrated, "--sensitivity": self.sensitivity is not None}
        used = [name for name, value in {**chosen, "--abstain": self.abstain}.items() if value]
        if self.confusion_matrix is not None and used:
            raise UsageError(f"--confusion-matrix: cannot be combined with {used[0]}, because it has only counts")
        for name, value in {"--sensitivity": self.sensitivity is not None, "--prevalence": prevalences}.items():
            if value and self.positive is None:
                raise UsageError(
                    f"{name}: expected --positive with it, found none", "name the positive class: --positive covid"
                )
        if self.sensitivity is not None and not 0 < self.sensitivity < 1:
            raise UsageError(
                f"--sensitivity: expected a share above 0 and below 1 such as 0.95, found {self.sensitivity:g}"
            )
        if self.subset == "validation" and any(chosen.values()):
            raise UsageError(
                f"{used[0]}: expected another subset to evaluate than the validation images on which it is chosen, "
                "found --subset validation"
            )


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
    options.check_decisions()
    if options.together:
        if options.confusion_matrix is not None:
            raise UsageError("--confusion-matrix: cannot be combined with --together, because it has only counts")
        check_together(sources)
    new = _new_images(options, settings, sources)
    if settings.out is None:
        if settings.dry_run:
            settings.report.say(
                f"would evaluate {', '.join(str(path) for paths in sources.values() for path in paths)}"
            )
            return {}
        predictions, rejects = new.predict(settings, options.positive) if new else (None, [])
        found = _evaluate(options, settings, sources, predictions, _histories(sources, new))
        _report_rejects(rejects, settings)
        return {name: summary for name, (_, summary) in found.items()}
    folder = StepFolder(settings.out, _plan(options, settings, sources, new), settings)
    if not folder.needs_work():
        return {} if settings.dry_run else read_metrics(folder.out / METRICS)
    with folder.build() as build:
        predictions = None
        if new:
            predictions, build.rejects = new.predict(settings, options.positive)
        histories = _histories(sources, new)
        found = _evaluate(options, settings, sources, predictions, histories)
        results = {name: summary for name, (_, summary) in found.items()}
        _write(build.path, found, histories)
        if predictions is not None:
            write_predictions(build.path / PREDICTIONS, predictions)
        elif not options.together:
            _write_foreign(build.path, options, sources)
        columns, rows = _images(found)
        counts = {"evaluated": sum(summary["images"] for summary in results.values())}
        build.finish(columns, rows, counts=counts)
    return results


def _write_foreign(folder: Path, options: EvaluateOptions, sources: Mapping[str, Sequence[Path]]) -> None:
    """Write predictions of another tool in the format of cxrtool, so that `compare` and `report` need no options."""
    for name, paths in sources.items() if options.confusion_matrix is None else ():
        predictions, _ = _read(paths, options.foreign(), partial=options.partial)
        if predictions.notes:
            atomic_write(folder / name / PREDICTIONS, as_table(predictions))


def _new_images(
    options: EvaluateOptions, settings: Settings, sources: Mapping[str, Sequence[Path]]
) -> NewImages | None:
    """The model and the new images among the inputs, where there are any; reports what they were taken for."""
    found = None if options.confusion_matrix is not None else find_new_images(sources, options.foreign())
    if found is None:
        if options.relabel:
            raise UsageError(
                "--relabel: expected images with labels for a model, found none",
                "cxrtool evaluate RUN IMAGES --relabel OLD=NEW; labels of a manifest: `cxrtool select --relabel`",
            )
        return None
    if options.together:
        raise UsageError(
            "--together: expected runs or predictions, found images", "evaluate each run on them first, with -o"
        )
    new = NewImages.read(*found, options.relabel, settings, options.foreign(), partial=options.partial)
    for line in new.lines:
        settings.report.say(line)
    return new


LIBRARIES = ("numpy", "matplotlib", "opencv-python-headless", "torch", "timm")
SHOWN_REJECTS = 5


def _report_rejects(rejects: Sequence[Row], settings: Settings) -> None:
    for row in rejects[:SHOWN_REJECTS]:
        settings.report.warn(f"{row['path']}: {row['reason']}")
    if rejects and settings.strict:
        raise StrictError(f"{len(rejects)} rejected")
    if len(rejects) > SHOWN_REJECTS:
        settings.report.warn(
            f"{count_of(len(rejects), 'image was', 'images were')} rejected; with -o they are all in rejects.csv"
        )


def find_sources(options: EvaluateOptions) -> dict[str, list[Path]]:
    """The files to evaluate by name, which may be empty; a `UsageError` for none, or if only some have a name."""
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
    check(path)
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected what `cxrtool evaluate` wrote, cannot read it: {error}") from error
    return dict(content["sets"]) if "sets" in content else {"": content}


def dump_metrics(results: Mapping[str, Summary]) -> str:
    """`metrics.json` as text: one object, or `{"sets": {name: object}}` for several side by side."""
    content = results[""] if set(results) == {""} else {"sets": dict(results)}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _evaluate(
    options: EvaluateOptions,
    settings: Settings,
    sources: Mapping[str, Sequence[Path]],
    predicted: Predictions | None,
    histories: Mapping[str, Repetitions | None],
) -> dict[str, tuple[Scores | None, Summary]]:
    from cxrtool.evaluation.decisions.tables import decision_notes
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
        group = None
        if options.together:
            group, whole, missing = _read_together(paths, options)
            predictions = group.predictions
        else:
            predictions, missing = (
                (predicted, []) if predicted is not None else _read(paths, options.foreign(), partial=options.partial)
            )
            whole = copy(predictions)
        if options.within is not None and group is None:
            missing += keep_within(predictions, options.within, options.subset)
        scores = scores_of(predictions, subset=options.subset, classes=classes, abstaining=True)
        scores, decided = decide(scores, whole, classes, options, settings.seed)
        summary = summarise(
            scores, positive=options.positive, by=groupings, seed=settings.seed, resamples=options.resamples
        )
        notes = summary["notes"]
        summary |= decided
        if group is not None:
            drawn: dict[str, Any] = {"seed": settings.seed, "resamples": options.resamples}
            summary["together"], unlike = group.summarise(scores, positive=options.positive, **drawn)
            missing += unlike
        summary["notes"] = [*missing, *notes, *decision_notes(summary)]
        audit = audit_of(scores.rows, audits, paths) if audits else None
        summary["audit"] = audit.summary() if audit else None
        averaged = histories.get(name)
        summary["history"] = averaged.summary() if averaged else None
        found[name] = (scores, summary)
    return found


def decide(
    scores: Scores, predictions: Predictions, classes: Sequence[str], options: EvaluateOptions, seed: int
) -> tuple[Scores, Summary]:
    """Fit temperatures, choose thresholds, and apply both; `predictions` include the validation rows.

    Returns:
        The scores with these decisions, and the entries on decisions for `metrics.json`.

    Raises:
        InputError: A run has too few positive validation images for the sensitivity.
        LeakageError: A patient is in validation and in test of one run.
        UsageError: The positive class is unknown.
    """
    from cxrtool.evaluation.decisions import temperature, thresholds
    from cxrtool.evaluation.decisions.abstention import abstain
    from cxrtool.evaluation.decisions.net_benefit import decision_curve
    from cxrtool.evaluation.decisions.operating import operating_point
    from cxrtool.evaluation.decisions.validation import Validation, find_validation
    from cxrtool.evaluation.summary import find_positive

    needed = options.calibrated or options.sensitivity is not None or options.abstain
    check_probabilities(predictions, options)
    validation = find_validation(predictions, scores, classes) if needed else Validation()
    positive = find_positive(scores.classes, options.positive)
    runs = [{"repeat": repeat or "0", "fold": fold or "0"} for repeat, fold in scores.runs]
    found: Summary = {}
    if options.calibrated:
        scores, fitted = temperature.calibrate(scores, validation)
        if validation.scores is not None:
            values = validation.scores.probabilities.copy()
            fitted_of = dict(zip(scores.runs, fitted, strict=True))
            for run, indices in validation.rows.items():
                values[indices] = temperature.apply(values[indices], fitted_of[run].value)
            validation = replace(validation, scores=replace(validation.scores, probabilities=values))
        found["temperature"] = [run | entry.as_json() for run, entry in zip(runs, fitted, strict=True)]
    drawn: dict[str, Any] = {"seed": seed, "resamples": options.resamples}
    limits: list[float] = []
    if positive is not None:
        rated = drawn | {"prevalences": parse_prevalences(options.prevalence)}
        points = [operating_point(scores, positive, **rated)] if scores.decided.any() else []
        if options.sensitivity is not None:
            chosen = thresholds.choose(scores, validation, positive, options.sensitivity)
            limits = [entry.value for entry in chosen if entry.value is not None]
            scores = thresholds.decide(scores, positive, limits)
            found["thresholds"] = {
                "sensitivity": options.sensitivity,
                "positive": options.positive,
                "runs": [run | entry.as_json() for run, entry in zip(runs, chosen, strict=True)],
            }
            if limits:
                rule = f"threshold for sensitivity {options.sensitivity:g}"
                points.append(operating_point(scores, positive, rule=rule, **rated))
        found |= {"operating": points} if points else {}
        found |= {"decision_curve": decision_curve(scores, positive, **rated)} if scores.kind == PROBABILITIES else {}
    if options.abstain:
        found["abstention"] = abstain(scores, validation, positive_index=positive, thresholds=limits, **drawn)
    return scores, found


def check_probabilities(predictions: Predictions, options: EvaluateOptions) -> None:
    """Raise a `UsageError` for an option that needs probabilities, where there are only scores or classes."""
    given = {
        "--calibrated": options.calibrated,
        "--sensitivity": options.sensitivity is not None,
        "--abstain": options.abstain,
        "--classes": bool(options.classes),
    }
    used = [name for name, value in given.items() if value]
    if predictions.kind != PROBABILITIES and used:
        what = "scores that only rank the images" if predictions.kind == RANKING else "predicted classes alone"
        raise UsageError(f"{used[0]}: expected probabilities in {predictions.name}, found {what}")


def _from_counts(path: Path, options: EvaluateOptions, settings: Settings) -> Summary:
    from cxrtool.evaluation.counts import read_counts
    from cxrtool.evaluation.decisions.operating import operating_counts
    from cxrtool.evaluation.summary import find_positive, summarise_counts

    classes, counts, notes = read_counts(path)
    drawn: dict[str, Any] = {"seed": settings.seed, "resamples": options.resamples}
    summary = summarise_counts(classes, counts, positive=options.positive, **drawn)
    summary["notes"] = [*notes, *summary["notes"]]
    positive = find_positive(classes, options.positive)
    if positive is not None:
        rated = {"prevalences": parse_prevalences(options.prevalence), **drawn}
        summary["operating"] = [operating_counts(classes, counts, positive, **rated)]
    return summary


def _read(paths: Sequence[Path], foreign: ForeignColumns, *, partial: bool) -> tuple[Predictions, list[str]]:
    parts = [read_run_predictions(path, partial=partial, foreign=foreign) for path in paths]
    notes = [*notes_of(parts), *as_runs(parts)]
    owner: dict[tuple[str, str], Path] = {}
    for path, part in zip(paths, parts, strict=True):
        for run in part.runs():
            if run in owner:
                raise InputError(
                    f"{path}: expected repeats and folds that differ from those in {owner[run]}, found repeat "
                    f"'{run[0]}' fold '{run[1]}' in both",
                    "evaluate them side by side, as first=A.csv second=B.csv; or with --together if they "
                    "differ in the seed alone",
                )
            owner[run] = path
        if path.is_dir() and is_run(path) and (path / SPLITS).exists():
            expected, whole = folds_of(read_table(path / SPLITS).rows), check_whole(path, partial=True)
            notes += (
                [f"Only {len(whole)} of {count_of(len(expected), 'fold')} exist."] if len(whole) < len(expected) else []
            )
    return (parts[0] if len(parts) == 1 else join(parts, ", ".join(str(path) for path in paths))), notes


def _read_together(paths: Sequence[Path], options: EvaluateOptions) -> tuple[RunsTogether, Predictions, list[str]]:
    """The runs of `--together` with the rows of `--within`, all of their predictions, and notes."""
    parts, notes = [], []
    for path in paths:
        part, own = _read([path], options.foreign(), partial=options.partial)
        parts.append(part)
        notes += own
    whole = RunsTogether.of(parts, paths)
    if options.within is None:
        return whole, whole.predictions, list(dict.fromkeys(notes))
    chosen = [copy(part) for part in parts]
    for part in chosen:
        # Before the repeats have other numbers than in the splits.
        notes += keep_within(part, options.within, options.subset)
    return RunsTogether.of(parts, paths, chosen), whole.predictions, list(dict.fromkeys(notes))


def _plan(
    options: EvaluateOptions, settings: Settings, sources: Mapping[str, Sequence[Path]], new: NewImages | None = None
) -> Plan:
    if new:
        files = [*new.files, *audits_near([new.model, *new.sources])]
        files += [table_of(options.within)] if options.within is not None else []
        inputs = Inputs.of(new.manifest, files=files, verify=settings.verify)
        # Rows without an image change what is rejected.
        given = {**options.identity(), "precision": settings.precision, "rejects": len(new.rejects)}
        return Plan("evaluate", given, inputs, libraries=LIBRARIES, seeded=True, threaded=True)
    files = []
    for path in (path for paths in sources.values() for path in paths):
        if path.is_dir() and is_run(path):
            folds = whole_folders(path)
            files += [fold / PREDICTIONS for fold in folds]
            files += [fold / HISTORY for fold in folds if (fold / HISTORY).is_file()]
            files += [path / SPLITS] * (path / SPLITS).exists()
        else:
            files.append(path / PREDICTIONS if path.is_dir() else path)
        if options.together and (path / RUN_FILE).is_file():
            files.append(path / RUN_FILE)
    if options.within is not None:
        files.append(table_of(options.within))
    files += audits_near(chain.from_iterable(sources.values()))
    inputs = Inputs.of(files=files, verify=settings.verify)
    return Plan("evaluate", options.identity(), inputs, libraries=("numpy", "matplotlib"), seeded=True)


def _write(
    folder: Path, found: Mapping[str, tuple[Scores | None, Summary]], histories: Mapping[str, Repetitions | None]
) -> None:
    from cxrtool.evaluation import tables
    from cxrtool.evaluation.plots import curves as plots
    from cxrtool.evaluation.plots.reliability import why_no_reliability
    from cxrtool.evaluation.together import COLUMNS as RUN_COLUMNS
    from cxrtool.evaluation.together import table as run_table

    results = {name: summary for name, (_, summary) in found.items()}
    atomic_write(folder / METRICS, dump_metrics(results))
    for name, summary in results.items():
        if summary.get("together"):
            (folder / name).mkdir(exist_ok=True)
            atomic_write(folder / name / RUNS, dump_table(RUN_COLUMNS, run_table(summary["together"])))
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
            pictures[name] += _draw_decisions(summary, folder / name)
            pictures[name] += _write_repetitions(folder / name, histories.get(name))
    links = [f"![{path.stem}]({path.relative_to(folder).as_posix()})\n" for some in pictures.values() for path in some]
    undrawn = [f"{why}\n" for summary in results.values() if (why := why_no_reliability(summary))]
    atomic_write(folder / TABLES, tables.markdown(results) + "\n" + "\n".join([*undrawn, *links]))


def _draw_decisions(summary: Summary, folder: Path) -> list[Path]:
    """Draw the plots on decisions; returns the files."""
    files = []
    if "abstention" in summary:
        from cxrtool.evaluation.decisions.abstention import draw_coverage

        if draw_coverage(summary["abstention"], summary["images"], folder / "coverage.png"):
            files.append(folder / "coverage.png")
    if "decision_curve" in summary:
        from cxrtool.evaluation.decisions.net_benefit import draw_decision_curve

        draw_decision_curve(
            summary["decision_curve"], summary["positive"], summary["images"], folder / "decision_curve.png"
        )
        files.append(folder / "decision_curve.png")
    return files


def _write_repetitions(folder: Path, averaged: Repetitions | None) -> list[Path]:
    """Write and plot the training history over the folds of the runs, where there is one."""
    from cxrtool.evaluation.plots import repetitions

    if averaged is None:
        return []
    columns, rows = repetitions.tabulate(averaged)
    atomic_write(folder / REPETITIONS, dump_table(columns, rows))
    picture = (folder / REPETITIONS).with_suffix(".png")
    repetitions.draw(averaged, picture)
    return [picture]


def _histories(sources: Mapping[str, Sequence[Path]], new: NewImages | None) -> dict[str, Repetitions | None]:
    """The training history of every input; that of a run says nothing about new images."""
    return {} if new else {name: _averaged_history(paths) for name, paths in sources.items()}


def _averaged_history(paths: Sequence[Path]) -> Repetitions | None:
    """The training history over the folds of the runs; None where fewer than two folds have one."""
    from cxrtool.evaluation.plots import repetitions

    folds = [fold for path in paths if path.is_dir() and is_run(path) for fold in whole_folders(path)]
    return repetitions.average([read_table(fold / HISTORY).rows for fold in folds if (fold / HISTORY).is_file()])


def _images(found: Mapping[str, tuple[Scores | None, Summary]]) -> tuple[list[str], Columns]:
    """One row an image, with the share of the repeats in which it was predicted correctly."""
    cells: dict[str, list[str]] = {column: [] for column in ("image_id", "path", "label", *GROUPING, "correct")}
    for name, (scores, _) in found.items():
        if scores is None:
            continue
        names, first, shares = shares_right(cells_of(scores.rows, "image_id"), scores)
        paths = cells_of(scores.rows, "path")
        # A manifest needs images; a foreign table may have none.
        there = [index for index, row in enumerate(first) if paths[row]]
        for column in cells.keys() - {"image_id", "correct"}:
            given = cells_of(scores.rows, column)
            cells[column] += [given[first[index]] for index in there]
        cells["image_id"] += [f"{name}-{names[index]}" if name else names[index] for index in there]
        cells["correct"] += [shares[index] for index in there]
    return filled(cells)


def shares_right(
    names: Sequence[str], scores: Scores, rows: Sequence[int] | None = None
) -> tuple[list[str], list[int], list[str]]:
    """Of each image in order of appearance its name, its first row, and the share of its rows predicted correctly.

    `names` is of all rows of `scores`; only `rows` count, otherwise all.
    """
    import numpy as np

    used = np.arange(len(names)) if rows is None else np.asarray(rows, np.intp)
    codes: dict[str, int] = {}
    index = np.fromiter((codes.setdefault(names[i], len(codes)) for i in used.tolist()), np.intp, len(used))
    right = np.bincount(index, (scores.truth == scores.predicted)[used]) / np.bincount(index)
    texts = {share: f"{share:.4g}" for share in set(right.tolist())}
    first = used[np.unique(index, return_index=True)[1]]
    return list(codes), first.tolist(), [texts[share] for share in right.tolist()]


def filled(cells: Mapping[str, list[str]]) -> tuple[list[str], Columns]:
    """The columns that have a value, for a manifest."""
    kept = {column: values for column, values in cells.items() if any(values)}
    return list(kept) or ["image_id", "path"], Columns(kept, len(cells["image_id"]))
