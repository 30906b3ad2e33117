"""Changes of grey values for fitting lung networks, as exposure, processing, devices and letters cause them.

A lung network has to work on images of any dose, window and machine, and with any object on the chest. Each image is
blurred or sharpened, covered by rectangles and lines, brightened and darkened locally, changed by a tone curve, and
given noise. No outline is moved. The ranges were chosen by inspection: in the worst results a person still sees the
lungs.

All random numbers depend on seed, epoch and image only, like the rest of the augmentation.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cxrtool.training.draws import Draws
from cxrtool.training.randomness import uniforms

REACH = 4
"""Radius of the blur kernel in pixels."""

BOXES, LINES = 2, 2
FIELDS = {"coarse": 2, "fine": 4, "gain": 3}
"""Smooth fields of random brightness, and their number of cells along a side."""

STREAM = 7
BANK = 1 << 22


class Exposure:
    """Changes the grey values of batches.

    Args:
        keys: One uint64 for each image of the store.
        size: Side of the images in pixels.
    """

    def __init__(self, keys: np.ndarray, seed: int, size: int, device: torch.device) -> None:
        self.keys, self.seed, self.size, self.device = keys, seed, size, device
        line = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
        self._x, self._y = line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)
        generator = torch.Generator().manual_seed(seed & (2**63 - 1))
        self._grain = torch.randn(max(BANK, 2 * size**2), generator=generator).to(device)

    def __call__(self, images: Tensor, indices: np.ndarray, epoch: int | np.ndarray) -> Tensor:
        """Change images (B, 1, S, S) of values in [0, 1]; `indices` are their indices in the store."""
        draw = Draws(uniforms(self.keys[indices], epoch, COUNT, self.seed, STREAM), self.device)
        images = self._focus(images, draw)
        for _ in range(BOXES):
            images = self._box(images, draw)
        for _ in range(LINES):
            images = self._line(images, draw)
        images = self._tone(images, draw)
        start = (draw.numpy() * (len(self._grain) - self.size**2)).astype(np.int64)
        noise = torch.stack([self._grain[s : s + self.size**2] for s in start.tolist()]).view_as(images)
        # As a window clips values beyond its limits.
        return torch.addcmul(images, noise, draw(0.0, 0.06)).clamp_(0.0, 1.0)

    def _focus(self, images: Tensor, draw: Draws) -> Tensor:
        """Blur half of the images, and sharpen a quarter of them, by up to 1.5 pixels of 128."""
        sigma = draw(0.3, 1.5) * (self.size / 128)
        sharpness, chance = draw(0.5, 2.0), draw(0.0, 1.0)
        reach = REACH * max(1, round(self.size / 128))
        steps = torch.arange(-reach, reach + 1, device=self.device, dtype=torch.float32)
        kernel = torch.softmax(-(steps**2) / (2 * sigma.view(-1, 1) ** 2), 1)
        batch = images.transpose(0, 1)
        batch = functional.pad(batch, (reach,) * 4, mode="reflect")
        batch = functional.conv2d(batch, kernel[:, None, None, :], groups=len(images))
        smooth = functional.conv2d(batch, kernel[:, None, :, None], groups=len(images)).transpose(0, 1)
        sharp = torch.addcmul(images, images - smooth, sharpness)
        return torch.where(chance < 0.5, smooth, torch.where(chance < 0.75, sharp, images))

    def _box(self, images: Tensor, draw: Draws) -> Tensor:
        """Draw a rectangle on some images, like a letter, a collimator's edge or a pacemaker."""
        left, top = draw(-0.1, 1.0), draw(-0.1, 1.0)
        wide, high = draw(0.0, 0.2), draw(0.0, 0.2)
        opaque, grey, there = draw(0.3, 1.0), draw(0.0, 1.0), draw(0.0, 1.0) < 0.3
        inside = ((self._x - left).abs() < wide) & ((self._y - top).abs() < high) & there
        return torch.where(inside, images * (1 - opaque) + opaque * grey, images)

    def _line(self, images: Tensor, draw: Draws) -> Tensor:
        """Draw a thin, curved line on some images, like a cable or a tube."""
        angle, offset, bend = draw(0.0, math.pi), draw(-0.4, 0.4), draw(-0.6, 0.6)
        width, grey, there = draw(0.004, 0.012), draw(-0.2, 0.6), draw(0.0, 1.0) < 0.3
        along = (self._x - 0.5) * angle.cos() + (self._y - 0.5) * angle.sin()
        beside = (self._y - 0.5) * angle.cos() - (self._x - 0.5) * angle.sin() - offset - bend * along**2
        return torch.where((beside.abs() < width) & there, images + grey, images)

    def _tone(self, images: Tensor, draw: Draws) -> Tensor:
        """Tone curve, local brightness, global contrast and brightness."""
        images = images.clamp(1e-4, 1.0) ** draw(-0.8, 0.8).exp()
        images = (
            images
            + draw(0.0, 0.15) * draw.field(FIELDS["fine"], self.size)
            + draw(0.0, 0.2) * draw.field(FIELDS["coarse"], self.size)
        )
        images = images * (draw(0.0, 0.3) * draw.field(FIELDS["gain"], self.size)).exp()
        middle = images.mean((1, 2, 3), keepdim=True)
        return (images - middle) * draw(0.6, 1.8) + middle + draw(-0.15, 0.15)


COUNT = 3 + 7 * BOXES + 6 * LINES + 1 + 2 + 1 + 2 + sum(cells**2 for cells in FIELDS.values()) + 2
"""Random numbers that an image needs."""
