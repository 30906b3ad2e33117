import json

import numpy as np
import pytest

from cxrtool.errors import UsageError
from cxrtool.evaluation.groups import parse_groupings
from cxrtool.evaluation.resampling.intervals import wilson
from cxrtool.evaluation.scores import scores_of
from cxrtool.evaluation.summary import OVERALL, PER_CLASS, PER_GROUP, summarise, summarise_counts

MEASURE = {"value", "low", "high", "method", "sd_runs", "sd_repeats", "reason", "mean_runs"}


def summary_of(predictions, by="", resamples=200, **options):
    return summarise(scores_of(predictions), by=parse_groupings(by), resamples=resamples, **options)


def measures(entry):
    """Every measure below an entry, with the way to it."""
    if isinstance(entry, dict):
        if set(entry) == MEASURE:
            yield (), entry
            return
        for key, below in entry.items():
            for way, found in measures(below):
                yield (key, *way), found


@pytest.fixture(scope="module")
def summary(make_predictions):
    return summary_of(make_predictions(240, repeats=2, folds=3), "severity,source")


def test_the_object_is_the_one_that_was_promised(summary):
    assert list(summary)[:10] == [
        "classes",
        "positive",
        "images",
        "patients",
        "runs",
        "repeats",
        "overall",
        "per_class",
        "per_group",
        "confusion",
    ]
    assert summary["classes"] == ["covid", "normal", "pneumonia"]
    assert (summary["positive"], summary["images"], summary["patients"]) == (None, 240, 120)
    assert (summary["runs"], summary["repeats"]) == (6, 2)
    assert list(summary["overall"]) == [
        "accuracy",
        "balanced_accuracy",
        "macro_sensitivity",
        "macro_specificity",
        "macro_precision",
        "macro_f1",
        "macro_auc",
        "hard_auc",
        "mcc",
        "average_precision",
        "ece",
        "brier",
    ]
    for entry in summary["per_class"].values():
        assert list(entry) == ["sensitivity", "specificity", "precision", "npv", "f1", "auc", "support"]
        assert entry["support"] == 80
    for groups in summary["per_group"].values():
        for entry in groups.values():
            assert list(entry) == ["accuracy", "sensitivity", "specificity", "auc", "images", "patients"]
    assert all(set(entry) == MEASURE for entry in summary["overall"].values())
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_confusion_matrix_sums_the_repeats(summary):
    counts = np.array(summary["confusion"])
    assert counts.sum() == 480
    assert counts.sum(axis=1).tolist() == [160, 160, 160]
    assert summary["overall"]["accuracy"]["value"] == pytest.approx(np.trace(counts) / 480)


def test_every_figure_has_an_interval_or_a_reason(summary):
    found = list(measures(summary))
    assert len(found) == len(OVERALL) + 3 * (len(PER_CLASS) + 2) + len(PER_GROUP) * 6
    for way, measure in found:
        if measure["low"] is None:
            assert measure["reason"], way
            assert measure["method"] is None
        else:
            assert measure["low"] <= measure["value"] <= measure["high"], way
            assert measure["method"] in ("patient bootstrap", "patient bootstrap, centred", "Wilson")


def test_strata_of_one_class_are_about_that_class(summary):
    groups = summary["per_group"]["severity"]
    assert list(groups) == ["mild", "moderate", "severe", "(none)"]
    for name in ("mild", "moderate", "severe"):
        assert groups[name]["sensitivity"]["value"] == groups[name]["accuracy"]["value"]
        assert groups[name]["specificity"]["reason"] == "all images are of covid"
        assert groups[name]["auc"]["reason"] == "no run has images of both covid and the rest"
    assert groups["(none)"]["accuracy"]["value"] is None
    assert groups["(none)"]["images"] == 160
    assert summary["trend"]["severity"]["strata"] == ["mild", "moderate", "severe"]
    assert "source" not in summary["trend"]


def test_strata_weigh_up_to_the_sensitivity_of_their_class(summary):
    groups = summary["per_group"]["severity"]
    total = sum(groups[name]["accuracy"]["value"] * groups[name]["images"] for name in ("mild", "moderate", "severe"))
    assert total / 80 == pytest.approx(summary["per_class"]["covid"]["sensitivity"]["value"])


def test_few_patients_get_wilson_with_their_number(summary):
    from cxrtool.evaluation.resampling.intervals import wilson

    mild = summary["per_group"]["severity"]["mild"]
    assert mild["patients"] < 30
    assert mild["accuracy"]["method"] == "Wilson"
    low, high = wilson(mild["accuracy"]["value"], mild["patients"])
    assert (mild["accuracy"]["low"], mild["accuracy"]["high"]) == pytest.approx((low, high))


def test_a_group_shows_spread_over_folds_only_with_twenty_images_in_each(make_predictions):
    predictions = make_predictions(240, repeats=2, folds=3)
    for row in predictions.rows:
        row["big"] = "yes" if row["source"] == "a" else "no"
    groups = summary_of(predictions, "severity,source")["per_group"]
    assert groups["source"]["a"]["accuracy"]["sd_runs"] is not None
    assert groups["severity"]["mild"]["accuracy"]["sd_runs"] is None
    assert groups["severity"]["mild"]["accuracy"]["sd_repeats"] is not None


def test_one_run_has_no_spread(make_predictions):
    found = summary_of(make_predictions())
    assert all(measure["sd_runs"] is None for _, measure in measures(found))
    found = summary_of(make_predictions(folds=4))
    assert found["overall"]["accuracy"]["sd_runs"] is not None
    assert found["overall"]["accuracy"]["sd_repeats"] is None


def test_two_classes(make_predictions):
    found = summary_of(make_predictions(classes=("normal", "covid")), "source", positive="covid")
    assert found["positive"] == "covid"
    overall, covid = found["overall"], found["per_class"]["covid"]
    assert overall["hard_auc"]["value"] == overall["balanced_accuracy"]["value"]
    assert overall["hard_auc"]["value"] == pytest.approx(
        (covid["sensitivity"]["value"] + covid["specificity"]["value"]) / 2
    )
    assert overall["macro_auc"]["value"] == covid["auc"]["value"] == found["per_class"]["normal"]["auc"]["value"]
    assert covid["sensitivity"]["value"] == found["per_class"]["normal"]["specificity"]["value"]
    with pytest.raises(UsageError, match="--positive: expected one of normal, covid, found 'viral'"):
        summary_of(make_predictions(classes=("normal", "covid")), positive="viral")


def test_groups_are_about_the_positive_class(make_predictions):
    predictions = make_predictions(240, classes=("normal", "covid"), per_patient=1)
    group = summary_of(predictions, "source", positive="covid")["per_group"]["source"]["b"]
    part = [row for row in predictions.rows if row["source"] == "b"]
    covid = [row for row in part if row["label"] == "covid"]
    assert group["sensitivity"]["value"] == pytest.approx(
        np.mean([row["predicted"] == "covid" for row in covid]) if covid else None
    )


def test_an_absent_class_is_null_with_its_reason_and_macros_say_so(make_predictions):
    predictions = make_predictions()
    for row in predictions.rows:
        row["label"] = "normal" if row["label"] == "pneumonia" else row["label"]
    found = summary_of(predictions)
    absent = found["per_class"]["pneumonia"]
    assert absent["sensitivity"]["value"] is None
    assert absent["sensitivity"]["reason"] == "no images of pneumonia"
    assert absent["auc"]["reason"] == "no run has images of both pneumonia and the rest"
    assert absent["support"] == 0
    for name in ("macro_sensitivity", "balanced_accuracy", "macro_auc", "hard_auc"):
        assert found["overall"][name]["reason"] == "over 2 of 3 classes, without pneumonia"
        assert found["overall"][name]["value"] is not None
    assert found["overall"]["macro_specificity"]["reason"] is None


def test_a_model_that_says_one_thing_only(make_predictions):
    predictions = make_predictions(classes=("normal", "covid"))
    for row in predictions.rows:
        row["predicted"] = "covid"
    found = summary_of(predictions, positive="covid")
    assert found["per_class"]["covid"]["npv"]["reason"] == "every image was predicted covid"
    assert found["per_class"]["normal"]["precision"]["reason"] == "no image was predicted normal"
    assert found["overall"]["mcc"]["reason"] == "only one class is true, or only one was predicted"
    sensitivity = found["per_class"]["covid"]["sensitivity"]
    assert (sensitivity["value"], sensitivity["high"], sensitivity["method"]) == (1.0, 1.0, "Wilson")
    assert found["overall"]["balanced_accuracy"]["reason"] == "no interval: the value is the same in every resample"


def test_a_figure_that_often_vanishes_has_no_interval(make_predictions):
    predictions = make_predictions(120, per_patient=1)
    for row in predictions.rows:
        row["predicted"] = "normal" if row["predicted"] == "covid" else row["predicted"]
    predictions.rows[0]["predicted"] = "covid"
    found = summary_of(predictions, resamples=500)["overall"]["macro_precision"]
    assert found["value"] is not None
    # A patient is in a resample with probability 1 - (1 - 1/40)^40, about 0.64.
    assert found["low"] is None
    assert found["reason"].startswith("no interval: undefined in 1")
    assert found["reason"].endswith("of 500 resamples")


def test_the_positive_class_alone_decides_average_precision(make_predictions):
    from sklearn.metrics import average_precision_score

    predictions = make_predictions(classes=("normal", "covid"))
    truth = [row["label"] == "covid" for row in predictions.rows]
    found = summary_of(predictions, positive="covid")["overall"]["average_precision"]["value"]
    assert found == pytest.approx(average_precision_score(truth, predictions.probabilities[:, 1]))
    both = summary_of(predictions)["overall"]["average_precision"]["value"]
    other = average_precision_score(~np.array(truth), predictions.probabilities[:, 0])
    assert both == pytest.approx((found + other) / 2)


def test_calibration_is_beside_what_chance_would_show(summary):
    assert 0 < summary["calibration"]["ece_if_calibrated"] < 0.5
    for entry in summary["calibration"]["per_class"].values():
        assert set(entry) == {"slope", "intercept"}


def test_without_patients_resampling_is_of_images(make_predictions):
    predictions = make_predictions(per_patient=1)
    for row in predictions.rows:
        row["patient_id"] = ""
    found = summary_of(predictions)
    assert found["patients_known"] is False
    assert found["overall"]["accuracy"]["method"] == "image bootstrap"


def test_counts_give_the_same_object(make_predictions):
    predictions = make_predictions(150, per_patient=1)
    scored = summary_of(predictions, resamples=4000)
    counted = summarise_counts(scored["classes"], np.array(scored["confusion"], float), resamples=4000)
    assert set(counted) == set(scored)
    assert set(counted["overall"]) == set(scored["overall"])
    for name in OVERALL:
        if name in ("macro_auc", "average_precision", "ece", "brier"):
            assert counted["overall"][name]["reason"] == "counts have no scores"
            continue
        assert counted["overall"][name]["value"] == scored["overall"][name]["value"]
        for end in ("low", "high"):
            assert counted["overall"][name][end] == pytest.approx(scored["overall"][name][end], abs=0.015), name
    assert counted["overall"]["accuracy"]["method"] == "Wilson"
    assert counted["overall"]["macro_f1"]["method"] == "image bootstrap"
    assert counted["per_class"]["covid"]["support"] == 50
    assert counted["per_class"]["covid"]["sensitivity"]["method"] == "Wilson"


def test_counts_of_an_absent_class(make_predictions):
    counted = summarise_counts(["a", "b", "c"], np.array([[8.0, 2, 0], [1, 9, 0], [0, 0, 0]]), positive="a")
    assert counted["per_class"]["c"]["sensitivity"]["reason"] == "no images of c"
    assert counted["overall"]["balanced_accuracy"]["value"] == pytest.approx(0.85)
    assert counted["overall"]["balanced_accuracy"]["reason"] == (
        "over 2 of 3 classes, without c; only 20 images: the interval is approximate"
    )


def test_each_run_alone_has_its_figures(make_predictions):
    from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

    predictions = make_predictions(folds=3, skill=0.7)
    scores = scores_of(predictions)
    for positive in (None, "normal"):
        told = summarise(scores, positive=positive, resamples=50)["per_run"]
        assert [(run["repeat"], run["fold"]) for run in told] == [("0", "0"), ("0", "1"), ("0", "2")]
        for number, run in enumerate(told):
            rows = scores.run == number
            truth, called, values = scores.truth[rows], scores.predicted[rows], scores.probabilities[rows]
            assert run["images"] == rows.sum()
            assert run["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, called))
            if positive is None:
                expected = {
                    "sensitivity": recall_score(truth, called, average="macro"),
                    "precision": precision_score(truth, called, average="macro"),
                    "f1": f1_score(truth, called, average="macro"),
                    "auc": roc_auc_score(truth, values, multi_class="ovr"),
                }
            else:
                own, said = truth == 1, called == 1
                expected = {
                    "sensitivity": recall_score(own, said),
                    "precision": precision_score(own, said),
                    "specificity": recall_score(~own, ~said),
                    "f1": f1_score(own, said),
                    "auc": roc_auc_score(own, values[:, 1]),
                }
            for name, value in expected.items():
                assert run[name] == pytest.approx(value), name
    assert summarise(scores_of(make_predictions()), resamples=50)["per_run"] == []


def test_a_figure_that_one_run_alone_lacks_is_null(make_predictions):
    predictions = make_predictions(folds=2)
    for row in predictions.rows:
        if row["fold"] == "1" and row["label"] == "covid":
            row["label"] = "normal"
    told = summarise(scores_of(predictions), positive="covid", resamples=50)["per_run"]
    assert told[0]["sensitivity"] is not None
    assert (told[1]["sensitivity"], told[1]["auc"]) == (None, None)


def abstain(predictions, every):
    for row in predictions.rows[::every]:
        row["predicted"] = "inconclusive"
    return predictions


def test_abstentions_are_told_as_coverage_and_count_in_no_decision(make_predictions):
    predictions = abstain(make_predictions(120, repeats=2, folds=3), 4)
    summary = summarise(scores_of(predictions, abstaining=True), resamples=200, by=parse_groupings("source"))
    rows = predictions.rows
    decided = [row for row in rows if row["predicted"] != "inconclusive"]
    right = sum(row["predicted"] == row["label"] for row in decided)
    overall = summary["overall"]
    assert overall["coverage"]["value"] == 0.75
    assert overall["accuracy"]["value"] == pytest.approx(right / len(decided))
    assert overall["accuracy_all"]["value"] == pytest.approx(right / len(rows))
    for name in ("coverage", "accuracy_all"):
        assert overall[name]["low"] < overall[name]["value"] < overall[name]["high"]
        assert overall[name]["sd_repeats"] is not None
    assert np.sum(summary["confusion"]) == len(decided)
    # What is made of probabilities is of all images.
    plain = summary_of(make_predictions(120, repeats=2, folds=3), "source")
    for name in ("brier", "macro_auc", "ece"):
        assert overall[name]["value"] == plain["overall"][name]["value"]
    assert "coverage" not in plain["overall"]
    assert summary["per_group"]["source"]["a"]["images"] == plain["per_group"]["source"]["a"]["images"]


def test_the_interval_of_a_decision_is_of_the_patients_that_were_decided(make_predictions):
    predictions = make_predictions(60, ("covid", "normal"), per_patient=1, skill=100)
    for row in predictions.rows[:40]:
        row["predicted"] = "inconclusive"
    summary = summarise(scores_of(predictions, abstaining=True), resamples=50)
    for measure, patients in (
        (summary["overall"]["accuracy"], 20),
        (summary["per_class"]["covid"]["sensitivity"], 10),
        (summary["per_class"]["covid"]["specificity"], 10),
    ):
        assert (measure["value"], measure["method"]) == (1, "Wilson")
        assert measure["low"] == pytest.approx(wilson(1, patients)[0])


def test_who_decides_nothing_has_no_accuracy_but_a_coverage(make_predictions):
    predictions = abstain(make_predictions(30), 1)
    overall = summarise(scores_of(predictions, abstaining=True), resamples=50)["overall"]
    assert overall["accuracy"]["value"] is None
    assert overall["accuracy"]["reason"] == "no image was decided"
    assert (overall["coverage"]["value"], overall["accuracy_all"]["value"]) == (0, 0)
    assert overall["brier"]["value"] > 0


def test_severity_accuracy_is_the_share_called_positive_with_its_spread_over_repeats(make_predictions):
    predictions = make_predictions(240, ("covid", "normal"), repeats=5, folds=5, skill=0.8)
    groups = summary_of(predictions, "severity", positive="covid")["per_group"]["severity"]
    shares = {}
    for row in predictions.rows:
        if row["severity"]:
            key = row["severity"], row["repeat"]
            shares.setdefault(key, []).append(row["predicted"] == "covid")
    for name in ("mild", "moderate", "severe"):
        by_repeat = [np.mean(shares[name, str(repeat)]) for repeat in range(5)]
        accuracy = groups[name]["accuracy"]
        assert accuracy["value"] == pytest.approx(np.mean(by_repeat))
        assert accuracy["sd_repeats"] == pytest.approx(np.std(by_repeat, ddof=1))
        assert accuracy["sd_repeats"] > 0


def test_a_predictive_value_has_an_interval_where_nothing_is_recognised(make_predictions):
    """Each resample within label misses as many images of the class, so that the resamples say too little."""
    predictions = make_predictions(120, ("covid", "normal"))
    for index, row in enumerate(predictions.rows):
        row["predicted"] = "covid" if row["label"] == "normal" and index % 8 == 0 else "normal"
    found = summarise(scores_of(predictions), positive="covid", resamples=200)["per_class"]["covid"]
    assert found["sensitivity"]["value"] == 0
    assert found["npv"]["method"] == "Wilson"
    assert found["npv"]["high"] - found["npv"]["low"] > 0.1
