import json

import numpy as np
import pytest

from cxrtool.data.tables.predictions import read_predictions
from cxrtool.evaluation.decisions.temperature import fit
from cxrtool.flow.fold_training import IMPORTED, OF_TWINS, decide_on_validation, undecided


@pytest.fixture
def answers():
    """What a network says of 200 validation images of three classes."""
    rng = np.random.default_rng(0)
    labels = [("a", "b", "c")[k % 3] for k in range(200)]
    logits = 3 * (rng.normal(size=(200, 3)) + np.eye(3)[np.arange(200) % 3])
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_temperature_and_thresholds_of_every_class(answers):
    labels, shares = answers
    found = decide_on_validation(["a", "b", "c"], labels, shares)
    truth = np.arange(200) % 3
    assert found["calibration"] == fit(shares, truth).as_json()
    assert found["calibration"]["temperature"] > 1.5
    for k, name in enumerate("abc"):
        own = np.sort(shares[truth == k, k])
        entries = found["thresholds"][name]
        assert list(entries) == ["0.90", "0.95", "0.99"]
        assert entries["0.90"]["threshold"] == pytest.approx(own[(len(own) + 1) // 10 - 1], abs=1e-9)
        assert entries["0.95"]["threshold"] == pytest.approx(own[(len(own) + 1) // 20 - 1], abs=1e-9)
        assert entries["0.99"]["threshold"] is None
        assert entries["0.99"]["reason"] == f"{len(own)} positive validation images; 99 are needed"
    json.dumps(found)


def test_without_validation_images_there_are_reasons():
    found = decide_on_validation(["a", "b"], [], np.zeros((0, 2)))
    assert found["calibration"]["reason"] == "no validation images"
    assert found["calibration"]["temperature"] == 1.0
    assert found["thresholds"]["a"]["0.90"]["reason"] == "no positive validation images; 9 are needed"


def test_a_network_of_twins_waits_for_their_fusion(answers):
    _, shares = answers
    labels = ["a@a"] * 200
    found = decide_on_validation(["a@a", "a@b", "b@a"], labels, shares)
    assert found == undecided(OF_TWINS)
    assert (found["calibration"]["temperature"], found["thresholds"]) == (1.0, None)
    assert undecided(IMPORTED)["calibration"]["reason"].startswith("imported weights")


def test_a_trained_fold_keeps_what_its_own_predictions_say(study, train_study):
    fold = train_study(study) / "r0f0"
    told = json.loads((fold / "model.json").read_text())
    predictions = read_predictions(fold / "predictions.csv")
    kept = [i for i, row in enumerate(predictions.rows) if row["subset"] == "validation"]
    labels = [predictions.rows[i]["label"] for i in kept]
    assert told["calibration"]["images"] == len(kept) > 0
    again = decide_on_validation(predictions.classes, labels, predictions.probabilities[kept])
    assert {name: told[name] for name in ("calibration", "thresholds")} == again
