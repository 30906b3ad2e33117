from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from cxrtool.data.tables.predictions import DECISIONS, INCONCLUSIVE, Predictions
from cxrtool.data.tables.severity import SEVERITIES
from cxrtool.errors import InputError
from cxrtool.evaluation import tables
from cxrtool.evaluation.ordinal import order_of
from cxrtool.evaluation.scores import scores_of
from cxrtool.evaluation.summary import summarise


def predictions(classes=SEVERITIES, images=60, repeats=1, seed=0, learned=""):
    """Predictions of ordered classes, wrong by one class at most every third time."""
    rng = np.random.default_rng(seed)
    rows, values = [], []
    truth = rng.integers(0, len(classes), images)
    for repeat in range(repeats):
        for index in range(images):
            logits = -np.abs(np.arange(len(classes)) - truth[index] + rng.normal(0, 0.8))
            shares = np.exp(2 * logits) / np.exp(2 * logits).sum()
            rows.append(
                {
                    "image_id": f"im{index}",
                    "repeat": str(repeat),
                    "fold": "0",
                    "subset": "test",
                    "label": classes[truth[index]],
                    "predicted": classes[int(shares.argmax())],
                    "patient_id": f"p{index // 2}",
                    **({"learned": learned} if learned else {}),
                }
            )
            values.append(shares)
    return Predictions(list(classes), rows, np.array(values), "synthetic")


def ordinal(made, **options):
    return summarise(scores_of(made, abstaining=True), resamples=200, **options).get("ordinal")


@pytest.mark.parametrize("repeats", [1, 3])
def test_figures_are_those_of_other_libraries_and_the_mean_over_repeats(repeats):
    made = predictions(repeats=repeats)
    found = ordinal(made)
    scores = scores_of(made)
    expected = {"mae": [], "mae_expected": [], "bias": [], "weighted_kappa": [], "spearman": [], "pearson": []}
    for repeat in range(repeats):
        rows = [k for k, row in enumerate(made.rows) if row["repeat"] == str(repeat)]
        truth, predicted = scores.truth[rows], scores.predicted[rows]
        score = made.probabilities[rows] @ np.arange(4)
        expected["mae"].append(np.abs(truth - predicted).mean())
        expected["mae_expected"].append(np.abs(truth - score).mean())
        expected["bias"].append((score - truth).mean())
        expected["weighted_kappa"].append(cohen_kappa_score(truth, predicted, weights="quadratic"))
        expected["spearman"].append(stats.spearmanr(score, truth)[0])
        expected["pearson"].append(stats.pearsonr(score, truth)[0])
    for name, values in expected.items():
        assert found[name]["value"] == pytest.approx(np.mean(values), abs=1e-5), name
        spread = found[name]["sd_repeats"]
        assert spread is None if repeats == 1 else spread == pytest.approx(np.std(values, ddof=1), abs=1e-5), name
        assert found[name]["low"] < found[name]["value"] < found[name]["high"], name
    assert np.sum(found["confusion"]) == 60 * repeats


def test_repeats_are_no_further_patients():
    made = predictions()
    again = [{**row, "repeat": "1"} for row in made.rows]
    both = Predictions(made.classes, [*made.rows, *again], np.concatenate([made.probabilities] * 2), "synthetic")
    one, twice = ordinal(made), ordinal(both)
    for name in ("mae", "weighted_kappa", "spearman"):
        assert (twice[name]["low"], twice[name]["high"]) == pytest.approx((one[name]["low"], one[name]["high"]))


def test_the_order_does_not_depend_on_the_order_of_the_columns():
    made = predictions()
    turned = [2, 0, 3, 1]
    other = Predictions([made.classes[k] for k in turned], made.rows, made.probabilities[:, turned], "synthetic")
    one, two = ordinal(made), ordinal(other)
    assert (one["order"], one["confusion"]) == (two["order"], two["confusion"])
    assert one["mae_expected"]["value"] == two["mae_expected"]["value"]


def test_classes_have_an_order_if_they_are_severities_or_the_target_has_one():
    def found(*classes, learned=""):
        order = order_of(scores_of(predictions(classes, learned=learned)))
        return None if order is None else order.tolist()

    assert found("severe", "mild") == [1, 0]
    assert found("covid", "normal") is None
    assert found("high", "low", "mid") is None
    assert found("high", "low", "mid", learned="grade:low/mid/high") == [2, 0, 1]
    assert found("under 40", "40 and over", learned="age:40") == [0, 1]
    assert found("F", "M", learned="sex") is None
    assert ordinal(predictions(("covid", "normal"))) is None


def test_decisions_without_scores_have_no_figures_of_the_score_and_undecided_images_none():
    made = predictions()
    shown = ordinal(replace(made, kind=DECISIONS))
    assert {"mae", "weighted_kappa"} <= set(shown)
    assert not {"mae_expected", "pearson", "spearman", "bias"} & set(shown)
    rows = [{**row, "predicted": INCONCLUSIVE} if k < 10 else row for k, row in enumerate(made.rows)]
    assert ordinal(Predictions(made.classes, rows, made.probabilities, "synthetic"))["images"] == 50


def test_rated_and_estimated_severities_are_never_pooled():
    rows = [*predictions(learned="severity:a/b").rows, *predictions(learned="severity_estimated:a/b").rows]
    both = Predictions(list(SEVERITIES), rows, np.full((len(rows), 4), 0.25), "both")
    with pytest.raises(InputError, match="some of severity and some of severity_estimated"):
        scores_of(both)


def test_tables_and_numbers_have_the_figures_and_every_table_marks_estimates():
    order = "/".join(SEVERITIES)
    rated = summarise(scores_of(predictions(learned=f"severity:{order}")), resamples=50)
    estimated = summarise(scores_of(predictions(learned=f"severity_estimated:{order}")), resamples=50)
    sheets = tables.sheets({"": rated})
    sheet = next(one for one in sheets if one.title == "Classes in their order")
    assert [row[0] for row in sheet.rows] == [tables.NAMES[name] for name in tables.ORDINAL_FIGURES]
    assert any("normal-pcr+ < mild < moderate < severe" in note for note in sheet.notes)
    columns, rows = tables.tidy({"": rated})
    named = [row[columns.index("metric")] for row in rows if row[0] == "ordinal"]
    assert named == list(tables.ORDINAL_FIGURES)
    assert not any("nobody" in note for one in sheets for note in one.notes)
    assert all(any("nobody rated them" in note for note in one.notes) for one in tables.sheets({"": estimated}))
    assert any("severity_estimated" in line for line in tables.opening({"": estimated}))
    # Side by side only the tables of the one set, and the table of both, which names it.
    both = tables.sheets({"a": rated, "b": estimated})
    marked = [one.title for one in both if any("nobody rated them" in note for note in one.notes)]
    assert marked == [one.title for one in both if one.title.endswith(" of b") or one.title == "All images"]
