import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.evaluation.comparison.tests import corrected_t, delong, holm, mcnemar, midranks


def t_density(x, df):
    """Student's density by its formula."""
    constant = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
    return constant * (1 + x * x / df) ** (-(df + 1) / 2)


def two_sided(t, df):
    """The mass outside of -t to t, by Simpson's rule."""
    n = 20_000
    x = np.linspace(-abs(t), abs(t), n + 1)
    y = t_density(x, df)
    return 1 - (x[1] - x[0]) / 3 * (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum())


@pytest.mark.parametrize("seed", range(4))
def test_the_corrected_t_is_what_the_paper_writes(seed):
    d = np.random.default_rng(seed).normal(0.02, 0.03, 25)
    found = corrected_t(d, 67, 240)
    mean = sum(d) / 25
    variance = sum((x - mean) ** 2 for x in d) / 24
    t = mean / math.sqrt((1 / 25 + 67 / 240) * variance)
    assert found.statistic == pytest.approx(t, rel=1e-12)
    assert found.p == pytest.approx(two_sided(t, 24), abs=1e-9)
    assert dict(found.detail) == {"runs": 25, "df": 24, "n_test": 67, "n_train": 240}
    assert (found.low + found.high) / 2 == pytest.approx(mean)


def test_the_interval_of_the_corrected_t_ends_where_p_is_five_percent():
    d = np.array([0.03, 0.05, -0.01, 0.02, 0.04])
    found = corrected_t(d, 20, 80)
    shifted = corrected_t(d - found.low, 20, 80)
    assert shifted.p == pytest.approx(0.05, abs=1e-9)


def test_the_correction_costs_what_it_should():
    d = np.array([0.03, 0.05, -0.01, 0.02, 0.04])
    plain = d.mean() / (d.std(ddof=1) / math.sqrt(5))
    # Five folds: n_test / n_train = 1/4 beside 1/J = 1/5.
    assert corrected_t(d, 20, 80).statistic == pytest.approx(plain * math.sqrt((1 / 5) / (1 / 5 + 1 / 4)))
    assert corrected_t(d, 20, 40).p > corrected_t(d, 20, 80).p


@pytest.mark.parametrize(
    ("differences", "n_train", "reason"),
    [
        ([0.1], 80, "one run each"),
        ([0.1, 0.2], 0, "number of fitted images is not known"),
        ([0.1, 0.1, 0.1], 80, "same in every run"),
    ],
)
def test_where_the_corrected_t_does_not_apply_it_says_why(differences, n_train, reason):
    found = corrected_t(np.array(differences), 20, n_train)
    assert found.p is None
    assert reason in found.reason


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 20), st.integers(0, 20))
def test_mcnemar_is_a_coin_that_is_tossed(one, other, both, neither):
    first = np.repeat([True, False, True, False], [one, other, both, neither])
    second = np.repeat([False, True, True, False], [one, other, both, neither])
    if not len(first):
        return
    found = mcnemar(first, second)
    n = one + other
    chance = [Fraction(math.comb(n, k), 2**n) for k in range(n + 1)]
    # As likely as what was seen, or less.
    expected = sum((p for p in chance if p <= chance[one]), Fraction(0))
    assert found.p == pytest.approx(float(expected), rel=1e-12)
    assert found.difference == pytest.approx(first.mean() - second.mean())


def test_mcnemar_of_thousands_of_images_does_not_overflow():
    first = np.arange(5000) < 2600
    assert 0 < mcnemar(first, ~first).p < 0.01


def brute_force_delong(first, second, positive):
    """Every pair of a positive and a negative image, as the paper defines it."""

    def kernel(x, y):
        return 1.0 if x > y else 0.5 if x == y else 0.0

    tens, ones, areas = [], [], []
    for score in (first, second):
        p, q = score[positive], score[~positive]
        pairs = np.array([[kernel(x, y) for y in q] for x in p])
        tens.append(pairs.mean(axis=1))
        ones.append(pairs.mean(axis=0))
        areas.append(pairs.mean())
    s = np.cov(np.array(tens)) / len(tens[0]) + np.cov(np.array(ones)) / len(ones[0])
    contrast = np.array([1.0, -1.0])
    z = (areas[0] - areas[1]) / math.sqrt(contrast @ s @ contrast)
    return areas, z, math.erfc(abs(z) / math.sqrt(2))


@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("seed", range(5))
def test_delong_equals_all_pairs(seed, decimals):
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.4
    common = rng.normal(size=60) + positive
    # With one decimal many scores tie.
    first, second = (np.round(common + rng.normal(scale=0.8, size=60), decimals) for _ in range(2))
    areas, z, p = brute_force_delong(first, second, positive)
    found = delong(first, second, positive)
    assert dict(found.detail) == pytest.approx({"auc_first": areas[0], "auc_second": areas[1]}, abs=1e-12)
    assert (found.statistic, found.p) == pytest.approx((z, p), abs=1e-10)
    assert found.low < found.difference < found.high


def test_delong_rejects_five_percent_where_there_is_nothing():
    rng = np.random.default_rng(0)
    positive = np.arange(120) % 2 == 0
    p = []
    for _ in range(600):
        common = rng.normal(size=120) + positive
        p.append(delong(common + rng.normal(size=120), common + rng.normal(size=120), positive).p)
    assert 0.03 < np.mean(np.array(p) < 0.05) < 0.075


def test_where_delong_does_not_apply_it_says_why():
    score = np.array([0.1, 0.2, 0.3, 0.4])
    assert "two images of the class" in delong(score, score, np.array([True, False, False, False])).reason
    same = delong(score, score * 2, np.array([True, False, True, False]))
    assert (same.p, same.reason) == (1.0, "both rank the images in the same order")
    perfect = delong(score, -score, np.array([False, False, True, True]))
    assert (perfect.p, perfect.difference) == (None, 1.0)


def test_midranks_are_those_of_counting():
    values = np.random.default_rng(0).integers(0, 6, 40).astype(float)
    expected = [(values < x).sum() + ((values == x).sum() + 1) / 2 for x in values]
    assert midranks(values).tolist() == expected


def test_holm_by_hand():
    # Sorted: 0.005, 0.011, 0.02, 0.04, 0.13, times 5, 4, 3, 2, 1, never falling.
    raw = [0.02, None, 0.005, 0.13, 0.04, 0.011]
    assert holm(raw) == pytest.approx([0.06, None, 0.025, 0.13, 0.08, 0.044])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_the_closed_test_of_bonferroni(raw):
    # An hypothesis falls if every intersection that holds it does: its p is the largest of those.
    count = len(raw)
    expected = [0.0] * count
    for inside in product([False, True], repeat=count):
        members = [i for i in range(count) if inside[i]]
        for i in members:
            expected[i] = max(expected[i], min(1.0, len(members) * min(raw[j] for j in members)))
    assert holm(raw) == pytest.approx(expected)
