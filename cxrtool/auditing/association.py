"""What a label is associated with: effect sizes, permutation tests, and correction for many tests.

Each question, is the label associated with a factor, or with whether it is known, is tested on one row per patient and
label. Its level depends on effect size and certainty together: with many patients even a small difference is certain,
with few a large one may be chance.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.auditing.factors import CATEGORY, MANIFEST, NAMING, NUMBER, Factor, factors
from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING
from cxrtool.data.splitting.grouping import group_images
from cxrtool.data.tables.views import Columns, RowView, cells_of, columns_of
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, divide
from cxrtool.evaluation.metrics.ranking import Ranking
from cxrtool.evaluation.resampling.influence import MANY_PATIENTS
from cxrtool.evaluation.resampling.intervals import RESAMPLES, draw_patients, percents

PERMUTATIONS = 10_000
"""In a family of 30 tests a single true association must be able to reach q < 0.01, which needs p below 0.0003."""

FEWEST = 5
"""Rows below which a level is merged with others: chi² of nearly empty cells is noise."""

MERGED = "(rare)"

CELLS_AT_ONCE = 4_000_000

NORMAL = 1.959964
"""The 97.5th percentile of the normal distribution."""

CERTAIN = 0.01
"""q (Benjamini & Hochberg) below which an association counts as more than chance."""

SEPARATING_V, SEPARATING_AUC = 0.8, 0.9
"""From here a factor alone has "outstanding" discrimination (Hosmer & Lemeshow 2000, section 5.2.4: AUC 0.9); for two
equal classes and two levels an AUC of 0.9 is a V of 0.8."""

LARGE_W, SMALL_W = 0.5, 0.1
"""Cohen (1988, section 7.2): large and small w; V is w / sqrt(min(levels, classes) - 1)."""

LARGE_SMD, SMALL_SMD = 0.8, 0.1
"""Cohen (1988, section 2.2): large d; Austin (2009): an imbalance from 0.1."""

PRESENCE = ("mask",)
"""Columns that are only tested for whether they are filled."""

VALUE, MISSING = "value", "missing"
KNOWN, ABSENT = "known", "missing"


@dataclass(frozen=True)
class Categorical:
    """The association of a label with a category.

    Cramér's V in [0, 1], V with Bergsma's correction, and p by permutation of the labels are None, with a reason, where
    the factor or the label has a single level. `table` (levels, classes) has the counts of the levels after merging.
    """

    v: float | None
    corrected: float | None
    p: float | None
    levels: tuple[str, ...]
    table: IntArray
    reason: str = ""


@dataclass(frozen=True)
class Numerical:
    """The association of a label with a number, for the pair of classes that differ most.

    Attributes:
        smd: Standardised difference of the means, of the first class minus the second.
        smd_interval: 95 %, from resamples within class, or from influence functions for `MANY_PATIENTS`.
        auc: Probability that a row of the first class has the larger number, ties counting half.
        auc_interval: Likewise.
        p: By permutation of the labels among all classes.
        pair: Indices of the two classes.
        reason: Why a figure is None.
    """

    smd: float | None = None
    smd_interval: tuple[float, float] | None = None
    auc: float | None = None
    auc_interval: tuple[float, float] | None = None
    p: float | None = None
    pair: tuple[int, int] | None = None
    reason: str = ""


@dataclass(frozen=True)
class Units:
    """What counts as one observation: a patient with a label, or an image where no patient is known.

    Attributes:
        classes: Labels, sorted.
        labels: (units,) index of each in `classes`.
        unit: (rows,) index of the unit of each labelled row.
        rows: The labelled rows.
        by_patient: Whether patients are known.
    """

    classes: tuple[str, ...]
    labels: IntArray
    unit: IntArray
    rows: Columns
    by_patient: bool

    @property
    def noun(self) -> str:
        """The name of one unit in sentences."""
        return "patient" if self.by_patient else "image"

    def totals(self) -> list[int]:
        """Units of each class."""
        return [int((self.labels == k).sum()) for k in range(len(self.classes))]


@dataclass(frozen=True)
class Question:
    """One question about a factor and its answer.

    Attributes:
        about: `VALUE`, or `MISSING`: whether it is known.
        values: (units,) the factor's value for each unit, empty where missing.
        q: The p of the answer after Benjamini and Hochberg over all questions; None where there is none.
    """

    factor: Factor
    about: str
    answer: Categorical | Numerical
    values: tuple[str, ...]
    q: float | None = None
    level: str = CLEAR

    @property
    def name(self) -> str:
        """Its name in tables."""
        return self.factor.name if self.about == VALUE else f"{self.factor.name} missing"

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Its entry in the content of the part."""
        entry: dict[str, Any] = {"name": self.name, "origin": self.factor.origin, "about": self.about}
        answer = self.answer
        if isinstance(answer, Categorical):
            entry |= {"statistic": "cramers_v", "v": answer.v, "v_corrected": answer.corrected}
            entry["counts"] = {
                level: dict(zip(classes, map(int, row), strict=True))
                for level, row in zip(answer.levels, answer.table, strict=True)
            }
        else:
            between = [classes[k] for k in answer.pair] if answer.pair else None
            entry |= {"statistic": "smd", "smd": answer.smd, "smd_interval": answer.smd_interval, "auc": answer.auc}
            entry |= {"auc_interval": answer.auc_interval, "between": between}
        return entry | {"p": answer.p, "q": self.q, "level": self.level, "reason": answer.reason or None}


def cramers_v(table: NDArray[np.integer] | FloatArray) -> tuple[float | None, float | None]:
    """Cramér's V of a contingency table, and with Bergsma's correction of its bias.

    After W. Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", Journal of the Korean Statistical Society
    42 (2013), section 3: phi² less (r-1)(c-1)/(n-1), at least 0, over the smaller of the corrected r and c less 1.

    Args:
        table: (r, c) counts of independent observations; empty rows and columns are ignored.

    Returns:
        V and its correction, in [0, 1]; None where fewer than two rows or columns are filled.

    >>> [round(v, 3) for v in cramers_v(np.array([[239, 187], [190, 236]]))]
    [0.115, 0.11]
    """
    filled = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0].astype(np.float64)
    rows, columns = filled.shape
    if min(rows, columns) < 2:
        return None, None
    n = filled.sum()
    phi = float(_chi_squared(filled[None])[0]) / n
    plain = math.sqrt(phi / (min(rows, columns) - 1))
    less = max(0.0, phi - (rows - 1) * (columns - 1) / (n - 1))
    r, c = rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)
    smaller = min(r, c) - 1
    # With about as many levels as observations no degree of freedom is left.
    return min(1.0, plain), min(1.0, math.sqrt(less / smaller)) if smaller > 1e-9 else 0.0


def _chi_squared(tables: FloatArray) -> FloatArray:
    """(B,) Pearson's chi² of (B, r, c) tables whose margins are above 0."""
    rows, columns = tables.sum(axis=2, keepdims=True), tables.sum(axis=1, keepdims=True)
    expected = rows * columns / tables.sum(axis=(1, 2), keepdims=True)
    statistic: FloatArray = ((tables - expected) ** 2 / expected).sum(axis=(1, 2))
    return statistic


def merge_rare(values: Sequence[str], fewest: int = FEWEST) -> list[str]:
    """Merge the levels with fewer than `fewest` rows; if together they are still too few, merge the next smallest too.

    >>> merge_rare(["a"] * 6 + ["b"] * 7 + ["c", "d"])[-2:]
    ['a or rare', 'a or rare']
    >>> merge_rare(["a"] * 6 + ["b"] * 3 + ["c"] * 3)[-1]
    '(rare)'
    """
    counts = dict(sorted(Counter(values).items()))
    rare = {level for level, count in counts.items() if count < fewest}
    total = sum(counts[level] for level in rare)
    common = [level for level in counts if level not in rare]
    if not rare or total >= fewest or not common:
        return [MERGED if value in rare else value for value in values]
    smallest = min(common, key=lambda level: counts[level])
    joint = f"{smallest} or rare"
    return [joint if value in rare or value == smallest else value for value in values]


def categorical(
    values: Sequence[str], labels: IntArray, classes: int, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> Categorical:
    """The association of a label with a category: of levels (n,), none missing, with class indices (n,).

    A permutation of the labels keeps both margins of the table. Tables of permuted labels are therefore drawn directly
    (multivariate hypergeometric, cell by cell), at a cost that does not grow with the number of rows.
    """
    merged = merge_rare(list(values))
    levels, index = np.unique(np.array(merged, dtype=object), return_inverse=True)
    table = np.zeros((len(levels), classes), np.intp)
    np.add.at(table, (index, labels), 1)
    names = tuple(str(level) for level in levels)
    plain, corrected = cramers_v(table)
    if plain is None:
        return Categorical(None, None, None, names, table, _single(values, names))
    filled = table[:, table.sum(axis=0) > 0]
    observed = float(_chi_squared(filled[None].astype(np.float64))[0])
    random = _chi_squared(random_tables(filled.sum(axis=1), filled.sum(axis=0), permutations, rng).astype(np.float64))
    extreme = int((random >= observed * (1 - 1e-9)).sum())
    return Categorical(plain, corrected, (1 + extreme) / (1 + permutations), names, table)


def _single(values: Sequence[str], levels: Sequence[str]) -> str:
    if len(levels) != 1:
        return "known for one class only" if levels else "no values"
    if len(set(values)) == 1:
        return f"the same for all: {values[0]}"
    return f"the same for nearly all: {max(sorted(set(values)), key=list(values).count)}"


def random_tables(rows: IntArray, columns: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """`count` contingency tables (B, r, c) of permuted labels, with margins (r,) and (c,)."""
    left = np.repeat(rows[None].astype(np.int64), count, axis=0)
    tables = np.zeros((count, len(rows), len(columns)), np.intp)
    for column, total in enumerate(columns[:-1]):
        wanted = np.full(count, total, np.int64)
        behind = left.sum(axis=1)
        for row in range(len(rows) - 1):
            behind = behind - left[:, row]
            drawn = rng.hypergeometric(left[:, row], behind, wanted)
            tables[:, row, column] = drawn
            wanted = wanted - drawn
        tables[:, -1, column] = wanted
        left = left - tables[:, :, column]
    tables[:, :, -1] = left
    return tables


def numerical(
    values: FloatArray, labels: IntArray, classes: int, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> Numerical:
    """The association of a label with a number.

    The standardised mean difference is that of Table 1, (m1 - m2) / sqrt((s1² + s2²) / 2) (Austin 2009, Statistics in
    Medicine 28:3083). p is that of the Kruskal-Wallis statistic, which for two classes is that of the distance of the
    AUC from one half. It does not depend on a few extreme values.

    Args:
        values: (n,) finite.
        labels: (n,) class index of each row.
        classes: Number of classes; of three or more, the pair whose AUC is farthest from one half is reported.
        rng: The source of resamples and permutations.
        permutations: Number of permutations.
    """
    present = [k for k in range(classes) if (labels == k).sum() > 1]
    if not len(values):
        return Numerical(reason="no values")
    if np.ptp(values) == 0:
        return Numerical(reason=f"the same for all: {values[0]:g}")
    if len(present) < 2:
        return Numerical(reason="known for one class only")
    by_class = {k: values[labels == k] for k in present}
    pair = max(combinations(present, 2), key=lambda two: abs(area(by_class[two[0]], by_class[two[1]]) - 0.5))
    inside = np.isin(labels, pair)
    number, first = values[inside], labels[inside] == pair[0]
    ranking, whole = Ranking.of(number, first), np.ones((len(number), 1))
    smd, auc = float(_differences(number, first, whole)[0]), float(ranking.areas(whole)[0][0])
    known = not math.isnan(smd)
    of_smd, of_auc = (_by_influence if len(number) >= MANY_PATIENTS else _by_resampling)(number, first, smd, auc, rng)
    return Numerical(
        smd if known else None,
        of_smd if known else None,
        auc,
        of_auc,
        _rank_test(values, labels, present, rng, permutations),
        pair,
        "" if known else "no variance within either class",
    )


Interval = tuple[float, float]


def _by_resampling(
    number: FloatArray, first: NDArray[np.bool_], smd: float, auc: float, rng: np.random.Generator
) -> tuple[Interval | None, Interval | None]:
    """Intervals of SMD and AUC from resamples within the classes."""
    ranking, step = Ranking.of(number, first), max(1, CELLS_AT_ONCE // len(number))
    smds, aucs = [], []
    for begin in range(0, RESAMPLES, step):
        drawn = draw_patients(first.astype(np.intp), min(step, RESAMPLES - begin), rng).astype(np.float64)
        smds.append(_differences(number, first, drawn))
        aucs.append(ranking.areas(drawn)[0])
    return _interval(np.concatenate(smds), len(number)), _interval(np.concatenate(aucs), len(number))


def _by_influence(
    number: FloatArray, first: NDArray[np.bool_], smd: float, auc: float, rng: np.random.Generator
) -> tuple[Interval | None, Interval | None]:
    """Intervals of SMD and AUC from the influence of each unit, which many units give as resamples do, at once.

    Of the AUC: DeLong, DeLong & Clarke-Pearson (1988), Biometrics 44:837. Of the SMD: the delta method for means and
    variances. `rng` is not used.
    """
    samples = number[first], number[~first]
    pooled = math.sqrt(sum(float(sample.var(ddof=1)) for sample in samples) / 2)
    error_of_smd = error_of_auc = 0.0
    for sample, other, sign in zip(samples, samples[::-1], (1, -1), strict=True):
        above = _twice_below(sample, other) / (2 * len(other))
        error_of_auc += float(above.var(ddof=1)) / len(sample)
        if pooled:
            centred = (sample - sample.mean()) / pooled
            influence = sign * centred - smd / 4 * centred**2
            error_of_smd += float(influence.var(ddof=1)) / len(sample)
    wide, narrow = (NORMAL * math.sqrt(error) for error in (error_of_smd, error_of_auc))
    return (smd - wide, smd + wide), (max(0.0, auc - narrow), min(1.0, auc + narrow))


def area(first: FloatArray, second: FloatArray) -> float:
    """The probability that a number of the first sample is larger than one of the second, ties counting half.

    >>> area(np.array([3.0, 2.0]), np.array([2.0, 1.0]))
    0.875
    """
    return float(_twice_below(first, second).mean() / (2 * len(second)))


def _twice_below(first: FloatArray, second: FloatArray) -> IntArray:
    """For each number of the first sample how many of the second are below it, ties counting half, doubled."""
    ordered = np.sort(second)
    return np.searchsorted(ordered, first, side="left") + np.searchsorted(ordered, first, side="right")


def _differences(values: FloatArray, first: NDArray[np.bool_], weights: FloatArray) -> FloatArray:
    """(B,) standardised mean difference under (n, B) integer weights; NaN without variance."""
    means, variances = [], []
    centred = values - values.mean()
    for part in (first, ~first):
        counts, number = weights[part], centred[part]
        n = counts.sum(axis=0)
        mean = divide(number @ counts, n)
        means.append(mean)
        variances.append(divide(np.maximum((number**2) @ counts - n * mean**2, 0.0), n - 1))
    pooled = (variances[0] + variances[1]) / 2
    scale = float(np.abs(centred).max())
    return divide(means[0] - means[1], np.where(pooled > 1e-18 * scale**2, np.sqrt(pooled), 0.0))


def _interval(replicates: FloatArray, units: int) -> tuple[float, float] | None:
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < 0.95 * len(replicates):
        return None
    low, high = np.percentile(defined, percents(units))
    return float(low), float(high)


def _rank_test(
    values: FloatArray, labels: IntArray, present: Sequence[int], rng: np.random.Generator, permutations: int
) -> float:
    from scipy.stats import rankdata

    inside = np.isin(labels, present)
    order = np.argsort(labels[inside], kind="stable")
    ranks = rankdata(values[inside])[order]
    ranks -= ranks.mean()
    sizes = np.array([(labels == k).sum() for k in present], np.intp)
    starts = np.concatenate(([0], sizes.cumsum()[:-1]))
    levels, counts = np.unique(ranks, return_counts=True)

    def between(sums: FloatArray) -> FloatArray:
        spread: FloatArray = (sums**2 / sizes).sum(axis=1)
        return spread

    def permuted_sums(count: int) -> FloatArray:
        if tabled:
            return levels @ random_tables(counts, sizes, count, rng)
        return np.add.reduceat(rng.permuted(np.tile(ranks, (count, 1)), axis=1), starts, axis=1)

    # Numbers with few values, such as ages in years, are permuted as a table, at the same cost for any number of rows.
    tabled = len(levels) * len(sizes) < len(ranks)
    step = max(1, CELLS_AT_ONCE // (len(levels) * len(sizes) if tabled else len(ranks)))
    observed = float(between(np.add.reduceat(ranks, starts)[None])[0])
    chunks = (min(step, permutations - begin) for begin in range(0, permutations, step))
    extreme = sum(int((between(permuted_sums(count)) >= observed * (1 - 1e-9)).sum()) for count in chunks)
    return (1 + extreme) / (1 + permutations)


def benjamini_hochberg(raw: Sequence[float | None]) -> list[float | None]:
    """Benjamini & Hochberg's (1995) adjustment: q limits the false discovery rate.

    A p of None, where nothing could be tested, does not count in the family.

    >>> benjamini_hochberg([0.01, None, 0.02, 0.5])
    [0.03, None, 0.03, 0.5]
    """
    p = np.array([np.nan if value is None else value for value in raw], np.float64)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    steps = p[order] * len(order) / np.arange(1, len(order) + 1)
    p[order] = np.minimum.accumulate(np.minimum(steps, 1.0)[::-1])[::-1]
    return [None if np.isnan(value) else value for value in p.tolist()]


def units_of(rows: Sequence[RowView]) -> Units:
    """One unit per patient and label, without rows that have no label."""
    labelled = columns_of(rows)
    if not all(found := cells_of(labelled, "label")):
        labelled = labelled.take([i for i, label in enumerate(found) if label])
        found = cells_of(labelled, "label")
    classes = sorted(set(found))
    keys = list(zip(group_images(labelled), found, strict=True))
    numbers = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    labels = np.array([classes.index(label) for _, label in numbers], np.intp)
    unit = np.array([numbers[key] for key in keys], np.intp)
    return Units(tuple(classes), labels, unit, labelled, any(cells_of(labelled, "patient_id")))


def ask(units: Units, *, seed: int, permutations: int = PERMUTATIONS) -> list[Question]:
    """Test all factors of units with two or more classes."""
    found = []

    def test(factor: Factor, about: str, values: tuple[str, ...]) -> None:
        # A separate seed, so that a further column does not change the other answers.
        digest = hashlib.blake2b(f"{seed} {factor.name} {about}".encode(), digest_size=7).digest()
        answer = associate(
            values,
            factor.kind,
            about,
            units.labels,
            len(units.classes),
            seed=int.from_bytes(digest, "big"),
            permutations=permutations,
        )
        found.append(Question(factor, about, answer, values))

    presence = [Factor(name, CATEGORY, tuple(cells_of(units.rows, name))) for name in PRESENCE]
    for factor in [*factors(units.rows), *presence]:
        values = per_unit(factor, units)
        if factor not in presence:
            test(factor, VALUE, values)
        if factor.origin == MANIFEST and "" in values and any(values):
            test(factor, MISSING, values)
    adjusted = benjamini_hochberg([question.answer.p for question in found])
    return [_judged(question, q) for question, q in zip(found, adjusted, strict=True)]


def per_unit(factor: Factor, units: Units) -> tuple[str, ...]:
    """The value of each unit: for a category the most common known value of its images, for a number their mean."""
    collected: list[list[str]] = [[] for _ in units.labels]
    for unit, value in zip(units.unit, factor.values, strict=True):
        if value:
            collected[unit].append(value)
    common = _mean if factor.kind == NUMBER else _most_common
    return tuple(known[0] if len(known) == 1 else common(known) if known else "" for known in collected)


def _mean(values: Sequence[str]) -> str:
    return f"{sum(map(float, values)) / len(values):.10g}"


def _most_common(values: Sequence[str]) -> str:
    return values[0] if values.count(values[0]) == len(values) else Counter(values).most_common(1)[0][0]


def associate(
    values: Sequence[str],
    kind: str,
    about: str,
    labels: IntArray,
    classes: int,
    *,
    seed: int,
    permutations: int = PERMUTATIONS,
) -> Categorical | Numerical:
    """The association of a factor, or of whether it is known, with labels."""
    rng = np.random.default_rng(seed)
    if about == MISSING:
        return categorical([KNOWN if value else ABSENT for value in values], labels, classes, rng, permutations)
    filled = [value for value in values if value]
    known = labels[np.array([bool(value) for value in values], np.bool_)]
    if kind == NUMBER:
        return numerical(np.array(filled, np.float64), known, classes, rng, permutations)
    return categorical(filled, known, classes, rng, permutations)


def level_of(answer: Categorical | Numerical, *, visible: bool = True) -> str:
    """The level of an association by its effect size alone.

    Args:
        answer: The association.
        visible: Whether it can be an alarm: an image can show a size, a hospital and an age, but no missing cell.
    """
    if isinstance(answer, Categorical):
        if answer.corrected is None:
            return UNKNOWN
        scale = max(1, min(answer.table.shape[0], int((answer.table.sum(axis=0) > 0).sum())) - 1) ** 0.5
        strength, marks = answer.corrected, (SEPARATING_V, LARGE_W / scale, SMALL_W / scale)
    else:
        if answer.auc is None:
            return UNKNOWN
        if abs(answer.auc - 0.5) >= SEPARATING_AUC - 0.5 - 1e-12:
            return ALARM if visible else WARNING
        # Without variance within the classes there is no SMD, and the AUC is 0, 0.5 or 1.
        strength, marks = abs(answer.smd or 0.0), (float("inf"), LARGE_SMD, SMALL_SMD)
    if strength >= marks[0] and visible:
        return ALARM
    return WARNING if strength >= marks[1] else NOTE if strength >= marks[2] else CLEAR


def _judged(question: Question, q: float | None) -> Question:
    visible = question.about == VALUE and question.factor.origin != NAMING
    level = level_of(question.answer, visible=visible)
    constant = level == UNKNOWN and "" not in question.values
    if constant or (level != UNKNOWN and (q is None or q >= CERTAIN)):
        level = CLEAR
    return replace(question, q=q, level=level)


def by_class(values: Sequence[str], units: Units) -> dict[str, list[str]]:
    """The values of the units of each class."""
    result: dict[str, list[str]] = {name: [] for name in units.classes}
    for value, label in zip(values, units.labels, strict=True):
        result[units.classes[label]].append(value)
    return result
