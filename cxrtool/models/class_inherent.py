"""Class-inherent transformations (FuCiTNet): for every class a network that makes a picture more like that class.

Rey-Area et al. 2020, as its reference implementation (gonzalezsieira/UGR-FuCiTNet) builds them; COVID-SDNet (Tabik et
al. 2020) takes them over. After the generator of SRGAN, without its upsampling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cxrtool.imaging.fits import Form
from cxrtool.models.part_network import PartNetwork

MEAN, STD = 0.4337, 0.2964
"""By which grey values in [0, 1] are standardised before a generator and the classifier that is trained beside it."""

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
    """One class's generator, 387,913 weights: standardised pictures (B, 3, S, S) to the same, of any size.

    A 9 x 9 convolution, five residual blocks, a 3 x 3 convolution; one PReLU weight a layer, and no skip around all.
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
        """Grey values (B, 1, S, S) in [0, 1] to what each of K generators makes of them: (K, B, S, S) in [0, 1].

        Radiographs are grey: the mean over the three channels is taken, and what lies beyond black and white is cut
        off, so that nothing wraps around when it is written.
        """
        inputs = standardise(images)
        made = torch.stack([member(inputs) for member in self.members])
        return to_grey(made)


def standardise(images: Tensor) -> Tensor:
    """Grey values (B, 1, S, S) in [0, 1] to standardised pictures of three equal channels (B, 3, S, S)."""
    return ((images - MEAN) / STD).expand(-1, CHANNELS, -1, -1)


def to_grey(pictures: Tensor) -> Tensor:
    """Standardised pictures (..., 3, S, S) to grey values (..., S, S) in [0, 1]."""
    return (pictures.float().mean(-3) * STD + MEAN).clamp(0.0, 1.0)


NETWORKS: dict[str, PartNetwork] = {"fucitnet": PartNetwork(Generators, Form(512), "of FuCiTNet, behind COVID-SDNet")}
"""Sets of generators by name; the first is the default."""
