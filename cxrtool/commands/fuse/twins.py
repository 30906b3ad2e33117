"""One answer a radiograph from those about what each generator made of it.

As COVID-SDNet does it: a class counts with its highest probability among the twins. Prints predictions, which evaluate
and compare take, or writes them with -o.

Example: cxrtool fuse twins twins-run -o answers.csv
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cxrtool.commands.fuse.source import SHARED, Key, Source, examples, fuse, key_of, show, wrong_count
from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.predictions import Predictions
from cxrtool.data.tables.twins import is_twin, split_class, twin_class
from cxrtool.errors import InputError, UsageError
from cxrtool.flow import common_options
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, argument, option

POSITIVE = "covid"
"""The class that ties go to, where there is one of this name and none is given."""

DECIDING = "twin"
"""The column that names the generator whose twin holds the highest probability of all."""


@dataclass(frozen=True)
class TwinsOptions(Options):
    """The options of `fuse twins`."""

    SHARED: ClassVar[tuple[str, ...]] = SHARED

    sources: tuple[Path, ...] = argument("One run of twins, or a CSV.", metavar="RUN")
    positive: str | None = option(
        "The class that ties go to.", None, metavar="CLASS", shown=f"{POSITIVE}, else the first"
    )
    partial: bool = common_options.partial()


def run(options: TwinsOptions, settings: Settings) -> None:
    """Fuse, and print the predictions where no file is written."""
    show(fuse_twins(options, settings), settings)


def fuse_twins(options: TwinsOptions, settings: Settings) -> Predictions | None:
    """Fuse the twins of a run, and write the predictions where `-o` names a file; None on a dry run.

    Raises:
        UsageError: Not one source, or `positive` is no class.
        InputError: Its predictions are not of twins.
        IncompleteError: The run lacks folds and `partial` is false.
    """
    if len(options.sources) != 1:
        raise wrong_count("twins RUN", "one", options.sources)
    return fuse(
        options.sources,
        lambda sources: join_twins(sources[0], options.positive, settings),
        settings,
        partial=options.partial,
    )


def join_twins(source: Source, positive: str | None, settings: Settings) -> Predictions:
    """Fuse the twins of each radiograph in each repeat and fold.

    Columns in which its twins differ, such as their pictures' digest, are not told of the radiograph; its path is that
    of the twin that holds the maximum.

    Raises:
        InputError: The predictions are not of twins, or no radiograph has all of its twins.
        UsageError: `positive` is no class.
    """
    import numpy as np

    from cxrtool.evaluation.fusion import twins

    predictions = source.predictions
    labels, generators = _classes(predictions)
    positive = _positive(positive, labels, settings)
    places = _places(predictions, generators)
    whole = {key: found for key, found in places.items() if len(found) == len(generators)}
    if not whole:
        raise InputError(
            f"{predictions.name}: expected of each radiograph a twin by {', '.join(generators)}, found none with all",
            "`cxrtool train --transform` predicts all of them",
        )
    rows_of = np.array([[whole[key][name] for name in generators] for key in whole])
    label = [labels.index(split_class(name)[0]) for name in predictions.classes]
    stacked = predictions.probabilities[rows_of]
    scores, decided = twins(stacked, label, len(labels), labels.index(positive))
    deciding = stacked.max(axis=2).argmax(axis=1)
    rows = []
    for key, found, called, twin in zip(whole, rows_of, decided, deciding, strict=True):
        row = _radiograph(key, [predictions.rows[i] for i in found], int(twin), predictions.classes)
        rows.append({**row, "predicted": labels[called], DECIDING: generators[twin]})
    settings.report.say(f"{len(rows)} radiographs from {len(generators)} twins each, ties to {positive}")
    if len(whole) < len(places):
        lost = [key[0] for key in places if key not in whole]
        settings.report.warn(f"{len(lost)} radiographs lack a twin and are left out: {examples(lost)}")
    columns = [name for name in predictions.columns if any(name in row for row in rows)]
    return Predictions(labels, rows, scores, "twins", [*columns, DECIDING])


def _classes(predictions: Predictions) -> tuple[list[str], list[str]]:
    try:
        pairs = [split_class(name) for name in predictions.classes]
    except InputError as error:
        raise InputError(
            f"{predictions.name}: {error.message}", "`cxrtool train --transform RUN` trains a network of twins"
        ) from error
    labels, generators = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    absent = [twin_class(a, b) for a in labels for b in generators if (a, b) not in pairs]
    if absent or len(labels) < 2:
        found = f"none of {absent[0]}" if absent else f"{labels[0]} alone"
        raise InputError(f"{predictions.name}: expected a class for each label and generator, found {found}")
    return labels, generators


def _positive(given: str | None, labels: list[str], settings: Settings) -> str:
    if given is not None and given not in labels:
        raise UsageError(f"--positive: expected one of {', '.join(labels)}, found '{given}'")
    return given or next((name for name in labels if name.casefold() == POSITIVE), labels[0])


def _places(predictions: Predictions, generators: list[str]) -> dict[Key, dict[str, int]]:
    """For each radiograph, repeat, fold and subset the row of each generator's twin."""
    found: dict[Key, dict[str, int]] = {}
    for place, row in enumerate(predictions.rows):
        name, parent = row.get("generator", ""), row.get("parent_id", "")
        if not is_twin(row) or not parent or name not in generators:
            raise InputError(
                f"{predictions.name}: expected rows of twins, with a parent_id and one of the generators "
                f"{', '.join(generators)}, found '{row['image_id']}' with '{parent}' and '{name}'"
            )
        own = found.setdefault(key_of(row, parent), {})
        if own.setdefault(name, place) != place:
            raise InputError(f"{predictions.name}: expected one twin of '{parent}' by {name} in a fold, found two")
    return found


def _radiograph(key: Key, twins: list[Row], deciding: int, classes: list[str]) -> Row:
    """What the twins of a radiograph agree about."""
    first = twins[0]
    agreed = {name: cell for name, cell in first.items() if all(row.get(name, "") == cell for row in twins)}
    # In a manifest of twins the label is still the radiograph's.
    labels = {split_class(label)[0] if label in classes else label for label in (row.get("label", "") for row in twins)}
    if len(labels) > 1:
        raise InputError(f"'{key[0]}': expected twins of one label, found {' and '.join(sorted(labels))}")
    warnings = dict.fromkeys(row["warning"] for row in twins if row.get("warning"))
    # It has no parent: it is the radiograph itself.
    own = {name: cell for name, cell in agreed.items() if name not in ("parent_id", "generator")}
    told = {"image_id": key[0], "path": twins[deciding].get("path", ""), "subset": key[3], "label": labels.pop()}
    return {**own, **told, "warning": "; ".join(warnings)}
