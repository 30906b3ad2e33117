"""The network of the perceptual loss, which compares the features of two images."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from cxrtool.errors import CxrtoolError, InputError
from cxrtool.models.architecture import Architecture
from cxrtool.models.registry import build

NAME, LAYERS = "vgg16.tv_in1k", 31
"""VGG16's convolutions and poolings, including the last (Ledig et al. 2017, SRGAN; UGR-FuCiTNet)."""

STRIDE = 32
"""Pixels of the image per position of the feature map: the side of the smallest possible image."""


class Perceptual(nn.Module):
    """The features of a pretrained VGG16 with fixed weights.

    Args:
        features: The convolutional part of VGG16.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features.requires_grad_(requires_grad=False)
        self.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """Standardised images (B, 3, S, S), S of 32 or more, to features (B, 512, S // 32, S // 32)."""
        features: Tensor = self.features(pictures)
        return features


@cache
def load(weights: str) -> tuple[Perceptual, str]:
    """Load the network once in a process.

    Args:
        weights: `imagenet`, or a file with VGG16's state dictionary as `registry.build` takes it. Random weights are
            not possible: their features have no meaning.

    Returns:
        The network, on the CPU, and the source of its weights.

    Raises:
        InputError: The weights cannot be downloaded or read, or do not fit.
    """
    try:
        with torch.random.fork_rng([]):
            network, weights_from = build(Architecture(NAME, 2), weights=weights)
    except CxrtoolError as error:
        message, hint = (text.replace("--weights", "--perceptual") for text in (error.message, error.hint or ""))
        raise InputError(message, f"{hint}; --perceptual none omits this term of the loss".lstrip("; ")) from error
    layers = list(network.get_submodule("timm.features").children())[:LAYERS]
    return Perceptual(nn.Sequential(*layers)), weights_from
