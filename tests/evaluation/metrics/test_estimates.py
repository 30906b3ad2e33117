from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from cxrtool.data.tables.predictions import Predictions
from cxrtool.evaluation.metrics import estimates
from cxrtool.evaluation.metrics.estimates import BY_CLASS, MACROS, estimate
from cxrtool.evaluation.resampling.intervals import draw_patients
from cxrtool.evaluation.scores import scores_of

SINGLES = ("accuracy", "mcc", "balanced_accuracy", "hard_auc", "average_precision", "ece", "brier", *MACROS)


def one_hot(truth, count):
    return np.eye(count)[truth]


def by_hand(scores, rows):
    """Every figure of the rows (with repetitions), by loops and scikit-learn."""
    count = len(scores.classes)
    decisions = {}
    for repeat in np.unique(scores.repeat_of_run):
        part = [i for i in rows if scores.repeat_of_run[scores.run[i]] == repeat]
        truth, predicted = scores.truth[part], scores.predicted[part]
        decisions.setdefault("accuracy", []).append(oracle.accuracy_score(truth, predicted))
        decisions.setdefault("mcc", []).append(oracle.matthews_corrcoef(truth, predicted))
        decisions.setdefault("macro_sensitivity", []).append(oracle.balanced_accuracy_score(truth, predicted))
        decisions.setdefault("macro_f1", []).append(oracle.f1_score(truth, predicted, average="macro"))
        decisions.setdefault("macro_precision", []).append(oracle.precision_score(truth, predicted, average="macro"))
        matrices = oracle.multilabel_confusion_matrix(truth, predicted, labels=range(count))
        decisions.setdefault("macro_specificity", []).append(np.mean([tn / (tn + fp) for (tn, fp), _ in matrices]))
    figures = {name: np.mean(values) for name, values in decisions.items()}
    ranked = {}
    for run in range(len(scores.runs)):
        part = [i for i in rows if scores.run[i] == run]
        truth, scored = scores.truth[part], scores.probabilities[part]
        if count == 2:
            auc = oracle.roc_auc_score(truth, scored[:, 1])
            brier = oracle.brier_score_loss(truth, scored[:, 1])
        else:
            auc = oracle.roc_auc_score(truth, scored / scored.sum(axis=1, keepdims=True), multi_class="ovr")
            brier = ((scored - one_hot(truth, count)) ** 2).sum(axis=1).mean()
        precision = np.mean([oracle.average_precision_score(truth == k, scored[:, k]) for k in range(count)])
        for name, value in (("macro_auc", auc), ("average_precision", precision), ("brier", brier)):
            ranked.setdefault(name, []).append(value)
    return figures | {name: np.mean(values) for name, values in ranked.items()}


@pytest.mark.parametrize("classes", [("covid", "normal"), ("covid", "normal", "pneumonia")])
@pytest.mark.parametrize(("repeats", "folds"), [(1, 1), (1, 3), (3, 2)])
def test_values_equal_scikit_learn(make_predictions, classes, repeats, folds):
    scores = scores_of(make_predictions(96, classes, repeats=repeats, folds=folds, skill=0.7))
    found = estimate(scores, resamples=2)
    for name, expected in by_hand(scores, range(len(scores))).items():
        assert found.value[name] == pytest.approx(expected), name
    if len(classes) == 2:
        assert found.value["hard_auc"] == pytest.approx(found.value["balanced_accuracy"])


def test_resampling_in_one_sweep_equals_resampling_one_by_one(make_predictions, monkeypatch):
    # Chunks smaller than the number of resamples, so that their seams are tested too.
    monkeypatch.setattr(estimates, "CELLS_AT_ONCE", 600)
    scores = scores_of(make_predictions(90, repeats=2, folds=2, per_patient=3, skill=1.0))
    found = estimate(scores, seed=7, resamples=40)
    counts = draw_patients(scores.strata, 40, np.random.default_rng(7))
    for b in range(40):
        rows = [i for i in range(len(scores)) for _ in range(counts[scores.patient[i], b])]
        for name, expected in by_hand(scores, rows).items():
            assert found.replicates[name][b] == pytest.approx(expected), (name, b)


def test_decisions_are_pooled_over_folds_and_rankings_are_not(make_predictions):
    scores = scores_of(make_predictions(60, ("covid", "normal"), folds=2, skill=1.0))
    shifted = scores.probabilities.copy()
    # One fold's model is offset: its ranking is as it was, a pooled ranking would suffer.
    logits = np.log(shifted[:, 0] / shifted[:, 1]) + 6.0 * (scores.run == 1)
    shifted[:, 0] = 1 / (1 + np.exp(-logits))
    shifted[:, 1] = 1 - shifted[:, 0]
    object.__setattr__(scores, "probabilities", shifted)
    inside = [oracle.roc_auc_score(scores.truth[scores.run == r], shifted[scores.run == r, 1]) for r in (0, 1)]
    found = estimate(scores, resamples=2)
    assert found.value["macro_auc"] == pytest.approx(np.mean(inside))
    assert found.value["macro_auc"] > oracle.roc_auc_score(scores.truth, shifted[:, 1]) + 0.02
    np.testing.assert_allclose(found.by_run["macro_auc"], inside)


def test_spread_over_runs_and_repeats(make_predictions):
    scores = scores_of(make_predictions(120, repeats=4, folds=2, skill=0.8))
    found = estimate(scores, resamples=2)
    right = scores.truth == scores.predicted
    runs = [right[scores.run == r].mean() for r in range(8)]
    repeats = [right[scores.repeat_of_run[scores.run] == r].mean() for r in range(4)]
    np.testing.assert_allclose(found.by_run["accuracy"], runs)
    np.testing.assert_allclose(found.by_repeat["accuracy"], repeats)
    assert found.value["accuracy"] == pytest.approx(np.mean(repeats))
    aucs = found.by_run["auc"].reshape(4, 2, 3)
    np.testing.assert_allclose(found.by_repeat["auc"], aucs.mean(axis=1))


def test_a_run_in_which_a_class_is_missing_does_not_count_for_its_ranking(make_predictions):
    predictions = make_predictions(90, folds=3)
    for row in predictions.rows:
        if row["label"] == "covid" and row["fold"] == "0":
            row["fold"] = "1"
    found = estimate(scores_of(predictions), resamples=2)
    assert np.isnan(found.by_run["auc"][0, 0])
    assert np.isfinite(found.by_run["auc"][0, 1:]).all()
    assert found.value["auc"][0] == pytest.approx(found.by_run["auc"][1:, 0].mean())
    assert np.isnan(found.by_run["macro_auc"][0])
    assert found.value["macro_auc"] == pytest.approx(found.value["auc"].mean())
    assert found.defined_units("auc")[0].tolist() == [2, 3, 3]
    assert found.defined_units("accuracy") == (1.0, 1, "repeats")


def test_an_absent_class_leaves_the_macro_average(make_predictions):
    predictions = make_predictions(60)
    kept = [i for i, row in enumerate(predictions.rows) if row["label"] != "covid"]
    part = Predictions(predictions.classes, [predictions.rows[i] for i in kept], predictions.probabilities[kept])
    found = estimate(scores_of(part), resamples=20)
    assert np.isnan(found.value["sensitivity"][0])
    assert found.value["macro_sensitivity"] == pytest.approx(found.value["sensitivity"][1:].mean())
    assert found.value["macro_auc"] == pytest.approx(found.value["auc"][1:].mean())
    assert np.isfinite(found.replicates["macro_auc"]).all()


def test_the_class_asked_about_takes_the_place_of_the_mean(make_predictions):
    scores = scores_of(make_predictions(60))
    found = estimate(scores, resamples=5, positive_index=2)
    assert found.value["average_precision"] == found.value["class_ap"][2]
    assert found.value["sensitivity_positive"] == found.value["sensitivity"][2]
    np.testing.assert_array_equal(found.replicates["auc_positive"], found.replicates["auc"][:, 2])


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(3)), seed=st.integers(0, 99))
def test_names_of_classes_and_order_of_rows_do_not_matter(make_predictions, order, seed):
    predictions = make_predictions(60, repeats=2, folds=2, skill=0.8)
    found = estimate(scores_of(predictions), seed=3, resamples=30)
    rows = np.random.default_rng(seed).permutation(len(predictions.rows))
    shuffled = Predictions(predictions.classes, [predictions.rows[i] for i in rows], predictions.probabilities[rows])
    again = estimate(scores_of(shuffled), seed=3, resamples=30)
    for name in SINGLES:
        assert again.value[name] == pytest.approx(found.value[name], rel=1e-9), name
        np.testing.assert_allclose(again.replicates[name], found.replicates[name], rtol=1e-9, err_msg=name)
    renamed = Predictions(
        [predictions.classes[k] for k in order], predictions.rows, predictions.probabilities[:, list(order)]
    )
    moved = estimate(scores_of(renamed), seed=3, resamples=2)
    for name in SINGLES:
        assert moved.value[name] == pytest.approx(found.value[name], rel=1e-9), name
    for name in BY_CLASS:
        np.testing.assert_allclose(moved.value[name], found.value[name][list(order)], rtol=1e-6, err_msg=name)


def test_the_seed_decides_the_resamples(make_predictions):
    scores = scores_of(make_predictions(60))
    first, same, other = (estimate(scores, seed=seed, resamples=50) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.replicates["accuracy"], same.replicates["accuracy"])
    assert not np.array_equal(first.replicates["accuracy"], other.replicates["accuracy"])


def study(seed, patients=80, images=3, spread=1.0, by_patient=True):
    """A simulated study of two classes whose population is known: its intervals for accuracy and AUC."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(patients) % 2, images)
    # Images of one patient resemble one another: they share a part of their score.
    shared = np.repeat(rng.normal(scale=spread, size=patients), images)
    score = 1 / (1 + np.exp(-((2 * label - 1) + shared + rng.normal(size=len(label)))))
    rows = [
        {
            "image_id": str(i),
            "patient_id": str(i // images) if by_patient else "",
            "label": "ab"[label[i]],
            "subset": "test",
            "predicted": "ab"[int(score[i] > 0.5)],
        }
        for i in range(len(label))
    ]
    scores = scores_of(Predictions(["a", "b"], rows, np.stack((1 - score, score), axis=1)))
    found = estimate(scores, seed=seed, resamples=400, calibrated=False)
    return {name: np.percentile(found.replicates[name], [2.5, 97.5]) for name in POPULATION}


# Scores of a class are normal with variance 1 + 1² around +1 or -1.
POPULATION = {"accuracy": NormalDist().cdf(1 / np.sqrt(2)), "macro_auc": NormalDist().cdf(2 / 2)}


def coverage(studies, **options):
    found = [study(seed, **options) for seed in range(studies)]
    return {name: np.mean([s[name][0] <= value <= s[name][1] for s in found]) for name, value in POPULATION.items()}


def test_intervals_cover_the_population_as_often_as_they_say():
    for name, share in coverage(400).items():
        assert 0.93 <= share <= 0.97, (name, share)


def test_intervals_over_images_of_the_same_patients_are_too_narrow():
    for name, share in coverage(100, by_patient=False).items():
        assert share < 0.90, (name, share)
