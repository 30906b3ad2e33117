from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cxrtool.data.tables.predictions import Predictions, join


@pytest.fixture(scope="session")
def with_validation(make_predictions: Callable[..., Predictions]) -> Callable[..., Predictions]:
    """Predictions of several runs with test rows and, of other patients, validation rows.

    `sharpen` makes all stated probabilities too extreme by that factor.
    """

    def make(test: int = 90, validation: int = 120, sharpen: float = 1.0, seed: int = 0, **others) -> Predictions:
        tested = make_predictions(test, seed=seed, **others)
        chosen = make_predictions(validation, seed=seed + 100, **others)
        rows = [
            {**row, "image_id": f"v{row['image_id']}", "patient_id": f"v{row['patient_id']}", "subset": "validation"}
            for row in chosen.rows
        ]
        both = join([tested, replace(chosen, rows=rows)], "synthetic")
        powers = both.probabilities**sharpen
        return replace(both, probabilities=powers / powers.sum(axis=1, keepdims=True))

    return make


@pytest.fixture(scope="session")
def logits_and_labels() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Logits (n, K), and labels drawn from their softmax."""

    def draw(n: int, classes: int, seed: int = 0, scale: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        logits = scale * rng.normal(size=(n, classes))
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return logits, (shares.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1)

    return draw
