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
from cxrtool.training.presets import GENERATORS

CLASS_LOSSES = ("own", "all")


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions(FittingOptions):
    """The options of `fit generators`; the schedule is that of the classifier.

    Defaults are those of gonzalezsieira/UGR-FuCiTNet, train.py, and of Tabik et al. 2020. Neither states the weight of
    the class term that was finally used.
    """

    SHARED: ClassVar[tuple[str, ...]] = SHARED

    manifest: Path = common_options.manifest(effect=False)
    splits: Path | None = option(
        "Fit generators in each fold of this splits file of `cxrtool split`; required.", None, shown="", effect=False
    )
    size: int = option("Side of the input in pixels.", GENERATORS["size"])
    augment: str = again(
        ImageToImageOptions,
        "augment",
        "rotate=10,shift=0.05,zoom=0.2,brightness=0.05,contrast=0.05,blur=0.5,p=0.7",
        shown=None,
    )
    epochs: int = again(FittingOptions, "epochs", GENERATORS["epochs"])
    batch_size: int = again(FittingOptions, "batch_size", GENERATORS["batch_size"])
    opt: str = again(FittingOptions, "opt", "adam")
    lr: float = again(FittingOptions, "lr", 1e-4)
    weight_decay: float = again(FittingOptions, "weight_decay", 1e-4)
    sched: str = again(FittingOptions, "sched", "step")
    decay_epochs: int = again(FittingOptions, "decay_epochs", 5)
    patience: int = again(FittingOptions, "patience", 10)
    class_loss: str = option(
        "Images in the class term of a generator: those of its own class, or all: {choices}.",
        "own",
        choices=CLASS_LOSSES,
    )
    class_loss_weight: str = option(
        "Weight of the class term. Of several, as 0.1,0.05, or of 13, as sweep, each fold keeps the one that is best "
        "on its validation images.",
        "0.05",
    )
    perceptual: str = option("Weights of VGG16 for the perceptual term: imagenet, a file, or none.", "imagenet")
    weights: str = option("Weights of the classifier: imagenet, none, or a file.", "imagenet")
    classifier_lr: float = option(
        "Initial learning rate of the classifier; --sched and its options are for the classifier.", 1e-3
    )
    only: str | None = common_options.only()
    jobs: int = common_options.jobs()
    save_every: float = common_options.save_every()
    # Constant, as in the implementation.
    momentum: float = 0.9
    opt_eps: float | None = None
    opt_rho: float = 0.95
    class_weights: str = "balanced"

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The defaults, which are those of the paper and its implementation."""
        of_the_call = ("manifest", "splits", "only", "jobs", "save_every")
        return {name: entry.default for name, (entry, _) in declared(cls).items() if name not in of_the_call}

    def identity(self) -> dict[str, Any]:
        """The options that affect the result."""
        return {"kind": "generators", "network": "fucitnet", **super().identity()}
