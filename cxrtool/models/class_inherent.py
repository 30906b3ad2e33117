"""Class-inherent transformations (FuCiTNet): for every class a network that makes images more similar to that class.

Rey-Area et al. 2020, as in the reference implementation (gonzalezsieira/UGR-FuCiTNet); also used by COVID-SDNet (Tabik
et al. 2020). Based on the generator of SRGAN, without its upsampling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cxrtool.imaging.fits import Form
from cxrtool.models.part_network import PartNetwork

MEAN, STD = 0.4337, 0.2964
"""Of grey values in [0, 1], to standardise the input of the generators and of their classifier."""

WIDTH, BLOCKS, CHANNELS = 64, 5, 3


class Residual(nn.Module):
    """Two normalised convolutions whose output is added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, S, S) to the same shape."""
        added: Tensor = features + self.body(features)
        return added


class Generator(nn.Sequential):
    """One class's generator, 387,913 weights: standardised images (B, 3, S, S) to the same, of any size.

    A 9 x 9 convolution, five residual blocks, a 3 x 3 convolution; one PReLU weight per layer; no global skip.
    """

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(CHANNELS, WIDTH, 9, padding=4),
            nn.PReLU(),
            *(Residual(WIDTH) for _ in range(BLOCKS)),
            nn.Conv2d(WIDTH, CHANNELS, 3, padding=1),
        )


class Generators(nn.Module):
    """The generators of all classes.

    Args:
        classes: Names of the classes, in the order of their generators.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = list(classes)
        self.members = nn.ModuleList(Generator() for _ in self.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Grey values (B, 1, S, S) in [0, 1] to the output of each of K generators: (K, B, 3, S, S) in [0, 1]."""
        inputs = standardise(images)
        return to_pictures(torch.stack([member(inputs) for member in self.members]))


def standardise(images: Tensor) -> Tensor:
    """Values (B, 1 or 3, S, S) in [0, 1] to standardised images (B, 3, S, S); a grey image has equal channels."""
    return ((images - MEAN) / STD).expand(-1, CHANNELS, -1, -1)


def to_pictures(standardised: Tensor) -> Tensor:
    """Standardised images (..., 3, S, S) to values in [0, 1], clipped at black and white.

    The three channels are kept, as the paper's classifier gets them. The classifier of a fold that was fitted with the
    generators tells them apart, so their mean would lose a part of the change.
    """
    return (standardised.float() * STD + MEAN).clamp(0.0, 1.0)


NETWORKS: dict[str, PartNetwork] = {"fucitnet": PartNetwork(Generators, Form(512), "of FuCiTNet, used by COVID-SDNet")}
"""Sets of generators by name; the first is the default."""
