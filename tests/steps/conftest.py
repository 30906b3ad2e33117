from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cxrtool.data.manifest import write_table
from cxrtool.data.predictions import Predictions, write_predictions
from cxrtool.data.splits import COLUMNS
from cxrtool.flow.settings import Settings
from cxrtool.steps.train import TrainOptions, train


@pytest.fixture
def train_study(settings: Settings, tmp_path: Path, no_pictures: None) -> Callable[..., Path]:
    """Train a tiny network on a study; keywords are those of `TrainOptions` or of `Settings`."""
    torch.set_num_threads(1)

    def call(study: Any, out: str = "run", **changes: Any) -> Path:
        shared = {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
        told: dict[str, Any] = {
            "manifest": study.folder, "splits": study.splits, "model": "covid-xnet", "size": 16, "epochs": 2,
            "batch_size": 8, "augment": "none", "only": "r0f0",
        }  # fmt: skip
        options = TrainOptions(**{**told, **changes})
        run: Path = tmp_path / out
        train(options, replace(settings, **{"out": run, "cache": tmp_path / "cache", **shared}))
        return run

    return call


def _write_run(folder: Path, rows: list[dict[str, str]], classes: list[str], splits: list[dict[str, str]]) -> Path:
    """A run as `train` leaves it, without models: rows have `image_id`, `repeat`, `fold`, `subset`, `label`, `p`."""
    folder.mkdir(parents=True)
    write_table(folder / "splits.csv", COLUMNS, splits)
    for repeat, fold in dict.fromkeys((row["repeat"], row["fold"]) for row in splits):
        own = [dict(row) for row in rows if (row["repeat"], row["fold"]) == (repeat, fold)]
        share = np.array([float(row.pop("p")) for row in own])
        values = np.stack([share, 1 - share], axis=1)
        place = folder / f"r{repeat}f{fold}"
        place.mkdir()
        write_predictions(place / "predictions.csv", Predictions(classes, own, values, columns=list(own[0])))
        seen = [row for row in splits if (row["repeat"], row["fold"]) == (repeat, fold) and row["subset"] != "test"]
        write_table(place / "fitted_on.csv", ["image_id", "patient_id", "sha256", "repeat", "fold", "subset"], seen)
    return folder


@pytest.fixture
def joint_runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of three folds, A of normal against the rest, B of covid against the rest, thinned out in training.

    30 images, ten of each of normal, pathological and covid.
    """
    rng = np.random.default_rng(1)
    truth = ["normal", "pathological", "covid"] * 10
    ids = [f"i{k:02}" for k in range(30)]
    splits, thinned, rows_a, rows_b = [], [], [], []
    for fold in range(3):
        for k, name in enumerate(ids):
            subset = "test" if k // 3 % 3 == fold else "validation" if k // 3 == (fold + 1) % 3 else "train"
            row = {"image_id": name, "repeat": "0", "fold": str(fold), "subset": subset}
            splits.append(row)
            # Every other normal or pathological image is left out of B's training.
            if subset == "test" or truth[k] == "covid" or k % 2:
                thinned.append(row)
            if subset != "train":
                a, b = rng.beta(2, 1 if truth[k] != "normal" else 4), rng.beta(2, 1 if truth[k] == "covid" else 4)
                shared = {**row, "path": f"/x/{name}.png", "patient_id": f"p{k}", "warning": "", "predicted": ""}
                rows_a.append({**shared, "label": "normal" if truth[k] == "normal" else "sick", "p": f"{1 - a:.6f}"})
                if row in thinned:
                    rows_b.append({**shared, "label": "covid" if truth[k] == "covid" else "rest", "p": f"{b:.6f}"})
    first = _write_run(tmp_path / "A", rows_a, ["normal", "sick"], splits)
    second = _write_run(tmp_path / "B", rows_b, ["covid", "rest"], thinned)
    manifest = [
        {"image_id": name, "path": f"/x/{name}.png", "label": "covid" if truth[k] == "covid" else "rest"}
        for k, name in enumerate(ids)
    ]
    write_table(second / "manifest.csv", list(manifest[0]), manifest)
    return first, second
