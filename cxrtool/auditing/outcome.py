"""The results of the probes: of each one, and of all together."""

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
"""An `evaluation.resampling.intervals.Measure` as JSON."""

NOTHING: Figure = Measure().as_json()


@dataclass(frozen=True)
class Result:
    """The result of one probe.

    Attributes:
        view: Its input, without the arrays.
        trial: Its predictions; None where it could not be run.
        balanced_accuracy: Measured as for the model.
        auc: The mean over the classes, each against the rest.
        difference: Balanced accuracy, probe minus model, on the images that both were tested on.
        share: (probe - chance) / (model - chance), on the same images.
        limit: The level below which chance stays: that of the best of all alarming probes where it is one of these,
            otherwise its own.
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
        """Whether it reaches more than chance."""
        return self.trial is not None and float(self.trial.reached[0]) > self.limit


@dataclass(frozen=True)
class Outcome:
    """The results of all probes.

    Attributes:
        results: By name.
        classes: K names.
        model: Balanced accuracy of the model, on the test images of the probes.
        model_auc: Its AUC on these.
        level: Level of alarm; NaN where no probe was run that can raise one.
        permutations: Number of permutations P.
        seed: The seed of permutations and resamples.
        images: Number of test images.
        patients: Number of their patients.
        runs: Number of repeats times folds.
        permuted: (P,) balanced accuracy of the nearest training thumbnail's label, with each permutation; None where it
            was not computed.
        excluded: Most training images in a fold that were excluded because there were too many.
        notes: Remarks below the table.
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
    excluded: int = 0
    notes: tuple[str, ...] = ()

    @property
    def chance(self) -> float:
        """Balanced accuracy of guessing."""
        return 1 / len(self.classes)
