"""Losses of networks that return an image: for masks from logits, for images from grey values.

Every function takes outputs and targets (B, 1, S, S), targets in [0, 1], and returns the mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]

SMOOTH = 1.0
"""Added to numerator and denominator of Dice, so that an empty prediction of an empty mask is correct."""

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the five scales of MS-SSIM, from fine to coarse (Wang, Simoncelli & Bovik 2003, section 3.2)."""

WINDOW, SIGMA = 11, 1.5
LUMINANCE, CONTRAST = 0.01**2, 0.03**2
"""The constants C1 and C2 for grey values in [0, 1]."""

SMALLEST = WINDOW * 2 ** (len(SCALES) - 1)
"""Side in pixels of the smallest image whose coarsest scale still contains the window."""


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of the pixels."""
    return functional.binary_cross_entropy_with_logits(logits.float(), target)


def soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Dice of the probabilities of each image (B,), in [0, 1] (Milletari et al. 2016, without their squares)."""
    probability = torch.sigmoid(logits.float()).flatten(1)
    target = target.flatten(1)
    shared = 2 * (probability * target).sum(1) + SMOOTH
    return shared / (probability.sum(1) + target.sum(1) + SMOOTH)


def negative_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Minus the Dice of a batch as if it were one image, as eduardomineo/unet-lung-segmentation computes it."""
    return -soft_dice(logits.reshape(1, -1), target.reshape(1, -1)).mean()


OF_BATCH = ("negative_dice",)
"""Losses that are no mean over the images of a batch."""


def cross_entropy_and_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy plus one minus Dice of each image: all images have equal weight, however small the lungs."""
    return binary_cross_entropy(logits, target) + 1 - soft_dice(logits, target).mean()


OUTLINED = 0.98
"""A target whose highest value is below is no outline: only its sum is known."""

OVERLAP = 0.5
"""Weight of Dice in `outlines_and_shares`."""


def outlines_and_shares(logits: Tensor, target: Tensor) -> Tensor:
    """For targets of which some are outlines, and of the others only the covered area is known.

    Of an outline, binary cross-entropy and half of one minus Dice; without Dice where it is empty, because there every
    pixel would count as much as all. Of the others, whose target is grey, the distance of the covered shares. Of
    outlines that distance does not count: with it, small opacities were missed.
    """
    logits = logits.float()
    probability = torch.sigmoid(logits)
    peak = target.amax((1, 2, 3))
    grey = (peak > 0) & (peak < OUTLINED)
    pixels = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2, 3))
    outlined = pixels + OVERLAP * (1 - soft_dice(logits, target)) * (peak > 0)
    # As a share of the lungs, which are about half of the square.
    covered = 2 * (probability.mean((1, 2, 3)) - target.mean((1, 2, 3))).abs()
    return torch.where(grey, covered, outlined).mean()


def ms_ssim(one: Tensor, other: Tensor) -> Tensor:
    """Multi-scale structural similarity of each pair of images (B,) (Wang, Simoncelli & Bovik 2003, equation 7).

    The window is a Gaussian of 11 pixels that stays inside the image; scales are halved by averaging. A
    negative term of a scale counts as 0, since its power would not be a real number.

    Args:
        one: (B, 1, H, W) in [0, 1], of at least `SMALLEST` pixels a side.
        other: Likewise.
    """
    offsets = torch.arange(WINDOW, device=one.device, dtype=torch.float32) - WINDOW // 2
    kernel = torch.softmax(-(offsets**2) / (2 * SIGMA**2), 0)
    result = torch.ones(len(one), device=one.device)
    for index, weight in enumerate(SCALES):
        if index:
            one, other = functional.avg_pool2d(one, 2), functional.avg_pool2d(other, 2)
        luminance, structure = _similarity(one, other, kernel)
        last = index == len(SCALES) - 1
        term = (luminance * structure if last else structure).flatten(1).mean(1)
        result = result * term.clamp_min(0.0) ** weight
    return result


def _similarity(one: Tensor, other: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure, at each position of the window (equations 1 to 3)."""
    moments = torch.cat((one, other, one * one, other * other, one * other), 1)
    channels = moments.shape[1]
    rows = functional.conv2d(moments, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    local = functional.conv2d(rows, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    mean_one, mean_other, square_one, square_other, product = local.unbind(1)
    variances = square_one - mean_one**2 + square_other - mean_other**2
    covariance = product - mean_one * mean_other
    luminance = (2 * mean_one * mean_other + LUMINANCE) / (mean_one**2 + mean_other**2 + LUMINANCE)
    return luminance, (2 * covariance + CONTRAST) / (variances + CONTRAST)


def similarity_and_error(outputs: Tensor, target: Tensor) -> Tensor:
    """0.84 (1 - MS-SSIM) + 0.16 MSE, with the weights of hmchuong/ML-BoneSuppression (after Zhao et al. 2017)."""
    outputs = outputs.float()
    return 0.84 * (1 - ms_ssim(outputs, target).mean()) + 0.16 * functional.mse_loss(outputs, target)


def squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the grey values."""
    return functional.mse_loss(outputs.float(), target)


def hard_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Dice of each image (B,) at a threshold of one half; 1 if both masks are empty."""
    found, truth = (logits > 0).flatten(1), (target > 0.5).flatten(1)
    both = 2 * (found & truth).sum(1).float()
    total = (found.sum(1) + truth.sum(1)).float()
    return torch.where(total > 0, both / total.clamp_min(1.0), 1.0)


def mean_squares(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each image (B,)."""
    return (outputs.float() - target).square().flatten(1).mean(1)


SCORES: MappingProxyType[str, tuple[str, Loss]] = MappingProxyType(
    {"lungs": ("dice", hard_dice), "opacities": ("dice", hard_dice), "ribs": ("mse", mean_squares)}
)
"""By kind, the score: its name, and its value for each image."""
