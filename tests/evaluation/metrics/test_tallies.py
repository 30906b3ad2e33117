import numpy as np
import pytest

from cxrtool.evaluation.metrics.estimates import estimate
from cxrtool.evaluation.metrics.tallies import NOT_COUNTED, tally
from cxrtool.evaluation.resampling.intervals import draw_patients
from cxrtool.evaluation.scores import scores_of


@pytest.fixture(scope="module")
def scores(make_predictions):
    return scores_of(make_predictions(60, repeats=2, folds=3))


def test_counts_are_those_of_a_loop(scores):
    kind = np.where(np.arange(len(scores)) % 5 == 0, NOT_COUNTED, np.arange(len(scores)) % 4)
    found = tally(scores, kind, 4, seed=3, resamples=17)
    draws = draw_patients(scores.strata, 17, np.random.default_rng(3))
    for run in range(len(scores.runs)):
        for k in range(4):
            rows = [i for i in range(len(scores)) if scores.run[i] == run and kind[i] == k]
            assert found.observed[run, k] == len(rows)
            for b in range(17):
                assert found.drawn[run, b, k] == sum(int(draws[scores.patient[i], b]) for i in rows)


def test_the_runs_of_a_repeat_add_up(scores):
    found = tally(scores, scores.truth, 3, resamples=5)
    pooled = found.by_repeat()
    assert pooled.observed.shape == (2, 3)
    assert pooled.drawn[1] == pytest.approx(found.drawn[3:].sum(axis=0))
    assert pooled.observed.sum() == len(scores)


def test_the_resamples_are_those_of_all_other_figures(scores):
    right = (scores.truth == scores.predicted).astype(np.intp)
    pooled = tally(scores, right, 2, seed=5, resamples=40).by_repeat()
    accuracy = (pooled.drawn[..., 1] / pooled.drawn.sum(axis=-1)).mean(axis=0)
    assert accuracy == pytest.approx(estimate(scores, seed=5, resamples=40, calibrated=False).replicates["accuracy"])
