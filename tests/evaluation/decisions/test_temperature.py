from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from cxrtool.evaluation.decisions.temperature import Temperature, apply, calibrate, fit
from cxrtool.evaluation.decisions.validation import Validation, find_validation
from cxrtool.evaluation.scores import scores_of


def by_scipy(logits, labels):
    """The same minimum, found by another method, from logits, by T itself."""

    def loss(temperature):
        own = log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels]
        return -own.sum() + np.log(temperature) ** 2 / (2 * 0.5**2)

    found = minimize_scalar(loss, bounds=(1e-3, 50), method="bounded", options={"xatol": 1e-10})
    return found.x


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0, 8.0])
def test_the_temperature_is_that_of_another_optimiser_on_logits(logits_and_labels, classes, factor):
    logits, labels = logits_and_labels(80, classes, seed=classes)
    stated = factor * logits
    found = fit(softmax(stated, axis=1), labels)
    assert found.value == pytest.approx(by_scipy(stated, labels), rel=1e-5)
    assert found.images == 80
    assert found.reason is None
    before, after = (log_loss(labels, softmax(stated / t, axis=1), labels=range(classes)) for t in (1, found.value))
    assert (found.nll_before, found.nll_after) == (pytest.approx(before, rel=1e-5), pytest.approx(after, rel=1e-5))


def test_with_many_images_the_factor_comes_back(logits_and_labels):
    logits, labels = logits_and_labels(20_000, 3)
    assert fit(softmax(2.5 * logits, axis=1), labels).value == pytest.approx(2.5, rel=0.03)
    assert fit(softmax(0.5 * logits, axis=1), labels).value == pytest.approx(0.5, rel=0.03)


def test_few_images_that_are_all_right_do_not_make_it_certain():
    # Without the prior T would go to 0.
    labels = np.arange(60) % 2
    shares = np.where(np.eye(2)[labels] > 0, 0.9, 0.1)
    assert 0.2 < fit(shares, labels).value < 1.0


@pytest.mark.parametrize(
    ("n", "labels", "reason"),
    [
        (0, 2, "no validation images"),
        (1, 2, "only 1 validation image; 50 are needed"),
        (49, 2, "only 49 validation images; 50 are needed"),
        (60, 1, "all 60 validation images are of one class"),
        (50, 2, None),
    ],
)
def test_where_none_can_be_fitted_it_is_1_and_says_why(n, labels, reason):
    shares = np.tile([0.7, 0.3], (n, 1))
    found = fit(shares, np.arange(n) % labels)
    assert found.reason == reason
    assert (found.value == 1.0) == (reason is not None)
    assert found.images == n


def test_a_probability_of_0_for_the_true_class_leaves_it_finite():
    shares = np.tile([1.0, 0.0], (100, 1))
    found = fit(shares, np.arange(100) % 2)
    assert 1.5 < found.value < 100
    assert np.isfinite([found.nll_before, found.nll_after]).all()


def test_applied_it_is_the_softmax_of_divided_logits(logits_and_labels):
    logits, _ = logits_and_labels(40, 4)
    shares = softmax(logits, axis=1)
    assert apply(shares, 1.7) == pytest.approx(softmax(logits / 1.7, axis=1), abs=1e-12)
    assert apply(shares, 1.0) is shares
    assert apply(np.stack([shares, shares]), 2.0)[1] == pytest.approx(softmax(logits / 2, axis=1), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_no_order_of_classes_changes(temperature):
    shares = np.array([[0.0, 1e-30, 1.0], [0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    after = apply(shares, temperature)
    assert after.sum(axis=1) == pytest.approx(1)
    # A 0 may end beside the smallest, never before it.
    assert np.array_equal(after.argmax(axis=1), shares.argmax(axis=1))
    assert (np.diff(np.take_along_axis(after, shares.argsort(axis=1), axis=1), axis=1) >= 0).all()


def test_it_survives_json():
    found = Temperature(1.25, 80, None, 0.5, 0.4)
    assert Temperature.from_json(found.as_json()) == found


@pytest.fixture
def sharpened(with_validation):
    predictions = with_validation(90, 300, sharpen=4.0, folds=3)
    scores = scores_of(predictions)
    return predictions, scores, find_validation(predictions, scores)


def test_each_run_has_its_own_temperature(sharpened):
    _, scores, validation = sharpened
    after, found = calibrate(scores, validation)
    assert len({entry.value for entry in found}) == 3
    for run, entry in enumerate(found):
        part = validation.of(scores.runs[run])
        assert entry == fit(part.probabilities, part.truth)
        assert 1.5 < entry.value < 6
        rows = scores.run == run
        assert np.array_equal(after.probabilities[rows], apply(scores.probabilities[rows], entry.value))


def test_test_labels_have_no_say(sharpened):
    _, scores, validation = sharpened
    turned = replace(scores, truth=(scores.truth + 1) % 3)
    assert calibrate(turned, validation)[1] == calibrate(scores, validation)[1]


def test_decisions_stay_even_those_that_were_not_the_likeliest(sharpened):
    _, scores, validation = sharpened
    odd = replace(scores, predicted=(scores.probabilities.argmax(axis=1) + 1) % 3)
    assert np.array_equal(calibrate(odd, validation)[0].predicted, odd.predicted)


def test_a_run_without_validation_stays_as_it_is(sharpened):
    predictions, scores, _ = sharpened
    kept = [i for i, row in enumerate(predictions.rows) if row["subset"] == "test" or row["fold"] != "1"]
    fewer = replace(
        predictions, rows=[predictions.rows[i] for i in kept], probabilities=predictions.probabilities[kept]
    )
    after, found = calibrate(scores, find_validation(fewer, scores))
    assert found[1] == Temperature(reason="this run has no validation rows")
    assert np.array_equal(after.probabilities[scores.run == 1], scores.probabilities[scores.run == 1])
    assert found[0].reason is None
    assert calibrate(scores, Validation())[1][0].reason == "the predictions have no validation rows"


def test_a_temperature_may_be_stated_alone():
    assert Temperature.from_json({"temperature": 1.5, "images": "many"}) == Temperature(1.5)
