"""What models can be compared by, without numpy, so that a command line can name it at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A figure by which models are compared.

    Attributes:
        ranked: It is made of scores within one run; others are of decisions, and made of confusion matrices.
        of_a_class: It is a figure of the positive class.
    """

    ranked: bool = False
    of_a_class: bool = False


METRICS: dict[str, Metric] = {
    "accuracy": Metric(),
    "balanced_accuracy": Metric(),
    "macro_sensitivity": Metric(),
    "macro_specificity": Metric(),
    "macro_precision": Metric(),
    "macro_f1": Metric(),
    "mcc": Metric(),
    "sensitivity": Metric(of_a_class=True),
    "specificity": Metric(of_a_class=True),
    "precision": Metric(of_a_class=True),
    "npv": Metric(of_a_class=True),
    "f1": Metric(of_a_class=True),
    "macro_auc": Metric(ranked=True),
    "average_precision": Metric(ranked=True),
    "auc": Metric(ranked=True, of_a_class=True),
}
"""By name, as `metrics.json` has it."""


def in_words() -> str:
    """The names, those apart that need a positive class."""
    overall = [name for name, metric in METRICS.items() if not metric.of_a_class]
    own = [name for name, metric in METRICS.items() if metric.of_a_class]
    return f"{', '.join(overall)}; with --positive also {', '.join(own)}"
