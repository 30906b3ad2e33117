import numpy as np
import pytest

from cxrtool.evaluation.comparison.align import align, in_order, key_of
from cxrtool.evaluation.scores import scores_of

NAMES = ("one", "two")


@pytest.fixture
def two(make_predictions):
    """Two models on one split."""
    return [make_predictions(30, repeats=2, folds=3, seed=seed) for seed in range(2)]


def kept(predictions, wanted):
    rows = [i for i, row in enumerate(predictions.rows) if wanted(row)]
    predictions.rows, predictions.probabilities = [predictions.rows[i] for i in rows], predictions.probabilities[rows]
    return scores_of(predictions)


def test_rows_meet_whatever_their_order(two, shuffled):
    first, second = two
    order = shuffled(range(len(second.rows)))
    second.rows, second.probabilities = [second.rows[i] for i in order], second.probabilities[order]
    found = align(scores_of(first), scores_of(second), NAMES)
    assert found.whole
    assert (found.differs, found.reason) == ("", "")
    assert [key_of(row) for row in found.first.rows] == [key_of(row) for row in found.second.rows]
    for name in ("truth", "patient", "run", "image"):
        assert np.array_equal(getattr(found.first, name), getattr(found.second, name))
    place = {key_of(row): i for i, row in enumerate(second.rows)}
    for row, values in zip(found.second.rows, found.second.probabilities, strict=True):
        assert np.array_equal(values, second.probabilities[place[key_of(row)]])


def test_a_missing_fold_or_image_leaves_the_common_ones(two):
    first = scores_of(two[0])
    second = kept(two[1], lambda row: (row["repeat"], row["fold"]) != ("1", "2"))
    found = align(first, second, NAMES)
    assert not found.whole
    assert len(found.first) == len(found.second) == len(second) == 48
    assert (len(found.first.runs), found.first.run.max()) == (5, 4)
    assert found.differs.startswith("two lacks 12 test predictions, such as im00")
    assert found.differs.endswith("in r1f2: compared on the 48 predictions that both have")


def test_another_split_is_refused(two, make_predictions):
    first = scores_of(two[0])
    moved = two[1]
    moved.rows[0]["fold"] = "2"
    assert align(first, scores_of(moved), NAMES).reason == (
        "not the same split: 1 image tested in different folds, such as im0000"
    )
    other = scores_of(make_predictions(30, repeats=2, folds=3))
    held_out = kept(make_predictions(30), lambda row: int(row["image_id"][2:]) < 10)
    seen = [(*key_of(row)[:2], row["image_id"]) for row in other.rows if row["repeat"] == "0"]
    found = align(held_out, held_out, NAMES, ((), frozenset(seen)))
    assert found.reason == "not the same split: two was trained on 6 test images of the other, such as im0000"


def test_a_single_run_of_an_unnamed_fold_is_fold_zero(make_predictions):
    first, second = make_predictions(30), make_predictions(30)
    for row in second.rows:
        del row["repeat"], row["fold"]
    assert align(scores_of(first), scores_of(second), NAMES).whole


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda row: row.update(label="normal" if row["label"] == "covid" else "covid"), "other labels: im0000 is"),
        (lambda row: row.update(patient_id="p:1"), "other patients"),
        (lambda row: row.update(image_id="x" + row["image_id"]), "no test image in a common repeat and fold"),
    ],
)
def test_what_cannot_be_the_same_images_is_refused(two, change, reason):
    for row in two[1].rows:
        change(row)
    found = align(scores_of(two[0]), scores_of(two[1]), NAMES)
    assert reason in found.reason
    assert found.first is found.second is None


def test_patients_that_one_does_not_name_are_taken_from_the_other(two):
    for row in two[0].rows:
        del row["patient_id"]
    found = align(scores_of(two[0]), scores_of(two[1]), NAMES)
    assert found.first.by_patient
    assert found.first.patients == 15
    assert not found.whole


def test_patients_of_other_names_are_the_same_patients(two):
    for row in two[1].rows:
        row["patient_id"] = f"z{99 - int(row['patient_id'][2:])}"
    found = align(scores_of(two[0]), scores_of(two[1]), NAMES)
    assert found.reason == ""
    # Numbered in another order, so that what was estimated of each does not go together.
    assert not found.whole
    assert np.array_equal(found.first.patient, found.second.patient)


def test_classes_in_another_order_are_the_same_classes(make_predictions):
    one = scores_of(make_predictions())
    other = in_order(one, ("pneumonia", "covid", "normal"))
    assert other.classes == ("pneumonia", "covid", "normal")
    assert [other.classes[k] for k in other.truth] == [one.classes[k] for k in one.truth]
    assert [other.classes[k] for k in other.predicted] == [one.classes[k] for k in one.predicted]
    assert np.array_equal(other.probabilities[:, 1], one.probabilities[:, 0])
    assert in_order(one, ("a", "b")) is one
    assert "other classes" in align(one, scores_of(make_predictions(classes=("a", "b"))), NAMES).reason


def test_what_was_made_of_a_radiograph_stands_for_it(make_predictions):
    plain, enhanced = make_predictions(folds=2), make_predictions(folds=2)
    for row in enhanced.rows:
        row["parent_id"], row["image_id"] = row["image_id"], f"{row['image_id']}_r0f{row['fold']}"
    one, two = scores_of(plain), scores_of(enhanced)
    assert [*map(key_of, one.rows)] == [*map(key_of, two.rows)]
    assert align(one, two, ("a", "b")).whole
    for row in enhanced.rows:
        row["generator"] = "covid"
    assert align(one, scores_of(enhanced), ("a", "b")).first is None
