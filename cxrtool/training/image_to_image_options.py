"""Options of networks that return an image, and presets.

A preset holds what a paper or its reference implementation states; for our own networks, what worked best here. A flag
overrides it. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cxrtool.options import again, option
from cxrtool.training.options import FittingOptions

LOSSES: dict[str, dict[str, str]] = {
    "lungs": {"bce+dice": "cross_entropy_and_dice", "bce": "binary_cross_entropy", "dice": "negative_dice"},
    "opacities": {"outlines+shares": "outlines_and_shares", "bce+dice": "cross_entropy_and_dice"},
    "ribs": {"ms-ssim+mse": "similarity_and_error", "mse": "squared_error"},
}
"""By kind: name to function of `cxrtool.training.losses`; the first is the default."""

EXPOSURES = ("none", "strong")

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
    "opacify": 0.2,
}

_OPACITIES: dict[str, Any] = {
    "epochs": 12,
    # Half of it for each branch.
    "batch_size": 24,
    "opt": "adamw",
    "lr": 3e-3,
    "weight_decay": 2e-2,
    "sched": "cosine",
    "warmup_epochs": 1,
    "average": 0.99,
    "loss": "outlines+shares",
    # No exposure: its smooth fields of brightness look like opacities.
    "augment": "rotate=12,shift=0.06,shear=0.08,zoom=0.15,stretch=0.1,flip=0.5,"
    "brightness=0.1,contrast=0.3,blur=1,noise=0.03",
    "checkpoint": "last",
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
    # eduardomineo/unet-lung-segmentation, its notebook. Shift and shear have the same range 0.05 as its zoom.
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
        "opacity-unet": MappingProxyType(_OPACITIES),
        "unet-imlab": MappingProxyType(_IMLAB),
        "unet-eduardomineo": MappingProxyType(_EDUARDOMINEO),
        "rib-unet": MappingProxyType(_RIB_UNET),
        "autoencoder": MappingProxyType(_RIBS),
    }
)
"""By network, the options that it sets."""

SHOWN = "the network's preset, else {default}"


@dataclass(frozen=True, kw_only=True)
class ImageToImageOptions(FittingOptions):
    """How a lung or a rib network is fitted; without a flag the preset of the network counts."""

    network: str = ""
    size: int = option("Side of the input in pixels.", 0, shown="the network's own")
    loss: str = ""
    augment: str = option(
        "Any of rotate shift shear zoom stretch pad crop flip brightness contrast blur noise p, as name=reach; or "
        "none.",
        "none",
        shown=SHOWN,
    )
    exposure: str = option(
        "Changes of dose, window, sharpness and overlays: {choices}.", "none", choices=EXPOSURES, shown=SHOWN
    )
    opacify: float = 0.0
    copies: int = option("How often each image is used in an epoch, each time changed in another way.", 1, shown=SHOWN)
    dilate: int = option("Side in pixels of the square by which masks are dilated.", 0, shown=SHOWN)
    average: float = option(
        "Use a running average of the weights, which keeps this share at each step; 0 uses the weights.",
        0.0,
        shown=SHOWN,
    )
    epochs: int = again(FittingOptions, "epochs", 60, shown=SHOWN)
    batch_size: int = again(FittingOptions, "batch_size", 16, shown=SHOWN)
    opt: str = again(FittingOptions, "opt", "adamw", shown=SHOWN)
    lr: float = again(FittingOptions, "lr", 1e-3, shown=SHOWN)
    weight_decay: float = again(FittingOptions, "weight_decay", 0.0, shown=SHOWN)
    sched: str = again(FittingOptions, "sched", "constant", shown=SHOWN)
    decay_epochs: int = again(FittingOptions, "decay_epochs", 10, shown=SHOWN)
    decay_rate: float = again(FittingOptions, "decay_rate", 0.1, shown=SHOWN)
    warmup_epochs: int = again(FittingOptions, "warmup_epochs", 0, shown=SHOWN)
    min_lr: float = again(FittingOptions, "min_lr", 0.0, shown=SHOWN)
    patience: int = again(FittingOptions, "patience", 0, shown=SHOWN)
    checkpoint: str = again(
        FittingOptions,
        "checkpoint",
        "best-loss",
        shown=SHOWN,
        choices=("best-loss", "last"),
        help="Epoch to keep: best-loss (on validation) or last.",
    )
    # Constant: no network of this kind was published with other values.
    momentum: float = 0.9
    opt_eps: float | None = None
    opt_rho: float = 0.95
    class_weights: str = "none"

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The preset of the network."""
        return PRESETS.get(given.get("network") or cls.network, {})
