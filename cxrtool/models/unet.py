"""The default lung network: a small U-Net that works at a quarter of its input's resolution.

After Ronneberger et al. 2015, with later improvements: group normalisation (Wu & He 2018), whose statistics are those
of the image and not of the training set; SiLU; concatenating skip connections; and pixel (un)shuffling (Shi et al.
2016) at both ends, which turns sixteen pixels into sixteen channels and back. Outlines of lungs need
the full input, but no convolutions at full resolution, which would be sixteen times as expensive.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (32, 64, 96, 128, 160)
SHUFFLE = 4
GROUPS = 8
FLAT = 1e-3
"""Minimum of the standard deviation by which an image is divided."""


class Block(nn.Sequential):
    """Two 3 x 3 convolutions, each normalised over groups of channels."""

    def __init__(self, before: int, after: int) -> None:
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, after), nn.SiLU(True)]
        super().__init__(*layers)


class UNet(nn.Module):
    """Grey values to logits of lung.

    Args:
        widths: Channels of each level; between two levels the image is halved.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        pairs = list(zip((SHUFFLE**2, *widths[:-1]), widths, strict=True))
        self.down = nn.ModuleList(Block(before, after) for before, after in pairs)
        rising = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(Block(below + beside, beside) for below, beside in rising)
        self.head = nn.Conv2d(widths[0], SHUFFLE**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, S, S) of values in [0, 1] to logits of the same shape; S divisible by 64 at the default widths.

        Each image is standardised by its own mean and deviation, so that dose and window do not matter.
        """
        deviation, mean = torch.std_mean(images, (1, 2, 3), keepdim=True)
        features = functional.pixel_unshuffle((images - mean) / deviation.clamp_min(FLAT), SHUFFLE)
        kept: list[Tensor] = []
        for index, block in enumerate(self.down):
            features = block(functional.avg_pool2d(features, 2) if index else features)
            kept.append(features)
        kept.pop()
        for block in self.up:
            features = functional.interpolate(features, scale_factor=2, mode="nearest")
            features = block(torch.cat((features, kept.pop()), 1))
        logits: Tensor = functional.pixel_shuffle(self.head(features), SHUFFLE)
        return logits
