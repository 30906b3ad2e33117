"""Fuse the predictions for the twins of each radiograph, one twin by each generator.

The rule of COVID-SDNet: the score of a class is its highest probability among the twins. Prints predictions, which
evaluate and compare accept, or writes them with -o.

Example: cxrtool fuse twins twins-run -o answers.csv
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cxrtool.commands.fuse.source import SHARED, fuse, show, wrong_count
from cxrtool.data.tables.predictions import Predictions
from cxrtool.flow import common_options
from cxrtool.flow.fusing import POSITIVE, join_twins
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, argument, option


@dataclass(frozen=True)
class TwinsOptions(Options):
    """The options of `fuse twins`."""

    SHARED: ClassVar[tuple[str, ...]] = SHARED
    WRITES_FILE: ClassVar[bool] = True

    sources: tuple[Path, ...] = argument("One run of twins, or a CSV.", metavar="RUN")
    positive: str | None = option(
        "The class that ties go to.", None, metavar="CLASS", shown=f"{POSITIVE}, otherwise the first"
    )
    partial: bool = common_options.partial()


def run(options: TwinsOptions, settings: Settings) -> None:
    """Fuse, and print the predictions where no file is written."""
    show(fuse_twins(options, settings), settings)


def fuse_twins(options: TwinsOptions, settings: Settings) -> Predictions | None:
    """Fuse the twins of a run, and write the predictions to the file of `-o`; None on a dry run.

    Raises:
        UsageError: Not exactly one source, or `positive` is not a class.
        InputError: The predictions are not of twins.
        IncompleteError: The run lacks folds and `partial` is false.
    """
    if len(options.sources) != 1:
        raise wrong_count("twins RUN", "one", options.sources)
    return fuse(
        options.sources,
        lambda sources: join_twins(sources[0].predictions, options.positive, settings),
        settings,
        partial=options.partial,
    )
