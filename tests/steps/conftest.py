from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cxrtool.steps.settings import Settings
from cxrtool.steps.train import TrainOptions, train


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the curves undrawn: they cost more than all the training of a tiny network."""
    monkeypatch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))


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
