"""Logistic regression on a thumbnail of the radiograph: what can be predicted without any detail.

On the public data of Makris et al. 2020, where the best of nine networks reported an accuracy of 0.96, logistic
regression on 64 x 64 pixels reaches 0.94. A network that is not clearly better may use only the
shape, brightness and position of the patient. It is trained like every other network, so that it can be compared with
them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cxrtool.models.architecture import Architecture
from cxrtool.models.network import Network


class Thumbnail(Network):
    """Multinomial logistic regression on the pixels of a small square image.

    Args:
        size: Side of the image in pixels.
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
        """The only layer."""
        return [self.head]


def build(architecture: Architecture) -> Thumbnail:
    """Build it with random weights."""
    return Thumbnail(architecture.classes, architecture.size)
