"""How strongly a label is associated with a factor: effect size, permutation test, and correction for many tests.

Rows are taken as independent: the caller gives one row per patient and label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, divide
from cxrtool.evaluation.metrics.ranking import Ranking
from cxrtool.evaluation.resampling.intervals import RESAMPLES, draw_patients, percents

PERMUTATIONS = 10_000
"""In a family of 30 tests a single true association must be able to reach q < 0.01, which needs p below 0.0003."""

FEWEST = 5
"""Rows below which a level is merged with others: chi² of nearly empty cells is noise."""

MERGED = "(rare)"

CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Categorical:
    """The association of a label with a category.

    Attributes:
        v: Cramér's V, in [0, 1]; None where the factor or the label has a single level.
        corrected: V with Bergsma's correction; None likewise.
        p: By permutation of the labels; None likewise.
        levels: Of the category, after merging; the order of `table`.
        table: (levels, classes) counts.
        reason: Why V is None.
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
        smd_interval: 95 %, from resamples within class.
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
    if min(filled.shape) < 2:
        return None, None
    plain, corrected = _strengths(float(_chi_squared(filled[None])[0]), filled.sum(), *filled.shape)
    return plain, corrected


def _strengths(chi: float, n: float, rows: int, columns: int) -> tuple[float, float]:
    phi = chi / n
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
    counts = {level: values.count(level) for level in sorted(set(values))}
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
    """The association of a label with a category.

    A permutation of the labels keeps both margins of the table. Tables of permuted labels are therefore drawn directly
    (multivariate hypergeometric, cell by cell), at a cost that does not grow with the number of rows.

    Args:
        values: (n,) levels, none missing.
        labels: (n,) class index of each row.
        classes: Number of classes.
        rng: The source of the permutations.
        permutations: Number of permutations.
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
    """Contingency tables of permuted labels.

    Args:
        rows: (r,) margin.
        columns: (c,) margin of the same sum.
        count: Number of tables B.
        rng: The source of the permutations.

    Returns:
        (B, r, c) counts.
    """
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
    ranking, step = Ranking.of(number, first), max(1, CELLS_AT_ONCE // len(number))
    smds, aucs = [], []
    for begin in range(0, RESAMPLES, step):
        drawn = draw_patients(first.astype(np.intp), min(step, RESAMPLES - begin), rng).astype(np.float64)
        smds.append(_differences(number, first, drawn))
        aucs.append(ranking.areas(drawn)[0])
    whole = np.ones((len(number), 1))
    smd = float(_differences(number, first, whole)[0])
    known = not math.isnan(smd)
    return Numerical(
        smd if known else None,
        _interval(np.concatenate(smds), len(number)) if known else None,
        float(ranking.areas(whole)[0][0]),
        _interval(np.concatenate(aucs), len(number)),
        _rank_test(values, labels, present, rng, permutations),
        pair,
        "" if known else "no variance within either class",
    )


def area(first: FloatArray, second: FloatArray) -> float:
    """The probability that a number of the first sample is larger than one of the second, ties counting half.

    >>> area(np.array([3.0, 2.0]), np.array([2.0, 1.0]))
    0.875
    """
    ordered = np.sort(second)
    below = np.searchsorted(ordered, first, side="left") + np.searchsorted(ordered, first, side="right")
    return float(below.mean() / (2 * len(second)))


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
        permuted = rng.permuted(np.tile(ranks, (count, 1)), axis=1)
        sums: FloatArray = np.add.reduceat(permuted, starts, axis=1)
        return sums

    # Numbers with few values, such as ages in years, are permuted as a table, at the same cost for any number of rows.
    tabled = len(levels) * len(sizes) < len(ranks)
    step = max(1, CELLS_AT_ONCE // (len(levels) * len(sizes) if tabled else len(ranks)))
    observed = float(between(np.add.reduceat(ranks, starts)[None])[0])
    chunks = (min(step, permutations - begin) for begin in range(0, permutations, step))
    extreme = sum(int((between(permuted_sums(count)) >= observed * (1 - 1e-9)).sum()) for count in chunks)
    return (1 + extreme) / (1 + permutations)


def benjamini_hochberg(raw: Sequence[float | None]) -> list[float | None]:
    """Benjamini & Hochberg's (1995) adjustment: q limits the false discovery rate.

    Args:
        raw: p values; None where nothing could be tested, which does not count in the family.

    >>> benjamini_hochberg([0.01, None, 0.02, 0.5])
    [0.03, None, 0.03, 0.5]
    """
    order = sorted((p, index) for index, p in enumerate(raw) if p is not None)
    adjusted: list[float | None] = [None] * len(raw)
    lowest = 1.0
    for rank in range(len(order), 0, -1):
        p, index = order[rank - 1]
        lowest = min(lowest, p * len(order) / rank)
        adjusted[index] = lowest
    return adjusted
