from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from cxrtool.evaluation.decisions.operating import (
    WILSON_ENDS,
    at_prevalence,
    operating_counts,
    operating_point,
    ratios,
)
from cxrtool.evaluation.resampling.intervals import draw_patients, percents, wilson
from cxrtool.evaluation.scores import UNDECIDED, scores_of
from cxrtool.evaluation.summary import summarise


@pytest.fixture(scope="module")
def scores(make_predictions):
    return scores_of(make_predictions(240, repeats=2, folds=3))


@pytest.fixture(scope="module")
def point(scores):
    return operating_point(scores, 1, prevalences=(0.01, 0.3), resamples=200)


def test_counts_are_those_of_scikit_learn(scores, point):
    repeat = scores.repeat_of_run[scores.run]
    tables = [
        confusion_matrix(scores.truth[repeat == r] == 1, scores.predicted[repeat == r] == 1).ravel() for r in range(2)
    ]
    tn, fp, fn, tp = np.mean(tables, axis=0)
    assert point["counts"] == {"tp": tp, "fn": fn, "fp": fp, "tn": tn}
    assert point["prevalence"] == pytest.approx(np.mean(scores.truth == 1))
    assert (point["positive"], point["rule"]) == ("normal", "most probable class")


@pytest.mark.parametrize(
    ("name", "other"), [("sensitivity",) * 2, ("specificity",) * 2, ("ppv", "precision"), ("npv", "npv")]
)
def test_figures_and_intervals_are_those_of_the_class(scores, point, name, other):
    expected = summarise(scores, resamples=200)["per_class"]["normal"][other]
    assert {k: v for k, v in point[name].items() if k != "reason"} == {
        k: v for k, v in expected.items() if k != "reason"
    }


@pytest.mark.parametrize("prevalence", [0.01, 0.3])
def test_predictive_values_at_a_prevalence_are_those_of_a_weighted_sample(make_predictions, prevalence):
    scores = scores_of(make_predictions(240))
    truth, called = scores.truth == 1, scores.predicted == 1
    weight = np.where(truth, prevalence / truth.mean(), (1 - prevalence) / (1 - truth.mean()))
    found = operating_point(scores, 1, prevalences=(prevalence,), resamples=20)["at_prevalence"][f"{prevalence:g}"]
    assert found["ppv"]["value"] == pytest.approx(precision_score(truth, called, sample_weight=weight))
    assert found["npv"]["value"] == pytest.approx(precision_score(~truth, ~called, sample_weight=weight))


def test_their_intervals_come_from_the_same_resamples(scores):
    found = operating_point(scores, 1, prevalences=(0.05,), seed=7, resamples=60)
    draws = draw_patients(scores.strata, 60, np.random.default_rng(7))
    truth, called, repeat = scores.truth == 1, scores.predicted == 1, scores.repeat_of_run[scores.run]
    ppv, positive = [], []
    for b in range(60):
        weight = draws[scores.patient, b]
        rates = []
        for r in range(2):
            own = repeat == r
            sensitivity = recall_score(truth[own], called[own], sample_weight=weight[own])
            specificity = recall_score(~truth[own], ~called[own], sample_weight=weight[own])
            rates.append((sensitivity, specificity))
        se, sp = np.mean(rates, axis=0)
        ppv.append(0.05 * se / (0.05 * se + 0.95 * (1 - sp)))
        positive.append(se / (1 - sp))
    # What rests on patients of either kind is as sure as of the fewer.
    fewest = min(len(np.unique(scores.patient[truth])), len(np.unique(scores.patient[~truth])))
    for measure, values in ((found["at_prevalence"]["0.05"]["ppv"], ppv), (found["lr_positive"], positive)):
        assert (measure["low"], measure["high"]) == pytest.approx(tuple(np.percentile(values, percents(fewest))))
        assert measure["low"] < measure["value"] < measure["high"]


def test_at_the_prevalence_of_the_images_bayes_gives_back_the_plain_values(make_predictions):
    scores = scores_of(make_predictions(240))
    share = float(np.mean(scores.truth == 1))
    found = operating_point(scores, 1, prevalences=(share,), resamples=20)
    (at,) = found["at_prevalence"].values()
    assert at["ppv"]["value"] == pytest.approx(found["ppv"]["value"])
    assert at["npv"]["value"] == pytest.approx(found["npv"]["value"])


def test_likelihood_ratios_move_odds_from_before_to_after():
    se, sp, prevalence = np.array(0.83), np.array(0.91), 0.2
    found, after = ratios(se, sp), at_prevalence(se, sp, prevalence)
    odds = prevalence / (1 - prevalence)
    assert after["ppv"] / (1 - after["ppv"]) == pytest.approx(odds * found["lr_positive"])
    assert (1 - after["npv"]) / after["npv"] == pytest.approx(odds * found["lr_negative"])


def test_without_a_false_positive_the_ratio_has_no_value_and_the_rest_wilsons_ends(make_predictions):
    given = scores_of(make_predictions(240))
    scores = replace(given, predicted=np.where(given.truth == 1, given.predicted, given.truth))
    found = operating_point(scores, 1, prevalences=(0.05,), resamples=100)
    assert found["lr_positive"]["value"] is None
    assert found["lr_positive"]["reason"] == "no image was wrongly predicted normal, so the ratio has no upper bound"
    ppv = found["at_prevalence"]["0.05"]["ppv"]
    assert (ppv["value"], ppv["high"], ppv["method"]) == (1.0, 1.0, WILSON_ENDS)
    ill, well = (len(np.unique(scores.patient[mask])) for mask in (scores.truth == 1, scores.truth != 1))
    lower = [np.array(wilson(share, n)[0]) for share, n in ((found["sensitivity"]["value"], ill), (1.0, well))]
    low = at_prevalence(*lower, 0.05)["ppv"]
    assert ppv["low"] == pytest.approx(float(low))
    assert found["lr_negative"]["low"] < found["lr_negative"]["value"] < found["lr_negative"]["high"]


def test_the_undecided_do_not_count(scores):
    predicted = scores.predicted.copy()
    predicted[::7] = UNDECIDED
    found = operating_point(replace(scores, predicted=predicted), 1, resamples=20)
    assert sum(found["counts"].values()) == pytest.approx((predicted != UNDECIDED).sum() / 2)


def test_of_counts_the_intervals_are_wilsons():
    # The first fold of COVID-XNet: 851 and 499 of 867 and 516 right.
    found = operating_counts(["normal", "covid"], np.array([[851.0, 16.0], [17.0, 499.0]]), 1, prevalences=(0.05,))
    assert found["counts"] == {"tp": 499, "fn": 17, "fp": 16, "tn": 851}
    assert (found["sensitivity"]["low"], found["sensitivity"]["high"]) == pytest.approx(wilson(499 / 516, 516))
    assert (found["ppv"]["low"], found["ppv"]["high"]) == pytest.approx(wilson(499 / 515, 515))
    at = found["at_prevalence"]["0.05"]["ppv"]
    se, fp = 499 / 516, 16 / 867
    assert at["value"] == pytest.approx(0.05 * se / (0.05 * se + 0.95 * fp))
    assert at["method"] == WILSON_ENDS
    assert at["low"] < at["value"] < at["high"]
    three = operating_counts(["a", "b", "c"], np.array([[5.0, 1, 2], [3, 7, 1], [0, 2, 9]]), 1, resamples=50)
    assert three["counts"] == {"tp": 7, "fn": 4, "fp": 3, "tn": 16}


def test_a_class_that_no_image_has_is_undefined_with_a_reason(scores):
    found = operating_point(scores.where(scores.truth != 1), 1, prevalences=(0.1,), resamples=20)
    assert found["sensitivity"]["value"] is None
    assert found["sensitivity"]["reason"] == "no images of normal"
    assert found["at_prevalence"]["0.1"]["ppv"]["value"] is None


def test_the_rule_is_named_by_what_the_decisions_look_like(scores):
    turned = replace(
        scores, predicted=np.where(np.arange(len(scores)) == 3, (scores.predicted + 1) % 3, scores.predicted)
    )
    assert operating_point(turned, 1, resamples=5)["rule"] == "as predicted"
    assert operating_point(scores, 1, rule="mine", resamples=5)["rule"] == "mine"


def test_intervals_at_a_prevalence_hold_the_truth_as_often_as_they_say(make_predictions):
    n, se, sp, studies = 240, 0.8, 0.85, 400
    base = scores_of(make_predictions(n, ("ill", "well"), per_patient=1))
    ill = base.truth == 0
    rng = np.random.default_rng(0)
    truth = {name: float(v) for name, v in at_prevalence(np.array(se), np.array(sp), 0.1).items()}
    held = dict.fromkeys(truth, 0)
    for k in range(studies):
        called = np.where(rng.random(n) < np.where(ill, se, 1 - sp), 0, 1)
        found = operating_point(replace(base, predicted=called), 0, prevalences=(0.1,), seed=k, resamples=400)
        for name, true in truth.items():
            measure = found["at_prevalence"]["0.1"][name]
            held[name] += measure["low"] <= true <= measure["high"]
    # 95 %, within three standard errors of 400 studies and what 400 resamples cost.
    assert all(0.915 < count / studies < 0.985 for count in held.values()), held


@pytest.mark.parametrize(("name", "kind"), [("npv", 1), ("ppv", 0)])
def test_a_predictive_value_has_wilsons_interval_where_nothing_is_recognised(scores, name, kind):
    """All of one class are wrong, and a few of the other."""
    some = np.arange(len(scores.truth)) % 8 == 0
    predicted = np.where(((scores.truth == 1) != bool(kind)) & some, kind, 1 - kind)
    found = operating_point(replace(scores, predicted=predicted), 1, resamples=200)[name]
    assert found["method"] == "Wilson"
    assert found["high"] - found["low"] > 0.1
