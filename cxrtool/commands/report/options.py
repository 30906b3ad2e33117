"""The options of `report`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from cxrtool.flow import common_options
from cxrtool.flow.evaluating import EvaluateOptions
from cxrtool.flow.settings import COMPUTING, RUNNING
from cxrtool.options import Options, argument, option
from cxrtool.reporting.checklists import CHECKLISTS


@dataclass(frozen=True)
class ReportOptions(Options):
    """The options of `report`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", *COMPUTING, "verify", *RUNNING)
    WRITES_FILE: ClassVar[bool] = True

    inputs: tuple[str, ...] = argument(
        "A run, or predictions of one or many folds; side by side as internal=A.csv external=B.csv.",
        (),
        metavar="RUN|CSV...",
        shown="",
    )
    by: str | None = option(
        "Groups, as in `cxrtool evaluate`.",
        None,
        metavar="COLUMNS",
        shown="severity, view, source, sex and age, where known",
    )
    positive: str | None = common_options.positive()
    manifest: Path | None = option("The images, for Table 1 and the flow of images.", None, shown="that of the run")
    audit: Path | None = option(
        "The folder of `cxrtool audit`.", None, metavar="DIR", shown="the latest audit of these images"
    )
    explained: Path | None = option(
        "The folder of `cxrtool explain` with --reference or --faithfulness: a section with its scores.",
        None,
        metavar="DIR",
        shown="",
    )
    errors: int = option("Number of the most confident errors to show.", 8, minimum=0)
    checklist: str | None = option(
        "Add a checklist with the section that answers each item: {choices}.", None, choices=CHECKLISTS, shown=""
    )
    heatmaps: bool = option("Show heatmaps of the errors.", True, flags=("--heatmaps/--no-heatmaps",))
    calibrated: bool = common_options.calibrated()
    sensitivity: float | None = common_options.sensitivity()
    prevalence: str | None = common_options.prevalence()
    abstain: bool = common_options.abstain()
    partial: bool = common_options.partial()
    resamples: int = 2000

    def evaluation(self) -> EvaluateOptions:
        """The evaluation that the page shows."""
        shared = {entry.name for entry in fields(EvaluateOptions)} & {entry.name for entry in fields(self)}
        return EvaluateOptions(**{name: getattr(self, name) for name in shared})
