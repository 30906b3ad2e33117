"""`evaluate --calibrated --sensitivity --prevalence --abstain`: choices on validation images, and their evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.tables.predictions import Predictions
from cxrtool.errors import UsageError

if TYPE_CHECKING:
    from cxrtool.evaluation.decisions.validation import Validation
    from cxrtool.evaluation.metrics.confusion import FloatArray
    from cxrtool.evaluation.scores import Scores

Summary = dict[str, Any]

COVERAGE, CURVE = "coverage.png", "decision_curve.png"


@dataclass(frozen=True)
class DecisionOptions:
    """The options on decisions.

    Attributes:
        positive: The positive class.
        calibrated: Apply to each run the temperature of its validation images.
        sensitivity: Choose the threshold of each run for it.
        prevalences: Those for further predictive values, in (0, 1).
        abstain: Leave the least confident images undecided.
    """

    positive: str | None = None
    calibrated: bool = False
    sensitivity: float | None = None
    prevalences: tuple[float, ...] = ()
    abstain: bool = False
    seed: int = 0
    resamples: int = 2000


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


def check(options: DecisionOptions, *, subset: str, counts: bool) -> None:
    """Refuse combinations of options that cannot be computed; `counts` means that there are only counts.

    Raises:
        UsageError: An option needs another, or is not possible with this subset or with counts.
    """
    given = {
        "--calibrated": options.calibrated,
        "--sensitivity": options.sensitivity is not None,
        "--abstain": options.abstain,
    }
    used = [name for name, value in given.items() if value]
    if counts and used:
        raise UsageError(f"--confusion-matrix: cannot be combined with {used[0]}, because it has only counts")
    needing = {"--sensitivity": options.sensitivity is not None, "--prevalence": bool(options.prevalences)}
    for name, value in needing.items():
        if value and options.positive is None:
            raise UsageError(
                f"{name}: expected --positive with it, found none", "name the positive class: --positive covid"
            )
    if options.sensitivity is not None and not 0 < options.sensitivity < 1:
        raise UsageError(
            f"--sensitivity: expected a share above 0 and below 1 such as 0.95, found {options.sensitivity:g}"
        )
    if subset == "validation" and (options.calibrated or options.sensitivity is not None):
        raise UsageError(
            f"{used[0]}: expected another subset to evaluate than the validation images on which it is chosen, found "
            "--subset validation"
        )


@dataclass
class Decisions:
    """Scores with temperatures and thresholds applied that were chosen on validation images.

    Attributes:
        given: The scores before the thresholds were applied.
        validation: The validation rows, at the same temperature.
        thresholds: One a run, where a sensitivity is given.
        found: The entries for `metrics.json`.
    """

    scores: Scores
    options: DecisionOptions
    given: Scores
    validation: Validation
    thresholds: list[float] = field(default_factory=list)
    found: Summary = field(default_factory=dict)

    @classmethod
    def make(
        cls, scores: Scores, predictions: Predictions, classes: Sequence[str], options: DecisionOptions
    ) -> Decisions:
        """Fit temperatures, choose thresholds, and apply both; `predictions` include the validation rows.

        Raises:
            InputError: A run has too few positive validation images for the sensitivity.
            LeakageError: A patient is in validation and in test of one run.
            UsageError: The positive class is unknown.
        """
        from cxrtool.evaluation.decisions import temperature, thresholds
        from cxrtool.evaluation.decisions.validation import Validation, find_validation
        from cxrtool.evaluation.summary import find_positive

        needed = options.calibrated or options.sensitivity is not None or options.abstain
        validation = find_validation(predictions, scores, classes) if needed else Validation()
        positive_index = find_positive(scores.classes, options.positive)
        runs = [{"repeat": repeat or "0", "fold": fold or "0"} for repeat, fold in scores.runs]
        found: Summary = {}
        if options.calibrated:
            scores, fitted = temperature.calibrate(scores, validation)
            if validation.scores is not None:
                validation = replace(
                    validation, scores=_at(validation, {r: t.value for r, t in zip(scores.runs, fitted, strict=True)})
                )
            found["temperature"] = [run | entry.as_json() for run, entry in zip(runs, fitted, strict=True)]
        given, limits = scores, []
        if options.sensitivity is not None and positive_index is not None:
            chosen = thresholds.choose(scores, validation, positive_index, options.sensitivity)
            limits = [entry.value for entry in chosen if entry.value is not None]
            scores = thresholds.decide(scores, positive_index, limits)
            found["thresholds"] = {
                "sensitivity": options.sensitivity,
                "positive": options.positive,
                "runs": [run | entry.as_json() for run, entry in zip(runs, chosen, strict=True)],
            }
        return cls(scores, options, given, validation, limits, found)

    def complete(self, summary: Summary) -> None:
        """Add the results on decisions to a summary, with notes on the choices."""
        from cxrtool.evaluation.decisions.abstention import abstain
        from cxrtool.evaluation.decisions.net_benefit import decision_curve
        from cxrtool.evaluation.decisions.operating import operating_point
        from cxrtool.evaluation.decisions.tables import decision_notes
        from cxrtool.evaluation.summary import find_positive

        options = self.options
        drawn: dict[str, Any] = {"seed": options.seed, "resamples": options.resamples}
        positive_index = find_positive(self.scores.classes, options.positive)
        summary |= self.found
        if positive_index is not None:
            points = [operating_point(self.given, positive_index, prevalences=options.prevalences, **drawn)]
            if self.thresholds:
                rule = f"threshold for sensitivity {options.sensitivity:g}"
                points.append(
                    operating_point(self.scores, positive_index, rule=rule, prevalences=options.prevalences, **drawn)
                )
            summary["operating"] = points
            summary["decision_curve"] = decision_curve(
                self.scores, positive_index, prevalences=options.prevalences, **drawn
            )
        if options.abstain:
            summary["abstention"] = abstain(
                self.scores, self.validation, positive_index=positive_index, thresholds=self.thresholds, **drawn
            )
        summary["notes"] = [*summary["notes"], *decision_notes(summary)]


def add_counts(summary: Summary, classes: Sequence[str], counts: FloatArray, options: DecisionOptions) -> None:
    """Add the operating point of a confusion matrix to its summary."""
    from cxrtool.evaluation.decisions.operating import operating_counts
    from cxrtool.evaluation.summary import find_positive

    positive_index = find_positive(classes, options.positive)
    if positive_index is not None:
        summary["operating"] = [
            operating_counts(
                classes,
                counts,
                positive_index,
                prevalences=options.prevalences,
                seed=options.seed,
                resamples=options.resamples,
            )
        ]


def draw_decisions(summary: Summary, folder: Path) -> list[Path]:
    """Draw the plots on decisions; returns the files."""
    files = []
    if "abstention" in summary:
        from cxrtool.evaluation.decisions.abstention import draw_coverage

        if draw_coverage(summary["abstention"], folder / COVERAGE):
            files.append(folder / COVERAGE)
    if "decision_curve" in summary:
        from cxrtool.evaluation.decisions.net_benefit import draw_decision_curve

        draw_decision_curve(summary["decision_curve"], summary["positive"], folder / CURVE)
        files.append(folder / CURVE)
    return files


def _at(validation: Validation, temperatures: dict[tuple[str, str], float]) -> Any:
    """The validation rows at the temperatures of their runs."""
    from cxrtool.evaluation.decisions.temperature import apply

    scores = validation.scores
    if scores is None:
        return None
    probabilities = scores.probabilities.copy()
    for run, indices in validation.rows.items():
        probabilities[indices] = apply(probabilities[indices], temperatures[run])
    return replace(scores, probabilities=probabilities)
