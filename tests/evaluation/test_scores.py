import numpy as np
import pytest

from cxrtool.errors import InputError, UsageError
from cxrtool.evaluation.scores import UNDECIDED, scores_of


@pytest.fixture
def predictions(make_predictions):
    return make_predictions(repeats=2, folds=3)


def test_arrays_say_what_the_rows_say(predictions):
    scores = scores_of(predictions)
    assert scores.classes == ("covid", "normal", "pneumonia")
    assert (scores.images, scores.patients, len(scores)) == (120, 60, 240)
    assert scores.runs == (("0", "0"), ("0", "1"), ("0", "2"), ("1", "0"), ("1", "1"), ("1", "2"))
    assert scores.repeat_of_run.tolist() == [0, 0, 0, 1, 1, 1]
    for i in (0, 77, 239):
        row = predictions.rows[i]
        assert scores.classes[scores.truth[i]] == row["label"]
        assert scores.classes[scores.predicted[i]] == row["predicted"]
        assert scores.runs[scores.run[i]] == (row["repeat"], row["fold"])
    assert scores.notes == ()


def test_runs_are_in_numeric_order(make_predictions):
    predictions = make_predictions(images=360, folds=12)
    assert [fold for _, fold in scores_of(predictions).runs] == [str(fold) for fold in range(12)]


def test_a_patient_belongs_to_the_commonest_label(make_predictions):
    predictions = make_predictions(images=12, per_patient=3)
    predictions.rows[1]["label"] = predictions.rows[2]["label"] = "normal"
    assert scores_of(predictions).strata.tolist() == [1, 1, 2, 0]


def test_only_test_rows_count(predictions):
    for row in predictions.rows[:50]:
        row["subset"] = "validation"
    assert len(scores_of(predictions)) == 190
    assert len(scores_of(predictions, subset="validation")) == 50
    with pytest.raises(InputError, match=r"subset 'train', found: validation 50, test 190"):
        scores_of(predictions, subset="train")


def test_without_test_rows_all_count_and_it_is_said(make_predictions):
    predictions = make_predictions()
    for row in predictions.rows:
        row["subset"] = "validation"
    scores = scores_of(predictions)
    assert len(scores) == 120
    assert scores.notes == ("No row is marked as test; all rows are used (validation 120).",)
    for row in predictions.rows:
        del row["subset"]
    assert scores_of(predictions).notes == ()


def test_unlabelled_rows_are_counted_and_left_out(predictions):
    for row in predictions.rows[:7]:
        row["label"] = ""
    scores = scores_of(predictions)
    assert len(scores) == 233
    assert scores.notes == ("Rows excluded because they have no label: 7.",)
    for row in predictions.rows:
        row["label"] = ""
    with pytest.raises(InputError, match="synthetic: expected labelled images, found 240 rows without a label"):
        scores_of(predictions)


def test_an_image_is_tested_once_a_repeat(predictions):
    predictions.rows[3]["image_id"] = "im0000"
    with pytest.raises(InputError, match=r"in repeat 0, found image 'im0000' twice \(folds '0' and '0'\)"):
        scores_of(predictions)


def test_validation_parts_of_folds_may_overlap(make_predictions):
    predictions = make_predictions(folds=2)
    for row in predictions.rows:
        row["subset"] = "validation"
        row["image_id"] = "im0000" if row["image_id"] == "im0001" else row["image_id"]
    assert len(scores_of(predictions, subset="validation")) == 120


@pytest.mark.parametrize(
    ("values", "found"),
    [((0.9, 0.4, 0.1), "1.4"), ((np.nan, 0.5, 0.5), "not a number"), ((1.2, -0.1, -0.1), "not a number")],
)
def test_probabilities_must_be_such(predictions, values, found):
    predictions.probabilities[5] = values
    with pytest.raises(InputError, match=rf"synthetic: .*{found}.* for image im0005"):
        scores_of(predictions)


def test_rounded_probabilities_will_do(predictions):
    predictions.probabilities = predictions.probabilities.round(2)
    assert len(scores_of(predictions)) == 240


def test_an_unknown_decision_is_named_with_its_images(predictions):
    for row in predictions.rows[:5]:
        row["predicted"] = "inconclusive"
    with pytest.raises(InputError, match=r"found 'inconclusive' for image im0000, im0001, im0002 and 2 more"):
        scores_of(predictions)


def test_an_unknown_label_is_named_with_its_count(predictions):
    for row in predictions.rows[:4]:
        row["label"] = "viral"
    with pytest.raises(InputError, match=r"expected labels among covid, normal, pneumonia, found viral \(4 rows\)"):
        scores_of(predictions)


def test_a_decision_need_not_be_the_likeliest_class(predictions):
    predictions.rows[0]["predicted"] = "pneumonia"
    predictions.probabilities[0] = (0.9, 0.05, 0.05)
    assert scores_of(predictions).predicted[0] == 2
    for row in predictions.rows:
        row["predicted"] = ""
    scores = scores_of(predictions)
    np.testing.assert_array_equal(scores.predicted, predictions.probabilities.argmax(axis=1))
    assert scores.notes == ("240 rows have no `predicted`; the most probable class is used.",)


def test_a_class_alone_cannot_be_evaluated(make_predictions):
    predictions = make_predictions()
    predictions.classes, predictions.probabilities = ["covid"], np.ones((120, 1))
    with pytest.raises(InputError, match="two classes or more, found covid"):
        scores_of(predictions)


def test_chosen_classes_share_the_probability(predictions):
    scores = scores_of(predictions, classes=["normal", "covid"])
    assert scores.classes == ("normal", "covid")
    labels = [row["label"] for row in predictions.rows]
    kept = [i for i, label in enumerate(labels) if label != "pneumonia"]
    part = predictions.probabilities[np.ix_(kept, [1, 0])]
    np.testing.assert_allclose(scores.probabilities, part / part.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(scores.predicted, part.argmax(axis=1))
    moved = sum(predictions.rows[i]["predicted"] == "pneumonia" for i in kept)
    assert scores.notes == (
        "80 rows of other classes are excluded.",
        f"{moved} rows were predicted another class; the most probable of normal, covid is used instead.",
    )


def test_chosen_classes_without_any_probability_are_a_tie(predictions):
    predictions.probabilities[0] = (0, 0, 1)
    scores = scores_of(predictions, classes=["covid", "normal"])
    assert scores.probabilities[0].tolist() == [0.5, 0.5]
    assert any("equal probabilities" in note for note in scores.notes)


@pytest.mark.parametrize(("classes", "found"), [(["covid", "viral"], "'viral'"), (["covid"], "fewer")])
def test_chosen_classes_must_be_there(predictions, classes, found):
    with pytest.raises(UsageError, match=f"--classes: .* found {found}"):
        scores_of(predictions, classes=classes)


def test_without_patients_an_image_is_a_patient(predictions):
    for row in predictions.rows:
        row["patient_id"] = ""
    scores = scores_of(predictions)
    assert scores.patients == 120
    assert not scores.by_patient
    assert scores.notes[0].startswith("There is no patient_id: every image counts as a patient")


def test_an_image_without_a_patient_is_one_in_all_repeats(predictions):
    for row in predictions.rows:
        if row["image_id"] in ("im0000", "im0001"):
            row["patient_id"] = ""
    others = {predictions.rows[2]["image_id"], predictions.rows[3]["image_id"]}
    for row in predictions.rows:
        if row["image_id"] in others:
            row["patient_id"] = "im0000"
    scores = scores_of(predictions)
    # Patient 0 falls into two images; "im0000" as a patient's name is another one still.
    assert scores.patients == 61
    assert scores.notes == ("2 images have no patient_id; each counts as a separate patient.",)


def test_warnings_are_counted(predictions):
    predictions.rows[0]["warning"] = "no lungs found"
    assert scores_of(predictions).notes == ("1 of 240 predictions have a warning (column `warning`).",)


def test_a_group_is_scores_of_its_own(predictions):
    scores = scores_of(predictions)
    part = scores.where(scores.truth == 1)
    assert (part.images, part.patients, part.runs) == (40, 20, scores.runs)
    assert part.strata.tolist() == [1] * 20


@pytest.fixture
def abstaining(make_predictions):
    """Predictions of which every fifth is inconclusive."""
    predictions = make_predictions(60, repeats=2, folds=3)
    for row in predictions.rows[::5]:
        row["predicted"] = "inconclusive"
    return predictions


def test_an_abstention_is_refused_where_nobody_asked_for_it(abstaining):
    with pytest.raises(InputError, match=r"expected a predicted class among .*, found 'inconclusive'") as caught:
        scores_of(abstaining)
    assert "--on-conflict prob" in caught.value.hint


def test_an_abstention_is_no_class_and_never_right(abstaining):
    scores = scores_of(abstaining, abstaining=True)
    assert scores.decided.sum() == 96
    assert not (scores.truth == scores.predicted)[::5].any()
    assert (scores.predicted[~scores.decided] == UNDECIDED).all()
    assert scores.notes[0].startswith("24 of 120 predictions are inconclusive")


def test_of_some_classes_an_abstention_stays_one(abstaining):
    scores = scores_of(abstaining, abstaining=True, classes=["covid", "normal"])
    expected = sum(row["label"] != "pneumonia" for row in abstaining.rows[::5])
    assert (~scores.decided).sum() == expected > 0


def test_a_class_may_be_called_inconclusive(make_predictions):
    predictions = make_predictions(20, classes=("inconclusive", "normal"))
    assert scores_of(predictions, abstaining=True).decided.all()
