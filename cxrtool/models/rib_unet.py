"""The default rib-suppressing network: a small U-Net that predicts what the ribs add, which is then subtracted.

The published autoencoder (`cxrtool.models.rib_autoencoder`) has to reconstruct the whole image from an eighth of its
resolution, at 1,024 pixels. A network that predicts only the difference keeps the rest of the image unchanged, and
needs a tenth of the computation. Its blocks are those of the default lung network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cxrtool.models.unet import FLAT, UNet

WIDTHS = (24, 48, 96, 128)


class RibUNet(nn.Module):
    """Suppresses ribs in grey values.

    Args:
        widths: Channels of each level.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.ribs = UNet(widths)
        # At the start nothing is subtracted.
        nn.init.zeros_(self.ribs.head.weight)
        nn.init.zeros_(self.ribs.head.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, S, S) of values in [0, 1] to values of the same shape; S divisible by 32.

        The difference is in units of the image's own deviation, so that contrast does not matter.
        """
        deviation = torch.std(images, (1, 2, 3), keepdim=True).clamp_min(FLAT)
        suppressed: Tensor = images - deviation * self.ribs(images)
        return suppressed
