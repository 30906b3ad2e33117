"""The default rib-suppressing network: a small U-Net that draws what the ribs have added, which is then taken away.

The published autoencoder (`cxrtool.models.rib_autoencoder`) has to draw the whole picture anew through an eighth of its
resolution, at 1,024 pixels. A network that draws the difference alone starts from the picture as it is, keeps every
vessel that it does not touch, and needs a tenth of the computation. Its blocks are those of the default lung network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cxrtool.models.unet import FLAT, UNet

WIDTHS = (24, 48, 96, 128)


class RibUNet(nn.Module):
    """Grey values to the same without ribs.

    Args:
        widths: Channels of each level.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.ribs = UNet(widths)
        # Nothing is taken away at the start.
        nn.init.zeros_(self.ribs.head.weight)
        nn.init.zeros_(self.ribs.head.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, S, S) of values in [0, 1] to values of the same shape; S divisible by 32.

        What is taken away is drawn in units of the picture's own deviation, so that contrast does not matter.
        """
        deviation = torch.std(images, (1, 2, 3), keepdim=True).clamp_min(FLAT)
        less: Tensor = images - deviation * self.ribs(images)
        return less
