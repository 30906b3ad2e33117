"""Losses of classifiers, and class weights."""

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


def class_shares(labels: np.ndarray, classes: int, name: str) -> Tensor:
    """The share (K,) of each class in the loss, with the class weights of that name."""
    weights = class_weights(labels, classes, name)
    shares = torch.from_numpy(np.bincount(labels, minlength=classes)) / len(labels)
    return shares if weights is None else shares * weights


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Mean cross-entropy of a batch, each image weighted by its class.

    The sum is divided by the number of images, not by the sum of their weights (as torch does), so that all batches of
    the same size have the same weight.
    """
    losses = nn.functional.cross_entropy(logits.float(), target, reduction="none")
    return (losses if weights is None else losses * weights[target]).mean()


MARGINS, ABSENT = (0.9, 0.1), 0.5
"""Of `margin`: the minimum length of a present class, the maximum length of an absent one; weight of absent classes."""


def margin(logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Mean margin loss of a batch (Sabour et al. 2017, "Dynamic routing between capsules", equation 4).

    Args:
        logits: (B, K) logarithms of the lengths of the classes' capsules.
        target: (B,) class indices.
        weights: (K,) of the classes, or None.
    """
    lengths, present = logits.float().exp(), nn.functional.one_hot(target, logits.shape[1])
    least, most = MARGINS
    losses = present * (least - lengths).clamp_min(0).square()
    losses = losses + ABSENT * (1 - present) * (lengths - most).clamp_min(0).square()
    losses = losses.sum(1)
    return (losses if weights is None else losses * weights[target]).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "cross-entropy": cross_entropy,
    "margin": margin,
}
"""From logits (B, K), class indices (B,) and class weights (K,) to the mean loss of a batch."""
