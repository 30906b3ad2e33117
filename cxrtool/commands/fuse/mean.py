"""Average the probabilities of several runs.

Averages the predictions for the same image in the same repeat, fold and subset; predictions that not all runs have are
excluded. Prints predictions, which evaluate and compare accept, or writes them with -o.

Example: cxrtool fuse mean run-a run-b run-c -o mean.csv
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cxrtool.commands.fuse.source import SHARED, Source, fuse, show, wrong_count
from cxrtool.data.tables.predictions import Predictions
from cxrtool.errors import InputError, count_of
from cxrtool.flow import common_options
from cxrtool.flow.fusing import examples
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, argument


@dataclass(frozen=True)
class MeanOptions(Options):
    """The options of `fuse mean`."""

    SHARED: ClassVar[tuple[str, ...]] = SHARED
    WRITES_FILE: ClassVar[bool] = True

    sources: tuple[Path, ...] = argument("Two or more runs, or CSVs.", metavar="RUN...")
    partial: bool = common_options.partial()


def run(options: MeanOptions, settings: Settings) -> None:
    """Fuse, and print the predictions where no file is written."""
    show(fuse_mean(options, settings), settings)


def fuse_mean(options: MeanOptions, settings: Settings) -> Predictions | None:
    """Average runs, and write the predictions to the file of `-o`; None on a dry run.

    Raises:
        UsageError: There is only one source.
        InputError: The sources do not fit each other.
        IncompleteError: A run lacks folds and `partial` is false.
    """
    if len(options.sources) < 2:
        raise wrong_count("mean RUN...", "two or more", options.sources)
    return fuse(options.sources, lambda sources: average(sources, settings), settings, partial=options.partial)


def average(sources: Sequence[Source], settings: Settings) -> Predictions:
    """Average probabilities where all sources have a prediction for the same image, repeat, fold and subset.

    The other columns are those of the first source.

    Raises:
        InputError: The sources have different classes, different labels for an image, or no predictions in common.
    """
    import numpy as np

    first = sources[0].predictions
    for source in sources[1:]:
        if sorted(source.predictions.classes) != sorted(first.classes):
            raise InputError(
                f"{source.predictions.name}: expected the classes {', '.join(first.classes)} as in {first.name}, "
                f"found {', '.join(source.predictions.classes)}"
            )
    if len({source.path.resolve() for source in sources}) < len(sources):
        settings.report.warn("a source is listed twice and has twice the weight in the mean")
    shared = [key for key in sources[0].indices if all(key in source.indices for source in sources)]
    known = {key for source in sources for key in source.indices}
    if not shared:
        raise InputError(
            f"{', '.join(source.predictions.name for source in sources)}: expected predictions for the same images in "
            f"the same repeat, fold and subset, found none among {len(known)}",
            "train them on the same splits",
        )
    _check_labels(sources, shared)
    terms = []
    for source in sources:
        order = [source.predictions.classes.index(name) for name in first.classes]
        terms.append(source.predictions.probabilities[np.ix_([source.indices[key] for key in shared], order)])
    mean = np.mean(terms, axis=0)
    rows = []
    for key, values in zip(shared, mean, strict=True):
        found = [source.predictions.rows[source.indices[key]] for source in sources]
        warnings = dict.fromkeys(row["warning"] for row in found if row.get("warning"))
        rows.append({**found[0], "predicted": first.classes[int(values.argmax())], "warning": "; ".join(warnings)})
    settings.report.say(f"averaged {len(shared)} predictions of {count_of(len(sources), 'source')}")
    if lost := [key[0] for key in known.difference(shared)]:
        settings.report.warn(f"excluded {len(lost)} predictions that not all sources have: {examples(sorted(lost))}")
    return Predictions(first.classes, rows, mean, "mean", first.columns)


def _check_labels(sources: Sequence[Source], shared: Sequence[tuple[str, str, str, str]]) -> None:
    for key in shared:
        labels = [source.predictions.rows[source.indices[key]].get("label", "") for source in sources]
        if len(set(labels)) > 1:
            other = next(i for i, label in enumerate(labels) if label != labels[0])
            raise InputError(
                f"'{key[0]}': expected the label '{labels[0]}' as in {sources[0].predictions.name}, found "
                f"'{labels[other]}' in {sources[other].predictions.name}"
            )
