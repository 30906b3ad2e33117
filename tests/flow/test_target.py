import json

import numpy as np
import pytest

from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest, write_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.data.tables.severity import SEVERITIES
from cxrtool.errors import InputError, UsageError

SIDE = 16


@pytest.fixture
def graded(study):
    """A study of severities: the wider a bright bar, the more severe; every fourth patient has none."""
    import cv2

    manifest = read_manifest(study.folder)
    rows = []
    for index, row in enumerate(manifest.rows):
        patient = index // 2
        place = patient % 4
        width = 3 + 3 * place
        pixels = np.full((24, 28), 40, np.uint8)
        pixels[:, :width] = 200 + index % 20
        cv2.imwrite(row["path"], pixels)
        severity = "" if index % 8 == 7 else SEVERITIES[place]
        more = {"grade": ("low", "mid", "high")[min(place, 2)], "severity_estimated": severity, "points": str(place)}
        rows.append({**row, "severity": severity, "sha256": "", "sex": "FM"[patient % 2], **more})
    write_manifest(study.folder / "manifest.csv", [*manifest.columns, "grade", "severity_estimated", "points"], rows)
    subsets = ("train", "train", "test", "train")
    splits = [
        {"image_id": row["image_id"], "repeat": "0", "fold": "0", "subset": subsets[k // 8 % 4]}
        for k, row in enumerate(rows)
    ]
    write_table(study.splits, list(splits[0]), splits)
    return study


def described(run):
    return json.loads((run / "r0f0" / "model.json").read_text())


def test_severities_are_learned_in_their_order(graded, train_study, listener):
    run = train_study(graded, target="severity", epochs=30, lr=3e-3, checkpoint="last")
    model = described(run)
    assert model["classes"] == list(SEVERITIES)
    assert model["architecture"]["ordered"] is True
    assert model["trained"]["target"] == f"severity:{'/'.join(SEVERITIES)}"
    rows = read_manifest(graded.folder).rows
    without = sum(not row["severity"] for row in rows)
    assert without
    assert any(f"{without} of its images have no severity; excluded" in text for text in listener.warned)
    found = read_predictions(run / "r0f0" / "predictions.csv")
    known = {row["image_id"]: row["severity"] for row in rows}
    assert all(row["label"] == known[row["image_id"]] != "" for row in found.rows)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-6)
    truth = [SEVERITIES.index(row["label"]) for row in found.rows]
    # The order was learned: the expected severity rises with the true one.
    assert np.corrcoef(found.probabilities @ np.arange(4), truth)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("target", "classes", "ordered"),
    [
        ("grade:low/mid/high", ["low", "mid", "high"], True),
        ("points:1,3", ["under 1", "1 to under 3", "3 and over"], True),
        ("sex", ["F", "M"], False),
        ("severity_estimated", list(SEVERITIES), True),
    ],
)
def test_other_columns_are_learned_as_evaluate_groups_by_them(graded, train_study, target, classes, ordered):
    model = described(train_study(graded, target=target, epochs=1))
    assert model["classes"] == classes
    assert model["architecture"].get("ordered", False) is ordered
    assert model["trained"]["target"].startswith(target)


def test_the_label_is_learned_as_before(graded, train_study):
    run = train_study(graded, epochs=1)
    assert "target" not in described(run)["trained"]
    assert "ordered" not in described(run)["architecture"]
    assert "learned" not in read_table(run / "r0f0" / "predictions.csv").columns
    assert described(run)["classes"] == sorted({row["label"] for row in read_manifest(graded.folder).rows})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target": "gravity"}, InputError, "expected a column 'gravity'"),
        ({"target": "severity,sex"}, UsageError, "expected one column, found 'severity,sex'"),
        ({"target": "grade:low/high"}, UsageError, "expected low, high, found 'mid' in .*manifest.csv"),
        ({"target": "severity", "model": "covid-caps"}, UsageError, "which has a margin loss"),
        ({"target": "severity", "transform": "gone"}, UsageError, "expected label with --transform"),
    ],
)
def test_a_target_that_cannot_be_learned_is_refused(graded, train_study, changes, error, message):
    with pytest.raises(error, match=message):
        train_study(graded, **changes)


def test_severities_of_unknown_names_are_refused_and_two_spellings_too(graded, train_study):
    manifest = read_manifest(graded.folder)
    spelled = [
        {**row, "severity": row["severity"].replace("mild", ("mild", "Mild")[k % 2])}
        for k, row in enumerate(manifest.rows)
    ]
    write_manifest(graded.folder / "manifest.csv", manifest.columns, spelled)
    with pytest.raises(InputError, match="expected each class in one spelling"):
        train_study(graded, target="severity")
    write_manifest(
        graded.folder / "manifest.csv",
        manifest.columns,
        [{**row, "severity": row["severity"].replace("mild", "light")} for row in manifest.rows],
    )
    with pytest.raises(UsageError, match="found 'light'"):
        train_study(graded, target="severity")


@pytest.mark.slow
def test_predict_evaluate_explain_and_an_exported_model_take_it(graded, train_study, cxr, tmp_path):
    run = train_study(graded, target="severity", size=32, epochs=20, lr=3e-3, checkpoint="last")
    found = cxr("evaluate", run, "--format", "json")
    assert found.code == 0, found.err
    summary = json.loads(found.out)
    assert summary["ordinal"]["order"] == list(SEVERITIES)
    assert summary["ordinal"]["weighted_kappa"]["value"] > 0.5
    # New images, with severities in the column of that name and other labels.
    model, tested = run / "r0f0", tmp_path / "tested.csv"
    used = {row["image_id"] for row in read_table(model / "predictions.csv").rows}
    rows = [row for row in read_manifest(graded.folder).rows if row["image_id"] in used]
    write_manifest(tested, list(rows[0]), rows)
    answers = tmp_path / "answers.csv"
    assert cxr("predict", model, tested, "-o", answers, "--allow-leakage").code == 0
    again, before = read_predictions(answers), read_predictions(model / "predictions.csv")
    assert [row["label"] for row in again.rows] == [row["severity"] for row in rows]
    probabilities = dict(zip([row["image_id"] for row in before.rows], before.probabilities, strict=True))
    for row, values in zip(again.rows, again.probabilities, strict=True):
        np.testing.assert_allclose(values, probabilities[row["image_id"]], atol=1e-5)
    found = cxr("evaluate", model, tested, "--allow-leakage", "--format", "json")
    assert json.loads(found.out)["ordinal"]["images"] == len(rows)
    assert cxr("explain", model, tested, "--method", "grad-cam", "-o", tmp_path / "maps").code == 0
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert cxr("weights", "export", model, "-o", tmp_path / "model.onnx").code == 0
    exported = tmp_path / "exported.csv"
    assert cxr("predict", tmp_path / "model.onnx", tested, "-o", exported, "--allow-leakage").code == 0
    np.testing.assert_allclose(read_predictions(exported).probabilities, again.probabilities, atol=1e-5)


def test_tables_of_estimated_severities_say_so(graded, train_study, cxr):
    run = train_study(graded, target="severity_estimated", epochs=1)
    found = cxr("evaluate", run, "--format", "md")
    assert found.code == 0, found.err
    tables = found.out.split("\n## ")[1:]
    assert len(tables) >= 4
    assert all("estimated (severity_estimated): nobody rated them" in table for table in tables)
    rated = cxr("evaluate", train_study(graded, target="severity", epochs=1, out="rated"), "--format", "md")
    assert "estimated" not in rated.out
