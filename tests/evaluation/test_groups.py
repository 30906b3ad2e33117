import numpy as np
import pytest
from scipy.stats import permutation_test

from cxrtool.errors import InputError, UsageError
from cxrtool.evaluation.groups import NONE, Grouping, available, is_ordered, parse_groupings, split_by, trend
from cxrtool.evaluation.scores import scores_of


def scored(make_predictions, **columns):
    predictions = make_predictions(images=60, per_patient=1)
    for name, values in columns.items():
        for row, value in zip(predictions.rows, values, strict=False):
            row[name] = value
    return scores_of(predictions)


def test_columns_bins_and_orders():
    assert parse_groupings("severity, view,age:0,40,65,source,grade:low/mid/high") == [
        Grouping("severity"),
        Grouping("view"),
        Grouping("age", (0.0, 40.0, 65.0)),
        Grouping("source"),
        Grouping("grade", (), ("low", "mid", "high")),
    ]
    assert parse_groupings("") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [("age,age", "'age' twice"), ("age:40,0", "rising numbers, found 40, 0"), (":3", "without a column before it")],
)
def test_what_cannot_be_read_is_refused(text, told):
    with pytest.raises(UsageError, match=told):
        parse_groupings(text)


def names_and_sizes(scores, text):
    return [(name, int(mask.sum())) for name, mask in split_by(scores, parse_groupings(text)[0])]


def test_severities_rise(make_predictions):
    scores = scored(make_predictions, severity=["Severe", "mild", "NORMAL-PCR+", "moderate", "", "critical"] * 10)
    expected = ["NORMAL-PCR+", "mild", "moderate", "Severe", "critical", NONE]
    assert names_and_sizes(scores, "severity") == [(name, 10) for name in expected]


def test_words_are_sorted_or_as_given(make_predictions):
    scores = scored(make_predictions, grade=["mid", "low", "high"] * 20)
    assert [name for name, _ in names_and_sizes(scores, "grade")] == ["high", "low", "mid"]
    assert [name for name, _ in names_and_sizes(scores, "grade:low/mid/high")] == ["low", "mid", "high"]
    numbers = scored(make_predictions, score=["10", "9", "0.5"] * 20)
    assert [name for name, _ in names_and_sizes(numbers, "score")] == ["0.5", "9", "10"]


def test_numbers_fall_into_bins_that_hold_their_lower_end(make_predictions):
    ages = ["-1", "0", "39.9", "40", "64", "65", "99", "", "unknown", "100"] * 6
    assert names_and_sizes(scored(make_predictions, age=ages), "age:0,40,65") == [
        ("under 0", 6),
        ("0 to under 40", 12),
        ("40 to under 65", 12),
        ("65 and over", 18),
        (NONE, 12),
    ]


def test_groups_are_a_partition(make_predictions):
    scores = scored(make_predictions)
    masks = [mask for _, mask in split_by(scores, Grouping("source"))]
    assert (np.sum(masks, axis=0) == 1).all()


def test_an_unknown_column_names_those_there(make_predictions):
    with pytest.raises(InputError, match=r"--by hospital: expected a column of the predictions, found only age, fold"):
        split_by(scored(make_predictions), Grouping("hospital"))
    with pytest.raises(InputError, match="did you mean 'source'"):
        split_by(scored(make_predictions), Grouping("Sorce"))


@pytest.mark.parametrize(
    ("names", "grouping", "ordered"),
    [
        (["Mild", "severe"], Grouping("severity"), True),
        (["mild", "critical"], Grouping("severity"), False),
        (["1", "2"], Grouping("severity"), True),
        (["a", "b"], Grouping("source"), False),
        (["low", "high"], Grouping("grade", (), ("low", "high")), True),
        (["low", "none"], Grouping("grade", (), ("low", "high")), False),
    ],
)
def test_a_trend_needs_an_order(names, grouping, ordered):
    assert is_ordered(names, grouping) is ordered


def with_accuracy(make_predictions, shares, images=40, per_patient=1, seed=0):
    """Strata of so many images of which these shares are called right."""
    rng = np.random.default_rng(seed)
    predictions = make_predictions(images=images * len(shares), classes=("P", "N"), per_patient=per_patient)
    strata = []
    for i, row in enumerate(predictions.rows):
        patient = i // per_patient
        stratum = patient * per_patient // images
        right = (
            np.random.default_rng([seed, patient]).random() < shares[stratum]
            if per_patient > 1
            else (rng.random() < shares[stratum])
        )
        row["label"], row["severity"] = "P", ("mild", "moderate", "severe")[stratum]
        row["predicted"] = "P" if right else "N"
        strata.append(stratum)
    scores = scores_of(predictions)
    return scores, split_by(scores, Grouping("severity")), np.array(strata)


def test_the_slope_is_that_of_least_squares_and_p_that_of_scipy(make_predictions):
    scores, strata, rank = with_accuracy(make_predictions, (0.55, 0.7, 0.8))
    found = trend(scores, strata)
    right = (scores.truth == scores.predicted).astype(float)
    assert found["slope"] == pytest.approx(np.polyfit(rank, right, 1)[0])
    theirs = permutation_test(
        (right,),
        lambda y, axis: (y * (rank - rank.mean())).sum(axis=axis),
        permutation_type="pairings",
        vectorized=True,
        rng=np.random.default_rng(1),
    )
    assert found["p"] == pytest.approx(theirs.pvalue, abs=0.015)
    assert (found["patients"], found["permutations"]) == (120, 10_000)


def test_images_of_one_patient_are_no_further_evidence(make_predictions):
    scores, strata, _ = with_accuracy(make_predictions, (0.5, 0.7, 0.9), images=60, per_patient=6)
    clustered = trend(scores, strata)
    assert clustered["patients"] == 30
    scores.rows.cells["patient_id"] = [f"alone {image}" for image in scores.image]
    single = trend(scores.where(np.ones(len(scores), bool)), strata)
    assert single["patients"] == clustered["patients"], "patients are those of the scores"
    object.__setattr__(scores, "patient", scores.image)
    assert trend(scores, strata)["p"] < clustered["p"]


def test_p_is_uniform_without_a_trend(make_predictions):
    found = [
        trend(*with_accuracy(make_predictions, (0.7, 0.7, 0.7), 20, seed=seed)[:2], permutations=199)["p"]
        for seed in range(100)
    ]
    assert 0.35 < np.mean(found) < 0.65
    assert np.mean(np.array(found) <= 0.05) <= 0.12


def test_no_trend_where_there_is_nothing_to_compare(make_predictions):
    scores, strata, _ = with_accuracy(make_predictions, (1, 1, 1))
    assert trend(scores, strata)["reason"] == "every patient has the same accuracy"
    assert trend(scores, strata[:1])["reason"] == "fewer than two strata"


@pytest.mark.parametrize("word", ["", "nan", "N/A"])
def test_severities_are_estimated_where_none_is_known(make_predictions, word):
    scores = scored(make_predictions, severity=[word] * 60, severity_estimated=["mild", "severe"] * 30)
    assert available(scores, Grouping("severity")).column == "severity_estimated"
    rated = scored(make_predictions, severity=["mild"] + [word] * 59, severity_estimated=["mild", "severe"] * 30)
    assert available(rated, Grouping("severity")).column == "severity"
