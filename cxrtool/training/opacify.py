"""White lungs for fitting lung networks: the lungs of some training images become opaque inside their outline.

Radiographs of white lungs with an outline are rare, and on such lungs a network that knows lungs as dark areas leaves
the chest. Here haze of any extent and density is laid over lungs whose outline is known, up to the grey of the tissue
around them, and fades out beyond the outline; then only ribs, the opposite lung and the shape of the chest tell where
the lung is.

All random numbers depend on seed, epoch and image only, like the rest of the augmentation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cxrtool.training.draws import Draws
from cxrtool.training.randomness import uniforms

CELLS = (3, 6)
"""Cells along a side of the two fields that say where haze is."""

STREAM = 8
COUNT = 8 + sum(cells**2 for cells in CELLS)
"""Random numbers that an image needs."""

FADE = 24
"""The side of the image over the reach in pixels within which haze fades at the outline."""


class Opacify:
    """Lays haze over the lungs of some images of a batch.

    Args:
        share: Of the images.
        keys: One uint64 for each image of the store.
        size: Side of the images in pixels.
    """

    def __init__(self, share: float, keys: np.ndarray, seed: int, size: int, device: torch.device) -> None:
        self.share, self.keys, self.seed, self.size, self.device = share, keys, seed, size, device
        line = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size - 0.5
        self._x, self._y = line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)

    def __call__(self, images: Tensor, lungs: Tensor, indices: np.ndarray, epoch: int | np.ndarray) -> Tensor:
        """Change images.

        Args:
            images: (B, 1, S, S) in [0, 1].
            lungs: Likewise.
            indices: Those in the store.
            epoch: Of all, or of each.

        Returns:
            The images with haze, like `images`.
        """
        draw = Draws(uniforms(self.keys[indices], epoch, COUNT, self.seed, STREAM), self.device)
        chosen = draw(0.0, 1.0) < self.share
        # From a part of one lung to all of both.
        where = draw(-1.0, 3.0) + draw(-6.0, 6.0) * self._x + draw(-2.0, 5.0) * self._y
        for cells in CELLS:
            where = where + 0.7 * draw.field(cells, self.size)
        cover = torch.sigmoid(draw(1.5, 5.0) * where)
        density = chosen * draw(0.5, 1.0) * cover * self._faded(lungs)
        outside = (1 - lungs) * (images > images.mean((1, 2, 3), keepdim=True))
        tissue = (images * outside).sum((1, 2, 3), keepdim=True) / outside.sum((1, 2, 3), keepdim=True).clamp_min(1.0)
        inside = (images * lungs).sum((1, 2, 3), keepdim=True) / lungs.sum((1, 2, 3), keepdim=True).clamp_min(1.0)
        # Ribs and vessels remain, as far as they are seen through it.
        haze = tissue * draw(0.9, 1.2) + draw(0.0, 0.5) * (images - inside)
        return torch.lerp(images, haze, density).clamp_(0.0, 1.0)

    def _faded(self, lungs: Tensor) -> Tensor:
        """The lungs with soft edges that reach beyond the outline."""
        reach = max(1, self.size // FADE)
        # Row by row and column by column: a square of the same reach takes twenty times as long on a processor.
        for side, pad in (((1, 2 * reach + 1), (0, reach)), ((2 * reach + 1, 1), (reach, 0))) * 2:
            lungs = functional.avg_pool2d(lungs, side, 1, pad, count_include_pad=False)
        return (1.6 * lungs).clamp_max(1.0)
