"""Predict images with a model, or with several models as an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cxrtool.errors import InputError
from cxrtool.models.description import ModelDescription
from cxrtool.models.network import Network
from cxrtool.training.checkpoint import load_model
from cxrtool.training.device import autocast, in_halves
from cxrtool.training.features import Normalisation
from cxrtool.training.store import channels_first


def as_batch(pictures: Sequence[np.ndarray]) -> Tensor:
    """Images as values in [0, 1], (B, 1 or 3, S, S).

    Args:
        pictures: (S, S) or all (S, S, 3), uint8 or uint16, mixed or not.
    """
    scaled = [picture.astype(np.float32) * np.float32(1.0 / np.iinfo(picture.dtype).max) for picture in pictures]
    return channels_first(torch.from_numpy(np.stack(scaled)))


ALIKE = 32
"""Images to which a smaller batch is filled up on a GPU."""


@dataclass
class Member:
    """One model folder, loaded.

    Attributes:
        network: In evaluation mode, on the ensemble's device.
        description: Its `model.json`.
    """

    folder: Path
    network: Network
    description: ModelDescription


class Ensemble:
    """One or more models with the same classes and the same input.

    Raises:
        InputError: A folder is not a model, or the models differ in classes, preprocessing or input.
    """

    SHARED = ("classes", "chain", "input")

    def __init__(self, folders: Sequence[Path], device: torch.device, precision: str = "fp32") -> None:
        self.device, self.precision = device, precision
        self.members = []
        for folder in folders:
            network, description = load_model(folder)
            self.members.append(Member(folder, network.to(device), description))
        first = self.members[0]
        for member in self.members[1:]:
            for name in self.SHARED:
                if getattr(member.description, name) != getattr(first.description, name):
                    raise InputError(
                        f"{member.folder}: expected the same {name} as in {first.folder}, "
                        f"found {getattr(member.description, name)} instead of {getattr(first.description, name)}",
                        "run them one by one",
                    )

    @property
    def description(self) -> ModelDescription:
        """The `model.json` of the first member; in all that concerns input and output, the others are the same."""
        return self.members[0].description

    def predict(self, pictures: Sequence[np.ndarray], *, mirrored: bool = False) -> np.ndarray:
        """Probabilities (members, B, K) for images at the input's size.

        Args:
            pictures: As `as_batch` takes them.
            mirrored: Average each prediction with that of the mirror image.
        """
        images = as_batch(pictures)
        return np.stack([self._predict_member(member, images, mirrored) for member in self.members])

    @torch.inference_mode()
    def _predict_member(self, member: Member, images: Tensor, mirrored: bool) -> np.ndarray:
        form = member.description.normalization
        normalise = Normalisation(form.mean, form.std, self.device)
        inputs = normalise(images.to(self.device))
        views = [inputs, inputs.flip(3)] if mirrored else [inputs]
        predictions = torch.stack([torch.softmax(self._logits(member.network, view).double(), 1) for view in views])
        result: np.ndarray = predictions.mean(0).cpu().numpy()
        return result

    def _logits(self, network: Network, inputs: Tensor) -> Tensor:
        """The logits (B, K) of images, which do not depend on the other images in the batch.

        Libraries compute batches of different sizes differently, in the last digits. So a CPU, which is not slower
        with single images, gets these, and a GPU gets batches that are filled up.
        """

        def call(part: Tensor) -> Tensor:
            with autocast(self.device, self.precision):
                logits: Tensor = network(part)
            return logits.float()

        if inputs.device.type == "cpu":
            return torch.cat([in_halves(call, inputs[i : i + 1]) for i in range(len(inputs))])
        missing = max(0, ALIKE - len(inputs))
        padded = torch.cat([inputs, inputs.new_zeros((missing, *inputs.shape[1:]))])
        return in_halves(call, padded)[: len(inputs)]
