"""Logistic regression on a thumbnail of the radiograph: what can be told without looking at anything closely.

On the public data of Makris et al. 2020, where the best of nine networks reported an accuracy of 0.96, logistic
regression on 64 x 64 pixels reaches 0.94. A network that is not clearly better than this has not shown that it saw more
than the shape, the brightness and the place of a body. It is trained as every network is, so that it can stand beside
any of them in a table.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cxrtool.models.architecture import Architecture
from cxrtool.models.network import Network


class Thumbnail(Network):
    """Multinomial logistic regression on the pixels of a small square picture.

    Args:
        classes: Number of outputs.
        size: Side of the picture in pixels.
    """

    def __init__(self, classes: int, size: int = 64) -> None:
        super().__init__()
        self.head = nn.Linear(size * size, classes)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 1, S, S), normalised, as rows of pixels (B, S * S)."""
        return torch.flatten(images, 1)

    def classify(self, features: Tensor) -> Tensor:
        """Rows of pixels to logits (B, K)."""
        logits: Tensor = self.head(features)
        return logits

    def head_modules(self) -> list[nn.Module]:
        """The one layer that there is."""
        return [self.head]


def build(architecture: Architecture) -> Thumbnail:
    """Build it, with weights drawn at random."""
    return Thumbnail(architecture.classes, architecture.size)
