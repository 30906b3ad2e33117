"""Several runs beside one another: what each reaches, and how it differs from the reference on the very same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cxrtool.errors import UsageError
from cxrtool.evaluation.comparison import tests as comparison
from cxrtool.evaluation.comparison.align import Key, align, in_order
from cxrtool.evaluation.comparison.metrics import METRICS
from cxrtool.evaluation.comparison.tests import Pair, Verdict, pick, sign_flip
from cxrtool.evaluation.groups import NONE, Grouping, split_by
from cxrtool.evaluation.metrics.confusion import spread
from cxrtool.evaluation.metrics.estimates import BY_CLASS, SOURCES, Estimates, estimate
from cxrtool.evaluation.resampling.intervals import DIGITS, IMAGES, PATIENTS, RESAMPLES, Measure, measure
from cxrtool.evaluation.scores import Scores
from cxrtool.evaluation.summary import MEANING, find_positive, measures_of
from cxrtool.evaluation.tables import count_of

TESTS = ("models", "methods", "delong", "mcnemar")
"""In `comparison.json`: the permutation of two trained models, the corrected t of two methods, DeLong, McNemar."""


@dataclass
class Entry:
    """One run, or what stands for one.

    Attributes:
        name: What to call it.
        scores: Its test predictions.
        fitted: Number of images that each (repeat, fold) was fitted on, where that is known.
        seen: The images that it was fitted or validated on, where that is known.
        validation: Its validation predictions: key to whether they were right; empty where there are none.
        facts: What else is known: model, seconds, parameters, ….
        notes: What was left out or assumed.
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
    """Everything that `comparison.json` holds, but for published figures.

    Args:
        entries: At least one; classes in the order of the first one's where they are the same.
        metric: A key of `METRICS`: what differences are differences of.
        positive: The class that metrics of a class and DeLong's test are about.
        baseline: Name of the reference; None takes the best on validation images, or else the best on test images.
        by: Columns by whose values accuracies are told, of the runs that have them.
        seed: Of resamples and permutations.
        resamples: How many.

    Raises:
        UsageError: Unknown class, or a metric that needs one.
    """
    check_metric(metric, positive)
    entries = [replace(entry, scores=in_order(entry.scores, entries[0].scores.classes)) for entry in entries]
    abouts = [find_positive(entry.scores.classes, positive) for entry in entries]
    found = [
        estimate(entry.scores, seed=seed, resamples=resamples, calibrated=False, about=about)
        for entry, about in zip(entries, abouts, strict=True)
    ]
    runs = {
        entry.name: _describe(entry, estimates, metric, about)
        for entry, estimates, about in zip(entries, found, abouts, strict=True)
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
        "interval": {"confidence": 0.95, "resamples": resamples, "seed": seed, "meaning": MEANING},
    }
    if reference is None:
        return result
    place = [entry.name for entry in entries].index(reference["name"])
    contest = _Contest(metric, abouts[place], seed, resamples)
    for index, entry in enumerate(entries):
        if index != place:
            made = contest.against(entry, found[index], entries[place], found[place])
            result["comparisons"].append({"name": entry.name, "against": reference["name"], **made})
    for test in TESTS:
        raw = [made[test]["p"] for made in result["comparisons"]]
        for made, adjusted in zip(result["comparisons"], comparison.holm(raw), strict=True):
            made[test]["p_holm"] = _rounded(adjusted)
    return result


def check_metric(metric: str, positive: str | None) -> None:
    """Check what is to be compared.

    Raises:
        UsageError: A metric that needs a class, where none is named.
    """
    if METRICS[metric].of_a_class and positive is None:
        raise UsageError(f"--metric {metric} is a figure of one class", "name it with --positive CLASS")


def choose_reference(
    entries: Sequence[Entry], baseline: str | None, reached: Mapping[str, float | None]
) -> dict[str, Any] | None:
    """What all others are compared with: the one that is named, the best on validation, or else the best on test.

    Validation images count that all runs have in the same repeat and fold; ties go to the first.

    Returns:
        `name`, `chosen` (`named`, `validation` or `test`), `validation` (accuracy by name, where it was looked at) and
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
        text += f" ({accuracy[best]:.3f}); test images had no say."
        shown = {name: round(value, DIGITS) for name, value in accuracy.items()}
        return {"name": best, "chosen": "validation", "validation": shown, "sentence": text}
    known = {name: value for name, value in reached.items() if value is not None}
    best = max(known, key=known.__getitem__) if known else entries[0].name
    text = (
        f"The reference, {best}, is the best of {len(entries)} on the test images themselves, for want of validation "
        f"images that all share: what the best of {len(entries)} reaches on test is optimistic. Name a --baseline."
    )
    return {"name": best, "chosen": "test", "validation": {}, "sentence": text}


@dataclass(frozen=True)
class _Contest:
    """Compares pairs by one metric."""

    metric: str
    about: int | None
    seed: int
    resamples: int

    def against(self, entry: Entry, own: Estimates, other: Entry, theirs: Estimates) -> dict[str, Any]:
        aligned = align(entry.scores, other.scores, (entry.name, other.name), (entry.seen, other.seen))
        first, second = aligned.first, aligned.second
        if first is None or second is None:
            nothing = {test: _as_json(Verdict(reason=aligned.reason)) for test in TESTS}
            sizes = {"images": 0, "patients": 0, "runs": 0, "differs": None, "reason": aligned.reason}
            return sizes | {"difference": Measure(reason=aligned.reason).as_json()} | nothing
        if not aligned.whole:
            own, theirs = (
                estimate(s, seed=self.seed, resamples=self.resamples, calibrated=False, about=self.about)
                for s in (first, second)
            )
        sizes = {"images": first.images, "patients": first.patients, "runs": len(first.runs)}
        result: dict[str, Any] = {**sizes, "differs": aligned.differs or None, "reason": None}
        apart = self._composition(own, theirs, first.classes)
        result["difference"] = self._difference(own, theirs, first, apart).as_json()
        defined = {name: ~np.isnan(values) for name, values in own.value.items() if name in BY_CLASS}
        pair = Pair(first, second, self.metric, self.about, defined)
        result["models"] = _as_json(Verdict(reason=apart) if apart else sign_flip(pair, seed=self.seed))
        result["methods"] = _as_json(self._methods(own, theirs, entry, other, first))
        single = _why_not_one_test(first)
        result["delong"] = _as_json(Verdict(reason=single) if single else self._delong(first, second))
        right = first.truth == first.predicted, second.truth == second.predicted
        result["mcnemar"] = _as_json(Verdict(reason=single) if single else comparison.mcnemar(*right))
        return result

    def _composition(self, own: Estimates, theirs: Estimates, classes: Sequence[str]) -> str:
        """Why two averages over classes are none of a kind; empty where they are."""
        source = SOURCES.get(self.metric)
        if source is None or (self.metric == "average_precision" and self.about is not None):
            return ""
        a, b = (~np.isnan(level.value[source]) for level in (own, theirs))
        if (a == b).all():
            return ""
        which = ", ".join(classes[k] for k in np.flatnonzero(a != b).tolist())
        return f"the averages are not over the same classes: for one of the two it is undefined for {which}"

    def _difference(self, own: Estimates, theirs: Estimates, scores: Scores, apart: str) -> Measure:
        if apart:
            return Measure(reason=apart)
        value, replicates, by_run, by_repeat = (
            pick(getattr(own, level), self.metric, self.about) - pick(getattr(theirs, level), self.metric, self.about)
            for level in ("value", "replicates", "by_run", "by_repeat")
        )
        return measure(
            float(value),
            replicates,
            patients=scores.patients,
            proportion=False,
            method="paired " + (PATIENTS if scores.by_patient else IMAGES),
            sd_runs=float(spread(by_run)),
            sd_repeats=float(spread(by_repeat)),
            undefined=f"{self.metric} is undefined for one of the two",
        )

    def _methods(self, own: Estimates, theirs: Estimates, entry: Entry, other: Entry, first: Scores) -> Verdict:
        d = pick(own.by_run, self.metric, self.about) - pick(theirs.by_run, self.metric, self.about)
        pairs = [(repeat or "0", fold or "0") for repeat, fold in first.runs]
        kept = np.flatnonzero(~np.isnan(d))
        # Where one of the two was fitted on fewer images, the runs hang together less than the larger number says.
        # A table of predictions does not tell; where it is of the same division, the other's number is as good.
        known = [e for e in (entry, other) if e.fitted]
        fitted = [min((e.fitted.get(pairs[i], 0) for e in known), default=0) for i in kept.tolist()]
        n_test = float(np.mean([(first.run == i).sum() for i in kept])) if len(kept) else 0.0
        n_train = float(np.mean(fitted)) if fitted and all(fitted) else 0.0
        verdict = comparison.corrected_t(d[kept], n_test, n_train)
        if len(d) > 1 and verdict.reason and n_train <= 0 and len(kept) > 1:
            lacking = known or (entry, other)
            bare = next(e.name for e in lacking if any(not e.fitted.get(pairs[i]) for i in kept.tolist()))
            return replace(verdict, reason=f"how many images {bare} was fitted on is not known; give its RUN folder")
        notes = []
        if len(kept) < len(d):
            notes.append(f"{self.metric} is defined in {len(kept)} of {len(d)} runs")
        if verdict.p is not None and len(known) == 1:
            table = next(e.name for e in (entry, other) if not e.fitted)
            notes.append(f"how many images {table} was fitted on is taken to be what {known[0].name} was")
        return replace(verdict, reason="; ".join(filter(None, (*notes, verdict.reason))) or None)

    def _delong(self, first: Scores, second: Scores) -> Verdict:
        about = self.about
        if about is None:
            if len(first.classes) > 2:
                return Verdict(reason="DeLong compares one class with the rest; name it with --positive")
            about = 1
        if (first.truth == about).all() or not (first.truth == about).any():
            return Verdict(reason="DeLong needs images of the class and others")
        columns = first.probabilities[:, about], second.probabilities[:, about]
        return comparison.delong(*columns, first.truth == about)


def _why_not_one_test(scores: Scores) -> str:
    """Why DeLong's and McNemar's tests, which take rows for independent, must not be used; empty where they may."""
    if len(scores.runs) > 1:
        return f"{len(scores.runs)} runs: scores and errors of different models must not be pooled into one test"
    if scores.patients < len(scores):
        return f"{len(scores)} images of {scores.patients} patients: it needs one image a patient"
    return ""


def _describe(entry: Entry, found: Estimates, metric: str, about: int | None) -> dict[str, Any]:
    scores = entry.scores
    told = measures_of(scores, found, about)
    of = told["per_class"][scores.classes[about or 0]] if METRICS[metric].of_a_class else told["overall"]
    chosen = of[metric]
    return {
        "images": scores.images,
        "patients": scores.patients,
        "patients_known": scores.by_patient,
        "runs": len(scores.runs),
        "repeats": len(set(scores.repeat_of_run.tolist())),
        "classes": list(scores.classes),
        "metric": chosen,
        **told,
        "facts": dict(entry.facts),
        "notes": [*entry.notes, *scores.notes],
    }


def _strata(scores: Scores, by: Sequence[str], seed: int, resamples: int) -> dict[str, Any]:
    """Column to its values to accuracy, images and patients; without columns that no row has."""
    known = [column for column in by if any(row.get(column) for row in scores.rows)]
    found: dict[str, Any] = {}
    for column in known:
        found[column] = {}
        for name, mask in split_by(scores, Grouping(column)):
            if name == NONE:
                continue
            part = scores.where(mask)
            told = measures_of(part, estimate(part, seed=seed, resamples=resamples, calibrated=False), None)
            sizes = {"images": part.images, "patients": part.patients}
            found[column][name] = {"accuracy": told["overall"]["accuracy"], **sizes}
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
