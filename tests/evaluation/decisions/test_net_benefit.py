import cv2
import numpy as np
import pytest

from cxrtool.evaluation.decisions.net_benefit import THRESHOLDS, decision_curve, draw_decision_curve
from cxrtool.evaluation.resampling.intervals import draw_patients, percents
from cxrtool.evaluation.scores import scores_of


@pytest.fixture(scope="module")
def scores(make_predictions):
    return scores_of(make_predictions(120, folds=3))


def by_hand(positive, own, threshold, weight):
    """Vickers & Elkin's formula, image by image."""
    total = gained = lost = 0.0
    for is_positive, score, count in zip(positive, own, weight, strict=True):
        total += count
        if score >= threshold:
            gained += count * is_positive
            lost += count * (not is_positive)
    return gained / total - lost / total * threshold / (1 - threshold)


def over_runs(scores, k, threshold, weight):
    found = []
    for run in range(len(scores.runs)):
        rows = scores.run == run
        found.append(by_hand(scores.truth[rows] == k, scores.probabilities[rows, k], threshold, weight[rows]))
    return np.mean(found)


def test_it_is_the_formula_inside_each_run(scores):
    (found,) = decision_curve(scores, 0, seed=2, resamples=25)
    draws = draw_patients(scores.strata, 25, np.random.default_rng(2))
    for k, threshold in enumerate(THRESHOLDS):
        expected = over_runs(scores, 0, threshold, np.ones(len(scores)))
        assert found["net_benefit"][k] == pytest.approx(expected, abs=1e-9)
        everyone = np.mean(
            [
                by_hand(
                    scores.truth[scores.run == r] == 0,
                    np.ones((scores.run == r).sum()),
                    threshold,
                    np.ones((scores.run == r).sum()),
                )
                for r in range(3)
            ]
        )
        assert found["treat_all"][k] == pytest.approx(everyone, abs=1e-9)
    for k in (4, 10, 18):
        drawn = [over_runs(scores, 0, THRESHOLDS[k], draws[scores.patient, b]) for b in range(25)]
        ends = np.percentile(drawn, percents(scores.patients))
        assert (found["low"][k], found["high"][k]) == pytest.approx(tuple(ends), abs=1e-9)
    assert found["prevalence"] == pytest.approx(1 / 3, abs=0.01)
    assert not found["stated"]


def test_a_score_at_the_threshold_is_acted_on(make_predictions):
    predictions = make_predictions(6, classes=("a", "b"))
    predictions.probabilities[:] = [0.3, 0.7]
    scores = scores_of(predictions)
    (found,) = decision_curve(scores, 0, resamples=5)
    place = THRESHOLDS.index(0.3)
    assert found["net_benefit"][place] == pytest.approx(found["treat_all"][place])
    assert found["net_benefit"][place + 1] == 0


def test_at_another_prevalence_it_is_that_of_a_weighted_sample_with_moved_probabilities(make_predictions):
    scores = scores_of(make_predictions(240))
    _, found = decision_curve(scores, 0, prevalences=(0.05,), resamples=20)
    positive, share = scores.truth == 0, (scores.truth == 0).mean()
    odds = scores.probabilities[:, 0] / (1 - scores.probabilities[:, 0])
    moved = odds * (0.05 / 0.95) / (share / (1 - share))
    weight = np.where(positive, 0.05 / share, 0.95 / (1 - share))
    for k, threshold in enumerate(THRESHOLDS):
        expected = by_hand(positive, moved / (1 + moved), threshold, weight)
        assert found["net_benefit"][k] == pytest.approx(expected, abs=1e-9)
        assert found["treat_all"][k] == pytest.approx(0.05 - 0.95 * threshold / (1 - threshold))
    assert (found["prevalence"], found["stated"]) == (0.05, True)


def test_the_prevalence_of_the_images_changes_nothing(make_predictions):
    scores = scores_of(make_predictions(240))
    share = float((scores.truth == 0).mean())
    own, stated = decision_curve(scores, 0, prevalences=(share,), resamples=20)
    assert stated["net_benefit"] == pytest.approx(own["net_benefit"], abs=1e-9)


def test_a_perfect_model_gains_every_ill_person_and_a_useless_one_nothing(make_predictions):
    predictions = make_predictions(120, classes=("a", "b"))
    right = np.array([row["label"] == "a" for row in predictions.rows])
    predictions.probabilities[:, 0] = np.where(right, 0.99, 0.005)
    predictions.probabilities[:, 1] = 1 - predictions.probabilities[:, 0]
    (found,) = decision_curve(scores_of(predictions), 0, resamples=20)
    assert found["net_benefit"] == pytest.approx([right.mean()] * len(THRESHOLDS))
    assert found["best_between"] == [[0.01, 0.95]]
    predictions.probabilities[:] = 0.5
    (found,) = decision_curve(scores_of(predictions), 0, resamples=20)
    assert found["best_between"] == []


def test_runs_of_one_class_have_none_at_a_stated_prevalence(make_predictions):
    predictions = make_predictions(60)
    for row in predictions.rows:
        row["label"] = "covid"
    _, found = decision_curve(scores_of(predictions), 0, prevalences=(0.1,), resamples=20)
    assert set(found["net_benefit"]) == {None}
    assert found["reason"] == "no run has images of both the class and the rest"
    assert found["low"] is None


def test_the_picture_is_there(scores, tmp_path):
    for name, prevalences in (("one", ()), ("three", (0.01, 0.1))):
        entries = decision_curve(scores, 0, prevalences=prevalences, resamples=20)
        draw_decision_curve(entries, "covid", 60, tmp_path / f"{name}.png")
    one, three = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("one", "three"))
    assert one.std() > 5
    assert three.shape[1] > 2 * one.shape[1]
