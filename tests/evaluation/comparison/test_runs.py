import json

import numpy as np
import pytest

from cxrtool.errors import UsageError
from cxrtool.evaluation.comparison.align import key_of
from cxrtool.evaluation.comparison.runs import TESTS, Entry, choose_reference, compare_runs
from cxrtool.evaluation.comparison.tests import holm
from cxrtool.evaluation.metrics.estimates import estimate
from cxrtool.evaluation.resampling.intervals import percents
from cxrtool.evaluation.scores import scores_of
from cxrtool.evaluation.summary import summarise

FOLDS = {(str(r), str(f)): 60 for r in range(2) for f in range(3)}


@pytest.fixture
def entry(make_predictions):
    def make(name, seed=0, skill=1.5, images=90, **options):
        told = {key: options.pop(key) for key in ("fitted", "validation", "facts", "seen") if key in options}
        split = {"repeats": 2, "folds": 3, **options}
        return Entry(name, scores_of(make_predictions(images, skill=skill, seed=seed, **split)), **told)

    return make


def single(entry, *args, **options):
    """One run on one image a patient."""
    return entry(*args, **{"repeats": 1, "folds": 1, "per_patient": 1, **options})


def test_figures_are_those_of_evaluate(entry):
    one = entry("one")
    found = compare_runs([one], resamples=100, seed=3)
    expected = summarise(one.scores, resamples=100, seed=3)
    run = found["runs"]["one"]
    assert {name: expected["overall"][name] for name in run["overall"]} == run["overall"]
    assert run["per_class"] == expected["per_class"]
    assert (found["reference"], found["comparisons"]) == (None, [])


def test_the_difference_is_paired_on_the_same_resamples(entry):
    one, two = entry("one"), entry("two", 1, 2.0)
    found = compare_runs([one, two], baseline="one", resamples=400, seed=7)
    a, b = (estimate(e.scores, seed=7, resamples=400, calibrated=False) for e in (two, one))
    d = a.replicates["accuracy"] - b.replicates["accuracy"]
    difference = found["comparisons"][0]["difference"]
    assert difference["value"] == pytest.approx(a.value["accuracy"] - b.value["accuracy"])
    assert (difference["low"], difference["high"]) == pytest.approx(
        tuple(np.percentile(d, percents(two.scores.patients)))
    )
    assert difference["method"] == "paired patient bootstrap"


def test_a_pair_that_shares_its_errors_is_told_apart_more_surely(entry):
    one = entry("one", images=300)
    rows = [dict(row) for row in one.scores.rows]
    called = one.scores.predicted.copy()
    wrong = np.flatnonzero(called != one.scores.truth)[::15]
    called[wrong] = one.scores.truth[wrong]
    near = Entry("near", one.scores.__class__(**{**vars(one.scores), "predicted": called, "rows": tuple(rows)}))
    made = compare_runs([one, near], baseline="one", resamples=300)["comparisons"][0]
    own = compare_runs([near], resamples=300)["runs"]["near"]["overall"]["accuracy"]
    assert made["difference"]["high"] - made["difference"]["low"] < (own["high"] - own["low"]) / 2
    assert made["difference"]["low"] > 0


def test_what_has_no_resamples_in_common_is_estimated_again(entry):
    one, two = entry("one"), entry("two", 1)
    few = [i for i, row in enumerate(two.scores.rows) if row["fold"] != "2"]
    short = Entry("short", two.scores.where(np.isin(np.arange(len(two.scores)), few)))
    made = compare_runs([one, short], baseline="one", resamples=50)["comparisons"][0]
    assert made["differs"].startswith("short lacks")
    assert made["reason"] is None
    hits = [s.truth == s.predicted for s in (two.scores, one.scores)]
    by_key = [
        dict(zip(map(key_of, s.rows), h, strict=True)) for s, h in zip((two.scores, one.scores), hits, strict=True)
    ]
    common = [key for key in by_key[0] if key[1] != "2"]
    expected = [np.mean([np.mean([side[k] for k in common if k[0] == r]) for r in "01"]) for side in by_key]
    assert made["difference"]["value"] == pytest.approx(expected[0] - expected[1])


def test_methods_are_compared_run_by_run(entry):
    one, two = entry("one", fitted=FOLDS), entry("two", 1, fitted={**FOLDS, ("0", "0"): 54})
    found = compare_runs([one, two], baseline="one", resamples=20)["comparisons"][0]["methods"]

    def by_run(scores):
        hits = scores.truth == scores.predicted
        return np.array([hits[scores.run == run].mean() for run in range(6)])

    d = by_run(two.scores) - by_run(one.scores)
    t = d.mean() / np.sqrt((1 / 6 + 30 / 59) * d.var(ddof=1))
    assert found["statistic"] == pytest.approx(t)
    # The smaller of the two numbers of images counts in every fold.
    assert (found["runs"], found["df"], found["n_test"], found["n_train"]) == (6, 5, 30, 59)


def test_without_the_images_fitted_methods_are_not_compared(entry):
    made = compare_runs([entry("one"), entry("two", 1)], baseline="one", resamples=20)["comparisons"][0]
    assert made["methods"]["p"] is None
    assert made["methods"]["reason"] == "the number of images that two was fitted on is not known; give its RUN folder"
    gap = entry("two", 1, fitted={**FOLDS, ("1", "2"): 0})
    made = compare_runs([entry("one"), gap], baseline="one", resamples=20)["comparisons"][0]
    assert made["methods"]["p"] is None


@pytest.mark.parametrize("baseline", ["one", "two"])
def test_a_table_is_compared_by_the_images_that_the_run_beside_it_was_fitted_on(entry, baseline):
    run, table = entry("one", fitted=FOLDS), entry("two", 1)
    found = compare_runs([run, table], baseline=baseline, resamples=20)["comparisons"][0]["methods"]
    both = compare_runs([run, entry("two", 1, fitted=FOLDS)], baseline=baseline, resamples=20)["comparisons"][0]
    assert found["p"] == both["methods"]["p"]
    assert found["n_train"] == 60
    assert found["reason"] == "two is assumed to be fitted on as many images as one"
    assert both["methods"]["reason"] is None


def test_accuracies_are_told_by_the_values_of_a_column(entry):
    one, other = entry("one"), entry("two", 1)
    found = compare_runs([one, other], by=["severity", "nothing"], resamples=20)["runs"]["two"]["per_group"]
    assert list(found) == ["severity"]
    assert list(found["severity"]) == ["mild", "moderate", "severe"]
    scores = other.scores
    severity = np.array([row["severity"] for row in scores.rows])
    repeat = np.array([row["repeat"] for row in scores.rows])
    hits = scores.truth == scores.predicted
    by_repeat = [hits[(severity == "mild") & (repeat == r)].mean() for r in "01"]
    mild = found["severity"]["mild"]
    assert mild["accuracy"]["value"] == pytest.approx(np.mean(by_repeat))
    assert mild["accuracy"]["sd_repeats"] == pytest.approx(np.std(by_repeat, ddof=1))
    assert mild["images"] == sum(scores.rows[i]["severity"] == "mild" for i in range(len(scores)) if repeat[i] == "0")
    assert "per_group" not in compare_runs([one], resamples=20)["runs"]["one"]


def test_one_run_is_no_method(entry):
    one, two = single(entry, "one", fitted={("0", "0"): 60}), single(entry, "two", 1, fitted={("0", "0"): 60})
    assert "one run each" in compare_runs([one, two], resamples=20)["comparisons"][0]["methods"]["reason"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "6 runs: scores and errors of different models must not be pooled"),
        ({"repeats": 1, "folds": 1}, "90 images of 45 patients: the test needs one image a patient"),
    ],
)
def test_delong_and_mcnemar_are_refused_where_rows_hang_together(entry, options, reason):
    made = compare_runs([entry("one", **options), entry("two", 1, **options)], positive="covid", resamples=20)
    for test in ("delong", "mcnemar"):
        assert made["comparisons"][0][test]["p"] is None
        assert reason in made["comparisons"][0][test]["reason"]


def test_delong_and_mcnemar_on_one_test_set(entry):
    one, two = single(entry, "one"), single(entry, "two", 1, 2.5)
    made = compare_runs([one, two], positive="covid", metric="auc", baseline="one", resamples=20)["comparisons"][0]
    assert made["delong"]["difference"] == pytest.approx(made["difference"]["value"])
    assert 0 < made["delong"]["p"] < 1
    right = [e.scores.truth == e.scores.predicted for e in (two, one)]
    assert made["mcnemar"]["only_first_right"] == int((right[0] & ~right[1]).sum())
    plain = compare_runs([one, two], resamples=20)["comparisons"][0]["delong"]
    assert "--positive" in plain["reason"]


def test_two_classes_need_no_positive_one(entry):
    binary = [single(entry, name, seed, classes=("a", "b")) for seed, name in enumerate(("one", "two"))]
    assert compare_runs(binary, resamples=20)["comparisons"][0]["delong"]["p"] is not None


def test_holm_goes_over_all_comparisons_of_a_test(entry):
    entries = [entry(f"m{k}", k, 1 + 0.2 * k, fitted=FOLDS) for k in range(4)]
    made = compare_runs(entries, baseline="m0", resamples=20)["comparisons"]
    assert len(made) == 3
    for test in TESTS:
        raw = [entry[test]["p"] for entry in made]
        assert [entry[test]["p_holm"] for entry in made] == pytest.approx(holm(raw))


def test_another_split_is_shown_but_not_compared(entry):
    made = compare_runs([entry("one"), entry("two", 1, folds=2)], baseline="one", resamples=20)
    assert made["runs"]["two"]["overall"]["accuracy"]["value"] > 0
    other = made["comparisons"][0]
    assert other["reason"].startswith("not the same split")
    assert {other[test]["p"] for test in TESTS} == {None}
    assert other["difference"]["value"] is None


def test_averages_over_other_classes_are_not_subtracted(entry):
    one, two = entry("one"), entry("two", 1)
    never = np.where(two.scores.predicted == 1, 0, two.scores.predicted)
    blind = Entry("blind", two.scores.__class__(**{**vars(two.scores), "predicted": never}))
    made = compare_runs([one, blind], metric="macro_precision", baseline="one", resamples=20)["comparisons"][0]
    assert "undefined for normal" in made["difference"]["reason"]
    assert made["models"]["p"] is None
    fine = compare_runs([one, blind], metric="macro_f1", baseline="one", resamples=20)["comparisons"][0]
    assert fine["difference"]["value"] < 0


def answers(share, images=20, repeats=1):
    keys = [(str(r), "0", f"v{i:02}") for r in range(repeats) for i in range(images)]
    return {key: i < share * len(keys) for i, key in enumerate(keys)}


def test_the_reference_is_the_best_on_validation(entry):
    entries = [
        entry("one", skill=3.0, validation=answers(0.5)),
        entry("two", 1, validation=answers(0.9)),
        entry("three", 2, validation=answers(0.9)),
    ]
    found = compare_runs(entries, resamples=20)["reference"]
    assert (found["name"], found["chosen"]) == ("two", "validation")
    assert found["validation"] == {"one": 0.5, "two": 0.9, "three": 0.9}
    assert "20 validation images" in found["sentence"]
    assert "optimistic" not in found["sentence"]


def test_without_validation_the_best_on_test_is_called_optimistic(entry):
    entries = [entry("one", skill=0.5, validation=answers(1)), entry("two", 1, skill=3.0)]
    found = compare_runs(entries, resamples=20)["reference"]
    assert (found["name"], found["chosen"]) == ("two", "test")
    assert "The best of 2 on the test images is optimistic" in found["sentence"]


def test_a_reference_that_is_named_is_taken(entry):
    entries = [entry("one", validation=answers(0.1)), entry("two", 1, validation=answers(0.9))]
    assert choose_reference(entries, "one", {})["chosen"] == "named"
    assert compare_runs(entries, baseline="one", resamples=20)["comparisons"][0]["name"] == "two"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"metric": "sensitivity"}, "--metric sensitivity is a metric of one class"),
        ({"positive": "flu"}, "--positive: expected one of covid, normal, pneumonia"),
    ],
)
def test_wrong_options(entry, options, told):
    with pytest.raises(UsageError, match=told):
        compare_runs([entry("one")], resamples=20, **options)


def test_everything_goes_into_json(entry):
    entries = [entry("one", fitted=FOLDS), entry("two", 1, fitted=FOLDS)]
    found = compare_runs(entries, metric="macro_auc", resamples=20)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_same_seed_gives_the_same(entry):
    entries = [entry("one"), entry("two", 1)]
    one, two = (compare_runs(entries, seed=5, resamples=50) for _ in range(2))
    assert one == two
    assert compare_runs(entries, seed=6, resamples=50) != one
