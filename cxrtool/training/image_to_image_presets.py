"""How each network that answers with a picture is fitted, as values of `fit`'s options.

A preset holds what a paper or its reference implementation states; for the default lung network, what proved itself
here. Every value yields to a flag. Options that a preset does not name keep the value in `DEFAULTS`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

DEFAULTS: MappingProxyType[str, Any] = MappingProxyType(
    {
        "epochs": 60,
        "batch_size": 16,
        "opt": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.0,
        "sched": "constant",
        "decay_epochs": 10,
        "decay_rate": 0.1,
        "warmup_epochs": 0,
        "min_lr": 0.0,
        "patience": 0,
        "checkpoint": "best-loss",
        "average": 0.0,
        "augment": "none",
        "exposure": "none",
        "copies": 1,
        "dilate": 0,
        "loss": None,
    }
)
"""What `fit` does where neither preset, configuration nor flag says; None takes the first loss of the kind."""

_UNET: dict[str, Any] = {
    "epochs": 60,
    "batch_size": 16,
    "opt": "adamw",
    "lr": 2e-3,
    "weight_decay": 1e-2,
    "sched": "cosine",
    "warmup_epochs": 2,
    "average": 0.99,
    "loss": "bce+dice",
    "augment": "rotate=14,shift=0.1,shear=0.12,zoom=0.3,stretch=0.15,flip=0.5",
    "exposure": "strong",
}

_IMLAB: dict[str, Any] = {
    # imlab-uiip/lung-segmentation-2d, train_lung_seg.py.
    "epochs": 100,
    "batch_size": 8,
    "opt": "adam",
    "lr": 1e-3,
    "loss": "bce",
    "augment": "rotate=10,shift=0.1,zoom=0.2",
}

_EDUARDOMINEO: dict[str, Any] = {
    # eduardomineo/unet-lung-segmentation, its notebook. How far shift and shear go is the same 0.05 as its zoom.
    "epochs": 56,
    "batch_size": 2,
    "opt": "adam",
    "lr": 1e-5,
    "loss": "dice",
    "augment": "rotate=0.2,shift=0.05,shear=0.05,zoom=0.05,flip=0.5",
    "dilate": 15,
}

_RIBS: dict[str, Any] = {
    # hmchuong/ML-BoneSuppression: 17 changed copies of each pair, a border of up to 100 of 1,024 pixels.
    "epochs": 150,
    "batch_size": 5,
    "opt": "adam",
    "lr": 1e-3,
    "sched": "step",
    "decay_epochs": 100,
    "decay_rate": 0.75,
    "loss": "ms-ssim+mse",
    "augment": f"rotate=30,pad={100 / 1024},flip=0.333",
    "copies": 17,
}

_RIB_UNET: dict[str, Any] = {
    "epochs": 20,
    "batch_size": 4,
    "opt": "adamw",
    "lr": 2e-3,
    "weight_decay": 1e-2,
    "sched": "cosine",
    "warmup_epochs": 1,
    "average": 0.99,
    "loss": "mse",
    "augment": "rotate=15,shift=0.05,zoom=0.2,stretch=0.1,flip=0.5",
}

PRESETS: MappingProxyType[str, MappingProxyType[str, Any]] = MappingProxyType(
    {
        "unet": MappingProxyType(_UNET),
        "unet-imlab": MappingProxyType(_IMLAB),
        "unet-eduardomineo": MappingProxyType(_EDUARDOMINEO),
        "rib-unet": MappingProxyType(_RIB_UNET),
        "autoencoder": MappingProxyType(_RIBS),
    }
)
"""Network, and the options it sets."""

GENERATORS: MappingProxyType[str, Any] = MappingProxyType(
    {
        # gonzalezsieira/UGR-FuCiTNet, train.py, and Tabik et al. 2020. Which weight of the class term was
        # taken in the end, neither tells.
        "size": 512,
        "epochs": 50,
        "batch_size": 8,
        "opt": "adam",
        "lr": 1e-4,
        "weight_decay": 1e-4,
        "classifier_lr": 1e-3,
        "sched": "step",
        "decay_epochs": 5,
        "decay_rate": 0.1,
        "warmup_epochs": 0,
        "min_lr": 0.0,
        "patience": 10,
        "checkpoint": "best-loss",
        "augment": "rotate=10,shift=0.05,zoom=0.2,brightness=0.05,contrast=0.05,blur=0.5,p=0.7",
        "class_loss": "own",
        "class_loss_weight": "0.05",
        "perceptual": "imagenet",
        "weights": "imagenet",
    }
)
"""What `fit generators` does where neither configuration nor flag says; the schedule is the classifier's."""

SWEEP = (1.0, 0.5, 0.1, 0.075, 0.05, 0.025, 0.01, 0.0075, 0.005, 0.0025, 0.001, 0.00075, 0.0005)
"""The weights of the class term that the implementation tries: `--class-loss-weight sweep`."""
