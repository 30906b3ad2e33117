"""The patients of a set, their visits and diseases, and the parameters of each radiograph; no pixels.

Patient k depends on the seed and k alone, so that any number of processes draws the same set in any order. Unless a
shortcut is planted, only the lesions depend on the class: age, sex, view, source, subset and number of visits come from
a random generator that does not depend on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from cxrtool.errors import UsageError
from cxrtool.options import did_you_mean
from cxrtool.phantom.plants import PLANTS, TWINS, check_plants, plant_style, twin_period
from cxrtool.phantom.sources import SOURCES, Source
from cxrtool.phantom.subject import LABELS, Subject

CLASSES = ("normal", "pathological", "covid")
"""The default classes."""

SUBSETS = {"train": 0.6, "validation": 0.2, "test": 0.2}
"""The column `subset`, and the share of patients in each."""

VISITS = (0.8, 0.15, 0.05)
"""Shares of patients with one, two and three visits: 1.25 on average."""

CHILD, ADULT, INFANT = (1, 12), (18, 90), (1, 5)
"""Ranges of age in years; that of infants is used for the planted age alone."""

OLD = 65
AP_SHARE = {"child": 0.7, "adult": 0.2, "old": 0.375}
"""Shares of AP radiographs, of patients who cannot stand; with a fifth of children 0.35 of all."""

FULL = 4
"""The largest extent of a lung; the largest total of both lungs is twice that."""

SEVERITIES = {"normal-pcr+": (0, 0), "mild": (1, 2), "moderate": (3, 5), "severe": (6, 8)}
"""Severities of covid in increasing order, each with the range of the total extent of both lungs."""

# The purposes of a patient's random generators. None is 0: for numpy [5, 0] and [5] are the same seed.
_WHO, _LESIONS, _PLANTS, _TWIN, _LABELS, _SEVERITIES, _BODY, _VISIT, _EXPOSURE = range(1, 10)


@dataclass(frozen=True)
class Pattern:
    """How a disease spreads: the probabilities of the total extents of both lungs at the first visit.

    `one_lung` is the share of patients with disease in one lung only, as far as the total fits into one.
    """

    totals: Mapping[int, float]
    one_lung: float


PATTERNS = {
    "normal": Pattern({0: 1.0}, 0.0),
    "pathological": Pattern({1: 0.2, 2: 0.35, 3: 0.3, 4: 0.15}, 0.75),
    "covid": Pattern(dict.fromkeys(range(2 * FULL + 1), 1 / (2 * FULL + 1)), 0.1),
    "viral": Pattern({1: 0.1, 2: 0.2, 3: 0.25, 4: 0.2, 5: 0.15, 6: 0.1}, 0.2),
    "bacterial": Pattern({1: 0.15, 2: 0.25, 3: 0.25, 4: 0.2, 5: 0.1, 6: 0.05}, 0.8),
}
"""By class; they overlap as diseases do, so that the extent alone does not identify the class."""


@dataclass(frozen=True)
class Cohort:
    """The parameters of a set of radiographs.

    Attributes:
        count: Number of radiographs; the last patient may have fewer visits.
        seed: 0 or more.
        classes: Some of `LABELS`; each has the same share of patients.
        sources: Keys of `SOURCES` with their weights: a source's share of the patients is its weight over the sum.
        children: Share of patients under 13, from 0 to 1.
        plants: Keys of `PLANTS`.
        strength: Share that follows a planted shortcut, from 0 to 1: of radiographs for marker, border and size, of
            patients for the others.

    Raises:
        UsageError: A value is unknown, out of range, or listed twice; or there are too few of them for a shortcut.
    """

    count: int
    seed: int = 0
    classes: tuple[str, ...] = CLASSES
    sources: tuple[tuple[str, float], ...] = tuple((name, 1.0) for name in SOURCES)
    children: float = 0.2
    plants: tuple[str, ...] = ()
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"--count: expected at least 1 radiograph, found {self.count}")
        for flag, given, known in (
            ("--classes", self.classes, LABELS),
            ("--sources", self.places, tuple(SOURCES)),
            ("--plant", self.plants, tuple(PLANTS)),
        ):
            _check_names(flag, given, known)
            if not given and flag != "--plant":
                raise UsageError(f"{flag}: expected at least one of {', '.join(known)}, found none")
        for flag, share in (("--children", self.children), ("--plant-strength", self.strength)):
            if not 0 <= share <= 1:
                raise UsageError(f"{flag}: expected a share from 0 to 1, found {share:g}")
        for name, weight in self.sources:
            if not 0 < weight < float("inf"):
                raise UsageError(f"--sources: expected a weight above 0, found {name}={weight:g}")
        check_plants(self.plants, self.classes, self.places, self.count)

    @property
    def places(self) -> tuple[str, ...]:
        """The names of the sources."""
        return tuple(name for name, _ in self.sources)


@dataclass(frozen=True)
class Shot:
    """The parameters of one radiograph.

    Attributes:
        image_id: Patient and visit, such as `p000123-0`; independent of the class.
        patient_id: The patient in the tables of this set.
        written_id: The patient in the header of the file; it differs only for a duplicate, whose file is a copy of
            another patient's.
        subset: A key of `SUBSETS`.
        source: The source, including planted changes.
        subject: The patient on this day.
        planted: The shortcuts that it follows.
        twin_of: The image that it duplicates, or empty.
    """

    image_id: str
    patient_id: str
    written_id: str
    subset: str
    source: Source
    subject: Subject
    planted: tuple[str, ...] = ()
    twin_of: str = ""


def draw_shots(cohort: Cohort, start: int = 0) -> Iterator[Shot]:
    """Yield the radiographs of a cohort, patient by patient, without the first `start`."""
    patients = (draw_patient(cohort, number) for number in itertools.count())
    yield from itertools.islice(itertools.chain.from_iterable(patients), start, cohort.count)


def draw_patient(cohort: Cohort, number: int) -> list[Shot]:
    """The radiographs of patient `number`, one a visit."""
    original = _original_of(cohort, number)
    return _draw(cohort, number) if original is None else _return(cohort, number, original)


def _draw(cohort: Cohort, number: int) -> list[Shot]:
    who = _generator(cohort, number, _WHO)
    subset = _pick(who.random(), SUBSETS)
    source = _pick(who.random(), dict(cohort.sources))
    child = who.random() < cohort.children
    # All are drawn, needed or not, so that one option does not change the draws of another.
    ages = [int(who.integers(low, high + 1)) for low, high in (CHILD, ADULT, INFANT)]
    sex = "FM"[int(who.integers(2))]
    visits = int(who.choice(len(VISITS), p=VISITS)) + 1
    views = who.random(len(VISITS))

    label = _label_of(cohort, number)
    index = cohort.classes.index(label)
    lesions = _generator(cohort, number, _LESIONS)
    extents = draw_extents(lesions, label, _severity_of(cohort, number) if label == "covid" else None, visits)
    follows = _follows(cohort, number)

    age = ages[0] if child else ages[1]
    if "age" in follows[0]:
        age = ages[2] if index == 0 else ages[1]
    if "source" in follows[0]:
        source = cohort.places[index]
    patient, shots = _identity(number), []
    for visit in range(visits):
        subject = Subject(
            label=label,
            extent=extents[visit],
            age=age,
            sex=sex,
            view="AP" if views[visit] < AP_SHARE[_stage(age)] else "PA",
            body=(cohort.seed, number, _BODY),
            visit=(cohort.seed, number, _VISIT, visit + 1),
            exposure=(cohort.seed, number, _EXPOSURE, visit + 1),
        )
        planted = follows[visit] - {"age", "source"} | follows[0] & {"age", "source"}
        style = plant_style(SOURCES[source], planted, index)
        names = tuple(name for name in PLANTS if name in planted)
        shots.append(Shot(f"{patient}-{visit}", patient, patient, subset, style, subject, names))
    return shots


def _return(cohort: Cohort, number: int, original: int) -> list[Shot]:
    """The radiographs of the patient `original` with another id and in another subset."""
    kinds = [name for name in TWINS if name in cohort.plants]
    kind = kinds[number // twin_period(cohort.plants, cohort.count) % len(kinds)]
    patient, shots = _identity(number), []
    for visit, shot in enumerate(_draw(cohort, original)):
        others = {name: share for name, share in SUBSETS.items() if name != shot.subset}
        copy = replace(
            shot,
            image_id=f"{patient}-{visit}",
            patient_id=patient,
            planted=(*shot.planted, kind),
            subset=_pick(_generator(cohort, number, _WHO).random(), others),
            twin_of=shot.image_id,
        )
        if kind == "near-duplicate":
            exposure = (cohort.seed, number, _EXPOSURE, visit + 1)
            copy = replace(copy, written_id=patient, subject=replace(shot.subject, exposure=exposure))
        shots.append(copy)
    return shots


def _original_of(cohort: Cohort, number: int) -> int | None:
    period = twin_period(cohort.plants, cohort.count)
    if not period or number % period != period - 1:
        return None
    generator = _generator(cohort, number, _TWIN)
    if generator.random() >= cohort.strength:
        return None
    # One of the patients before it in the same period, none of whom is a duplicate.
    return number - 1 - int(generator.integers(period - 1))


def _follows(cohort: Cohort, number: int) -> list[frozenset[str]]:
    """The shortcuts that each visit follows; those of the patient are taken from the first visit."""
    wanted = [name for name in cohort.plants if name not in TWINS]
    if not wanted:
        return [frozenset()] * len(VISITS)
    drawn = _generator(cohort, number, _PLANTS).random((len(VISITS), len(PLANTS))) < cohort.strength
    return [frozenset(name for name, yes in zip(PLANTS, row, strict=True) if yes and name in wanted) for row in drawn]


def _label_of(cohort: Cohort, number: int) -> str:
    # In blocks with every class once in random order, so that the shares are equal.
    block, index = divmod(number, len(cohort.classes))
    return cohort.classes[_order(cohort.seed, block, _LABELS, len(cohort.classes))[index]]


def _severity_of(cohort: Cohort, number: int) -> str:
    # A block has one patient with covid, so the number of the block counts them.
    block, index = divmod(number // len(cohort.classes), len(SEVERITIES))
    return list(SEVERITIES)[_order(cohort.seed, block, _SEVERITIES, len(SEVERITIES))[index]]


@lru_cache(maxsize=16)
def _order(seed: int, block: int, purpose: int, size: int) -> tuple[int, ...]:
    return tuple(int(index) for index in np.random.default_rng([seed, block, purpose]).permutation(size))


def _generator(cohort: Cohort, number: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([cohort.seed, number, purpose])


def _identity(number: int) -> str:
    return f"p{number:06}"


def _stage(age: int) -> str:
    return "child" if age <= CHILD[1] else "old" if age >= OLD else "adult"


def _pick(drawn: float, shares: Mapping[str, float]) -> str:
    """The name whose share of the whole contains a number from 0 to below 1."""
    bounds = np.cumsum(list(shares.values()))
    return list(shares)[int(np.searchsorted(bounds, drawn * bounds[-1], side="right"))]


def severity_of(label: str, total: int) -> str:
    """The severity of covid by the total extent; empty for other classes, as in COVIDGR.

    >>> severity_of("covid", 0), severity_of("covid", 5), severity_of("viral", 5)
    ('normal-pcr+', 'moderate', '')
    """
    if label != "covid":
        return ""
    return next(name for name, (low, high) in SEVERITIES.items() if low <= total <= high)


def draw_extents(
    generator: np.random.Generator, label: str, severity: str | None, visits: int
) -> list[tuple[int, int]]:
    """The target extent in the right and the left lung at every visit; the worse side stays the same.

    Args:
        generator: The patient's generator of lesions.
        label: A key of `PATTERNS`.
        severity: A key of `SEVERITIES`, for the first visit; None draws the total by the pattern.
        visits: At least 1.
    """
    pattern = PATTERNS[label]
    low, high = min(pattern.totals), max(pattern.totals)
    if severity is None:
        total = int(generator.choice(list(pattern.totals), p=list(pattern.totals.values())))
    else:
        least, most = SEVERITIES[severity]
        total = int(generator.integers(least, most + 1))
    alone = generator.random() < pattern.one_lung
    side = int(generator.integers(2))
    # By how much the worse side exceeds the other where both are affected.
    lead = int(generator.choice([-1, 0, 1], p=[0.2, 0.6, 0.2]))
    extents = []
    for _ in range(visits):
        first = _first(total, FULL if alone else lead)
        extents.append((first, total - first) if side == 0 else (total - first, first))
        # Better or worse by the next visit.
        total = int(np.clip(total + generator.integers(-2, 3), low, high))
    return extents


def _first(total: int, lead: int) -> int:
    """The extent of the worse side for a total, with at most `FULL` in each lung.

    >>> [_first(5, lead) for lead in (-1, 0, 1, 4)]
    [2, 3, 4, 4]
    """
    return min(max((total + 1) // 2 + lead, 0, total - FULL), total, FULL)


def _check_names(flag: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"{flag}: expected some of {', '.join(known)}, found '{name}'{did_you_mean(name, known)}")
        if given.count(name) > 1:
            raise UsageError(f"{flag}: '{name}' is listed twice")
