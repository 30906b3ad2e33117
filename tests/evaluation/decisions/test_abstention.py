from dataclasses import replace

import cv2
import numpy as np
import pytest

from cxrtool.evaluation.decisions.abstention import COVERAGES, abstain, confidence, cut_for, draw_coverage, risk_area
from cxrtool.evaluation.decisions.thresholds import decide
from cxrtool.evaluation.decisions.validation import Validation, find_validation
from cxrtool.evaluation.scores import UNDECIDED, scores_of


@pytest.fixture(scope="module")
def study(with_validation):
    predictions = with_validation(180, 240, folds=3, repeats=2)
    scores = scores_of(predictions)
    return scores, find_validation(predictions, scores)


def test_the_area_is_the_mean_error_of_the_most_confident():
    rng = np.random.default_rng(0)
    confident, wrong = rng.random(80), (rng.random(80) < 0.3).astype(float)
    ranked = wrong[np.argsort(-confident)]
    expected = np.mean([ranked[:k].mean() for k in range(1, 81)])
    assert risk_area(confident, wrong, np.ones((80, 1)))[0] == pytest.approx(expected)


def test_a_weight_of_two_is_the_image_twice_and_ties_come_together():
    confident, wrong = np.array([0.9, 0.7, 0.7, 0.5]), np.array([0.0, 1.0, 0.0, 1.0])
    weights = np.array([[1.0, 2.0], [1.0, 1.0], [1.0, 0.0], [1.0, 3.0]])
    found = risk_area(confident, wrong, weights)
    # 0; the pair at 0.7 together 1 of 3; all 2 of 4.
    assert found[0] == pytest.approx((0 + 1 / 3 + 1 / 3 + 2 / 4) / 4)
    repeated = np.repeat(np.arange(4), [2, 1, 0, 3])
    assert found[1] == pytest.approx(risk_area(confident[repeated], wrong[repeated], np.ones((6, 1)))[0])


def test_an_order_by_chance_gives_the_error_rate():
    rng = np.random.default_rng(3)
    wrong = (rng.random(20_000) < 0.2).astype(float)
    assert risk_area(rng.random(20_000), wrong, np.ones((20_000, 1)))[0] == pytest.approx(wrong.mean(), abs=0.01)


@pytest.mark.parametrize("coverage", COVERAGES)
def test_a_cut_leaves_as_many_as_was_asked_for(coverage):
    own = np.random.default_rng(1).random(200)
    assert (own >= cut_for(own, coverage)).sum() == round(200 * coverage)


def test_the_cut_is_taken_from_validation_and_the_share_is_counted_on_test(study):
    scores, validation = study
    found = abstain(scores, validation, resamples=30)
    assert found["cuts_from"] == {"validation": 6, "test": 0}
    sure = scores.probabilities.max(axis=1)
    repeat = scores.repeat_of_run[scores.run]
    for point in found["points"]:
        kept = np.zeros(len(scores), bool)
        for run, pair in enumerate(scores.runs):
            own = np.sort(validation.of(pair).probabilities.max(axis=1))
            cut = own[int(len(own) * (1 - point["coverage_wanted"]) + 1e-6)]
            kept |= (scores.run == run) & ((sure >= cut) | (point["coverage_wanted"] == 1.0))
        right = scores.truth == scores.predicted
        by_repeat = [kept & (repeat == r) for r in range(2)]
        assert point["coverage"]["value"] == pytest.approx(kept.mean())
        assert point["accuracy"]["value"] == pytest.approx(np.mean([right[own].mean() for own in by_repeat]))
        recalls = [np.mean([right[own & (scores.truth == k)].mean() for own in by_repeat]) for k in range(3)]
        assert point["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls))
    values = [point["accuracy"]["value"] for point in found["points"]]
    assert values[-1] > values[0] + 0.05
    assert found["area_under_risk_coverage"]["value"] < found["area_by_chance"] - 0.05


def test_without_validation_it_is_the_test_itself_and_says_so(study):
    scores, _ = study
    found = abstain(scores, Validation(), resamples=30)
    assert found["cuts_from"] == {"validation": 0, "test": 6}
    # 60 images a run: what is met by construction.
    for point in found["points"]:
        assert point["coverage"]["value"] == pytest.approx(point["coverage_wanted"], abs=0.02)


def test_what_was_undecided_before_stays_so(study):
    scores, validation = study
    predicted = scores.predicted.copy()
    predicted[::4] = UNDECIDED
    found = abstain(replace(scores, predicted=predicted), validation, resamples=30)
    assert found["points"][0]["coverage"]["value"] == pytest.approx(0.75)
    assert found["points"][0]["coverage"]["low"] is not None


def test_where_a_threshold_decides_those_near_it_are_left(study):
    scores, validation = study
    limits = [0.2] * 6
    found = abstain(decide(scores, 0, limits), validation, positive_index=0, thresholds=limits, resamples=30)
    assert found["confidence"] == "distance of the log odds to another decision"
    assert found["points"][-1]["accuracy"]["value"] > found["points"][0]["accuracy"]["value"]


def test_confidence_is_0_where_the_decision_turns():
    shares = np.array([[0.2, 0.4, 0.4], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05]])
    found = confidence(shares, 0, 0.3)
    assert found[:2] == pytest.approx([0.0, 0.0])
    assert found[2] == pytest.approx(min(np.log(0.3 / 0.7) - np.log(0.1 / 0.9), np.log(8)))
    assert found[3] == pytest.approx(np.log(9) - np.log(3 / 7))
    assert np.isfinite(confidence(np.array([[1.0, 0.0], [0.0, 1.0]]), 0, 0.5)).all()


def test_a_class_that_nothing_is_decided_of_is_told(study):
    scores, _ = study
    low = np.where((scores.truth == 2)[:, None], 1 / 3, scores.probabilities)
    found = abstain(replace(scores, probabilities=low), Validation(), resamples=30)
    last = found["points"][-1]["balanced_accuracy"]
    assert (last["value"], last["reason"]) == (None, "no image of pneumonia was decided")


def test_the_picture_is_there(study, tmp_path):
    scores, validation = study
    assert draw_coverage(abstain(scores, validation, resamples=30), 90, tmp_path / "c.png")
    assert cv2.imread(str(tmp_path / "c.png")).std() > 5
    nothing = replace(scores, predicted=np.full(len(scores), UNDECIDED))
    found = abstain(nothing, validation, resamples=30)
    assert found["points"][0]["accuracy"]["reason"] == "no image was decided"
    assert found["area_under_risk_coverage"]["value"] is None
    assert not draw_coverage(found, 90, tmp_path / "none.png")
