from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from cxrtool.errors import InputError
from cxrtool.evaluation.decisions.thresholds import choose, decide, needed, rank_of, threshold
from cxrtool.evaluation.decisions.validation import find_validation
from cxrtool.evaluation.scores import UNDECIDED, scores_of


@pytest.mark.parametrize("percent", [50, 80, 90, 95, 99])
def test_the_rank_is_that_of_exact_arithmetic(percent):
    s = Fraction(percent, 100)
    for n in range(1, 400):
        assert rank_of(n, percent / 100) == floor((n + 1) * (1 - s)), n
    least = next(n for n in range(1, 400) if floor((n + 1) * (1 - s)) >= 1)
    assert needed(percent / 100) == least


def test_it_is_an_order_statistic():
    scores = np.random.default_rng(0).random(150)
    found = threshold(scores, 0.9)
    assert found.value == sorted(scores)[14]
    assert (found.rank, found.positives, found.reason) == (15, 150, None)
    assert np.mean(scores >= found.value) >= 0.9


@pytest.mark.parametrize(("n", "sensitivity"), [(19, 0.95), (25, 0.9), (60, 0.8)])
def test_new_images_reach_it_as_often_as_was_asked_for(n, sensitivity):
    # The share of new scores below the k-th of n is beta distributed, with mean k / (n + 1), whatever the scores.
    rng = np.random.default_rng(1)
    reached = [np.exp(-threshold(rng.exponential(size=n), sensitivity).value) for _ in range(20_000)]
    expected = 1 - rank_of(n, sensitivity) / (n + 1)
    assert np.mean(reached) == pytest.approx(expected, abs=0.003)
    assert expected >= sensitivity


@pytest.mark.parametrize(
    ("n", "told"),
    [(0, "no positive validation images"), (1, "1 positive validation image;"), (18, "18 positive validation images")],
)
def test_too_few_are_refused_with_the_number_that_is_needed(n, told):
    found = threshold(np.linspace(0, 1, n), 0.95)
    assert found.value is None
    assert found.reason.startswith(told)
    assert found.reason.endswith("19 are needed")
    assert found.as_json()["threshold"] is None


@pytest.fixture
def study(with_validation):
    predictions = with_validation(90, 300, folds=3)
    scores = scores_of(predictions)
    return predictions, scores, find_validation(predictions, scores)


def test_every_run_chooses_on_its_own_validation_part(study):
    _, scores, validation = study
    found = choose(scores, validation, 1, 0.9)
    assert len({entry.value for entry in found}) == 3
    for run, entry in zip(scores.runs, found, strict=True):
        part = validation.of(run)
        own = sorted(part.probabilities[part.truth == 1, 1])
        assert entry.value == own[(len(own) + 1) // 10 - 1]
    turned = replace(scores, truth=(scores.truth + 1) % 3)
    assert choose(turned, validation, 1, 0.9) == found


def test_a_run_with_too_few_is_named_with_what_can_be_had(study):
    predictions, scores, validation = study
    with pytest.raises(
        InputError,
        match=r"expected 99 validation images of normal or more, found \d+ in r0f0, and "
        r"too few in 2 other runs",
    ) as caught:
        choose(scores, validation, 1, 0.99)
    fewest = min((validation.of(run).truth == 1).sum() for run in scores.runs)
    assert f"{fewest} allow at most --sensitivity 0.9" in caught.value.hint
    best = float(caught.value.hint.split("--sensitivity ")[1].split()[0].rstrip(";"))
    choose(scores, validation, 1, best)
    with pytest.raises(InputError):
        choose(scores, validation, 1, best + 0.002)
    marked = [{**row, "subset": "test", "image_id": f"{i}"} for i, row in enumerate(predictions.rows)]
    without = replace(predictions, rows=marked)
    alone = scores_of(without)
    with pytest.raises(InputError, match=r"found 0 in r0f0.*\(the predictions have no validation rows\)"):
        choose(alone, find_validation(without, alone), 1, 0.9)


def test_below_the_threshold_the_likeliest_of_the_others_is_called(study):
    _, scores, _ = study
    given = replace(
        scores,
        probabilities=np.array([[0.3, 0.6, 0.1], [0.45, 0.35, 0.2], [0.1, 0.2, 0.7], [0.5, 0.4, 0.1]]),
        predicted=np.array([1, 0, 2, UNDECIDED]),
        truth=scores.truth[:4],
        run=np.array([0, 1, 1, 0]),
        image=scores.image[:4],
        patient=scores.patient[:4],
        rows=scores.rows[:4],
    )
    called = decide(given, 1, [0.61, 0.35, 0.5]).predicted
    # Just under its threshold; exactly at it; far below; not decided for before.
    assert called.tolist() == [0, 1, 2, UNDECIDED]
