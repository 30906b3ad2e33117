"""What the answers about confounding mean, in words: each sentence stands for itself."""

from __future__ import annotations

from collections.abc import Sequence

from cxrtool.auditing.association import Categorical, Numerical
from cxrtool.auditing.confounding_questions import MISSING, PRESENCE, Question, Units, counts_by_class
from cxrtool.auditing.factors import AGE

CHILD = 18.0
"""Years of age below which a patient is a child here."""

CHILDREN_APART = 0.5
"""Difference between the classes' shares of children from which it is said."""

UNITS_OF_MEASURE = {AGE: " years", "width": " pixels", "height": " pixels"}
READABLE = {"aspect": "width over height", "kind": "type of file", "bits": "bits a pixel", "size": "size in pixels"}


def readable(name: str) -> str:
    """A factor's name in a sentence.

    >>> readable("aspect"), readable("view")
    ('width over height', 'view')
    """
    return READABLE.get(name, name)


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def percent(share: float) -> str:
    """A share, never rounded to all or nothing.

    >>> percent(0.7), percent(1.0), percent(0.998), percent(0.002)
    ('70 %', '100 %', 'over 99 %', 'under 1 %')
    """
    if 0 < share < 0.01 or 0.99 < share < 1:
        return "under 1 %" if share < 0.5 else "over 99 %"
    return f"{100 * share:.0f} %"


def span(shares: Sequence[float]) -> str:
    """One share, or from the lowest to the highest.

    >>> span([0.5, 0.5]), span([0.7, 0.98])
    ('50 %', '70 to 98 %')
    """
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def described(question: Question, units: Units) -> str:
    """The distribution behind an answer, as `AP for 80 % of covid, for 12 % of normal`."""
    if question.about == MISSING:
        return _known(question, units)
    answer = question.answer
    if isinstance(answer, Numerical):
        return _means(question, answer, units) if answer.pair else answer.reason
    return _shares(question, answer, units) if answer.v is not None else answer.reason


def strength(question: Question) -> str:
    """The figures of an answer, as they stand in brackets behind a sentence."""
    answer = question.answer
    if isinstance(answer, Categorical):
        return f"Cramér's V {answer.corrected:.2f}" if answer.corrected is not None else ""
    parts = [f"standardised difference {answer.smd:.2f}" if answer.smd is not None else ""]
    parts.append(f"AUC {max(answer.auc, 1 - answer.auc):.2f}" if answer.auc is not None else "")
    return ", ".join(part for part in parts if part)


def known_shares(question: Question, units: Units) -> dict[str, float]:
    """For each class the share of units of which a factor is known."""
    counts = counts_by_class(question.values, units)
    return {name: 1.0 - found[""] / sum(found.values()) for name, found in counts.items()}


def _known(question: Question, units: Units) -> str:
    shares = known_shares(question, units)
    what = f"a {question.factor.name}" if question.factor.name in PRESENCE else "known"
    return f"{what} for " + ", ".join(f"{percent(share)} of {name}" for name, share in shares.items())


def _shares(question: Question, answer: Categorical, units: Units) -> str:
    table = answer.table.astype(float)
    totals = table.sum(axis=0)
    present = [k for k in range(len(units.classes)) if totals[k]]
    shares = table[:, present] / totals[present]
    place = int((shares.max(axis=1) - shares.min(axis=1)).argmax())
    return f"{answer.levels[place]} for " + ", ".join(
        f"{percent(float(share))} of {units.classes[k]}" for k, share in zip(present, shares[place], strict=True)
    )


def _means(question: Question, answer: Numerical, units: Units) -> str:
    unit = UNITS_OF_MEASURE.get(question.factor.name, "")
    by_class = values_by_class(question, units)
    names = [units.classes[k] for k in answer.pair or ()]
    means = [sum(by_class[name]) / len(by_class[name]) for name in names]
    text = f"on average {means[0]:.3g}{unit} in {names[0]}, {means[1]:.3g}{unit} in {names[1]}"
    if question.factor.name == AGE:
        young = [sum(value < CHILD for value in by_class[name]) / len(by_class[name]) for name in names]
        if abs(young[0] - young[1]) >= CHILDREN_APART:
            text += f"; under {CHILD:.0f} are {percent(young[0])} of {names[0]}, {percent(young[1])} of {names[1]}"
    return text


def values_by_class(question: Question, units: Units) -> dict[str, list[float]]:
    """The known values of a number in each class."""
    result: dict[str, list[float]] = {name: [] for name in units.classes}
    for value, label in zip(question.values, units.labels, strict=True):
        if value:
            result[units.classes[label]].append(float(value))
    return result
