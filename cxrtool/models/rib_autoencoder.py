"""The rib-suppressing autoencoder with tied weights that COVID-XNet used.

Gusarev et al., "Deep learning models for bone suppression in chest radiographs" (CIBCB 2017), as implemented in
hmchuong/ML-BoneSuppression, whose trained weights `cxrtool weights import --kind ribs` reads. Three 5 x 5 convolutions
of 16, 32 and 64 channels, each with ReLU and 2 x 2 maximum pooling; then three transposed convolutions of stride 2 with
the same kernels in reverse order, each with ReLU, including the last. No biases: 64,400 weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cxrtool.errors import InputError

CHANNELS = (1, 16, 32, 64)
KERNEL = 5

OURS, PUBLISHED = "encoder.{}.weight", "encoder/layer/{}/W"
"""Names of a kernel: in PyTorch, with axes (out, in, y, x), and in the published file, with axes (y, x, in, out)."""


class RibAutoencoder(nn.Module):
    """Suppresses ribs; takes and returns grey values with bright lungs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.Conv2d(before, after, KERNEL, padding=KERNEL // 2, bias=False) for before, after in pairwise(CHANNELS)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, S, S) of values in [0, 1] to values of at least 0 of the same shape; S divisible by 8.

        For odd sizes the poolings of TensorFlow and PyTorch differ; such sizes do not occur here.
        """
        values = images
        for layer in self.encoder:
            # Pooling before ReLU gives the same result with a quarter of the ReLUs.
            values = functional.relu(functional.max_pool2d(layer(values), 2))
        for kernel in reversed(list(self.encoder.parameters())):
            values = functional.relu(_widen(values, kernel))
        return values


def _widen(values: Tensor, kernel: Tensor) -> Tensor:
    """TensorFlow's transposed convolution of stride 2 with padding SAME: (B, C, H, W) to (B, C', 2H, 2W).

    Its output is the full one of PyTorch, (2H + 3, 2W + 3), without the first row and column and the last two.
    """
    return torch.conv_transpose2d(values, kernel, stride=2)[..., 1:-2, 1:-2]


def kernels_of(arrays: Mapping[str, NDArray[np.generic]], source: str) -> dict[str, NDArray[np.float32]]:
    """The state dictionary of this network from named arrays, by our names or by those of the published file.

    Other arrays, such as the state of an optimizer, are ignored.

    Args:
        arrays: By name.
        source: Their name in a message.

    Raises:
        InputError: A kernel is missing, of another shape, or not finite.
    """
    layers = range(len(CHANNELS) - 1)
    published = any(PUBLISHED.format(layer) in arrays for layer in layers)
    state = {}
    for layer in layers:
        name = (PUBLISHED if published else OURS).format(layer)
        if name not in arrays:
            found = ", ".join(sorted(arrays)[:4]) or "none"
            raise InputError(
                f"{source}: expected the arrays {OURS.format(0)} to {layers[-1]} or {PUBLISHED.format(0)} to "
                f"{layers[-1]}, found no '{name}' but: {found}"
            )
        values = np.asarray(arrays[name])
        expected = (CHANNELS[layer + 1], CHANNELS[layer], KERNEL, KERNEL)
        shape = (expected[2], expected[3], expected[1], expected[0]) if published else expected
        if values.shape != shape or values.dtype.kind != "f":
            raise InputError(
                f"{source}: '{name}': expected floats of shape {shape}, found {values.dtype} {values.shape}"
            )
        if not np.isfinite(values).all():
            raise InputError(f"{source}: '{name}': some of the weights are not finite numbers")
        ordered = values.transpose(3, 2, 0, 1) if published else values
        state[OURS.format(layer)] = np.ascontiguousarray(ordered, np.float32)
    return state
