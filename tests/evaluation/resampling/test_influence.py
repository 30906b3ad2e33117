from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from cxrtool.evaluation import scores as scores_module
from cxrtool.evaluation.comparison.runs import Entry, compare_runs
from cxrtool.evaluation.comparison.tests import Pair, delong, sign_flip
from cxrtool.evaluation.decisions import net_benefit
from cxrtool.evaluation.decisions.abstention import abstain, risk_area, risk_influence
from cxrtool.evaluation.decisions.net_benefit import decision_curve
from cxrtool.evaluation.decisions.operating import operating_point
from cxrtool.evaluation.decisions.validation import Validation
from cxrtool.evaluation.groups import parse_groupings, split_by, trend
from cxrtool.evaluation.metrics import calibration
from cxrtool.evaluation.metrics.estimates import estimate
from cxrtool.evaluation.metrics.ranking import Ranking
from cxrtool.evaluation.resampling import intervals
from cxrtool.evaluation.resampling.bands import curve_bands
from cxrtool.evaluation.resampling.influence import covariance, gradients, skewness, standard_error
from cxrtool.evaluation.resampling.intervals import draw_patients
from cxrtool.evaluation.scores import scores_of
from cxrtool.evaluation.summary import summarise

CLASSES = ("normal", "covid")


@pytest.fixture
def pair_of(make_predictions, monkeypatch):
    """The same scores twice: with intervals from resamples, and from influence functions."""
    monkeypatch.setattr(scores_module, "ENOUGH_PATIENTS", 1)

    def make(images=1500, **options):
        scores = scores_of(make_predictions(images, **{"skill": 0.9, "per_patient": 3} | options))
        return scores, replace(scores, many=True)

    return make


def derivative(function, n, step=1e-4):
    """Of `function` from weights (n, B) to (B,), by central differences at equal weights."""
    up, down = np.ones((n, n)) + step * np.eye(n), np.ones((n, n)) - step * np.eye(n)
    return (function(up) - function(down)) / (2 * step)


def measures_in(content, path=()):
    """All measures in a part of `metrics.json` by their place."""
    if isinstance(content, dict) and "low" in content and "sd_runs" in content:
        return {path: content}
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return {place: found for key, part in entries for place, found in measures_in(part, (*path, key)).items()}


def worst_end(resampled, influence):
    """The largest distance between the ends of two results, in widths of the first interval, and where it is."""
    found = measures_in(influence)
    distances = {}
    for place, own in measures_in(resampled).items():
        other = found[place]
        assert other["value"] == own["value"]
        assert (other["low"] is None) == (own["low"] is None), place
        if own["low"] is not None:
            ends = abs(own["low"] - other["low"]), abs(own["high"] - other["high"])
            distances[place] = max(ends) / (own["high"] - own["low"])
    return max((distance, place) for place, distance in distances.items())


def everything(scores, resamples):
    """Every measure of an evaluation, with a positive class and without."""
    drawn = {"resamples": resamples}
    point = operating_point(scores, 1, prevalences=(0.1,), **drawn)
    return {
        "positive": summarise(scores, positive="covid", **drawn),
        "mean": summarise(scores, **drawn),
        "operating": point,
        "abstention": abstain(scores, Validation(), **drawn),
    }


@pytest.mark.parametrize("ties", [False, True])
def test_the_influence_on_areas_is_their_derivative(ties):
    rng = np.random.default_rng(3)
    score, positive = rng.random(60), rng.random(60) < 0.4
    score = np.round(score, 1) if ties else score
    ranking = Ranking.of(score, positive)
    for index, found in enumerate(ranking.influence()):
        assert found == pytest.approx(derivative(lambda w, i=index: ranking.areas(w)[i], 60), abs=1e-7)
        assert found.sum() == pytest.approx(0, abs=1e-12)


def test_the_influence_on_fits_and_risk_is_their_derivative():
    rng = np.random.default_rng(4)
    x = rng.normal(size=80)
    positive = rng.random(80) < 1 / (1 + np.exp(-0.3 - 0.7 * x))
    ones = np.ones((80, 1))
    slope, constant = (float(part[0]) for part in calibration.slope(x, positive, ones))
    shift = float(calibration.intercept(x, positive, ones)[0])
    of_slope, of_shift = calibration.fit_influence(x, positive, slope, constant, shift)
    assert of_slope == pytest.approx(derivative(lambda w: calibration.slope(x, positive, w)[0], 80), abs=1e-6)
    assert of_shift == pytest.approx(derivative(lambda w: calibration.intercept(x, positive, w), 80), abs=1e-6)
    confident, wrong = np.round(rng.random(80), 1), (rng.random(80) < 0.3).astype(float)
    assert risk_influence(confident, wrong) == pytest.approx(
        derivative(lambda w: risk_area(confident, wrong, w), 80), abs=1e-7
    )


def test_the_error_of_an_area_is_that_of_delong():
    rng = np.random.default_rng(5)
    positive = np.repeat([True, False], [400, 600])
    scores = [rng.normal(size=1000) + skill * positive for skill in (0.8, 0.5)]
    influence = np.subtract(*(Ranking.of(score, positive).influence()[0] for score in scores))
    verdict = delong(*scores, positive)
    error = float(standard_error(influence, positive.astype(np.intp)))
    # DeLong's variances have n - 1 where resampling has n.
    assert error == pytest.approx(verdict.difference / verdict.statistic, rel=2e-3)


def test_the_covariance_is_that_of_all_resamples():
    rng = np.random.default_rng(6)
    patient, kind, values = rng.integers(0, 40, 150), rng.integers(0, 4, 150), rng.random(150)
    patient[:40] = np.arange(40)
    strata = (np.arange(40) % 3 == 0).astype(np.intp)
    sums = np.zeros((40, 4))
    np.add.at(sums, (patient, kind), values)
    drawn = sums.T @ draw_patients(strata, 40_000, np.random.default_rng(0))
    found = covariance(patient, kind, values, 4, strata)
    spread = np.sqrt(np.diag(found))
    assert np.abs((np.cov(drawn) - found) / np.outer(spread, spread)).max() < 0.03


def test_gradients_leave_what_is_undefined():
    def share(counts):
        total = counts.sum(axis=(0, -1))
        with np.errstate(invalid="ignore"):
            return {"first": counts[0, :, 0] / total, "of none": counts[1, :, 1] / counts[1, :, 1]}

    found = gradients(share, np.array([[3.0, 5.0], [2.0, 0.0]]))
    assert found["first"] == pytest.approx([0.1 - 0.03, -0.03, -0.03, 0.0])
    assert np.isnan(found["of none"][:3]).all()


@pytest.mark.parametrize("options", [{"classes": CLASSES, "repeats": 2, "folds": 2}, {"folds": 1}])
def test_all_intervals_are_nearly_those_of_resamples(pair_of, options):
    resampled, influence = (everything(scores, 600) for scores in pair_of(900, **options))
    distance, place = worst_end(resampled, influence)
    # Of 300 patients, and of 600 resamples, whose own noise is 3 % of the width.
    assert distance < 0.15, place


@pytest.mark.slow
@pytest.mark.parametrize("classes", [CLASSES, ("normal", "covid", "pneumonia")])
def test_all_intervals_are_those_of_resamples(pair_of, classes):
    resampled, influence = (everything(scores, 10_000) for scores in pair_of(6600, classes=classes, skill=1.2))
    distance, place = worst_end(resampled, influence)
    assert distance < 0.05, place


def test_the_files_name_the_method(pair_of):
    resampled, influence = (summarise(scores, resamples=50) for scores in pair_of(300))
    assert "method" not in resampled["interval"]
    assert influence["interval"]["method"] == "influence functions, patients as clusters"
    methods = {measure["method"] for measure in measures_in(influence["overall"]).values()}
    assert methods == {influence["interval"]["method"], f"{influence['interval']['method']}, centred"}


def test_many_patients_choose_the_method(make_predictions, monkeypatch):
    monkeypatch.setattr(scores_module, "MANY_PATIENTS", 40)
    monkeypatch.setattr(scores_module, "ENOUGH_PATIENTS", 20)
    few, many = (scores_of(make_predictions(images, per_patient=1)) for images in (39, 40))
    assert (few.by_influence, many.by_influence) == (False, True)
    assert many.where(np.arange(40) < 20).by_influence
    assert not many.where(np.arange(40) < 19).by_influence


@pytest.mark.parametrize("prevalence", [0.02, 0.1])
def test_net_benefit_at_a_stated_prevalence_has_the_percentiles_of_all_resamples(pair_of, monkeypatch, prevalence):
    monkeypatch.setattr(net_benefit, "DIGITS", 12)
    scores = pair_of(2000, per_patient=1, classes=CLASSES, skill=1.2)[1]
    found = decision_curve(scores, 1, prevalences=(prevalence,))[1]
    positive, score = scores.truth == 1, scores.probabilities[:, 1]
    share = positive.mean()
    odds = score / (1 - score) * prevalence / (1 - prevalence) / share * (1 - share)
    rng, checked = np.random.default_rng(0), 0
    for at, limit in enumerate(found["thresholds"]):
        passed = odds >= limit / (1 - limit)
        counts = [int((passed & kind).sum()) for kind in (positive, ~positive)]
        # With one image a patient, resampled counts are binomial. Of fewer images they take few values.
        if min(counts) < 12:
            continue
        rates = [rng.binomial(n, k / n, 400_000) / n for k, n in zip(counts, np.bincount(~positive), strict=True)]
        drawn = rates[0] * prevalence - rates[1] * (1 - prevalence) * limit / (1 - limit)
        low, high = np.percentile(drawn, intervals.percents(scores.patients))
        apart = max(abs(found["low"][at] - low), abs(found["high"][at] - high)) / (high - low)
        assert apart < 0.03, (limit, counts)
        checked += 1
    assert checked >= 5


def test_the_skewness_is_that_of_all_resamples():
    rng = np.random.default_rng(7)
    moved, strata = rng.exponential(size=(60, 2)) ** 2, (np.arange(60) % 3 == 0).astype(np.intp)
    moved[:, 1] = 3.0
    drawn = moved.T @ draw_patients(strata, 100_000, np.random.default_rng(0))
    assert skewness(moved, strata) == pytest.approx([scipy.stats.skew(drawn[0]), 0.0], abs=0.03)


def test_net_benefit_and_bands_are_nearly_those_of_resamples(pair_of):
    few, many = pair_of(6000, classes=CLASSES, skill=1.2)
    own, other = (decision_curve(scores, 1, resamples=400)[0] for scores in (few, many))
    width = np.subtract(own["high"], own["low"])
    assert np.subtract(other["high"], other["low"]) == pytest.approx(width, rel=0.25, abs=3e-4)
    for shown, found in zip(curve_bands(few, 1, resamples=400), curve_bands(many, 1), strict=True):
        # At extreme scores, few images decide.
        wide = (shown.high - shown.low > 0.005) & (shown.x > 0.1) & (shown.x < 0.99)
        ratio = (found.high - found.low)[wide] / (shown.high - shown.low)[wide]
        assert np.median(ratio) == pytest.approx(1, abs=0.08)
        assert (np.abs(ratio - 1) < 0.3).all()


@pytest.mark.parametrize("metric", ["accuracy", "mcc", "macro_auc", "average_precision"])
def test_sign_flips_of_many_patients_have_the_same_distribution(pair_of, metric):
    (first, many), (second, _) = pair_of(600, seed=1, skill=0.7), pair_of(600, seed=2, skill=0.82)
    found = estimate(first, resamples=1, calibrated=False)
    defined = {name: ~np.isnan(found.value[name]) for name in ("sensitivity", "specificity", "precision", "f1", "auc")}
    defined["class_ap"] = defined["auc"]
    drawn = sign_flip(Pair(first, second, metric, None, defined), permutations=3000)
    limit = sign_flip(Pair(many, second, metric, None, defined), permutations=3000)
    assert limit.difference == pytest.approx(drawn.difference, abs=1e-12)
    assert limit.detail[0] == drawn.detail[0]
    assert limit.p == pytest.approx(drawn.p, abs=0.04)


def test_the_difference_of_two_models_is_paired(pair_of):
    pairs = [pair_of(900, seed=seed, skill=skill) for seed, skill in ((1, 0.8), (2, 1.0))]
    made = [
        compare_runs(
            [Entry(name, pair[way]) for name, pair in zip("ab", pairs, strict=True)], baseline="a", resamples=800
        )
        for way in (0, 1)
    ]
    drawn, limit = (found["comparisons"][0]["difference"] for found in made)
    assert limit["method"] == "paired influence functions, patients as clusters"
    assert limit["high"] - limit["low"] == pytest.approx(drawn["high"] - drawn["low"], rel=0.1)


def test_a_trend_of_many_patients_has_the_limit_of_its_permutations(pair_of, monkeypatch):
    few, many = pair_of(900)
    monkeypatch.setattr("cxrtool.evaluation.groups.ENOUGH_PATIENTS", 1)
    strata = [part for part in split_by(few, parse_groupings("age:0,40,60")[0]) if part[1].any()]
    drawn, limit = trend(few, strata), trend(many, strata)
    assert limit["permutations"] is None
    assert limit["slope"] == drawn["slope"]
    assert limit["p"] == pytest.approx(drawn["p"], abs=0.03)


def test_resamples_drawn_in_parts_are_the_same(monkeypatch):
    strata = np.arange(90) % 3
    whole = draw_patients(strata, 50, np.random.default_rng(8))
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", 100)
    assert np.array_equal(draw_patients(strata, 50, np.random.default_rng(8)), whole)
