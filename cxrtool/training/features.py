"""The source of batches: images, augmented and normalised, or the features of a frozen backbone, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cxrtool.models.network import Network
from cxrtool.training.augment import Augmenter
from cxrtool.training.device import autocast, in_halves, on_device
from cxrtool.training.store import Store


class Source(Protocol):
    """Gives the inputs of the trained module."""

    def batch(self, indices: np.ndarray, epoch: int | None) -> Tensor:
        """Inputs of these indices in the store; augmented for a training epoch, unchanged if it is None."""


class Normalisation:
    """(value - mean) / std per channel, as one multiply-add.

    A grey image is repeated in all channels; a network of one channel gets the mean of an image of three.

    Args:
        mean: Per channel, of values in [0, 1].
        std: Per channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        scale = torch.tensor(std, dtype=torch.float32, device=device).reciprocal()
        self._factor = scale.view(1, -1, 1, 1)
        self._offset = (-torch.tensor(mean, dtype=torch.float32, device=device) * scale).view(1, -1, 1, 1)
        self._identity = list(mean) == [0.0] and list(std) == [1.0]

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 1 or 3, S, S) of values in [0, 1] to (B, C, S, S), channels last in memory."""
        return self.scale(images).contiguous(memory_format=torch.channels_last)

    def scale(self, images: Tensor) -> Tensor:
        """The same in any order in memory."""
        if images.shape[1] > self._factor.shape[1]:
            images = images.mean(1, keepdim=True)
        if not self._identity:
            images = torch.addcmul(self._offset, images, self._factor)
        return images


class ImageSource:
    """Batches of images (B, C, S, S), augmented in training, normalised, on the device."""

    def __init__(
        self, store: Store, augmenter: Augmenter | None, normalise: Normalisation, device: torch.device
    ) -> None:
        self.store, self.augmenter, self.normalise, self.device = store, augmenter, normalise, device

    def batch(self, indices: np.ndarray, epoch: int | None) -> Tensor:
        """Images of these indices in the store."""
        images = on_device(self.store[indices], self.device).to(torch.float32).mul_(1.0 / self.store.scale)
        if epoch is not None and self.augmenter is not None:
            images = self.augmenter(images, indices, epoch)
        return self.normalise(images)


class FeatureSource:
    """Batches of the features of a frozen backbone.

    Args:
        features: One row for each index of the store that is used.
        position: The row of each index of the store; -1 where there is none.
    """

    def __init__(self, features: Tensor, position: np.ndarray) -> None:
        self.features, self.position = features, position

    def batch(self, indices: np.ndarray, epoch: int | None) -> Tensor:
        """Features of these indices in the store, the same in every epoch."""
        where = on_device(self.position[indices], self.features.device)
        return self.features.index_select(0, where).float()


@torch.inference_mode()
def run_backbone(
    network: Network,
    source: ImageSource,
    indices: np.ndarray,
    batch_size: int,
    precision: str,
    count: int,
    between: Callable[[], None] = lambda: None,
) -> FeatureSource:
    """Run a frozen backbone once on the images at `indices`.

    Args:
        network: In evaluation mode; only its backbone is used.
        source: The images, which must not be augmented.
        indices: In the store.
        batch_size: Images in a batch.
        precision: Of the backbone; with bf16 the features are kept in bf16, which needs half the memory.
        count: Number of images in the store.
        between: Called after each batch; it may raise.
    """
    parts = []
    for start in range(0, len(indices), batch_size):
        with autocast(source.device, precision):
            parts.append(in_halves(network.features, source.batch(indices[start : start + batch_size], None)))
        between()
    position = np.full(count, -1, np.int64)
    position[indices] = np.arange(len(indices))
    features = torch.cat(parts)
    parts.clear()
    # Tensors from inference mode cannot be used for gradients; a copy can.
    with torch.inference_mode(False):
        return FeatureSource(features.clone(), position)
