"""`predict --calibrated`: each model's answers at the temperature of its own validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.twins import MARK
from cxrtool.flow.run import PREDICTIONS
from cxrtool.flow.settings import Settings
from cxrtool.steps.train_decisions import OF_TWINS

if TYPE_CHECKING:
    from cxrtool.evaluation.temperature import Temperature

UNKNOWN = "the model keeps no temperature, and no validation answers lie beside it"


def temperature_of(folder: Path, description: Mapping[str, Any]) -> Temperature:
    """The temperature of a model: the one it keeps, else fitted on the validation rows that lie beside it.

    Args:
        folder: The model folder.
        description: Its `model.json`; models of earlier versions keep no temperature.
    """
    from cxrtool.evaluation.temperature import Temperature

    if all(MARK in name for name in description["classes"]):
        return Temperature(reason=OF_TWINS)
    if description.get("calibration"):
        return Temperature.from_json(description["calibration"])
    if (folder / PREDICTIONS).is_file():
        return _fitted_beside(folder / PREDICTIONS, description["classes"])
    return Temperature(reason=UNKNOWN)


def _fitted_beside(path: Path, classes: Sequence[str]) -> Temperature:
    import numpy as np

    from cxrtool.data.predictions import read_predictions
    from cxrtool.evaluation.temperature import Temperature, fit

    predictions = read_predictions(path)
    kept = [
        i
        for i, row in enumerate(predictions.rows)
        if row.get("subset") == "validation" and row.get("label") in predictions.classes
    ]
    if not kept or sorted(predictions.classes) != sorted(classes):
        return Temperature(reason=UNKNOWN)
    truth = np.array([predictions.classes.index(predictions.rows[i]["label"]) for i in kept], np.intp)
    return fit(predictions.probabilities[kept], truth)


def tell(folders: Sequence[Path], found: Sequence[Temperature], settings: Settings) -> None:
    """Say which temperatures are used, and warn of the models that keep theirs at 1, with the reason."""
    fitted = [entry.value for entry in found if entry.reason is None]
    if fitted:
        spread = f"{fitted[0]:.3g}" if len(fitted) == 1 else f"{min(fitted):.3g} to {max(fitted):.3g}"
        of = f", of {len(fitted)} of {len(found)} models" if len(found) > 1 else ""
        settings.report.say(f"calibrated: temperature {spread}{of}")
    by_reason: dict[str, list[str]] = {}
    for folder, entry in zip(folders, found, strict=True):
        if entry.reason is not None:
            by_reason.setdefault(entry.reason, []).append(folder.name)
    for reason, names in by_reason.items():
        few = f"{len(names)} of {len(found)} models (such as {names[0]}) stay"
        who = "the model stays" if len(found) == 1 else few
        settings.report.warn(f"--calibrated: {who} at temperature 1: {reason}")
