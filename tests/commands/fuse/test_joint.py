from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cxrtool.commands.fuse.joint import JointOptions, fuse_joint
from cxrtool.data.tables.manifest import read_table, write_table
from cxrtool.data.tables.predictions import read_predictions, write_predictions
from cxrtool.errors import InputError, LeakageError
from cxrtool.evaluation.scores import scores_of


@pytest.fixture
def join(joint_runs, settings, tmp_path):
    """Fuse A and B; returns the predictions written."""

    def call(*sources, **options):
        shared = {name: options.pop(name) for name in list(options) if name == "allow_leakage"}
        out = tmp_path / "joint.csv"
        fuse_joint(JointOptions(sources or joint_runs, **options), replace(settings, out=out, **shared))
        return read_predictions(out)

    return call


def change(run, fold, edit):
    """Edit the predictions of a fold."""
    path = run / fold / "predictions.csv"
    found = read_predictions(path)
    edit(found)
    write_predictions(path, found)


def test_every_image_gets_three_classes_in_its_own_fold(join, joint_runs, listener):
    found = join()
    assert found.classes == ["normal", "pathological", "covid"]
    assert Counter(row["subset"] for row in found.rows)["test"] == 30
    folds = {(row["image_id"], row["fold"]) for row in found.rows if row["subset"] == "test"}
    assert folds == {(f"i{k:02}", str(k // 3 % 3)) for k in range(30)}
    by_name = {row["image_id"]: row["label"] for row in found.rows}
    assert [by_name[f"i{k:02}"] for k in range(6)] == ["normal", "pathological", "covid"] * 2
    assert np.allclose(found.probabilities.sum(axis=1), 1)
    row = found.rows[0]
    a, b = float(row["probability_a"]), float(row["probability_b"])
    source = read_predictions(joint_runs[0] / f"r0f{row['fold']}" / "predictions.csv")
    own = next(i for i, other in enumerate(source.rows) if other["image_id"] == row["image_id"])
    assert a == pytest.approx(source.probabilities[own, source.classes.index("sick")])
    assert float(row["conflict_mass"]) == pytest.approx((1 - a) * b)
    assert row["path"] == f"/x/{row['image_id']}.png"
    assert row["patient_id"].startswith("p")
    assert listener.warned == []


def test_validation_answers_are_fused_where_both_have_them(join, joint_runs, listener):
    found = join()
    validation = [row for row in found.rows if row["subset"] == "validation"]
    asked = sum(row["subset"] == "validation" for row in read_table(joint_runs[0] / "splits.csv").rows)
    assert 0 < len(validation) < asked
    assert f"{asked - len(validation)} validation predictions of A that B does not have" in listener.said[0]


def test_what_is_said_is_what_the_table_holds(join, listener):
    found = join()
    tested = [i for i, row in enumerate(found.rows) if row["subset"] == "test"]
    truth = np.array([found.classes.index(found.rows[i]["label"]) for i in tested])
    conflicts = sum(found.rows[i]["conflict"] == "yes" for i in tested)
    right = np.mean([found.rows[i]["predicted"] == found.rows[i]["label"] for i in tested])
    squares = ((found.probabilities[tested] - np.eye(3)[truth]) ** 2).sum(axis=1)
    folds = np.array([found.rows[i]["fold"] for i in tested])
    brier = np.mean([squares[folds == fold].mean() for fold in "012"])
    told = "\n".join(listener.said)
    assert 0 < conflicts < 30
    assert f"conflicts (A normal, B covid): {conflicts} of 30 predictions, {conflicts / 30:.1%}" in told
    assert f"accuracy: {right:.3f} (" in told
    assert f"lower is better): product {brier:.3f} (" in told
    assert ", nested 0." in told
    scores_of(found)


def test_the_nested_rule_and_its_score(join, listener):
    found = join(rule="nested")
    row = next(row for row in found.rows if row["conflict"] == "yes")
    mean = (float(row["probability_a"]) + float(row["probability_b"])) / 2
    assert found.probabilities[found.rows.index(row)] == pytest.approx([1 - mean, 0, mean])
    assert "product 0." in listener.said[-1]


@pytest.mark.parametrize(("choice", "said"), [("inconclusive", "inconclusive"), ("covid", "covid")])
def test_what_is_said_on_conflict(join, choice, said, listener):
    usual, found = join(), join(on_conflict=choice)
    assert (usual.probabilities == found.probabilities).all()
    for before, after in zip(usual.rows, found.rows, strict=True):
        assert after["predicted"] == (said if after["conflict"] else before["predicted"])
    if choice == "inconclusive":
        tested = [row for row in found.rows if row["subset"] == "test"]
        share = np.mean([row["predicted"] != said for row in tested])
        assert any(line.startswith(f"decided: {share:.3f} (") for line in listener.said)
        assert any(
            "of the decided images" in line and "with inconclusive counted as wrong" in line for line in listener.said
        )


def test_a_test_image_that_b_was_trained_on_is_refused(join, joint_runs, listener):
    splits = read_table(joint_runs[1] / "splits.csv")
    for row in splits.rows:
        if (row["image_id"], row["fold"]) == ("i01", "0"):
            row["subset"] = "train"
    write_table(joint_runs[1] / "splits.csv", splits.columns, splits.rows)
    with pytest.raises(
        LeakageError, match=r"found 1 that it, or a model of their patient, was trained on, such as i01 in r0f0"
    ):
        join()
    join(allow_leakage=True)
    assert "such as i01 in r0f0" in listener.warned[-1]


def test_a_patient_that_b_was_trained_on_is_refused(join, joint_runs):
    path = joint_runs[1] / "r0f1" / "fitted_on.csv"
    table = read_table(path)
    write_table(path, table.columns, [*table.rows, {"image_id": "other", "patient_id": "p3", "subset": "train"}])
    with pytest.raises(LeakageError, match="such as i03 in r0f1"):
        join()


def test_a_test_image_that_b_has_not_answered_is_named(join, joint_runs):
    def forget(found):
        kept = [i for i, row in enumerate(found.rows) if row["image_id"] != "i02"]
        found.rows, found.probabilities = [found.rows[i] for i in kept], found.probabilities[kept]

    change(joint_runs[1], "r0f0", forget)
    with pytest.raises(
        InputError, match=r"predictions for all 30 test images .* found none for 1, such as i02"
    ) as caught:
        join()
    assert "--keep test" in caught.value.hint


def test_a_table_alone_cannot_be_checked_and_that_is_said(join, joint_runs, listener):
    fold = joint_runs[0] / "r0f0" / "predictions.csv", joint_runs[1] / "r0f0" / "predictions.csv"
    assert len([row for row in join(*fold).rows if row["subset"] == "test"]) == 12
    assert listener.warned == []
    copy = joint_runs[1] / "copy.csv"
    copy.write_bytes(fold[1].read_bytes())
    join(fold[0], copy)
    assert "is not a run, so it cannot be checked whether it was trained on the test images" in listener.warned[0]


def test_labels_that_contradict_one_another_are_refused(join, joint_runs):
    change(joint_runs[0], "r0f0", lambda found: found.rows[-1].update(label="normal"))
    change(joint_runs[1], "r0f0", lambda found: found.rows[-1].update(label="covid"))
    with pytest.raises(InputError, match=r"expected labels that agree, found normal in .*A and covid in .*B"):
        join()


def test_labels_of_neither_class_are_refused(join, joint_runs):
    change(joint_runs[1], "r0f0", lambda found: found.rows[-1].update(label="flu"))
    with pytest.raises(InputError, match="expected the label covid or rest, found 'flu'"):
        join()


def test_without_labels_there_are_still_answers(join, joint_runs, listener):
    for fold in ("r0f0", "r0f1", "r0f2"):
        change(joint_runs[0], fold, lambda found: [row.update(label="") for row in found.rows])
    assert {row["label"] for row in join().rows} == {""}
    assert listener.said[-1] == "no labels: accuracy and Brier score cannot be computed"


def test_classes_by_other_names(join, joint_runs):
    with pytest.raises(InputError, match="expected two classes of A, one of them healthy, found normal, sick"):
        join(names="healthy,pathological,covid")
    with pytest.raises(InputError, match="expected two classes of B, one of them flu, found covid, rest"):
        join(names="normal,sick,flu")
    assert join(names="normal,other,covid").classes == ["normal", "other", "covid"]


def test_the_runs_in_the_wrong_order(join, joint_runs):
    with pytest.raises(InputError, match="expected two classes of A, one of them normal, found covid, rest"):
        join(*reversed(joint_runs))
