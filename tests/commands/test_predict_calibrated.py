import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrtool.commands.predict import UNKNOWN, PredictOptions, predict, temperature_of
from cxrtool.data.tables.predictions import read_predictions, write_predictions
from cxrtool.evaluation.decisions.temperature import Temperature, apply, fit
from cxrtool.flow.fold_training import OF_TWINS
from cxrtool.models.description import SCHEMA, ModelDescription

OF_BEFORE = {
    "schema": SCHEMA,
    "classes": ["covid", "normal"],
    "architecture": {},
    "chain": [],
    "input": {"size": 24, "fit": "squash"},
    "normalization": {"mean": [0.5], "std": [0.5]},
}
"""A `model.json` of before temperatures were kept."""

TWO = ModelDescription.from_json({**OF_BEFORE, "calibration": None}, Path("model.json"))


@pytest.fixture
def beside(make_predictions, tmp_path):
    """A model folder of an earlier version with 80 validation rows beside it."""
    found = make_predictions(120, ("normal", "covid"))
    for k, row in enumerate(found.rows):
        row["subset"] = "validation" if k < 80 else "test"
    write_predictions(tmp_path / "predictions.csv", found)
    return tmp_path, found


def test_what_the_model_keeps_is_taken(beside):
    kept = Temperature(2.5, 90, None, 0.7, 0.5)
    assert temperature_of(beside[0], replace(TWO, calibration=kept.as_json())) == kept


def test_a_model_of_before_has_it_fitted_on_the_rows_beside_it(beside):
    folder, found = beside
    truth = np.array([found.classes.index(row["label"]) for row in found.rows[:80]])
    expected = fit(found.probabilities[:80], truth)
    assert temperature_of(folder, TWO).value == pytest.approx(expected.value, rel=1e-6)
    assert temperature_of(folder, ModelDescription.from_json(OF_BEFORE, Path("model.json"))).images == 80


def test_where_nothing_is_known_it_is_1_with_the_reason(beside, tmp_path):
    assert temperature_of(tmp_path / "elsewhere", TWO) == Temperature(reason=UNKNOWN)
    assert temperature_of(beside[0], replace(TWO, classes=["covid", "other"])) == Temperature(reason=UNKNOWN)
    twins = replace(TWO, classes=["P@P", "P@N", "N@P", "N@N"], calibration=Temperature(2.0, 90).as_json())
    assert temperature_of(beside[0], twins) == Temperature(reason=OF_TWINS)


@pytest.fixture
def run(study, train_study):
    return train_study(study, only=None)


@pytest.fixture
def picture(tmp_path):
    cv2.imwrite(str(tmp_path / "new.png"), np.random.default_rng(5).integers(0, 255, (24, 28), np.uint8))
    return str(tmp_path / "new.png")


def keep(fold, entry):
    """Let a fold's model.json keep a temperature."""
    told = json.loads((fold / "model.json").read_text())
    (fold / "model.json").write_text(json.dumps({**told, "calibration": entry}))


def ask(settings, *given, **others):
    predict(PredictOptions(*given, **others), settings)
    return read_predictions(settings.out)


def test_every_member_answers_at_its_own_temperature(run, picture, settings, listener, tmp_path, editable):
    editable(run)
    folds = sorted(run.glob("r*f*"))
    values = [1.5 + k / 2 for k in range(len(folds))]
    for fold, value in zip(folds, values, strict=True):
        keep(fold, Temperature(value, 80, None, 0.7, 0.6).as_json())
    to = replace(settings, out=tmp_path / "a.csv")
    plain = ask(to, run, picture, members=True).probabilities
    found = ask(to, run, picture, members=True, calibrated=True).probabilities
    for own, after, value in zip(plain, found, values, strict=True):
        assert after == pytest.approx(apply(own, value), abs=1e-8)
    # The mean is of the calibrated answers.
    assert ask(to, run, picture, calibrated=True).probabilities[0] == pytest.approx(found.mean(axis=0), abs=1e-8)
    assert f"calibrated: temperature 1.5 to {values[-1]:.3g}, of {len(folds)} of {len(folds)} models" in listener.said
    assert not [text for text in listener.warned if "temperature" in text]


def test_those_that_stay_are_told_with_the_reason(run, picture, settings, listener, tmp_path, editable):
    editable(run)
    folds = sorted(run.glob("r*f*"))
    keep(folds[0], None)
    to = replace(settings, out=tmp_path / "a.csv")
    plain, found = ask(to, run, picture), ask(to, run, picture, calibrated=True)
    assert np.array_equal(plain.probabilities, found.probabilities)
    assert [text for text in listener.warned if "temperature" in text] == [
        f"--calibrated: {len(folds)} of {len(folds)} models (such as r0f0) stay at temperature 1: "
        "only 4 validation images; 50 are needed"
    ]
