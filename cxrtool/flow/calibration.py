"""What is chosen on the validation images of a trained network: its temperature, and thresholds for a sensitivity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cxrtool.data.tables.twins import MARK

if TYPE_CHECKING:
    from cxrtool.evaluation.metrics.confusion import FloatArray

OF_TWINS = "a network of twins: its scores are calibrated after fusion"
IMPORTED = "imported weights: their validation images are not known"


def undecided(reason: str) -> dict[str, Any]:
    """The entries `calibration` and `thresholds` of a model without validation images of its own."""
    from cxrtool.evaluation.decisions.temperature import Temperature

    return {"calibration": Temperature(reason=reason).as_json(), "thresholds": None}


def decide_on_validation(classes: Sequence[str], labels: Sequence[str], probabilities: FloatArray) -> dict[str, Any]:
    """The entries `calibration` and `thresholds` of `model.json`.

    Args:
        classes: K names, in the order of the outputs.
        labels: Of the n validation images.
        probabilities: (n, K) of the network for them.

    Returns:
        The temperature as `Temperature.as_json`; for every class as the positive one, and for each sensitivity of
        `thresholds.USUAL`, the probability from which it is predicted. Thresholds are for uncalibrated probabilities.
    """
    import numpy as np

    from cxrtool.evaluation.decisions import temperature, thresholds

    if all(MARK in name for name in classes):
        return undecided(OF_TWINS)
    indices = {name: k for k, name in enumerate(classes)}
    truth = np.array([indices[label] for label in labels], np.intp)
    values = np.asarray(probabilities, np.float64).reshape(len(truth), len(classes))
    return {
        "calibration": temperature.fit(values, truth).as_json(),
        "thresholds": {
            name: {f"{s:.2f}": thresholds.threshold(values[truth == k, k], s).as_json() for s in thresholds.USUAL}
            for k, name in enumerate(classes)
        },
    }
