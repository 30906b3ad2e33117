"""The network by whose features two pictures are compared: a perceptual loss asks what is seen, not which pixel."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from cxrtool.errors import CxrtoolError, InputError
from cxrtool.models.architecture import Architecture
from cxrtool.models.registry import build

NAME, LAYERS = "vgg16", 31
"""VGG16's convolutions with their poolings, the last one included (Ledig et al. 2017, SRGAN; UGR-FuCiTNet)."""

STRIDE = 32
"""Pixels of the picture for each place of the features: the side of the smallest picture that has any."""


class Perceptual(nn.Module):
    """What a trained VGG16 sees in a picture; its weights are fixed.

    Args:
        features: The convolutional part of VGG16.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features.requires_grad_(requires_grad=False)
        self.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """Standardised pictures (B, 3, S, S), S of 32 or more, to features (B, 512, S // 32, S // 32)."""
        seen: Tensor = self.features(pictures)
        return seen


@cache
def load(weights: str) -> tuple[Perceptual, str]:
    """Load the network once in a process.

    Args:
        weights: `imagenet`, or a file with VGG16's state dictionary as `registry.build` takes it. Random weights are
            none: their features would compare nothing.

    Returns:
        The network, on the CPU, and a line that says where its weights came from.

    Raises:
        InputError: The weights are not at hand, cannot be read, or do not fit.
    """
    try:
        with torch.random.fork_rng([]):
            network, weights_from = build(Architecture(NAME, 2), weights=weights)
    except CxrtoolError as error:
        message, hint = (text.replace("--weights", "--perceptual") for text in (error.message, error.hint or ""))
        raise InputError(message, f"{hint}; --perceptual none leaves this term of the loss out".lstrip("; ")) from error
    layers = list(network.get_submodule("timm.features").children())[:LAYERS]
    return Perceptual(nn.Sequential(*layers)), weights_from
