"""The lung network of imlab-uiip/lung-segmentation-2d, which the portable VGG16 system of 2020 used for the lungs.

22 convolutions, 4 poolings, 4 merges, 5,468,897 parameters. Differences from the U-Net of Ronneberger et al. 2015:
upsampling by repeating pixels instead of a transposed convolution, and two convolutions *before* each merge but only
one after it. Published with Montgomery and JSRT: IoU 0.956, Dice 0.972.

Differences from the reference: each image is z-scored by its own mean and deviation, not by those of a data set, so
that a single image can be processed; and the output are logits without the sigmoid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cxrtool.models.initialisation import draw_as_keras

DOWN = ((1, 32, 32), (32, 64, 64), (64, 64, 64), (64, 128, 128))
"""Channels into, inside and out of each level of the encoder."""

MIDDLE = 256
UP = ((256, 256, 128), (256, 256, 64), (256, 128, 64), (128, 64, 32))
"""Of each level of the decoder: channels from the level below, its own, and those of the encoder that are merged."""

FLAT = 1e-6
"""Minimum of the standard deviation by which an image is divided."""


def _conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True))


class ImlabUNet(nn.Module):
    """Grey values (B, 1, S, S) in [0, 1], S divisible by 16, to logits of lung of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Sequential(_conv(a, b), _conv(b, c)) for a, b, c in DOWN)
        self.middle = _conv(DOWN[-1][-1], MIDDLE)
        self.before = nn.ModuleList(nn.Sequential(_conv(a, b), _conv(b, b)) for a, b, _ in UP)
        self.behind = nn.ModuleList(_conv(b + c, b) for _, b, c in UP)
        self.head = nn.Conv2d(UP[-1][1], 1, 3, padding=1)
        draw_as_keras(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 1, S, S)."""
        deviation, mean = torch.std_mean(images, (1, 2, 3), correction=0, keepdim=True)
        features = (images - mean) / deviation.clamp_min(FLAT)
        kept: list[Tensor] = []
        for block in self.down:
            kept.append(block(features))
            features = functional.max_pool2d(kept[-1], 2)
        features = self.middle(features)
        for before, behind in zip(self.before, self.behind, strict=True):
            features = before(functional.interpolate(features, scale_factor=2, mode="nearest"))
            features = behind(torch.cat((features, kept.pop()), 1))
        logits: Tensor = self.head(features)
        return logits
