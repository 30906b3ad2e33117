from dataclasses import replace

import numpy as np
import pytest

from cxrtool.errors import LeakageError
from cxrtool.evaluation.decisions.validation import find_validation
from cxrtool.evaluation.scores import scores_of


@pytest.fixture
def predictions(with_validation):
    return with_validation(90, 60, folds=3, repeats=2)


def test_every_run_finds_its_own_rows(predictions):
    scores = scores_of(predictions)
    validation = find_validation(predictions, scores)
    for repeat, fold in scores.runs:
        expected = [
            row["image_id"]
            for row in predictions.rows
            if (row["subset"], row["repeat"], row["fold"]) == ("validation", repeat, fold)
        ]
        part = validation.of((repeat, fold))
        assert [row["image_id"] for row in part.rows] == expected
        assert len(expected) > 0
    assert validation.of(("7", "7")) is None


def test_what_is_evaluated_is_not_chosen_on(predictions):
    scores = scores_of(predictions, subset="validation")
    found = find_validation(predictions, scores)
    assert (found.scores, found.reason) == (None, "the validation rows themselves are evaluated")


def test_rows_without_a_subset_are_no_validation(make_predictions):
    predictions = make_predictions()
    found = find_validation(predictions, scores_of(predictions))
    assert (found.scores, found.reason) == (None, "the predictions have no validation rows")


def test_unlabelled_rows_and_other_classes_are_left_out(predictions):
    predictions.rows[-1]["label"] = ""
    classes = ["covid", "normal"]
    scores = scores_of(predictions, classes=classes)
    found = find_validation(predictions, scores, classes).scores
    assert found.classes == ("covid", "normal")
    assert {row["label"] for row in found.rows} == set(classes)
    assert found.probabilities.sum(axis=1) == pytest.approx(1)
    assert find_validation(predictions, scores_of(predictions)).scores.rows[-1]["image_id"] != "vim0059"


@pytest.mark.parametrize("column", ["patient_id", "image_id"])
def test_who_is_on_both_sides_of_a_run_is_named(predictions, column):
    tested = next(row for row in predictions.rows if (row["subset"], row["repeat"], row["fold"]) == ("test", "0", "1"))
    chosen = next(r for r in predictions.rows if (r["subset"], r["repeat"], r["fold"]) == ("validation", "0", "1"))
    chosen[column] = tested[column]
    with pytest.raises(LeakageError, match=r"repeat '0' fold '1'.*found 1 validation images that are in both"):
        find_validation(predictions, scores_of(predictions))


def test_validating_on_what_another_fold_tests_is_no_leak(predictions):
    tested = next(row for row in predictions.rows if (row["subset"], row["repeat"], row["fold"]) == ("test", "0", "1"))
    chosen = next(r for r in predictions.rows if (r["subset"], r["repeat"], r["fold"]) == ("validation", "0", "2"))
    chosen["patient_id"] = tested["patient_id"]
    assert find_validation(predictions, scores_of(predictions)).scores is not None


def test_rows_of_runs_that_are_not_evaluated_are_left_out(predictions):
    scores = scores_of(predictions)
    kept = np.flatnonzero(scores.run == 0)
    one = replace(
        scores,
        truth=scores.truth[kept],
        predicted=scores.predicted[kept],
        probabilities=scores.probabilities[kept],
        image=scores.image[kept],
        patient=scores.patient[kept],
        run=scores.run[kept],
        runs=scores.runs[:1],
        rows=tuple(scores.rows[i] for i in kept),
    )
    assert set(find_validation(predictions, one).rows) == {("0", "0")}
