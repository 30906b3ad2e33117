from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn import metrics as reference

from cxrtool.evaluation.comparison.metrics import METRICS
from cxrtool.evaluation.comparison.tests import Pair, histogram_areas, sign_flip
from cxrtool.evaluation.metrics.estimates import BY_CLASS, estimate
from cxrtool.evaluation.scores import scores_of

SKLEARN = {
    "accuracy": lambda truth, called: reference.accuracy_score(truth, called),
    "balanced_accuracy": lambda truth, called: reference.recall_score(truth, called, average="macro"),
    "macro_f1": lambda truth, called: reference.f1_score(truth, called, average="macro"),
    "mcc": lambda truth, called: reference.matthews_corrcoef(truth, called),
    "sensitivity": lambda truth, called: reference.recall_score(truth, called, labels=[1], average="macro"),
}


def pair_of(first, second, metric="accuracy", positive_index=None):
    one, other = (scores_of(predictions) for predictions in (first, second))
    return Pair(one, other, metric, positive_index, dict.fromkeys(BY_CLASS, np.ones(len(one.classes), bool)))


@pytest.fixture
def two(make_predictions):
    def make(images=24, per_patient=2, skill=2.0, **options):
        return [
            make_predictions(images, per_patient=per_patient, skill=s, seed=k, **options)
            for k, s in enumerate((skill, 0.8))
        ]

    return make


def enumerated(pair, figure):
    """The difference that was seen, and p, from every way of exchanging the patients' answers, one after another."""
    one, other, patient = pair.first.predicted, pair.second.predicted, pair.first.patient
    repeat = pair.first.repeat_of_run[pair.first.run]

    def value(called):
        parts = [figure(pair.first.truth[repeat == r], called[repeat == r]) for r in np.unique(repeat)]
        return np.mean(parts)

    differences = []
    for kept in product([True, False], repeat=pair.first.patients):
        mine = np.array(kept)[patient]
        differences.append(value(np.where(mine, one, other)) - value(np.where(mine, other, one)))
    differences = np.array(differences)
    return differences[0], np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)


@pytest.mark.parametrize("metric", SKLEARN)
@pytest.mark.parametrize("repeats", [1, 2])
def test_few_patients_are_exchanged_in_every_way(two, metric, repeats):
    pair = pair_of(*two(14, repeats=repeats), metric, 1 if METRICS[metric].of_a_class else None)
    observed, p = enumerated(pair, SKLEARN[metric])
    found = sign_flip(pair)
    assert dict(found.detail)["exact"] == 1
    assert found.difference == pytest.approx(observed)
    assert found.p == pytest.approx(p)


def test_ranks_are_exchanged_in_every_way(two):
    pair = pair_of(*two(12), "macro_auc")
    truth, patient = pair.first.truth, pair.first.patient
    ranks = [np.apply_along_axis(rankdata, 0, s.probabilities) for s in (pair.first, pair.second)]
    differences = []
    for kept in product([True, False], repeat=pair.first.patients):
        mine = np.array(kept)[patient][:, None]
        areas = [
            np.mean([reference.roc_auc_score(truth == k, scores[:, k]) for k in range(3)])
            for scores in (np.where(mine, *ranks), np.where(mine, *ranks[::-1]))
        ]
        differences.append(areas[0] - areas[1])
    differences = np.array(differences)
    found = sign_flip(pair)
    assert found.difference == pytest.approx(differences[0])
    assert found.p == pytest.approx(np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("options", [{}, {"repeats": 2, "folds": 3}])
def test_its_difference_is_that_of_the_estimates(two, metric, options):
    positive_index = 2 if METRICS[metric].of_a_class or metric == "average_precision" else None
    pair = pair_of(*two(90, **options), metric, positive_index)
    own, theirs = (
        estimate(s, resamples=2, calibrated=False, positive_index=positive_index) for s in (pair.first, pair.second)
    )
    pick = [level.value[metric] for level in (own, theirs)]
    expected = pick[0] - pick[1] if not METRICS[metric].of_a_class else pick[0][2] - pick[1][2]
    assert sign_flip(pair, permutations=20).difference == pytest.approx(float(expected), abs=1e-12)


def test_drawn_exchanges_come_near_all_of_them(two):
    pair = pair_of(*two(24), "accuracy")
    exact, drawn = sign_flip(pair), sign_flip(pair, permutations=4000, seed=3)
    # 12 patients have 4,096 arrangements: one more than may be drawn.
    assert (dict(exact.detail)["exact"], dict(drawn.detail)["exact"]) == (1, dict(exact.detail)["permutations"] <= 4000)
    few = sign_flip(pair, permutations=100, seed=1)
    assert dict(few.detail) | {"exact": 0, "permutations": 100} == dict(few.detail)
    assert few.p == pytest.approx(exact.p, abs=0.15)
    assert few.p >= 1 / 101


def test_the_scale_of_scores_does_not_matter(two):
    first, second = two(60)
    pair = pair_of(first, second, "auc", 0)
    moved = replace(pair, second=replace(pair.second, probabilities=pair.second.probabilities**3 / 7))
    assert sign_flip(pair) == sign_flip(moved)


def test_the_same_answers_differ_in_nothing(two):
    first, _ = two()
    found = sign_flip(pair_of(first, first))
    assert (found.p, found.difference) == (1.0, 0.0)
    assert "same for every image" in found.reason


@pytest.mark.parametrize("metric", ["accuracy", "macro_auc"])
def test_it_rejects_five_percent_where_there_is_nothing(make_predictions, metric):
    p = [
        sign_flip(
            pair_of(*(make_predictions(60, seed=2 * k + i) for i in range(2)), metric), permutations=199, seed=k
        ).p
        for k in range(200)
    ]
    assert 0.015 < np.mean(np.array(p) <= 0.05) < 0.09


def test_images_of_one_patient_are_no_further_evidence(make_predictions):
    """Ten copies of every image leave p where it was."""
    first, second = (make_predictions(20, per_patient=1, skill=s, seed=k) for k, s in enumerate((2.5, 0.3)))
    once = sign_flip(pair_of(first, second))
    for predictions in (first, second):
        rows = [{**row, "image_id": f"{row['image_id']}-{k}"} for k in range(10) for row in predictions.rows]
        predictions.rows = rows
        predictions.probabilities = np.tile(predictions.probabilities, (10, 1))
    assert sign_flip(pair_of(first, second)).p == pytest.approx(once.p)


@pytest.mark.parametrize("seed", range(3))
def test_areas_from_histograms_are_those_of_sklearn(seed):
    rng = np.random.default_rng(seed)
    values, positive = rng.integers(0, 12, (5, 40)), rng.random(40) < 0.4
    areas, precisions = histogram_areas(values, positive)
    for row, area, precision in zip(values, areas, precisions, strict=True):
        assert area == pytest.approx(reference.roc_auc_score(positive, row))
        assert precision == pytest.approx(reference.average_precision_score(positive, row))
    assert np.isnan(histogram_areas(values, np.zeros(40, bool))).all()
