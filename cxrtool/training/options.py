"""The options of fitting, and the registries of their choices. This module does not import torch.

Optimizers, schedules and the other choices have the names of timm. A new one is one entry here: the command line, the
checks and the methods paragraph of a report derive from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from cxrtool.errors import UsageError
from cxrtool.imaging.fits import FITS
from cxrtool.options import Options, declared, option
from cxrtool.training.presets import PRESETS

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


Parameters = Iterable["nn.Parameter"]


@dataclass(frozen=True)
class OptimizerChoice:
    """An optimizer: its name in a methods paragraph, and its constructor.

    Attributes:
        momentum: Whether it uses `--momentum`.
    """

    words: str
    build: Callable[[Parameters, FittingOptions], Optimizer]
    momentum: bool = False


@dataclass(frozen=True)
class ScheduleChoice:
    """A schedule: its text, with options in braces, and the rate of an epoch (from 0) given the losses so far."""

    words: str
    rate: Callable[[FittingOptions, int, Sequence[float]], float]


def _sgd(parameters: Parameters, options: FittingOptions) -> Optimizer:
    from torch.optim import SGD

    listed, fused = _with_kernel(parameters)
    return SGD(listed, options.lr, options.momentum, weight_decay=options.weight_decay, fused=fused)


def _adam(parameters: Parameters, options: FittingOptions) -> Optimizer:
    from torch.optim import Adam

    listed, fused = _with_kernel(parameters)
    return Adam(listed, options.lr, eps=_eps(options, 1e-8), weight_decay=options.weight_decay, fused=fused)


def _adamw(parameters: Parameters, options: FittingOptions) -> Optimizer:
    from torch.optim import AdamW

    listed, fused = _with_kernel(parameters)
    return AdamW(listed, options.lr, eps=_eps(options, 1e-8), weight_decay=options.weight_decay, fused=fused)


def _adadelta(parameters: Parameters, options: FittingOptions) -> Optimizer:
    from torch.optim import Adadelta

    return Adadelta(parameters, options.lr, options.opt_rho, _eps(options, 1e-6), options.weight_decay)


def _rmsprop(parameters: Parameters, options: FittingOptions) -> Optimizer:
    from torch.optim import RMSprop

    eps = _eps(options, 1e-8)
    return RMSprop(parameters, options.lr, options.opt_rho, eps, options.weight_decay, momentum=options.momentum)


def _with_kernel(parameters: Parameters) -> tuple[list[Any], bool | None]:
    """The parameters, or groups of them, and whether torch's single kernel for a whole step is used: on a GPU."""
    listed: list[Any] = list(parameters)
    first = listed[0]["params"][0] if isinstance(listed[0], dict) else listed[0]
    return listed, True if first.is_cuda else None


def _eps(options: FittingOptions, default: float) -> float:
    return default if options.opt_eps is None else options.opt_eps


def _cosine(options: FittingOptions, epoch: int) -> float:
    span = max(1, options.epochs - options.warmup_epochs)
    share = min(1.0, (epoch - options.warmup_epochs) / span)
    return options.min_lr + 0.5 * (options.lr - options.min_lr) * (1 + math.cos(math.pi * share))


def _plateaus(losses: Sequence[float], patience: int) -> int:
    """How often `patience` epochs have passed without a better loss."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        if loss < best:
            best, waited = loss, 0
        else:
            waited += 1
            if waited >= patience:
                count, waited = count + 1, 0
    return count


OPTIMIZERS: dict[str, OptimizerChoice] = {
    "sgd": OptimizerChoice("stochastic gradient descent", _sgd, momentum=True),
    "adam": OptimizerChoice("Adam", _adam),
    "adamw": OptimizerChoice("AdamW", _adamw),
    "adadelta": OptimizerChoice("Adadelta", _adadelta),
    "rmsprop": OptimizerChoice("RMSprop", _rmsprop, momentum=True),
}

SCHEDULES: dict[str, ScheduleChoice] = {
    "constant": ScheduleChoice("was kept constant", lambda options, epoch, losses: options.lr),
    "step": ScheduleChoice(
        "was multiplied by {decay_rate} every {decay_epochs} epochs",
        lambda options, epoch, losses: options.lr * options.decay_rate ** (epoch // options.decay_epochs),
    ),
    "cosine": ScheduleChoice("fell along a cosine", lambda options, epoch, losses: _cosine(options, epoch)),
    "plateau": ScheduleChoice(
        "was multiplied by {decay_rate} after {decay_epochs} epochs without a lower validation loss",
        lambda options, epoch, losses: options.lr * options.decay_rate ** _plateaus(losses, options.decay_epochs),
    ),
}
"""Functions of the losses so far, so that there is no state to resume."""

CHECKPOINTS = {
    "best-loss": "The weights of the epoch with the lowest validation loss were kept.",
    "best-accuracy": "The weights of the epoch with the highest validation accuracy were kept.",
    "last": "The weights of the last epoch were kept.",
}
"""The epoch whose weights are kept, with its sentence in a methods paragraph."""

CLASS_WEIGHTS = ("none", "balanced")
NORMALIZATIONS = ("native", "div255")
FROZEN_NORMS = ("eval", "batch")
BN_STATS = {
    "recompute": "Statistics of batch normalisation, where the network has it, were computed on all training images.",
    "running": "",
}
"""Where the statistics of batch normalisation are from, with the sentence in a methods paragraph."""

WATCHED = {
    "none": "",
    "test": "Loss and accuracy of the test images were recorded after every epoch; nothing was chosen by them.",
}
"""Images whose curves are drawn beside those of training, with the sentence in a methods paragraph."""


INPUT, NETWORK, OPTIMIZER = "Input", "Network", "Optimizer"
AUGMENTATION, CHOICE = "Augmentation", "Choice of the epoch"
"""Headings of the help."""


def _built_in_networks() -> Iterable[str]:
    from cxrtool.models.registry import BUILT_IN

    return BUILT_IN


@dataclass(frozen=True, kw_only=True)
class FittingOptions(Options):
    """The options of all networks that are fitted."""

    epochs: int = option("Maximum number of passes over the training images.", 50, panel=OPTIMIZER)
    batch_size: int = option("Images in a batch.", 32, panel=OPTIMIZER)
    opt: str = option("Optimizer: {choices}.", "adamw", choices=OPTIMIZERS, panel=OPTIMIZER)
    lr: float = option("Learning rate.", 3e-4, panel=OPTIMIZER)
    momentum: float = option("Momentum of sgd and rmsprop.", 0.9, panel=OPTIMIZER)
    weight_decay: float = option("L2 penalty.", 0.0, panel=OPTIMIZER)
    opt_eps: float | None = option("Epsilon of adaptive optimizers.", None, shown="torch's", panel=OPTIMIZER)
    opt_rho: float = option("Decay rate of the running averages of adadelta and rmsprop.", 0.95, panel=OPTIMIZER)
    sched: str = option("Schedule of the learning rate: {choices}.", "constant", choices=SCHEDULES, panel=OPTIMIZER)
    decay_epochs: int = option("Epochs between decays of step; patience of plateau.", 10, panel=OPTIMIZER)
    decay_rate: float = option("Factor of a decay.", 0.1, panel=OPTIMIZER)
    warmup_epochs: int = option("Epochs in which the learning rate rises to --lr.", 0, panel=OPTIMIZER)
    min_lr: float = option("Minimum learning rate.", 0.0, panel=OPTIMIZER)
    patience: int = option(
        "Stop after so many epochs without a better validation loss; 0 never stops.", 0, panel=CHOICE
    )
    checkpoint: str = option(
        "Epoch to keep: {choices} (best on validation).", "best-loss", choices=CHECKPOINTS, panel=CHOICE
    )
    class_weights: str = option(
        "Class weights: none, or balanced, n / (K n_c).", "none", choices=CLASS_WEIGHTS, panel=OPTIMIZER
    )

    def fitting(self) -> FittingOptions:
        """Only these options, without further ones of a command."""
        return FittingOptions(**{entry.name: getattr(self, entry.name) for entry in fields(FittingOptions)})

    def identity(self) -> dict[str, Any]:
        """The options that affect the result, without those that a command keeps constant."""
        known = declared(type(self))
        return {name: value for name, value in super().identity().items() if name in known}

    def rate(self, epoch: int, losses: Sequence[float]) -> float:
        """The learning rate of an epoch, counted from 0, warm-up and floor included."""
        if epoch < self.warmup_epochs:
            return self.lr * (epoch + 1) / self.warmup_epochs
        return max(self.min_lr, SCHEDULES[self.sched].rate(self, epoch, losses))

    def check_numbers(self) -> None:
        """Check ranges.

        Raises:
            UsageError: A number is out of range.
        """
        for name in ("epochs", "batch_size", "lr", "decay_epochs", "decay_rate"):
            number = getattr(self, name)
            if not number > 0 or not math.isfinite(number):
                raise UsageError(f"--{name.replace('_', '-')}: expected a number above 0, found {number}")
        for name in ("momentum", "weight_decay", "opt_eps", "warmup_epochs", "min_lr", "patience"):
            number = getattr(self, name) or 0.0
            if not number >= 0 or not math.isfinite(number):
                raise UsageError(f"--{name.replace('_', '-')}: expected 0 or a number above it, found {number}")
        if not 0.0 <= self.opt_rho < 1.0:
            raise UsageError(f"--opt-rho: expected a number from 0 to below 1, found {self.opt_rho}")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(FittingOptions):
    """How a classifier is trained. A flag overrides the preset, which overrides the default."""

    preset: str | None = option(
        "A published system: {choices}.", None, choices=PRESETS, shown="", effect=False, panel=NETWORK
    )
    model: str = option(
        "Network: {choices}, or any network of timm.",
        "",
        choices=_built_in_networks,
        closed=False,
        shown="the preset's",
        panel=NETWORK,
    )
    kernels: str | None = option(
        "Kernel size of each layer of covid-xnet, as 5,5,5,3,3.", None, shown="the paper's", panel=NETWORK
    )
    weights: str = option("Initial weights: imagenet, none, or a file.", "", shown="imagenet for timm's", panel=NETWORK)
    size: int = option("Side of the input in pixels.", 0, shown="the network's own", panel=INPUT)
    fit: str = option("How an image becomes square: {choices}.", "squash", choices=FITS, panel=INPUT)
    normalize: str = option(
        "Normalisation: native (as the weights were trained) or div255.",
        "native",
        choices=NORMALIZATIONS,
        panel=NETWORK,
    )
    freeze: bool = option(
        "Train only the head.", False, flags=("--freeze/--unfreeze",), shown="unfreeze", panel=NETWORK
    )
    frozen_bn: str = option(
        "Mode of frozen batch normalisation: {choices}.", "eval", choices=FROZEN_NORMS, panel=NETWORK
    )
    bn_stats: str = option(
        "Statistics of batch normalisation: {choices} (recompute: of all training images, before every validation).",
        "recompute",
        choices=BN_STATS,
        panel=NETWORK,
    )
    hidden: int = option("Width of a new dense head; 0 keeps the network's.", 0, panel=NETWORK)
    dropout: float = option("Dropout before the output layer.", 0.0, panel=NETWORK)
    compile: bool = option(
        "Compile the network (torch.compile), which is for GPUs; on two processors it gains nothing, and takes 65 s to "
        "start.",
        False,
        panel=NETWORK,
    )
    watch: str = option(
        "Images whose loss and accuracy are also computed after every epoch: {choices}. For looking only: nothing is "
        "chosen by them.",
        "none",
        choices=WATCHED,
        panel=CHOICE,
    )
    augment: str = option(
        "Any of rotate shift shear zoom crop flip brightness contrast blur noise p keras, as name=reach; or none.",
        "rotate=10,shift=0.05,zoom=0.1,flip=0.5",
        panel=AUGMENTATION,
    )

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The preset that `given` names."""
        return PRESETS.get(given.get("preset") or "", {})

    @classmethod
    def of(cls, *args: Any, **given: Any) -> Self:
        """Make options as the command line does: given values override the preset."""
        names = [entry.name for entry in fields(cls) if not entry.kw_only]
        values = {**dict(zip(names, args, strict=False)), **given}
        return cls.build({name: value for name, value in values.items() if value is not None})[0]
