import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cxrtool.evaluation.resampling.intervals import (
    IMAGES,
    PATIENTS,
    WILSON,
    Measure,
    draw_patients,
    measure,
    percents,
    wilson,
)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0000),
    ],
)
def test_wilson_equals_the_published_table(hits, n, low, high):
    assert wilson(hits / n, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400), st.floats(0, 1))
def test_wilson_holds_the_proportion_and_stays_inside(n, share):
    low, high = wilson(share, n)
    assert 0 <= low <= share <= high <= 1
    assert low < high


def test_a_resample_keeps_as_many_patients_of_each_label():
    strata = np.array([0] * 7 + [1] * 20 + [2])
    counts = draw_patients(strata, 300, np.random.default_rng(0))
    assert counts.shape == (28, 300)
    for stratum, size in ((0, 7), (1, 20), (2, 1)):
        assert (counts[strata == stratum].sum(axis=0) == size).all()


def test_every_patient_is_as_likely():
    strata = np.repeat([0, 1], [10, 5])
    counts = draw_patients(strata, 20_000, np.random.default_rng(1)).astype(float)
    np.testing.assert_allclose(counts.mean(axis=1), 1, atol=0.03)
    # Of a multinomial: n p (1 - p).
    np.testing.assert_allclose(counts.var(axis=1), np.where(strata == 0, 0.9, 0.8), atol=0.05)


def test_the_same_seed_draws_the_same():
    strata = np.arange(40) % 3
    first, second = (draw_patients(strata, 50, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, draw_patients(strata, 50, np.random.default_rng(5)))


def replicates(n=2000):
    return np.linspace(0.5, 0.9, n)


def test_percentiles():
    found = measure(0.7, replicates(), patients=100, proportion=True)
    tail = stats.norm.cdf(-np.sqrt(100 / 99) * stats.t.ppf(0.975, 99))
    assert 0.022 < tail < 0.025
    assert (found.low, found.high) == pytest.approx((0.5 + 0.4 * tail, 0.9 - 0.4 * tail))
    assert found.method == PATIENTS
    assert found.reason is None


@pytest.mark.parametrize("patients", [10, 20, 40, 80, 300, 5000])
def test_the_ends_lie_as_far_out_as_student_s_t(patients):
    reach = np.sqrt(patients / (patients - 1)) * stats.t.ppf(0.975, patients - 1)
    low, high = percents(patients)
    assert low == pytest.approx(100 * stats.norm.cdf(-reach), rel=2e-3)
    assert low + high == 100


def test_few_patients_and_certainty_get_wilson():
    few = measure(0.7, replicates(), patients=29, proportion=True)
    assert (few.method, few.low, few.high) == (WILSON, *wilson(0.7, 29))
    sure = measure(1.0, np.ones(2000), patients=500, proportion=True)
    assert (sure.method, sure.high) == (WILSON, 1.0)
    assert sure.low == pytest.approx(wilson(1, 500)[0])
    never = measure(0.0, np.zeros(2000), patients=500, proportion=True, method=IMAGES)
    assert never.method == WILSON
    assert never.low == 0


def test_what_is_no_proportion_never_gets_wilson():
    few = measure(0.7, replicates(), patients=12, proportion=False)
    assert few.method == PATIENTS
    assert few.reason == "only 12 patients: the interval is approximate"
    perfect = measure(1.0, np.ones(2000), patients=500, proportion=False)
    assert (perfect.low, perfect.high, perfect.method) == (None, None, None)
    assert perfect.reason == "no interval: the value is the same in every resample"


@pytest.mark.parametrize(("lost", "kept"), [(100, True), (101, False)])
def test_over_five_percent_undefined_resamples_cost_the_interval(lost, kept):
    values = replicates()
    values[:lost] = np.nan
    found = measure(0.7, values, patients=100, proportion=False)
    assert (found.low is not None) is kept
    if not kept:
        assert found.reason == "no interval: undefined in 101 of 2000 resamples"
        assert found.value == 0.7


def test_an_undefined_figure_is_null_with_its_reason():
    found = measure(float("nan"), np.full(10, np.nan), patients=5, proportion=True, undefined="no images of covid")
    assert found == Measure(reason="no images of covid")
    others = ("value", "low", "high", "method", "sd_runs", "sd_repeats", "mean_runs")
    assert found.as_json() == dict.fromkeys(others) | {"reason": "no images of covid"}


def test_a_noisy_figure_lies_in_the_middle_of_its_interval():
    found = measure(0.3, replicates(), patients=100, proportion=False, noisy=True)
    assert (found.low + found.high) / 2 == pytest.approx(0.3)
    low, high = percents(100)
    assert found.high - found.low == pytest.approx(0.4 * (high - low) / 100)
    assert found.method == f"{PATIENTS}, centred"


def test_json_carries_no_negative_zero():
    assert str(Measure(value=-1e-15).as_json()["value"]) == "0.0"


def test_a_noisy_figure_stays_within_its_bounds():
    drawn = np.random.default_rng(0).normal(0.1, 0.03, 2000)
    found = measure(0.03, drawn, patients=100, proportion=False, noisy=True, bounds=(0.0, 1.0))
    assert found.low == 0
    assert found.high > 0.05
