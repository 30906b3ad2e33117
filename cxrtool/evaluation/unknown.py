"""Metrics that predictions of another tool do not allow: of decisions without a predicted class, of scores without any.

Without this, a metric of scores that are no probabilities would have a value without a meaning.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from cxrtool.data.tables.predictions import DECISIONS, PROBABILITIES
from cxrtool.errors import UsageError
from cxrtool.evaluation.metrics.estimates import ABSTENTIONS
from cxrtool.evaluation.resampling.intervals import Measure
from cxrtool.evaluation.scores import Scores

RANKED = ("macro_auc", "auc", "average_precision")
"""Metrics of the order of the scores."""

CALIBRATED = ("ece", "brier")
NO_CLASS = "no predicted classes: the scores are no probabilities and have no threshold"
NO_SCORES = "no scores, only predicted classes"
NO_PROBABILITIES = "the scores are no probabilities"


def hide_unknown(summary: MutableMapping[str, Any], scores: Scores) -> None:
    """Replace metrics that the scores do not allow in the content of `metrics.json`, with the reason."""
    if scores.kind == PROBABILITIES:
        return
    decided = bool(scores.decided.any())
    hide_measures(summary, scores)
    for name in CALIBRATED:
        reason = NO_SCORES if scores.kind == DECISIONS else NO_PROBABILITIES
        summary["overall"][name] = Measure(reason=reason).as_json()
    if not decided:
        summary["confusion"] = None
    groups = (entry for column in summary["per_group"].values() for entry in column.values())
    for entry in groups:
        _hide(entry, scores, decided)
    for run in summary["per_run"]:
        for name in run.keys() - {"repeat", "fold", "images"}:
            if (name in RANKED) == (scores.kind == DECISIONS) and (scores.kind == DECISIONS or not decided):
                run[name] = None


def hide_measures(measures: MutableMapping[str, Any], scores: Scores) -> None:
    """The same for `overall` and `per_class`."""
    if scores.kind == PROBABILITIES:
        return
    decided = bool(scores.decided.any())
    if not decided:
        for name in ABSTENTIONS:
            measures["overall"].pop(name, None)
    for entry in (measures["overall"], *measures["per_class"].values()):
        _hide(entry, scores, decided)


def _hide(entry: MutableMapping[str, Any], scores: Scores, decided: bool) -> None:
    for name in [name for name, value in entry.items() if isinstance(value, dict)]:
        if name in RANKED and scores.kind == DECISIONS:
            entry[name] = Measure(reason=NO_SCORES).as_json()
        elif name not in RANKED and not decided:
            entry[name] = Measure(reason=NO_CLASS).as_json()


def check_comparable(scores: Scores, metric: str, name: str) -> None:
    """Raise a `UsageError` for a metric that the scores do not allow."""
    if metric in RANKED and scores.kind == DECISIONS:
        raise UsageError(
            f"--metric {metric}: expected scores in {name}, found predicted classes alone", "use --metric accuracy"
        )
    if metric not in RANKED and not scores.decided.any():
        raise UsageError(
            f"--metric {metric}: expected predicted classes in {name}, found scores that are no probabilities",
            "use --metric macro_auc, or --metric auc with --positive",
        )
