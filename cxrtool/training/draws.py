"""The random numbers of a batch as tensors, and smooth random fields of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cxrtool.training.device import on_device


class Draws:
    """Gives the random numbers of a batch, column by column.

    Args:
        numbers: (B, count), uniform in [0, 1).
    """

    def __init__(self, numbers: np.ndarray, device: torch.device) -> None:
        self._numbers, self._device, self._next = numbers, device, 0

    def numpy(self) -> np.ndarray:
        """The next number of each image, (B,)."""
        self._next += 1
        column: np.ndarray = self._numbers[:, self._next - 1]
        return column

    def __call__(self, low: float, high: float) -> Tensor:
        """The next number of each image, uniform from `low` to `high`: (B, 1, 1, 1)."""
        values = on_device(self.numpy().astype(np.float32), self._device)
        return (low + (high - low) * values).view(-1, 1, 1, 1)

    def normal(self, count: int) -> Tensor:
        """The next `count` numbers of each image as standard normal ones: (B, count)."""
        self._next += count
        part = self._numbers[:, self._next - count : self._next]
        # By the inverse of the normal distribution, one uniform number gives one normal number.
        values = torch.special.ndtri(torch.from_numpy((part + 2.0**-33).astype(np.float64)))
        return on_device(values.float(), self._device)

    def field(self, cells: int, size: int) -> Tensor:
        """A smooth field with a standard deviation of about 1, from `cells`² numbers: (B, 1, size, size)."""
        coarse = self.normal(cells**2).view(-1, 1, cells, cells)
        return functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
