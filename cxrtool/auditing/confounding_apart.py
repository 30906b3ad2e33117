"""Were the classes collected apart? A source that the manifest names, or that names and files give away.

Labels and sources are joined where one holds the other. If that leaves more than one island, no source holds labels of
two islands, and nothing in the data can tell the disease from the place. A source that is named settles it. What ids
and file names give away does not settle it, because some number their images class by class: it counts as proof only
where something else that is large and certain points the same way, and says nothing where names hold the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cxrtool.auditing.association import Categorical
from cxrtool.auditing.confounding_questions import (
    CERTAIN,
    MISSING,
    PRESENCE,
    VALUE,
    Question,
    Units,
    associate,
    counts_by_class,
    gravity,
)
from cxrtool.auditing.confounding_words import described, known_shares, listed, percent, readable, span
from cxrtool.auditing.factors import AGE, FILE, FILE_COLUMNS, FILES, NAMESPACE, NAMING, OTHERS, SOURCE
from cxrtool.auditing.part import ALARM, NOTE, WARNING

NAMED = (SOURCE, NAMESPACE)
"""Factors that name a source, rather than give one away."""

LEAST_KNOWN = 0.9
"""Share of each class for which a factor must be known before it is taken for where the class is from."""

NO_TELLING = (
    "Nothing in this data set can tell the disease from the place that its images are from, so an accuracy on it may "
    "mean either."
)

SIGNS = 3
"""How many signs a sentence tells."""

PERMUTATIONS = 2000


@dataclass(frozen=True)
class Apart:
    """Labels that share no source with one another.

    Attributes:
        question: By which factor.
        islands: The labels; those of one island share sources.
        level: `ALARM`, `WARNING`, or `NOTE` where the names only repeat the labels.
        text: The sentence.
        signs: Names of the questions that point the same way.
    """

    question: Question
    islands: tuple[tuple[str, ...], ...]
    level: str
    text: str
    signs: tuple[str, ...] = ()


def apart(units: Units, questions: Sequence[Question], *, seed: int) -> list[Apart]:
    """The divisions of the labels by source, each told once, by the first factor that shows it."""
    found: list[Apart] = []
    told: set[frozenset[frozenset[str]]] = set()
    candidates = [q for name in NAMED for q in questions if q.name == name]
    candidates += [q for q in questions if q.factor.origin == NAMING and q.name != NAMESPACE]
    for question in candidates:
        if question.about != VALUE or question.answer.p is None or question.answer.p >= CERTAIN:
            continue
        if min(known_shares(question, units).values()) < LEAST_KNOWN:
            continue
        islands = islands_of(question, units)
        fresh: list[tuple[str, ...]] = []
        for island in islands if len(islands) > 1 else []:
            # Of two islands the one says what the other says.
            if (division := _division(island, units)) not in told:
                told.add(division)
                fresh.append(island)
        if fresh and question.name in NAMED:
            found.append(_named(question, islands, units))
            continue
        proven = {island: _proven(question, island, units, questions, seed) for island in fresh}
        found += [shown for shown in proven.values() if shown]
        unproven = [island for island, shown in proven.items() if not shown]
        found += [_unproven(question, unproven, units)] if unproven else []
    return found


def islands_of(question: Question, units: Units) -> list[tuple[str, ...]]:
    """Labels that hang together because a level holds two of them, one after another; in the classes' order."""
    counts = counts_by_class(question.values, units)
    islands: list[set[str]] = []
    for level in sorted({value for found in counts.values() for value in found if value}):
        joined = {name for name, found in counts.items() if found[level]}
        touching = [island for island in islands if island & joined]
        islands = [island for island in islands if not island & joined] + [joined.union(*touching)]
    ordered = [tuple(name for name in units.classes if name in island) for island in islands]
    return sorted(ordered, key=lambda island: units.classes.index(island[0]))


def repeats_label(levels: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether names of a family only say what the label says.

    >>> repeats_label(["covid"], ["covid"]), repeats_label(["p"], ["positive"]), repeats_label(["cohen"], ["covid"])
    (True, True, False)
    """
    words = [(level.casefold(), label.casefold()) for level in levels for label in labels]
    return any(label in level or label.startswith(level) for level, label in words)


def _division(island: tuple[str, ...], units: Units) -> frozenset[frozenset[str]]:
    return frozenset((frozenset(island), frozenset(units.classes).difference(island)))


def _named(question: Question, islands: Sequence[tuple[str, ...]], units: Units) -> Apart:
    places = [(listed(island), _quoted(_levels(question, island, units))) for island in islands]
    told = [f"all images of {places[0][0]} are from {places[0][1]}"]
    told += [f"all of {whose} from {place}" for whose, place in places[1:]]
    text = (
        f"Source and label coincide: {', '.join(told)}, and no source holds "
        f"{'both' if len(islands) == 2 else 'two of these'}. {NO_TELLING}"
    )
    return Apart(question, tuple(islands), ALARM, text)


def _proven(
    question: Question, island: tuple[str, ...], units: Units, questions: Sequence[Question], seed: int
) -> Apart | None:
    rest = tuple(name for name in units.classes if name not in island)
    if _repeats(question, island, units) or _repeats(question, rest, units):
        return None
    mine, theirs = listed(island), listed(rest)
    here, there = (_levels(question, names, units) for names in (island, rest))
    signs = _signs(island, rest, units, questions, seed)
    if not any(sign.proof for sign in signs):
        return None
    agreeing = "; ".join(sign.text for sign in signs[:SIGNS])
    names = tuple(name for sign in signs for name in sign.names)
    age = ", and with them whether the age is known" if f"{AGE} missing" in names else ""
    text = (
        f"Source and label coincide{age}: images of {mine} were collected apart from those of {theirs}. "
        f"{_capital(_names(question))} of {mine} {' '.join(_like(question))} {_quoted(here)}, those of {theirs} "
        f"{_like(question)[1]} {_quoted(there)}; besides, {agreeing}. {NO_TELLING}"
    )
    return Apart(question, (island, rest), ALARM, text, names)


def _unproven(question: Question, islands: Sequence[tuple[str, ...]], units: Units) -> Apart:
    labels = tuple(name for island in islands for name in island)
    others = tuple(name for name in units.classes if name not in labels)
    shown = [*islands, *([others] if others else [])]
    verb, joint = _like(question)
    told = ", ".join(f"of {listed(names)} {joint} {_quoted(_levels(question, names, units))}" for names in shown)
    if all(_repeats(question, island, units) for island in islands):
        text = (
            f"{_capital(_names(question))} repeat the label (they {verb}: {told}): they do not tell where the images "
            "are from."
        )
        return Apart(question, tuple(shown), NOTE, text)
    text = (
        f"{_capital(_names(question))} differ from class to class (they {verb}: {told}): the classes may have been "
        "collected apart, and a model may then learn the collection in place of the disease."
    )
    return Apart(question, tuple(shown), WARNING, text)


def _repeats(question: Question, labels: Sequence[str], units: Units) -> bool:
    return question.name != FILES and repeats_label(_levels(question, labels, units), labels)


def _names(question: Question) -> str:
    return "file names" if question.name == FILES else "ids of patients"


def _like(question: Question) -> tuple[str, str]:
    return ("look", "like") if question.name == FILES else ("begin", "with")


def _levels(question: Question, names: Sequence[str], units: Units) -> list[str]:
    counts = counts_by_class(question.values, units)
    total = sum((counts[name] for name in names), start=type(counts[names[0]])())
    return [level for level, _ in total.most_common() if level]


def _quoted(levels: Sequence[str]) -> str:
    named = [level for level in levels if level != OTHERS]
    shown = [f"'{level}'" for level in named[:SIGNS]]
    more = len(named) - len(shown)
    rest = [f"{more} more"] if more else [OTHERS] if len(named) < len(levels) else []
    return listed([*shown, *rest])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class _Sign:
    text: str
    names: tuple[str, ...]
    proof: bool


def _signs(
    island: tuple[str, ...], rest: tuple[str, ...], units: Units, questions: Sequence[Question], seed: int
) -> list[_Sign]:
    """What else divides these labels from each of the others, largely and certainly.

    How large pictures are is told, but is no proof: the sick are X-rayed in bed, and cropped otherwise.
    """
    inside = np.isin(units.labels, [units.classes.index(name) for name in island])
    two = replace(units, classes=("the others", listed(island)), labels=inside.astype(np.intp))
    others = [units.labels == units.classes.index(name) for name in rest]
    strong: list[Question] = []
    for question in questions:
        if question.factor.origin == NAMING or question.factor.name in (*PRESENCE, *NAMED):
            continue
        if question.level in (ALARM, WARNING) and all(_divides(question, inside, other, seed) for other in others):
            strong.append(question)
    missing = sorted((q for q in strong if q.about == MISSING), key=lambda q: q.factor.name != AGE)
    sizes = [q for q in strong if q.about == VALUE and q.factor.origin == FILE and q.factor.name not in FILE_COLUMNS]
    signs = [_Sign(_missing_words(missing, two), tuple(q.name for q in missing), True)] if missing else []
    rest_of = [q for q in strong if q.about == VALUE and q not in sizes]
    signs += [_Sign(_two_words(question, two, seed), (question.name,), True) for question in rest_of]
    if sizes:
        best = max(sizes, key=lambda q: abs((_auc(q) or 0.5) - 0.5))
        signs.append(_Sign(_two_words(best, two, seed), tuple(q.name for q in sizes), False))
    return signs


def _divides(question: Question, inside: NDArray[np.bool_], other: NDArray[np.bool_], seed: int) -> bool:
    kept = np.flatnonzero(inside | other)
    answer = associate(
        [question.values[place] for place in kept], question.factor.kind, question.about,
        inside[kept].astype(np.intp), 2, seed=seed, permutations=PERMUTATIONS,
    )  # fmt: skip
    return answer.p is not None and answer.p < CERTAIN and gravity(answer) in (ALARM, WARNING)


def _two_words(question: Question, two: Units, seed: int) -> str:
    answer = associate(
        question.values, question.factor.kind, question.about, two.labels, 2, seed=seed, permutations=PERMUTATIONS
    )
    return f"{readable(question.factor.name)} is {described(replace(question, answer=answer), two)}"


def _auc(question: Question) -> float | None:
    return None if isinstance(question.answer, Categorical) else question.answer.auc


def _missing_words(questions: Sequence[Question], two: Units) -> str:
    names = listed([question.factor.name for question in questions])
    verb = "is" if len(questions) == 1 else "are"
    shares = [known_shares(question, two) for question in questions]
    others, mine = two.classes
    told = [span([share[side] for share in shares]) for side in (mine, others)]
    told = ["none" if text == percent(0) else text for text in told]
    return f"{names} {verb} known for {told[0]} of {mine} and for {told[1]} of {others}"
