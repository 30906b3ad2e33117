"""Optimizers, learning rates by epoch and class weights: the choices of the five systems, under timm's names."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cxrtool.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """How a network is fitted.

    Attributes:
        epochs: Passes over the training images, at most.
        batch_size: Images a step.
        opt: A name of `OPTIMIZERS`.
        lr: Learning rate at the start.
        momentum: Of SGD and RMSprop.
        weight_decay: L2 penalty.
        opt_eps: Numeric floor of the adaptive optimizers; None takes torch's.
        opt_rho: Memory of Adadelta and RMSprop.
        sched: A name of `SCHEDULES`.
        decay_epochs: Epochs between two decays of `step`; patience of `plateau`.
        decay_rate: Factor of a decay.
        warmup_epochs: Epochs over which the rate rises from 0 to `lr`.
        min_lr: The rate never falls below it.
        patience: Stop after so many epochs without a better validation loss; 0 never stops.
        checkpoint: Which epoch's weights are kept: a name of `CHECKPOINTS`.
        class_weights: `none`, or `balanced`: n / (K n_c) for class c.
    """

    epochs: int
    batch_size: int
    opt: str
    lr: float
    momentum: float
    weight_decay: float
    opt_eps: float | None
    opt_rho: float
    sched: str
    decay_epochs: int
    decay_rate: float
    warmup_epochs: int
    min_lr: float
    patience: int
    checkpoint: str
    class_weights: str


Parameters = Iterable[nn.Parameter]


def _eps(recipe: Recipe, default: float) -> float:
    return default if recipe.opt_eps is None else recipe.opt_eps


OPTIMIZERS: dict[str, Callable[[Parameters, Recipe], torch.optim.Optimizer]] = {
    "sgd": lambda p, r: torch.optim.SGD(p, r.lr, r.momentum, weight_decay=r.weight_decay),
    "adam": lambda p, r: torch.optim.Adam(p, r.lr, eps=_eps(r, 1e-8), weight_decay=r.weight_decay),
    "adamw": lambda p, r: torch.optim.AdamW(p, r.lr, eps=_eps(r, 1e-8), weight_decay=r.weight_decay),
    "adadelta": lambda p, r: torch.optim.Adadelta(p, r.lr, r.opt_rho, _eps(r, 1e-6), r.weight_decay),
    "rmsprop": lambda p, r: torch.optim.RMSprop(p, r.lr, r.opt_rho, _eps(r, 1e-8), r.weight_decay, momentum=r.momentum),
}

SCHEDULES: dict[str, Callable[[Recipe, int, Sequence[float]], float]] = {
    "constant": lambda r, epoch, losses: r.lr,
    "step": lambda r, epoch, losses: r.lr * r.decay_rate ** (epoch // r.decay_epochs),
    "cosine": lambda r, epoch, losses: _cosine(r, epoch),
    "plateau": lambda r, epoch, losses: r.lr * r.decay_rate ** _plateaus(losses, r.decay_epochs),
}
"""Learning rate of an epoch (counted from 0), given the validation losses so far: functions have no state to resume."""

CHECKPOINTS = ("best-loss", "best-accuracy", "last")
CLASS_WEIGHTS = ("none", "balanced")


def _cosine(recipe: Recipe, epoch: int) -> float:
    span = max(1, recipe.epochs - recipe.warmup_epochs)
    share = min(1.0, (epoch - recipe.warmup_epochs) / span)
    return recipe.min_lr + 0.5 * (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * share))


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


def learning_rate(recipe: Recipe, epoch: int, losses: Sequence[float]) -> float:
    """The learning rate of an epoch, counted from 0, warm-up and floor included."""
    if epoch < recipe.warmup_epochs:
        return recipe.lr * (epoch + 1) / recipe.warmup_epochs
    return max(recipe.min_lr, SCHEDULES[recipe.sched](recipe, epoch, losses))


def check(recipe: Recipe) -> None:
    """Check names and ranges.

    Raises:
        UsageError: One is wrong; the message says what would be right.
    """
    choices: dict[str, tuple[str, Collection[str]]] = {
        "--opt": (recipe.opt, OPTIMIZERS),
        "--sched": (recipe.sched, SCHEDULES),
        "--checkpoint": (recipe.checkpoint, CHECKPOINTS),
        "--class-weights": (recipe.class_weights, CLASS_WEIGHTS),
    }
    for option, (value, known) in choices.items():
        if value not in known:
            raise UsageError(f"{option}: expected one of {', '.join(known)}, found '{value}'")
    positive = {
        "--epochs": recipe.epochs, "--batch-size": recipe.batch_size, "--lr": recipe.lr,
        "--decay-epochs": recipe.decay_epochs, "--decay-rate": recipe.decay_rate,
    }  # fmt: skip
    for option, number in positive.items():
        if not number > 0 or not math.isfinite(number):
            raise UsageError(f"{option}: expected a number above 0, found {number}")
    others = {
        "--momentum": recipe.momentum, "--weight-decay": recipe.weight_decay, "--opt-eps": recipe.opt_eps or 0.0,
        "--warmup-epochs": recipe.warmup_epochs, "--min-lr": recipe.min_lr, "--patience": recipe.patience,
    }  # fmt: skip
    for option, number in others.items():
        if not number >= 0 or not math.isfinite(number):
            raise UsageError(f"{option}: expected 0 or a number above it, found {number}")
    if not 0.0 <= recipe.opt_rho < 1.0:
        raise UsageError(f"--opt-rho: expected a number from 0 to below 1, found {recipe.opt_rho}")


def class_weights(labels: np.ndarray, classes: int, name: str) -> Tensor | None:
    """Weights of the classes in the loss: n / (K n_c), so that the mean weight of an image is 1; None for `none`.

    Args:
        labels: Class indices of the training images.
        classes: Number of classes K.
        name: A name of `CLASS_WEIGHTS`.
    """
    if name == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    return torch.tensor(len(labels) / (classes * np.maximum(counts, 1)), dtype=torch.float32)


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Mean cross-entropy of a batch, each image times its class's weight.

    It is divided by the number of images, not by the sum of their weights (as torch does): a batch with few images of a
    rare class then counts no more than another.
    """
    losses = nn.functional.cross_entropy(logits.float(), target, reduction="none")
    return (losses if weights is None else losses * weights[target]).mean()


MARGINS, ABSENT = (0.9, 0.1), 0.5
"""Of `margin`: the length that a present class should reach and an absent one stay under; what the latter counts."""


def margin(logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Mean margin loss of a batch (Sabour et al. 2017, "Dynamic routing between capsules", equation 4).

    Args:
        logits: (B, K) logarithms of the lengths of the classes' capsules.
        target: (B,) class indices.
        weights: (K,) by which the images of each class count, or None.
    """
    lengths, present = logits.float().exp(), nn.functional.one_hot(target, logits.shape[1])
    reach, stay = MARGINS
    losses = present * (reach - lengths).clamp_min(0).square()
    losses = losses + ABSENT * (1 - present) * (lengths - stay).clamp_min(0).square()
    each = losses.sum(1)
    return (each if weights is None else each * weights[target]).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "cross-entropy": cross_entropy, "margin": margin,
}  # fmt: skip
"""From logits (B, K), classes (B,) and weights of the classes to the mean loss of a batch's images."""
