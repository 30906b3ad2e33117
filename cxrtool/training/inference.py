"""Predict images with a model, or with several models as an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cxrtool.errors import InputError
from cxrtool.models.description import ModelDescription
from cxrtool.models.network import Network
from cxrtool.models.onnx_file import is_exported
from cxrtool.training.checkpoint import load_model
from cxrtool.training.device import autocast, filled, in_halves
from cxrtool.training.features import Normalisation
from cxrtool.training.store import channels_first


def as_batch(pictures: Sequence[np.ndarray]) -> Tensor:
    """Images as values in [0, 1], (B, 1 or 3, S, S).

    Args:
        pictures: (S, S) or all (S, S, 3), uint8 or uint16, mixed or not.
    """
    scaled = [picture.astype(np.float32) * np.float32(1.0 / np.iinfo(picture.dtype).max) for picture in pictures]
    return channels_first(torch.from_numpy(np.stack(scaled)))


class Classifier(Protocol):
    """A trained network, whatever computes it."""

    def probabilities(self, images: Tensor) -> Tensor:
        """Images (B, 1 or 3, S, S) of values in [0, 1], on the CPU, to probabilities (B, K), float64, on the CPU.

        Those of an image do not depend on the other images in the batch.
        """


class TorchClassifier:
    """The network of a model folder.

    Attributes:
        network: In evaluation mode, on the device.
    """

    def __init__(
        self, network: Network, description: ModelDescription, device: torch.device, precision: str = "fp32"
    ) -> None:
        self.network = network.to(device)
        self.device, self.precision = device, precision
        form = description.normalization
        self._normalise = Normalisation(form.mean, form.std, device)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """As `Classifier` has it.

        Libraries compute batches of different sizes differently, in the last digits. So a CPU, which is not slower
        with single images, gets these, and a GPU gets batches that are filled up.
        """
        inputs = self._normalise(images.to(self.device))

        def call(part: Tensor) -> Tensor:
            with autocast(self.device, self.precision):
                logits: Tensor = self.network(part)
            return logits.float()

        if self.device.type == "cpu":
            logits = torch.cat([in_halves(call, inputs[i : i + 1]) for i in range(len(inputs))])
        else:
            logits = in_halves(call, filled(inputs))[: len(inputs)]
        return torch.softmax(logits.double(), 1).cpu()


@dataclass
class Member:
    """One model, loaded.

    Attributes:
        folder: The model folder, or the ONNX file.
        description: Its `model.json`.
    """

    folder: Path
    classifier: Classifier
    description: ModelDescription

    @classmethod
    def load(cls, folder: Path, device: torch.device, precision: str) -> Member:
        """Load a model folder or an ONNX file.

        Raises:
            InputError: It is neither, or damaged.
            UsageError: What computes it has no such device or precision.
        """
        if is_exported(folder):
            from cxrtool.training.onnx_classifier import OnnxClassifier

            description = ModelDescription.read(folder)
            return cls(folder, OnnxClassifier(folder, description, device, precision), description)
        network, description = load_model(folder)
        return cls(folder, TorchClassifier(network, description, device, precision), description)


class Ensemble:
    """One or more models with the same classes and the same input.

    Raises:
        InputError: A folder is not a model, or the models differ in classes, preprocessing or input.
    """

    SHARED = ("classes", "chain", "input")

    def __init__(self, folders: Sequence[Path], device: torch.device, precision: str = "fp32") -> None:
        self.device = device
        self.members = [Member.load(folder, device, precision) for folder in folders]
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
        views = [images, images.flip(3)] if mirrored else [images]
        members = [
            torch.stack([member.classifier.probabilities(view) for view in views]).mean(0) for member in self.members
        ]
        return torch.stack(members).numpy()
