"""Occlusion: how much the probability of a class falls when a part of the image is covered.

Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", ECCV, section 4.2: a square is moved over
the image, and the probability of the class is drawn by its position. Here the square has an eighth of the side of the
image, is moved by half of its side, and is filled with the mean of the image (the paper: grey). The value of a pixel is
the mean fall over the squares that cover it; where the probability rises it is 0. Captum's Occlusion gives the same
values before they are clipped.

It needs no gradient and no feature map, so it is right for any network, and it needs 225 predictions an image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cxrtool.errors import UsageError
from cxrtool.explaining.cam import Choose, Maps
from cxrtool.explaining.layers import CONVOLUTIONAL, Layer, Shape, at_rest
from cxrtool.models.network import Network

PATCHES = 8
"""Patches along a side that do not overlap."""


class Occlusion:
    """Occlusion maps of one network; `images` (B, C, S, S), normalised, are an example of its input.

    Raises:
        UsageError: A layer is named: it is the input that is covered.
    """

    name = "occlusion"

    def __init__(self, network: Network, images: Tensor, layer: str | None = None) -> None:
        if layer is not None:
            raise UsageError("--layer: occlusion covers the input, not a layer", "--method grad-cam takes any layer")
        self.network = network
        channels, side = images.shape[1], images.shape[-1]
        self.patch = max(1, round(side / PATCHES))
        self.stride = max(1, self.patch // 2)
        # The last square ends at the border.
        self.starts = [*range(0, side - self.patch, self.stride), side - self.patch]
        name = f"patches of {self.patch} x {self.patch} pixels of the input"
        self.layer = Layer(name, Shape(CONVOLUTIONAL, channels, len(self.starts)))

    def __call__(self, images: Tensor, choose: Choose) -> Maps:
        """The maps of images (B, C, S, S), normalised, at their size."""
        count, _, side, _ = images.shape
        with at_rest(self.network), torch.inference_mode():
            logits = self.network(images).float()
            targets = choose(logits)
            whole = _probability(logits, targets)
            grey = images.mean((2, 3), keepdim=True)
            falls = torch.zeros((count, side, side), dtype=torch.float64, device=images.device)
            covered = torch.zeros((side, side), dtype=torch.float64, device=images.device)
            for top in self.starts:
                for left in self.starts:
                    rows, columns = slice(top, top + self.patch), slice(left, left + self.patch)
                    hidden = images.clone()
                    hidden[:, :, rows, columns] = grey
                    fall = whole - _probability(self.network(hidden).float(), targets)
                    falls[:, rows, columns] += fall[:, None, None]
                    covered[rows, columns] += 1
        return Maps((falls / covered).relu().float(), logits, targets)


def _probability(logits: Tensor, targets: Tensor) -> Tensor:
    """The probability (B,) of a class each, in double precision: near 1 a small fall would be lost."""
    return torch.softmax(logits.double(), 1).gather(1, targets[:, None])[:, 0]
