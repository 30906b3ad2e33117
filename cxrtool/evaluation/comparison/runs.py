"""Compares several runs: the metrics of each, and its difference from the reference on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cxrtool.data.tables.predictions import DECISIONS
from cxrtool.errors import UsageError
from cxrtool.evaluation.comparison import tests as comparison
from cxrtool.evaluation.comparison.align import Key, align, in_order
from cxrtool.evaluation.comparison.metrics import METRICS
from cxrtool.evaluation.comparison.tests import Pair, Verdict, pick, sign_flip
from cxrtool.evaluation.groups import NONE, Grouping, available, split_by
from cxrtool.evaluation.metrics.confusion import spread
from cxrtool.evaluation.metrics.estimates import BY_CLASS, SOURCES, Estimates, estimate
from cxrtool.evaluation.resampling.intervals import DIGITS, RESAMPLES, Measure, measure, method_of
from cxrtool.evaluation.scores import Scores
from cxrtool.evaluation.summary import find_positive, interval_of, measures_of
from cxrtool.evaluation.tables import count_of
from cxrtool.evaluation.unknown import NO_CLASS, NO_SCORES

TESTS = ("models", "methods", "delong", "mcnemar")
"""In `comparison.json`: permutation test of two trained models, corrected t test of two methods, DeLong, McNemar."""


@dataclass
class Entry:
    """One run, or a table of predictions.

    Attributes:
        scores: Test predictions.
        fitted: Number of images that each (repeat, fold) was fitted on, where known.
        seen: Images that it was fitted or validated on, where known.
        validation: Whether each validation prediction is correct; empty where there are none.
        facts: Model, seconds, parameters, ….
        notes: Exclusions and assumptions, in words.
    """

    name: str
    scores: Scores
    fitted: Mapping[tuple[str, str], int] = field(default_factory=dict)
    seen: frozenset[Key] = frozenset()
    validation: Mapping[Key, bool] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def compare_runs(
    entries: Sequence[Entry],
    *,
    metric: str = "accuracy",
    positive: str | None = None,
    baseline: str | None = None,
    by: Sequence[str] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The content of `comparison.json`, without published values.

    `metric`, a key of `METRICS`, is the one whose differences are computed; `by` are columns by which accuracies are
    shown, for the runs that have them. Without a `baseline` the reference is the best on validation images, otherwise
    the best on test images.

    Raises:
        UsageError: Unknown class, or a metric that needs one.
    """
    check_metric(metric, positive)
    entries = [replace(entry, scores=in_order(entry.scores, entries[0].scores.classes)) for entry in entries]
    positive_indices = [find_positive(entry.scores.classes, positive) for entry in entries]
    found = [
        estimate(entry.scores, seed=seed, resamples=resamples, calibrated=False, positive_index=positive_index)
        for entry, positive_index in zip(entries, positive_indices, strict=True)
    ]
    runs = {
        entry.name: _describe(entry, estimates, metric, positive_index)
        for entry, estimates, positive_index in zip(entries, found, positive_indices, strict=True)
    }
    for entry in entries:
        strata = _strata(entry.scores, by, seed, resamples)
        runs[entry.name] |= {"per_group": strata} if by else {}
    reference = choose_reference(entries, baseline, {name: run["metric"]["value"] for name, run in runs.items()})
    result: dict[str, Any] = {
        "metric": metric,
        "positive": positive,
        "runs": runs,
        "reference": reference,
        "comparisons": [],
        "interval": interval_of([entry.scores for entry in entries], seed=seed, resamples=resamples),
    }
    if reference is None:
        return result
    best = [entry.name for entry in entries].index(reference["name"])
    pairwise = _Pairwise(metric, positive_indices[best], seed, resamples)
    for index, entry in enumerate(entries):
        if index != best:
            made = pairwise.compare(entry, found[index], entries[best], found[best])
            result["comparisons"].append({"name": entry.name, "against": reference["name"], **made})
    for test in TESTS:
        raw = [made[test]["p"] for made in result["comparisons"]]
        for made, adjusted in zip(result["comparisons"], comparison.holm(raw), strict=True):
            made[test]["p_holm"] = _rounded(adjusted)
    return result


def check_metric(metric: str, positive: str | None) -> None:
    """Raise a `UsageError` for a metric of a class without `--positive`."""
    if METRICS[metric].of_a_class and positive is None:
        raise UsageError(f"--metric {metric} is a metric of one class", "name the class with --positive CLASS")


def choose_reference(
    entries: Sequence[Entry], baseline: str | None, reached: Mapping[str, float | None]
) -> dict[str, Any] | None:
    """The reference run: the one named, otherwise the best on validation, otherwise the best on test.

    Only validation images that all runs have in the same repeat and fold are used; ties go to the first run.

    Returns:
        `name`, `chosen` (`named`, `validation` or `test`), `validation` (accuracy by name, where it was used) and
        `sentence`; None for a single run.
    """
    if len(entries) < 2:
        return None
    if baseline is not None:
        return {"name": baseline, "chosen": "named", "validation": {}, "sentence": f"The reference is {baseline}."}
    common = set.intersection(*(set(entry.validation) for entry in entries))
    if common:
        accuracy = {entry.name: float(np.mean([entry.validation[key] for key in common])) for entry in entries}
        best = max(accuracy, key=accuracy.__getitem__)
        images = len({key[2] for key in common})
        text = f"The reference, {best}, has the best accuracy on {count_of(images, 'validation image')}"
        text += f" ({accuracy[best]:.3f}); test images were not used to choose it."
        shown = {name: round(value, DIGITS) for name, value in accuracy.items()}
        return {"name": best, "chosen": "validation", "validation": shown, "sentence": text}
    known = {name: value for name, value in reached.items() if value is not None}
    best = max(known, key=known.__getitem__) if known else entries[0].name
    text = (
        f"The reference, {best}, is the best of {count_of(len(entries), 'run')} "
        f"on the test images, because the runs share no "
        f"validation images. The best of {len(entries)} on the test images is optimistic: name a --baseline."
    )
    return {"name": best, "chosen": "test", "validation": {}, "sentence": text}


@dataclass(frozen=True)
class _Pairwise:
    metric: str
    positive_index: int | None
    seed: int
    resamples: int

    def compare(self, entry: Entry, own: Estimates, other: Entry, theirs: Estimates) -> dict[str, Any]:
        aligned = align(entry.scores, other.scores, (entry.name, other.name), (entry.seen, other.seen))
        first, second = aligned.first, aligned.second
        if first is None or second is None:
            nothing = {test: _as_json(Verdict(reason=aligned.reason)) for test in TESTS}
            sizes = {"images": 0, "patients": 0, "runs": 0, "differs": None, "reason": aligned.reason}
            return sizes | {"difference": Measure(reason=aligned.reason).as_json()} | nothing
        if not aligned.whole:
            own, theirs = (
                estimate(
                    s, seed=self.seed, resamples=self.resamples, calibrated=False, positive_index=self.positive_index
                )
                for s in (first, second)
            )
        sizes = {"images": first.images, "patients": first.patients, "runs": len(first.runs)}
        result: dict[str, Any] = {**sizes, "differs": aligned.differs or None, "reason": None}
        apart = self._composition(own, theirs, first.classes)
        result["difference"] = self._difference(own, theirs, first, apart).as_json()
        defined = {name: ~np.isnan(values) for name, values in own.value.items() if name in BY_CLASS}
        pair = Pair(first, second, self.metric, self.positive_index, defined)
        result["models"] = _as_json(Verdict(reason=apart) if apart else sign_flip(pair, seed=self.seed))
        result["methods"] = _as_json(self._methods(own, theirs, entry, other, first))
        single = _why_not_one_test(first)
        undecided = "" if first.decided.any() and second.decided.any() else NO_CLASS
        unscored = NO_SCORES if DECISIONS in (first.kind, second.kind) else ""
        result["delong"] = _as_json(Verdict(reason=why) if (why := single or unscored) else self._delong(first, second))
        right = first.truth == first.predicted, second.truth == second.predicted
        result["mcnemar"] = _as_json(
            Verdict(reason=why) if (why := single or undecided) else comparison.mcnemar(*right)
        )
        return result

    def _composition(self, own: Estimates, theirs: Estimates, classes: Sequence[str]) -> str:
        """Why two averages over classes cannot be compared; empty where they can."""
        source = SOURCES.get(self.metric)
        if source is None or (self.metric == "average_precision" and self.positive_index is not None):
            return ""
        a, b = (~np.isnan(level.value[source]) for level in (own, theirs))
        if (a == b).all():
            return ""
        which = ", ".join(classes[k] for k in np.flatnonzero(a != b).tolist())
        return f"the averages are not over the same classes: in one of the two runs the metric is undefined for {which}"

    def _difference(self, own: Estimates, theirs: Estimates, scores: Scores, apart: str) -> Measure:
        if apart:
            return Measure(reason=apart)
        value, replicates, by_run, by_repeat = (
            pick(getattr(own, level), self.metric, self.positive_index)
            - pick(getattr(theirs, level), self.metric, self.positive_index)
            for level in ("value", "replicates", "by_run", "by_repeat")
        )
        return measure(
            float(value),
            own.uncertainty(self.metric, replicates),
            patients=scores.patients,
            proportion=False,
            method="paired " + method_of(by_patient=scores.by_patient, by_influence=own.strata is not None),
            sd_runs=float(spread(by_run)),
            sd_repeats=float(spread(by_repeat)),
            undefined=f"{self.metric} is undefined for one of the two runs",
        )

    def _methods(self, own: Estimates, theirs: Estimates, entry: Entry, other: Entry, first: Scores) -> Verdict:
        d = pick(own.by_run, self.metric, self.positive_index) - pick(theirs.by_run, self.metric, self.positive_index)
        pairs = [(repeat or "0", fold or "0") for repeat, fold in first.runs]
        kept = np.flatnonzero(~np.isnan(d))
        # The smaller number of fitted images is the conservative one. A table of predictions has no such number; if its
        # splits are the same, the number of the other run applies.
        known = [e for e in (entry, other) if e.fitted]
        fitted = [min((e.fitted.get(pairs[i], 0) for e in known), default=0) for i in kept.tolist()]
        n_test = float(np.mean([(first.run == i).sum() for i in kept])) if len(kept) else 0.0
        n_train = float(np.mean(fitted)) if fitted and all(fitted) else 0.0
        verdict = comparison.corrected_t(d[kept], n_test, n_train)
        if len(d) > 1 and verdict.reason and n_train <= 0 and len(kept) > 1:
            lacking = known or (entry, other)
            name = next(e.name for e in lacking if any(not e.fitted.get(pairs[i]) for i in kept.tolist()))
            return replace(
                verdict, reason=f"the number of images that {name} was fitted on is not known; give its RUN folder"
            )
        notes = []
        if len(kept) < len(d):
            notes.append(f"{self.metric} is defined in {len(kept)} of {count_of(len(d), 'run')}")
        if verdict.p is not None and len(known) == 1:
            table = next(e.name for e in (entry, other) if not e.fitted)
            notes.append(f"{table} is assumed to be fitted on as many images as {known[0].name}")
        return replace(verdict, reason="; ".join(filter(None, (*notes, verdict.reason))) or None)

    def _delong(self, first: Scores, second: Scores) -> Verdict:
        positive_index = self.positive_index
        if positive_index is None:
            if len(first.classes) > 2:
                return Verdict(reason="DeLong compares one class with the rest; name the class with --positive")
            positive_index = 1
        if (first.truth == positive_index).all() or not (first.truth == positive_index).any():
            return Verdict(reason="DeLong needs images of the class and of the rest")
        columns = first.probabilities[:, positive_index], second.probabilities[:, positive_index]
        return comparison.delong(*columns, first.truth == positive_index)


def _why_not_one_test(scores: Scores) -> str:
    """Why DeLong's and McNemar's tests, which assume independent rows, cannot be used; empty where they can."""
    if len(scores.runs) > 1:
        return (
            f"{count_of(len(scores.runs), 'run')}: scores and errors "
            f"of different models must not be pooled into one test"
        )
    if scores.patients < len(scores):
        return (
            f"{count_of(len(scores), 'image')} of "
            f"{count_of(scores.patients, 'patient')}: the test needs one image a patient"
        )
    return ""


def _describe(entry: Entry, found: Estimates, metric: str, positive_index: int | None) -> dict[str, Any]:
    scores = entry.scores
    measures = measures_of(scores, found, positive_index)
    of_a_class = METRICS[metric].of_a_class
    level = measures["per_class"][scores.classes[positive_index or 0]] if of_a_class else measures["overall"]
    return {
        "images": scores.images,
        "patients": scores.patients,
        "patients_known": scores.by_patient,
        "runs": len(scores.runs),
        "repeats": len(set(scores.repeat_of_run.tolist())),
        "classes": list(scores.classes),
        "metric": level[metric],
        **measures,
        "facts": dict(entry.facts),
        "notes": [*entry.notes, *scores.notes],
    }


def _strata(scores: Scores, by: Sequence[str], seed: int, resamples: int) -> dict[str, Any]:
    """Accuracy, images and patients by column and value, without columns that are empty."""
    found: dict[str, Any] = {}
    for grouping in (available(scores, Grouping(column)) for column in by):
        if not any(scores.rows.cells.get(grouping.column, ())):
            continue
        strata = found[grouping.column] = {}
        for name, mask in split_by(scores, grouping):
            if name == NONE:
                continue
            part = scores.where(mask)
            measures = measures_of(part, estimate(part, seed=seed, resamples=resamples, calibrated=False), None)
            sizes = {"images": part.images, "patients": part.patients}
            strata[name] = {"accuracy": measures["overall"]["accuracy"], **sizes}
    return found


def _as_json(verdict: Verdict) -> dict[str, Any]:
    names = ("p", "statistic", "difference", "low", "high")
    detail = {
        name: int(number) if float(number).is_integer() else round(number, DIGITS) for name, number in verdict.detail
    }
    return {name: _rounded(getattr(verdict, name)) for name in names} | detail | {"reason": verdict.reason}


def _rounded(number: float | None) -> float | None:
    # Tiny p values keep their digits: rounded to decimals they would be 0.
    return None if number is None else float(f"{float(number):.{DIGITS}g}") + 0.0
