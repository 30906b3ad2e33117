"""Compare runs on the same images, and test whether they differ.

Each difference from the reference has an interval from the same resampled patients, a permutation test of the two
trained models and a corrected t test of the two methods. A test that does not apply is refused, with the reason. p
values are adjusted for all comparisons (Holm).

Example: cxrtool compare runs/vgg16 runs/densenet201 --baseline runs/thumbnail -o comparison
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.data.digests import check
from cxrtool.data.file_names import FITTED_ON, HISTORY, MODEL, PREDICTIONS, RUN_FILE, SPLITS
from cxrtool.data.files import STDIN, atomic_write, is_stream
from cxrtool.data.structured import load_json
from cxrtool.data.tables.foreign import ForeignColumns, as_runs, notes_of
from cxrtool.data.tables.manifest import dump_table, read_table
from cxrtool.data.tables.predictions import GROUPING, Predictions, join
from cxrtool.data.tables.views import Columns, cells_of
from cxrtool.errors import InputError, UsageError
from cxrtool.evaluation.comparison.metrics import METRICS, in_words
from cxrtool.flow import common_options
from cxrtool.flow.audits import audit_of, audits_near
from cxrtool.flow.evaluating import filled, keep_within, named_path, shares_right, table_of
from cxrtool.flow.folder import Inputs, Plan, StepFolder, read_run_file
from cxrtool.flow.run import check_whole, fold_name, is_fold, is_run, read_run_predictions, whole_folders
from cxrtool.flow.settings import RUNNING, Settings
from cxrtool.options import Options, argument, option
from cxrtool.recipes.published import published_names

if TYPE_CHECKING:
    from cxrtool.evaluation.comparison.runs import Entry
    from cxrtool.recipes.published import Published


FILES = (PREDICTIONS, RUN_FILE, MODEL, HISTORY, FITTED_ON)
"""The files that are read from a fold."""

SIZES = ("parameters", "trained_parameters", "macs")


@dataclass(frozen=True)
class RunFacts:
    """The facts of a run; empty for a CSV file.

    Attributes:
        values: Those that are known of `model`, `weights`, `parameters`, `trained_parameters`, `macs` of one image;
            `seconds`, `epochs` and `images` fitted, as means over the folds; `seconds_total`; `devices`, `threads`.
        fitted: Number of images that each (repeat, fold) was fitted on.
        seen: (repeat, fold, image) of all images that were fitted or validated on.
    """

    values: dict[str, Any] = field(default_factory=dict)
    fitted: dict[tuple[str, str], int] = field(default_factory=dict)
    seen: frozenset[tuple[str, str, str]] = frozenset()


def folders_of(path: Path, *, partial: bool = False) -> list[Path]:
    """The folders of the folds of a run, or the folder of a single fold itself; none for a file."""
    if not path.is_dir():
        return []
    if is_run(path):
        return [path / fold_name(*pair) for pair in check_whole(path, partial=partial)]
    return [path] if (path / PREDICTIONS).is_file() else []


def read_facts(paths: Iterable[Path], *, partial: bool = False) -> RunFacts:
    """Read the facts of one run, given as runs, folds or files; `partial` accepts missing folds."""
    folders = [folder for path in paths for folder in folders_of(path, partial=partial)]
    made = [read_run_file(folder) or {} for folder in folders]
    training = [content.get("training", {}) for content in made]
    models = [_read_model(folder) for folder in folders]
    values: dict[str, Any] = {}
    _put_same(values, "model", [model.get("architecture", {}).get("name") for model in models])
    _put_same(values, "weights", [model.get("trained", {}).get("weights") for model in models])
    for name in SIZES:
        _put_same(values, name, [notes.get(name) for notes in training])
    seconds = [notes.get("seconds") for notes in training]
    _put_mean(values, "seconds", seconds)
    if "seconds" in values:
        values["seconds_total"] = round(sum(seconds), 2)
    _put_mean(values, "epochs", [_rows(folder / HISTORY) for folder in folders])
    fitted: Counter[tuple[str, str]] = Counter()
    seen = set()
    for folder in folders:
        for row in _table(folder / FITTED_ON):
            pair = row.get("repeat") or "0", row.get("fold") or "0"
            seen.add((*pair, row["image_id"]))
            fitted[pair] += row.get("subset", "train") == "train"
    if folders and len(fitted) == len(folders):
        _put_mean(values, "images", list(fitted.values()))
    devices = {str(notes["device"]) for notes in training if "device" in notes}
    threads = {content["threads"] for content in made if content.get("threads")}
    values |= {"devices": sorted(devices)} if devices else {}
    values |= {"threads": sorted(threads)} if threads else {}
    return RunFacts(values, dict(fitted), frozenset(seen))


def _put_same(facts: dict[str, Any], name: str, values: Sequence[Any]) -> None:
    """Add a value that is the same in all folds."""
    if values and values[0] is not None and all(value == values[0] for value in values):
        facts[name] = values[0]


def _put_mean(facts: dict[str, Any], name: str, values: Sequence[Any]) -> None:
    """Add the mean of a value that every fold has."""
    if values and all(value is not None for value in values):
        facts[name] = round(sum(values) / len(values), 2)


def _read_model(folder: Path) -> dict[str, Any]:
    check(folder / MODEL)
    with contextlib.suppress(OSError, ValueError):
        content = load_json(folder / MODEL)
        if isinstance(content, dict):
            return content
    return {}


def _table(path: Path) -> list[dict[str, str]]:
    check(path)
    with contextlib.suppress(InputError):
        return read_table(path).rows if path.is_file() else []
    return []


def _rows(path: Path) -> int | None:
    return len(_table(path)) or None


COMPARISON = "comparison.json"
TIDY = "comparison.csv"
TABLES = "tables.md"


@dataclass(frozen=True)
class CompareOptions(Options):
    """The options of `compare`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", "verify", *RUNNING, "style", "digits")

    inputs: tuple[str, ...] = argument(
        "Runs, or predictions as CSV; optionally with a name: vgg=runs/vgg16.", (), metavar="RUN|CSV...", shown=""
    )
    baseline: str | None = option(
        "The reference for all comparisons.", None, metavar="RUN|NAME", shown="the best on validation images"
    )
    positive: str | None = common_options.positive()
    metric: str = option(f"The metric to compare: {in_words()}.", "accuracy", choices=METRICS)
    published: str | None = option(
        "Show the printed table of a paper beside ours: {choices}.",
        None,
        metavar="NAME",
        choices=published_names,
        shown="",
    )
    within: Path | None = option(
        "Only images that are listed there; for splits, in the same repeat, fold and subset.",
        None,
        metavar="SPLITS|MANIFEST",
        shown="",
    )
    partial: bool = common_options.partial()
    resamples: int = 2000


def run(options: CompareOptions, settings: Settings) -> None:
    """Compare, and print the comparison."""
    from cxrtool.evaluation.comparison import tables

    if found := compare(options, settings):
        settings.output.report(found, tables, dump_comparison)


def compare(options: CompareOptions, settings: Settings) -> dict[str, Any]:
    """Compare runs, and write the step folder of `-o`.

    Returns:
        The content of `comparison.json`; empty under `--dry-run`.

    Raises:
        UsageError: An option is wrong.
        IncompleteError: A run lacks folds.
        InputError: Predictions that cannot be evaluated.
    """
    from cxrtool.evaluation.comparison.runs import check_metric
    from cxrtool.recipes.published import read_published

    sources, baseline = find_sources(options)
    check_metric(options.metric, options.positive)
    paper = read_published(options.published) if options.published else None
    if settings.out is None:
        if settings.dry_run:
            settings.report.say(f"would compare {', '.join(sources)}")
            return {}
        return _compare(options, settings, sources, baseline, paper)[1]
    folder = StepFolder(settings.out, _plan(options, settings, sources, baseline), settings)
    if not folder.needs_work():
        return {} if settings.dry_run else dict(load_json(folder.out / COMPARISON))
    with folder.build() as build:
        entries, found = _compare(options, settings, sources, baseline, paper)
        _write(build.path, found)
        columns, rows = _images(entries)
        build.finish(columns, rows, counts={"runs": len(entries), "comparisons": len(found["comparisons"])})
    return found


def find_sources(options: CompareOptions) -> tuple[dict[str, list[Path]], str | None]:
    """The files of every run by its name, and the name of the reference.

    Inputs with the same name are one run (several folds, each a CSV). An input without a name gets that of its folder,
    with as many parent folders as make it unique.

    Raises:
        UsageError: There is nothing to compare, or the reference is unknown.
    """
    if not options.inputs:
        raise UsageError("expected two runs or more, or predictions as CSV", "for instance first=runA second=runB")
    given = [named_path(text) for text in options.inputs]
    names, baseline = _names(given), options.baseline
    if baseline is not None and baseline not in names:
        wanted = Path(baseline).absolute()
        same = [name for name, (_, path) in zip(names, given, strict=True) if path.absolute() == wanted]
        if not same and not wanted.exists():
            raise UsageError(
                f"--baseline: expected one of {', '.join(dict.fromkeys(names))}, or another run, found '{baseline}'"
            )
        if not same:
            given.insert(0, ("", Path(baseline)))
            names = _names(given)
        baseline = same[0] if same else names[0]
    sources: dict[str, list[Path]] = {}
    for name, (_, path) in zip(names, given, strict=True):
        sources.setdefault(name, []).append(path)
    return sources, baseline


def _names(given: Sequence[tuple[str, Path]]) -> list[str]:
    unnamed = iter(distinct([path for name, path in given if not name], {name for name, _ in given if name}))
    return [name or next(unnamed) for name, _ in given]


def distinct(paths: Sequence[Path], taken: set[str]) -> list[str]:
    """A name for every path: that of its folder or file, with as many parent folders as make it unique.

    The name of a fold includes that of its run; a repeated path gets a number.

    >>> distinct([Path("a/vgg16"), Path("b/vgg16"), Path("c.csv")], set())
    ['a/vgg16', 'b/vgg16', 'c']
    """
    parts = [_parts(path) for path in paths]
    depths = [2 if is_fold(Path(part[-1])) else 1 for part in parts]
    names = ["/".join(part[-depth:]) for part, depth in zip(parts, depths, strict=True)]
    while True:
        clashing = [
            i for i, name in enumerate(names) if (names.count(name) > 1 or name in taken) and depths[i] < len(parts[i])
        ]
        if not clashing:
            break
        for i in clashing:
            depths[i] += 1
            names[i] = "/".join(parts[i][-depths[i] :])
    result: list[str] = []
    for name in names:
        number, unique = 2, name
        while unique in taken or unique in result:
            unique, number = f"{name}-{number}", number + 1
        result.append(unique)
    return result


def _parts(path: Path) -> list[str]:
    if is_stream(path):
        return ["stdin" if path == STDIN else path.name]
    whole = path.absolute()
    if whole.name == PREDICTIONS:
        whole = whole.parent
    elif whole.suffix.lower() == ".csv":
        whole = whole.with_suffix("")
    return [part for part in whole.parts if part != whole.anchor] or ["run"]


def dump_comparison(found: Mapping[str, Any]) -> str:
    """`comparison.json` as text."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _compare(
    options: CompareOptions,
    settings: Settings,
    sources: Mapping[str, Sequence[Path]],
    baseline: str | None,
    paper: Published | None,
) -> tuple[list[Entry], dict[str, Any]]:
    from cxrtool.evaluation.comparison.runs import compare_runs
    from cxrtool.recipes.published import beside

    entries = [_read(name, paths, options) for name, paths in sources.items()]
    misfit = paper.misfit(row for entry in entries for row in entry.scores.rows) if paper else ""
    if misfit:
        settings.report.warn(f"{misfit}: the printed figures are not shown beside them")
        paper = None
    found = compare_runs(
        entries,
        metric=options.metric,
        positive=options.positive,
        baseline=baseline,
        seed=settings.seed,
        resamples=options.resamples,
        by=paper.grouped_by if paper else (),
    )
    networks = {entry.name: str(entry.facts.get("model", "")) for entry in entries}
    found["published"] = beside(paper, networks, entries[0].scores.classes, options.positive) if paper else None
    paths = list(chain.from_iterable(sources.values()))
    audits = audits_near(paths)
    audit = audit_of([row for entry in entries for row in entry.scores.rows], audits, paths) if audits else None
    found["audit"] = audit.summary() if audit else None
    return entries, found


def _read(name: str, paths: Sequence[Path], options: CompareOptions) -> Entry:
    from cxrtool.evaluation.comparison.align import key_of
    from cxrtool.evaluation.comparison.runs import Entry
    from cxrtool.evaluation.scores import TEST, scores_of
    from cxrtool.evaluation.unknown import check_comparable

    foreign = ForeignColumns(positive=options.positive)
    parts = [read_run_predictions(path, partial=options.partial, foreign=foreign) for path in paths]
    as_runs(parts)
    predictions: Predictions = parts[0] if len(parts) == 1 else join(parts, name)
    if len({run for part in parts for run in part.runs()}) < sum(len(part.runs()) for part in parts):
        raise InputError(
            f"{name}: expected different repeats and folds in its {len(parts)} files, found some of them twice"
        )
    notes = keep_within(predictions, options.within, TEST) if options.within is not None else []
    marked = [index for index, subset in enumerate(predictions.column("subset")) if subset == "validation"]
    validation = {
        key_of(row): row["label"] == row.get("predicted")
        for row in map(predictions.records.__getitem__, marked)
        if row.get("label") and row.get("predicted")
    }
    facts = read_facts(paths, partial=options.partial)
    seen = facts.seen | validation.keys()
    values = {**facts.values, "path": [str(path) for path in paths]}
    scores = scores_of(predictions)
    check_comparable(scores, options.metric, name)
    notes = [*notes_of(parts), *notes]
    return Entry(name, scores, facts.fitted, frozenset(seen), validation, values, notes)


def _plan(
    options: CompareOptions, settings: Settings, sources: Mapping[str, Sequence[Path]], baseline: str | None
) -> Plan:
    files: list[Path] = []
    for path in (path for paths in sources.values() for path in paths):
        if path.is_dir() and is_run(path):
            files += [folder / name for folder in whole_folders(path) for name in FILES]
            files += [path / SPLITS] * (path / SPLITS).exists()
        elif path.is_dir():
            files += [path / name for name in FILES]
        else:
            files.append(path)
    if options.within is not None:
        files.append(table_of(options.within))
    files += audits_near(chain.from_iterable(sources.values()))
    given = {**options.identity(), "baseline": baseline}
    inputs = Inputs.of(files=files, verify=settings.verify)
    return Plan("compare", given, inputs, libraries=("numpy", "scipy", "matplotlib"), seeded=True)


def _write(folder: Path, found: Mapping[str, Any]) -> None:
    from cxrtool.evaluation.comparison import tables as comparison_tables
    from cxrtool.evaluation.plots import comparison as comparison_plots

    atomic_write(folder / COMPARISON, dump_comparison(found))
    columns, rows = comparison_tables.tidy(found)
    atomic_write(folder / TIDY, dump_table(columns, [dict(zip(columns, row, strict=True)) for row in rows]))
    pictures = comparison_plots.draw_comparison(found, folder)
    links = [f"![{path.stem}]({path.name})\n" for path in pictures]
    atomic_write(folder / TABLES, comparison_tables.markdown(found) + "\n" + "\n".join(links))


def _images(entries: Sequence[Entry]) -> tuple[list[str], Columns]:
    """One row an image, with the share of the repeats in which each run predicted it correctly."""
    from cxrtool.evaluation.scores import originals_of

    cells: dict[str, list[str]] = {column: [] for column in ("image_id", "path", "label", *GROUPING)}
    right: dict[str, dict[str, str]] = {}
    known: dict[str, None] = {}
    for entry in entries:
        rows = entry.scores.rows
        # A manifest needs images; a foreign table may have none.
        there = [index for index, path in enumerate(cells_of(rows, "path")) if path]
        names, first, shares = shares_right(originals_of(rows), entry.scores, there)
        new = [index for index, name in enumerate(names) if name not in known]
        for column in cells.keys() - {"image_id"}:
            given = cells_of(rows, column)
            cells[column] += [given[first[index]] for index in new]
        known.update(dict.fromkeys(names))
        right[f"correct_{entry.name}"] = dict(zip(names, shares, strict=True))
    cells["image_id"] = list(known)
    columns, _ = filled(cells)
    return columns, filled(cells | {name: [own.get(key, "") for key in known] for name, own in right.items()})[1]
