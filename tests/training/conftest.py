from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cxrtool.training.draws import Draws
from cxrtool.training.engine import Fit
from cxrtool.training.options import FittingOptions

RECIPE = FittingOptions(
    epochs=4,
    batch_size=5,
    opt="sgd",
    lr=0.05,
    momentum=0.9,
    weight_decay=0.0,
    opt_eps=None,
    opt_rho=0.95,
    sched="constant",
    decay_epochs=2,
    decay_rate=0.1,
    warmup_epochs=0,
    min_lr=0.0,
    patience=0,
    checkpoint="last",
    class_weights="none",
)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small networks gain nothing from more threads, and lose much where others run beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Pictures:
    """A source of pictures in memory; remembers what it was asked for."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self.to_predict: list[tuple[int | None, list[int]]] = []

    def batch(self, indices: np.ndarray, epoch: int | None) -> torch.Tensor:
        self.to_predict.append((epoch, indices.tolist()))
        return self.images[torch.from_numpy(indices)]


def learnable(count: int = 23, side: int = 6, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Pictures whose class is the half that is brighter."""
    generator = torch.Generator().manual_seed(seed)
    labels = np.arange(count) % 2
    images = torch.rand(count, 1, side, side, generator=generator)
    for index, label in enumerate(labels):
        half = slice(0, side // 2) if label else slice(side // 2, side)
        images[index, 0, :, half] += 0.6
    return images, labels


def small_network(classes: int = 2, side: int = 6) -> nn.Module:
    """All that makes resuming hard: a normalisation with running statistics, and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(3 * side * side, classes),
    )


@pytest.fixture(scope="session")
def recipe() -> FittingOptions:
    """A recipe to change by `dataclasses.replace`."""
    return RECIPE


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Fit]:
    """A job on learnable pictures, seeded; keywords of `Fit`, or of `FittingOptions`, change it."""

    def make(state: str = "state", count: int = 23, held_out: int = 6, **changes: Any) -> Fit:
        torch.manual_seed(changes.pop("torch_seed", 0))
        images, labels = learnable(count)
        known = set(FittingOptions.__dataclass_fields__)
        told = {name: changes.pop(name) for name in list(changes) if name in known}
        indices = np.arange(count)
        fields: dict[str, Any] = {
            "module": small_network(),
            "source": Pictures(images),
            "labels": labels,
            "training": indices[held_out:],
            "validation": indices[:held_out],
            "classes": 2,
            "recipe": replace(RECIPE, **told),
            "device": torch.device("cpu"),
            "precision": "fp32",
            "seed": 5,
            "frozen_norms": False,
            "state": tmp_path / state,
            "save_every": 1e9,
            "names": [f"im{index:03}" for index in range(count)],
        }
        return Fit(**{**fields, **changes})

    return make


@pytest.fixture
def draws_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[Draws]]:
    """Collect the `Draws` that a module makes from now on."""

    def collect(module: Any) -> list[Draws]:
        taken: list[Draws] = []

        class Counting(Draws):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                taken.append(self)

        monkeypatch.setattr(module, "Draws", Counting)
        return taken

    return collect
