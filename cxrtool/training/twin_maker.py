"""Run the generators of a fold, and quantise their output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from cxrtool.imaging.resize import Pixels
from cxrtool.models.parts import load_network, read_part
from cxrtool.training.device import filled, in_halves

AT_ONCE = 8
"""Images in a batch; more are not faster on a CPU. A smaller batch is filled up, because libraries compute it
differently in the last digits: so the twins of an image do not depend on the others in its batch or their number."""


def minimal_depth(pixels: Pixels) -> Pixels:
    """An image with 16 bits only if it needs more than 8.

    A store with one 16-bit image has all others at 16 bits too, by a factor of 257.

    >>> minimal_depth(np.array([[0, 257]], np.uint16)).tolist(), minimal_depth(np.array([[0, 256]], np.uint16)).tolist()
    ([[0, 1]], [[0, 256]])
    """
    shallow = pixels.dtype == np.uint16 and not (pixels % 257).any()
    return (pixels // 257).astype(np.uint8) if shallow else pixels


def quantise(values: NDArray[np.float32], dtype: DTypeLike) -> Pixels:
    """Grey values in [0, 1] as integer levels: clipped at black and white, and rounded.

    >>> quantise(np.array([-0.1, 0.5, 1.2], np.float32), np.uint8).tolist()
    [0, 128, 255]
    """
    white = np.float32(np.iinfo(np.dtype(dtype)).max)
    return np.asarray(np.rint(values.clip(0, 1) * white), dtype)


class TwinMaker:
    """The generators of one fold.

    Args:
        folder: The folder of their part.

    Attributes:
        names: Of the generators, in their order.
        form: Of their input; their output has the same size.

    Raises:
        InputError: There is no such part, or it is damaged.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        part = read_part(folder, "generators")
        self.names: list[str] = list(part.description["built_with"]["classes"])
        self.form, self.device = part.form, device
        self.network = load_network(part.folder, "generators").to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def make(self, pictures: Sequence[Pixels]) -> list[list[Pixels]]:
        """The twins of images.

        Args:
            pictures: Grey values (S, S) at the form's size, uint8 or uint16, mixed or not.

        Returns:
            For each image the output of each generator: (S, S, 3) in the depth of the image.

        Raises:
            CxrtoolError: The GPU's memory does not suffice for one image.
        """
        pictures = [minimal_depth(picture) for picture in pictures]
        scaled = [picture.astype(np.float32) * np.float32(1 / np.iinfo(picture.dtype).max) for picture in pictures]
        made = [
            self._forward(torch.from_numpy(np.stack(scaled[start : start + AT_ONCE]))[:, None])
            for start in range(0, len(scaled), AT_ONCE)
        ]
        found = (twins for batch in made for twins in batch.swapaxes(0, 1))
        return [
            [quantise(twin, picture.dtype) for twin in twins] for twins, picture in zip(found, pictures, strict=True)
        ]

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> NDArray[np.float32]:
        """Grey values (B, 1, S, S), B at most `AT_ONCE`, to (K, B, S, S, 3)."""
        count = len(images)
        images = filled(images, AT_ONCE)

        def call(part: Tensor) -> Tensor:
            made: Tensor = self.network(part.to(self.device).contiguous(memory_format=torch.channels_last)).cpu()
            return made

        found: NDArray[np.float32] = in_halves(call, images, axis=1)[:, :count].movedim(2, -1).numpy()
        return found
