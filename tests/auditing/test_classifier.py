"""The one classifier of all probes, against fits made one by one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score

from cxrtool.auditing import classifier
from cxrtool.auditing.classifier import classify, linear, radial, sample, standardise


def blobs(n=90, features=30, classes=2, apart=1.5, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    centres = rng.normal(0, apart / np.sqrt(features) * 2, (classes, features))
    return centres[truth] + rng.normal(size=(n, features)), truth


def test_left_out_values_are_those_of_fits_without_each_patient():
    values, truth = blobs(24, 6)
    patients = np.array([0, 0, 0, 1, 1, 2, *range(3, 21)])
    membership = (truth == 0).astype(float)[:, None]
    centred = membership - membership.mean(0)
    rest = values - values.mean(0)
    gram, penalty = rest @ rest.T, 3.0
    eigen, vectors = np.linalg.eigh(gram)
    kept = eigen / (eigen + penalty)
    residual = centred - vectors @ (kept[:, None] * (vectors.T @ centred))
    found = classifier._left_out(centred, residual, vectors, kept, classifier._blocks(patients))
    for patient in np.unique(patients):
        own = patients == patient
        fit = Ridge(alpha=penalty).fit(values[~own], membership[~own, 0])
        np.testing.assert_allclose(found[own, 0], fit.predict(values[own]) - membership[~own, 0].mean(), atol=1e-8)


def test_log_odds_of_two_classes_are_linear_in_what_ridge_regression_says(monkeypatch):
    monkeypatch.setattr(classifier, "PENALTIES", (0.7,))
    values, truth = blobs()
    train, test = np.arange(60), np.arange(60, 90)
    said = classify(linear(values[train], values[test]), truth[train, None], train, 2)
    inside, outside = standardise(values[train], values[test])
    ridge = Ridge(alpha=0.7 * (inside**2).sum() / 60).fit(inside, truth[train])
    odds = np.log(said.probabilities[:, 1] / said.probabilities[:, 0])
    assert np.corrcoef(odds, ridge.predict(outside))[0, 1] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_about_as_good_as_logistic_regression(classes):
    ours, theirs = [], []
    for seed in range(6):
        values, truth = blobs(240, 40, classes, seed=seed)
        train, test = np.arange(120), np.arange(120, 240)
        said = classify(linear(values[train], values[test]), truth[train, None], train, classes)
        inside, outside = standardise(values[train], values[test])
        other = LogisticRegression(C=0.05, max_iter=500).fit(inside, truth[train])
        ours.append(balanced_accuracy_score(truth[test], said.predicted[:, 0]))
        theirs.append(balanced_accuracy_score(truth[test], other.predict(outside)))
    assert np.mean(ours) > 0.7
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.04)


def test_each_labelling_is_answered_as_if_it_were_alone():
    values, truth = blobs(90, 200, 3)
    rng = np.random.default_rng(1)
    labellings = np.stack([truth[:60], rng.permutation(truth[:60]), rng.permutation(truth[:60])], axis=1)
    patients = np.arange(60) // 2
    kernels = linear(values[:60], values[60:])
    together = classify(kernels, labellings, patients, 3)
    for column in range(3):
        alone = classify(kernels, labellings[:, [column]], patients, 3)
        assert (alone.predicted[:, 0] == together.predicted[:, column]).all()
    assert together.probabilities.sum(axis=1) == pytest.approx(1)


def test_a_rare_class_is_decided_for_as_readily_as_a_common_one():
    rng = np.random.default_rng(0)
    truth = (np.arange(600) % 10 == 0).astype(int)
    values = rng.normal(size=(600, 5)) + 1.0 * truth[:, None]
    said = classify(linear(values[:300], values[300:]), truth[:300, None], np.arange(300), 2)
    rare, common = (float((said.predicted[truth[300:] == k, 0] == k).mean()) for k in (1, 0))
    assert rare > 0.75
    assert common > 0.75
    assert said.probabilities[:, 1].mean() == pytest.approx(0.1, abs=0.05)


def test_a_radial_kernel_finds_what_no_line_divides():
    values = np.random.default_rng(0).normal(size=(300, 2))
    truth = (np.abs(values).max(axis=1) > 1).astype(int)
    reached = {
        kernel.__name__: balanced_accuracy_score(
            truth[200:],
            classify(kernel(values[:200], values[200:]), truth[:200, None], np.arange(200), 2).predicted[:, 0],
        )
        for kernel in (linear, radial)
    }
    assert reached["radial"] > 0.85 > 0.65 > reached["linear"]


def test_what_never_varies_tells_nothing():
    values = np.full((40, 3), 0.7)
    truth = np.arange(40) % 4 == 0
    for kernel in (linear, radial):
        said = classify(kernel(values[:20], values[20:]), truth[:20, None].astype(int), np.arange(20), 2)
        assert len(set(said.predicted[:, 0].tolist())) == 1
        assert said.probabilities == pytest.approx(np.tile([0.75, 0.25], (20, 1)))


def test_one_odd_value_does_not_outweigh_the_others():
    values, truth = blobs(200, 20, apart=2.0)
    values[:, 0] = 0.0
    values[3, 0] = 0.5
    values[100:, 0] = 1e6
    said = classify(linear(values[:100], values[100:]), truth[:100, None], np.arange(100), 2)
    assert balanced_accuracy_score(truth[100:], said.predicted[:, 0]) > 0.7


def test_a_sample_keeps_patients_whole_and_within_bounds():
    patients = np.repeat(np.arange(100), np.arange(100) % 3 + 1)
    kept = sample(patients, np.random.default_rng(0), most=80)
    assert 70 < len(kept) <= 80
    chosen = set(patients[kept].tolist())
    assert sum((patients == patient).sum() for patient in chosen) == len(kept)
    assert (sample(patients, np.random.default_rng(0), most=500) == np.arange(len(patients))).all()
