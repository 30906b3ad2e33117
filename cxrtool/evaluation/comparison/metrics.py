"""The metrics by which models can be compared. Imports no numpy, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric by which models are compared.

    Attributes:
        ranked: Computed from the scores within one run; other metrics are computed from confusion matrices.
        of_a_class: A metric of the positive class.
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
"""Keyed by the names in `metrics.json`."""


def in_words() -> str:
    """The names for the help text; metrics that need a positive class come last."""
    overall = [name for name, metric in METRICS.items() if not metric.of_a_class]
    of_a_class = [name for name, metric in METRICS.items() if metric.of_a_class]
    return f"{', '.join(overall)}; with --positive also {', '.join(of_a_class)}"
