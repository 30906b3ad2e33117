"""The options of `report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxrtool.flow.evaluating import EvaluateOptions


@dataclass(frozen=True)
class ReportOptions:
    """The options of `report`.

    Attributes:
        inputs: Runs or CSV files, each perhaps with a name before it: `external=B.csv`.
        by: Columns to group by, as `evaluate` takes them; None takes severity, view, source, sex and age where known.
        positive: The class to find.
        manifest: The images; None takes the manifest in the run, else what travels with the predictions.
        audit: The folder of an audit; None looks for one of the same images.
        errors: How many of the most confident errors to show; 0 shows none.
        checklist: A key of `reporting.checklists.CHECKLISTS`, or None.
        heatmaps: Ask the models what they saw in the images of the errors.
        calibrated: As in `evaluate`.
        sensitivity: As in `evaluate`.
        prevalence: As in `evaluate`.
        abstain: As in `evaluate`.
        partial: Take a run of which some folds are missing.
        resamples: Of patients, for intervals.
    """

    inputs: tuple[str, ...] = ()
    by: str | None = None
    positive: str | None = None
    manifest: Path | None = None
    audit: Path | None = None
    errors: int = 8
    checklist: str | None = None
    heatmaps: bool = True
    calibrated: bool = False
    sensitivity: float | None = None
    prevalence: str | None = None
    abstain: bool = False
    partial: bool = False
    resamples: int = 2000

    def evaluation(self) -> EvaluateOptions:
        """The evaluation that the page shows."""
        return EvaluateOptions(
            inputs=self.inputs, by=self.by, positive=self.positive, calibrated=self.calibrated,
            sensitivity=self.sensitivity, prevalence=self.prevalence, abstain=self.abstain, partial=self.partial,
            resamples=self.resamples,
        )  # fmt: skip
