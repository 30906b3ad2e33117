"""What a classifier loses, and how its classes are weighted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


def class_weights(labels: np.ndarray, classes: int, name: str) -> Tensor | None:
    """Weights of the classes in the loss: n / (K n_c), so that the mean weight of an image is 1; None for `none`.

    Args:
        labels: Class indices of the training images.
        classes: Number of classes K.
        name: A name of `CLASS_WEIGHTS` in `training.options`.
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
    "cross-entropy": cross_entropy,
    "margin": margin,
}
"""From logits (B, K), classes (B,) and weights of the classes to the mean loss of a batch's images."""
