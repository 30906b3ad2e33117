"""What came of the probes, as figures: of each, and of all together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cxrtool.auditing.alarm import Trial
from cxrtool.auditing.views import View
from cxrtool.evaluation.metrics.confusion import FloatArray
from cxrtool.evaluation.resampling.intervals import Measure

Figure = Mapping[str, Any]
"""An `evaluation.intervals.Measure` as JSON."""

NOTHING: Figure = Measure().as_json()


@dataclass(frozen=True)
class Result:
    """What came of one probe.

    Attributes:
        view: What it was shown.
        trial: What it said; None where it could not be made.
        balanced_accuracy: As the model's is measured.
        auc: The mean over the classes, each against the rest.
        difference: Balanced accuracy, probe minus model, on the images that both were tested on.
        share: (probe - chance) / (model - chance), on the same.
        limit: What chance stays below: the best of all alarming probes where it is one of these, else it alone.
    """

    view: View
    trial: Trial | None = None
    balanced_accuracy: Figure = field(default_factory=lambda: NOTHING)
    auc: Figure = field(default_factory=lambda: NOTHING)
    difference: Figure = field(default_factory=lambda: NOTHING)
    share: Figure = field(default_factory=lambda: NOTHING)
    limit: float = math.nan

    @property
    def raised(self) -> bool:
        """Whether it reaches more than chance does."""
        return self.trial is not None and float(self.trial.reached[0]) > self.limit


@dataclass(frozen=True)
class Outcome:
    """What came of all probes.

    Attributes:
        results: By name.
        classes: K names.
        model: Balanced accuracy of the model, on the images that the probes were tested on too.
        model_auc: Its AUC there.
        level: Above which an alarm is raised; NaN where no probe was that could raise one.
        permutations: Labellings dealt by chance.
        seed: Of these and of the resamples.
        images: Test images.
        patients: Whose they are.
        runs: Repeats and folds.
        permuted: (P,) balanced accuracy of the nearest training thumbnail's label, with each labelling dealt by chance;
            None where it was not asked.
        left_out: Training images beyond what a probe is trained on, at most in one fold.
        notes: What has to be known.
    """

    results: Mapping[str, Result]
    classes: tuple[str, ...]
    model: Figure
    model_auc: Figure
    level: float
    permutations: int
    seed: int
    images: int
    patients: int
    runs: int
    permuted: FloatArray | None = None
    left_out: int = 0
    notes: tuple[str, ...] = ()

    @property
    def chance(self) -> float:
        """Balanced accuracy of guessing."""
        return 1 / len(self.classes)
