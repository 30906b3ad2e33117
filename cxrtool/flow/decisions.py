"""`evaluate --calibrated --sensitivity --prevalence --abstain`: what is chosen on validation, and what it is worth."""

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
    """What is asked about decisions.

    Attributes:
        positive: The class to find.
        calibrated: Bring each run to the temperature of its own validation part.
        sensitivity: Choose each run's threshold for it.
        prevalences: Shares of the positive class at which predictive values are wanted.
        abstain: Leave the least confident undecided.
        seed: Of the resamples.
        resamples: Of patients.
    """

    positive: str | None = None
    calibrated: bool = False
    sensitivity: float | None = None
    prevalences: tuple[float, ...] = ()
    abstain: bool = False
    seed: int = 0
    resamples: int = 2000


def parse_prevalences(text: str | None) -> tuple[float, ...]:
    """Read `--prevalence`: shares with commas between.

    Raises:
        UsageError: One is no number between 0 and 1.

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
            raise UsageError(f"--prevalence: expected shares over 0 and under 1 such as 0.05, found '{part.strip()}'")
        found.append(value)
    return tuple(dict.fromkeys(found))


def check(options: DecisionOptions, *, subset: str, counts: bool) -> None:
    """Refuse what does not go together.

    Args:
        options: What is asked.
        subset: Of the rows that are evaluated.
        counts: Whether there are counts alone.

    Raises:
        UsageError: An option lacks another, or cannot be had of this subset or of counts.
    """
    given = {
        "--calibrated": options.calibrated,
        "--sensitivity": options.sensitivity is not None,
        "--abstain": options.abstain,
    }
    asked = [name for name, value in given.items() if value]
    if counts and asked:
        raise UsageError(f"--confusion-matrix: holds counts alone and does not go with {asked[0]}")
    needing = {"--sensitivity": options.sensitivity is not None, "--prevalence": bool(options.prevalences)}
    for name, value in needing.items():
        if value and options.positive is None:
            raise UsageError(f"{name}: expected the class to find beside it, found no --positive", "--positive covid")
    if options.sensitivity is not None and not 0 < options.sensitivity < 1:
        raise UsageError(
            f"--sensitivity: expected a share over 0 and under 1 such as 0.95, found {options.sensitivity:g}"
        )
    if subset == "validation" and (options.calibrated or options.sensitivity is not None):
        raise UsageError(
            f"{asked[0]}: expected other images to evaluate than those that it is chosen on, found --subset validation"
        )


@dataclass
class Decisions:
    """Scores with what was chosen on validation applied to them.

    Attributes:
        scores: To be evaluated.
        options: What was asked.
        given: The scores before a threshold decided.
        validation: The validation rows, at the same temperature.
        thresholds: One a run, where a sensitivity was asked for.
        found: What `metrics.json` tells of it.
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
        """Fit temperatures, choose thresholds, and decide.

        Args:
            scores: What is evaluated.
            predictions: All rows, those of validation among them.
            classes: As `scores` were restricted to.
            options: What is asked.

        Raises:
            InputError: A run has too few positive validation images for the sensitivity.
            LeakageError: A patient is in the validation part and the test part of one run.
            UsageError: The positive class is unknown.
        """
        from cxrtool.evaluation.decisions import temperature, thresholds
        from cxrtool.evaluation.decisions.validation import Validation, find_validation
        from cxrtool.evaluation.summary import find_positive

        needed = options.calibrated or options.sensitivity is not None or options.abstain
        validation = find_validation(predictions, scores, classes) if needed else Validation()
        about = find_positive(scores.classes, options.positive)
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
        if options.sensitivity is not None and about is not None:
            chosen = thresholds.choose(scores, validation, about, options.sensitivity)
            limits = [entry.value for entry in chosen if entry.value is not None]
            scores = thresholds.decide(scores, about, limits)
            found["thresholds"] = {
                "sensitivity": options.sensitivity,
                "positive": options.positive,
                "runs": [run | entry.as_json() for run, entry in zip(runs, chosen, strict=True)],
            }
        return cls(scores, options, given, validation, limits, found)

    def complete(self, summary: Summary) -> None:
        """Add to a summary what was asked about decisions, and say in its notes what was chosen."""
        from cxrtool.evaluation.decisions.abstention import abstain
        from cxrtool.evaluation.decisions.net_benefit import decision_curve
        from cxrtool.evaluation.decisions.operating import operating_point
        from cxrtool.evaluation.decisions.tables import decision_notes
        from cxrtool.evaluation.summary import find_positive

        options = self.options
        drawn: dict[str, Any] = {"seed": options.seed, "resamples": options.resamples}
        about = find_positive(self.scores.classes, options.positive)
        summary |= self.found
        if about is not None:
            points = [operating_point(self.given, about, prevalences=options.prevalences, **drawn)]
            if self.thresholds:
                rule = f"threshold for sensitivity {options.sensitivity:g}"
                points.append(operating_point(self.scores, about, rule=rule, prevalences=options.prevalences, **drawn))
            summary["operating"] = points
            summary["decision_curve"] = decision_curve(self.scores, about, prevalences=options.prevalences, **drawn)
        if options.abstain:
            summary["abstention"] = abstain(
                self.scores, self.validation, about=about, thresholds=self.thresholds, **drawn
            )
        summary["notes"] = [*summary["notes"], *decision_notes(summary)]


def add_counts(summary: Summary, classes: Sequence[str], counts: FloatArray, options: DecisionOptions) -> None:
    """Add the operating point of a confusion matrix to its summary."""
    from cxrtool.evaluation.decisions.operating import operating_counts
    from cxrtool.evaluation.summary import find_positive

    about = find_positive(classes, options.positive)
    if about is not None:
        summary["operating"] = [
            operating_counts(
                classes, counts, about, prevalences=options.prevalences, seed=options.seed, resamples=options.resamples
            )
        ]


def draw_decisions(summary: Summary, folder: Path) -> list[Path]:
    """Draw what a summary holds of decisions; returns the files."""
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
    for run, places in validation.rows.items():
        probabilities[places] = apply(probabilities[places], temperatures[run])
    return replace(scores, probabilities=probabilities)
