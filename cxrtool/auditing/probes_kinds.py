"""Which probes there are, what each is called, and what comes of one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cxrtool.auditing.alarm import Trial
from cxrtool.auditing.part import ALARM, NOTE, WARNING
from cxrtool.auditing.probes_views import View
from cxrtool.errors import UsageError
from cxrtool.evaluation.intervals import Measure
from cxrtool.evaluation.metrics import FloatArray

Figure = Mapping[str, Any]
"""An `evaluation.intervals.Measure` as JSON."""

NOTHING: Figure = Measure().as_json()

NO_LUNG, OUTLINE, LUNG = "no lung", "outline of the lungs", "lungs"
"""What a probe holds of the lungs."""


@dataclass(frozen=True)
class Probe:
    """One probe.

    Attributes:
        title: What a table calls it.
        alone: What a sentence calls it, as its subject.
        kernel: One of `classifier.KERNELS`.
        holds: `NO_LUNG`, `OUTLINE` or `LUNG`.
        level: What is raised where it reaches more than chance.
    """

    title: str
    alone: str
    kernel: str
    holds: str
    level: str


PROBES = {
    "size-and-shape": Probe("size and shape of files", "size and type of the files alone", "radial", NO_LUNG, ALARM),
    "border": Probe("border", "the border alone", "linear", NO_LUNG, ALARM),
    "centre-blacked": Probe("centre blacked", "the picture with its centre blacked", "linear", NO_LUNG, ALARM),
    "lungs-erased": Probe("lungs erased", "the picture with both lungs erased", "linear", NO_LUNG, ALARM),
    "mask-shape": Probe("outline of the lungs", "the outline of the lungs alone", "radial", OUTLINE, WARNING),
    "metadata": Probe("metadata", "the manifest's columns and the file names alone", "radial", NO_LUNG, WARNING),
    "lungs-only": Probe("lungs only", "a thumbnail of the lungs alone", "linear", LUNG, NOTE),
    "thumbnail": Probe("thumbnail", "a thumbnail of the whole picture", "linear", LUNG, NOTE),
}
"""All probes, in the order of the tables; each sees what `probes_views.VIEWS` makes of a picture."""

FIGURES = ("size-and-shape", "mask-shape", "metadata")
"""Those that see figures in place of a picture."""

PERMUTED = "permuted-labels"
"""The nearest thumbnail with labels dealt by chance: it must stay at chance, or the splits leak."""


def check_names(names: Sequence[str]) -> None:
    """Check that these are probes.

    Raises:
        UsageError: One is none.
    """
    strange = [name for name in names if name not in PROBES]
    if strange:
        raise UsageError(f"--probes: expected some of {', '.join(PROBES)}, found '{strange[0]}'")


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
