"""The options of `fit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FitOptions:
    """The options of `fit`; None takes the network's preset, else the default (`training.image_to_image_presets`)."""

    kind: str
    manifest: Path
    splits: Path | None = None
    also: Path | None = None
    network: str | None = None
    target_column: str | None = None
    validation: float = 0.1
    balance: str | None = None
    size: int | None = None
    loss: str | None = None
    augment: str | None = None
    exposure: str | None = None
    copies: int | None = None
    dilate: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    opt: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    sched: str | None = None
    decay_epochs: int | None = None
    decay_rate: float | None = None
    warmup_epochs: int | None = None
    min_lr: float | None = None
    average: float | None = None
    patience: int | None = None
    checkpoint: str | None = None
    class_loss: str | None = None
    class_loss_weight: str | None = None
    perceptual: str | None = None
    weights: str | None = None
    classifier_lr: float | None = None
    only: str | None = None
    save_every: float = 30.0
