"""The options of `fit generators`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cxrtool.commands.fit.options import SHARED
from cxrtool.flow import common_options
from cxrtool.options import again, declared, option
from cxrtool.training.image_to_image_options import ImageToImageOptions
from cxrtool.training.options import FittingOptions

CLASS_LOSSES = ("own", "all")

SWEEP = (1.0, 0.5, 0.1, 0.075, 0.05, 0.025, 0.01, 0.0075, 0.005, 0.0025, 0.001, 0.00075, 0.0005)
"""The weights of the class term that the implementation tries: `--class-loss-weight sweep`."""


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions(FittingOptions):
    """The options of `fit generators`; the schedule is the classifier's.

    Defaults are those of gonzalezsieira/UGR-FuCiTNet, train.py, and of Tabik et al. 2020. Which weight of the class
    term was taken in the end, neither tells.
    """

    SHARED: ClassVar[tuple[str, ...]] = SHARED

    manifest: Path = common_options.manifest(effect=False)
    splits: Path | None = option(
        "Fit generators in each fold of this file that `cxrtool split` wrote; needed.", None, shown="", effect=False
    )
    size: int = option("Side of the input in pixels.", 512)
    augment: str = again(
        ImageToImageOptions,
        "augment",
        "rotate=10,shift=0.05,zoom=0.2,brightness=0.05,contrast=0.05,blur=0.5,p=0.7",
        shown=None,
    )
    epochs: int = again(FittingOptions, "epochs", 50)
    batch_size: int = again(FittingOptions, "batch_size", 8)
    opt: str = again(FittingOptions, "opt", "adam")
    lr: float = again(FittingOptions, "lr", 1e-4)
    weight_decay: float = again(FittingOptions, "weight_decay", 1e-4)
    sched: str = again(FittingOptions, "sched", "step")
    decay_epochs: int = again(FittingOptions, "decay_epochs", 5)
    patience: int = again(FittingOptions, "patience", 10)
    class_loss: str = option(
        "The class term of each, over the images of its own class or of all: {choices}.", "own", choices=CLASS_LOSSES
    )
    class_loss_weight: str = option(
        "What that term counts; of several, as 0.1,0.05, or of 13, as sweep, each fold keeps the one that is best on "
        "its validation images.",
        "0.05",
    )
    perceptual: str = option("VGG16 for the perceptual term: imagenet, a file, or none.", "imagenet")
    weights: str = option("Of their classifier: imagenet, none, or a file.", "imagenet")
    classifier_lr: float = option(
        "Learning rate of their classifier, whose schedule --sched and what goes with it are.", 1e-3
    )
    only: str | None = common_options.only()
    save_every: float = common_options.save_every()
    # Constant, as in the implementation.
    momentum: float = 0.9
    opt_eps: float | None = None
    opt_rho: float = 0.95
    class_weights: str = "balanced"

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the paper and its implementation state: every default."""
        of_the_call = ("manifest", "splits", "only", "save_every")
        return {name: entry.default for name, (entry, _) in declared(cls).items() if name not in of_the_call}

    def identity(self) -> dict[str, Any]:
        """The options that bear on the result."""
        return {"kind": "generators", "network": "fucitnet", **super().identity()}
