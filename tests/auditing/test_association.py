from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from cxrtool.auditing import association
from cxrtool.auditing.association import (
    area,
    benjamini_hochberg,
    categorical,
    cramers_v,
    merge_rare,
    numerical,
    random_tables,
)


def bergsma(table):
    """As the paper writes it, in its own letters, by loops."""
    n = sum(map(sum, table))
    r, c = len(table), len(table[0])
    rows, columns = [sum(row) for row in table], [sum(row[j] for row in table) for j in range(c)]
    phi = sum(
        (table[i][j] / n - rows[i] * columns[j] / n**2) ** 2 / (rows[i] * columns[j] / n**2)
        for i in range(r)
        for j in range(c)
    )
    tilde = max(0, phi - (r - 1) * (c - 1) / (n - 1))
    return (tilde / (min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1)) ** 0.5


def rng(seed=0):
    return np.random.default_rng(seed)


def as_rows(table):
    values = [f"l{i}" for i, row in enumerate(table) for count in [sum(row)] for _ in range(count)]
    labels = [j for row in table for j, count in enumerate(row) for _ in range(count)]
    return values, np.array(labels)


def test_the_sexes_of_covidgr():
    plain, corrected = cramers_v(np.array([[239, 187], [190, 236]]))
    assert (round(plain, 3), round(corrected, 3)) == (0.115, 0.110)


@given(st.lists(st.lists(st.integers(1, 40), min_size=3, max_size=3), min_size=2, max_size=5))
def test_v_is_scipys_and_its_correction_the_papers(table):
    plain, corrected = cramers_v(np.array(table))
    assert plain == pytest.approx(stats.contingency.association(np.array(table), method="cramer"), abs=1e-9)
    assert corrected == pytest.approx(min(1.0, bergsma(table)), abs=1e-9)


def test_empty_levels_do_not_count_and_one_level_tells_nothing():
    table = np.array([[10, 3, 0], [4, 12, 0], [0, 0, 0]])
    assert cramers_v(table) == cramers_v(table[:2, :2])
    assert cramers_v(np.array([[10, 3], [0, 0]])) == (None, None)
    assert cramers_v(np.eye(2) * 20)[0] == 1.0


def test_the_correction_takes_the_bias_away():
    """Where nothing hangs together the mean of phi² is (r-1)(c-1)/(n-1) exactly: that is what is taken off."""
    tables = random_tables(np.array([12, 10, 8]), np.array([16, 14]), 20_000, rng())
    chi = [stats.chi2_contingency(table, correction=False)[0] for table in tables[:4000]]
    assert np.mean(chi) / 30 == pytest.approx(2 / 29, rel=0.04)
    found = np.array([cramers_v(table) for table in tables[:4000]], float)
    assert found[:, 0].mean() > 0.2
    assert found[:, 1].mean() < 0.12


def test_random_tables_are_those_of_dealing_the_labels():
    rows, columns = np.array([4, 3, 5]), np.array([5, 4, 3])
    tables = random_tables(rows, columns, 40_000, rng())
    assert (tables.sum(axis=2) == rows).all()
    assert (tables.sum(axis=1) == columns).all()
    # Cells have the mean and variance of the hypergeometric distribution, and hang together as dealt ones do.
    n = 12
    expected = np.outer(rows, columns) / n
    np.testing.assert_allclose(tables.mean(axis=0), expected, atol=0.03)
    variance = [[stats.hypergeom(n, c, r).var() for c in columns] for r in rows]
    np.testing.assert_allclose(tables.var(axis=0), variance, atol=0.03)
    labels, dealt = np.repeat([0, 1, 2], columns), []
    for _ in range(5000):
        mixed = rng(len(dealt)).permutation(labels)
        dealt.append((mixed[:4] == 0).sum() * (mixed[4:7] == 1).sum())
    assert (tables[:, 0, 0] * tables[:, 1, 1]).mean() == pytest.approx(np.mean(dealt), abs=0.06)


def test_p_of_a_two_by_two_is_fishers_by_chi_squared():
    values, labels = as_rows([[9, 4], [3, 11]])
    found = categorical(values, labels, 2, rng(), permutations=40_000)
    # All tables of these margins, each with its hypergeometric chance: those at least as far from independence.
    margin = stats.hypergeom(27, 12, 13)
    cells = np.arange(0, 13)
    chi = [(a - 13 * 12 / 27) ** 2 for a in cells]
    exact = sum(margin.pmf(a) for a, x in zip(cells, chi, strict=True) if x >= chi[9] - 1e-9)
    assert found.p == pytest.approx(exact, abs=0.004)


def test_p_is_uniform_where_there_is_nothing():
    p = []
    for seed in range(400):
        generator = rng(seed)
        values = [str(v) for v in generator.integers(0, 4, 60)]
        p.append(categorical(values, generator.integers(0, 3, 60), 3, generator, permutations=199).p)
    assert 0.025 < np.mean(np.array(p) <= 0.05) < 0.085
    assert 0.42 < np.mean(np.array(p) <= 0.5) < 0.6


def test_rare_levels_are_merged():
    assert merge_rare(["a"] * 6 + ["b"] * 3 + ["c"] * 2) == ["a"] * 6 + ["(rare)"] * 5
    assert merge_rare(["a"] * 6 + ["b"] * 9 + ["c"] * 2) == ["a or rare"] * 6 + ["b"] * 9 + ["a or rare"] * 2
    assert set(merge_rare(["a", "b"])) == {"(rare)"}


@pytest.mark.parametrize(
    ("values", "labels", "reason"),
    [
        ([], [], "no values"),
        (["PA"] * 12, [0, 1] * 6, "the same for all: PA"),
        (["PA"] * 12 + ["AP"], [0, 1] * 6 + [0], "the same for nearly all: PA"),
        (["PA", "AP"] * 6, [1] * 12, "known for one class only"),
    ],
)
def test_where_there_is_no_strength_it_says_why(values, labels, reason):
    found = categorical(values, np.array(labels, int), 2, rng())
    assert (found.v, found.corrected, found.p, found.reason) == (None, None, None, reason)


def austin(x, y):
    return (x.mean() - y.mean()) / np.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2)


@pytest.mark.parametrize("decimals", [0, 6])
def test_numbers_have_the_difference_of_table_one_and_the_area_of_scikit_learn(decimals):
    generator = rng(3)
    labels = (generator.random(90) < 0.4).astype(int)
    values = np.round(generator.normal(50, 12, 90) + 9 * labels, decimals)
    found = numerical(values, labels, 2, generator, permutations=999)
    assert found.pair == (0, 1)
    assert found.smd == pytest.approx(austin(values[labels == 0], values[labels == 1]))
    assert found.auc == pytest.approx(roc_auc_score(labels == 0, values))
    assert found.smd_interval[0] < found.smd < found.smd_interval[1]
    assert found.auc_interval[0] < found.auc < found.auc_interval[1]


def test_the_interval_of_the_difference_is_that_of_resampling_one_by_one():
    generator = rng(1)
    values, labels = generator.normal(size=60) + np.repeat([0.0, 0.8], 30), np.repeat([0, 1], 30)
    found = numerical(values, labels, 2, generator, permutations=9)
    drawn = [austin(*(generator.choice(values[labels == k], 30) for k in (0, 1))) for _ in range(4000)]
    assert found.smd_interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.06)


def test_of_three_classes_the_pair_that_differs_most_is_told():
    generator = rng(2)
    labels = np.repeat([0, 1, 2], 40)
    values = generator.normal(size=120) + np.array([0.0, 0.2, 2.0])[labels]
    found = numerical(values, labels, 3, generator, permutations=999)
    assert found.pair == (0, 2)
    assert found.auc == pytest.approx(area(values[:40], values[80:]))


def test_p_of_numbers_is_that_of_every_permutation():
    values, labels = np.array([1.0, 2.0, 2.0, 5.0, 7.0, 9.0, 11.0]), np.array([0, 0, 0, 1, 0, 1, 1])
    found = numerical(values, labels, 2, rng(), permutations=40_000)
    observed = abs(roc_auc_score(labels, values) - 0.5)
    arrangements = [abs(roc_auc_score(dealt, values) - 0.5) for dealt in set(permutations(labels))]
    assert found.p == pytest.approx(np.mean(np.array(arrangements) >= observed - 1e-9), abs=0.006)


@pytest.mark.parametrize("decimals", [0, 6])
def test_p_of_three_classes_comes_near_kruskal_and_wallis(decimals):
    # With no decimals there are few values, which are dealt out as a table.
    generator = rng(5)
    labels = np.repeat([0, 1, 2], 50)
    values = np.round(generator.normal(size=150) + 0.2 * labels, decimals)
    expected = stats.kruskal(*(values[labels == k] for k in range(3))).pvalue
    assert numerical(values, labels, 3, generator, permutations=8000).p == pytest.approx(expected, abs=0.02)


def test_without_variance_there_is_no_difference_and_a_reason():
    labels = np.repeat([0, 1], 20)
    same = numerical(np.full(40, 512.0), labels, 2, rng())
    assert (same.smd, same.auc, same.p, same.reason) == (None, None, None, "the same for all: 512")
    apart = numerical(np.repeat([1.0, 2.0], 20), labels, 2, rng(), permutations=999)
    assert (apart.smd, apart.auc, apart.p) == (None, 0.0, 0.001)
    assert "no variance" in apart.reason
    alone = numerical(np.arange(20.0), np.zeros(20, int), 2, rng())
    assert (alone.auc, alone.reason) == (None, "known for one class only")


def test_large_offsets_cost_no_digits():
    generator = rng(4)
    values, labels = generator.normal(size=60), np.repeat([0, 1], 30)
    near, far = (numerical(values + shift, labels, 2, rng(), permutations=9) for shift in (0.0, 1e9))
    assert far.smd == pytest.approx(near.smd, rel=1e-5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_benjamini_and_hochberg_are_scipys(raw):
    assert benjamini_hochberg(raw) == pytest.approx(stats.false_discovery_control(raw))


def test_what_could_not_be_tested_is_none_of_the_family():
    assert benjamini_hochberg([None, 0.04, None, 0.01]) == [None, 0.04, None, 0.02]
    assert benjamini_hochberg([None]) == [None]


@pytest.mark.parametrize("units", [2_000, 20_000])
@pytest.mark.parametrize("ties", [False, True])
def test_intervals_from_influence_functions_are_those_of_resamples(units, ties):
    rng = np.random.default_rng(units)
    first = np.arange(units) < units // 3
    number = rng.gamma(3.0, 1.0, units) + 0.4 * first
    number = np.round(number) if ties else number
    smd, auc = numerical_figures(number, first)
    drawn = association._by_resampling(number, first, smd, auc, np.random.default_rng(1))
    computed = association._by_influence(number, first, smd, auc, np.random.default_rng(1))
    for one, other in zip(drawn, computed, strict=True):
        assert other == pytest.approx(one, abs=0.05 * (one[1] - one[0]))


def numerical_figures(number, first):
    one, other = number[first], number[~first]
    pooled = np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2)
    return (one.mean() - other.mean()) / pooled, association.area(one, other)


def test_many_units_have_an_interval_without_a_resample(monkeypatch):
    rng = np.random.default_rng(0)
    labels = (np.arange(association.MANY_PATIENTS) % 3 == 0).astype(np.intp)
    number = rng.normal(size=len(labels)) + labels
    monkeypatch.setattr(association, "draw_patients", None)
    found = association.numerical(number, labels, 2, rng, permutations=10)
    assert found.smd_interval[0] < found.smd < found.smd_interval[1]
    assert found.auc_interval[0] < found.auc < found.auc_interval[1]
