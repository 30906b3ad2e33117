"""The lung network of eduardomineo/unet-lung-segmentation, which COVID-XNet and COVID-SDNet used for the lungs.

The U-Net of Ronneberger et al. 2015 with half its channels and same padding: 7,759,521 parameters at 512 x 512 pixels,
fitted to Montgomery and Shenzhen. The input are grey values in [0, 1], the output are logits without the sigmoid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cxrtool.models.initialisation import draw_as_keras

WIDTHS = (32, 64, 128, 256, 512)
"""Channels of each level; between two levels the image is halved."""


def _double(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1),
        nn.ReLU(inplace=True),
    )


class EduardomineoUNet(nn.Module):
    """Grey values (B, 1, S, S) in [0, 1], S divisible by 16, to logits of lung of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(_double(a, b) for a, b in zip((1, *WIDTHS[:-1]), WIDTHS, strict=True))
        rising = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(below, beside, 2, 2) for below, beside in rising)
        self.up = nn.ModuleList(_double(2 * beside, beside) for _, beside in rising)
        self.head = nn.Conv2d(WIDTHS[0], 1, 1)
        draw_as_keras(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 1, S, S)."""
        features, kept = images, list[Tensor]()
        for index, block in enumerate(self.down):
            features = block(functional.max_pool2d(features, 2) if index else features)
            kept.append(features)
        kept.pop()
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            features = block(torch.cat((enlarge(features), kept.pop()), 1))
        logits: Tensor = self.head(features)
        return logits
