"""A model in an ONNX file, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxrtool.errors import CxrtoolError, InputError, UsageError
from cxrtool.models.description import ModelDescription
from cxrtool.models.onnx_file import IMAGES, PROBABILITIES, library, load
from cxrtool.training.device import filled

CUDA = "CUDAExecutionProvider"

SUMS_TO = 1e-3
"""How far the sum of the probabilities of an image may be from 1."""


class OnnxClassifier:
    """The graph of an ONNX file, with the threads that torch has.

    Args:
        model: The file, or its content if it was checked before.

    Raises:
        InputError: The file is damaged, or must not be run.
        UsageError: onnxruntime has no such device, or another precision than fp32 is wanted.
    """

    def __init__(
        self, model: Path | bytes, description: ModelDescription, device: torch.device, precision: str = "fp32"
    ) -> None:
        runtime = library("onnxruntime")
        if precision != "fp32":
            text = f"--precision {precision}: an ONNX model computes in fp32"
            raise UsageError(text, "predict with the model folder, or without --precision")
        self.device, self.name = device, "the exported graph" if isinstance(model, bytes) else str(model)
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.type == "cuda":
            if CUDA not in runtime.get_available_providers():
                raise UsageError(
                    f"--device {device}: this onnxruntime computes on the processor alone",
                    "install onnxruntime-gpu in its place, or use --device cpu",
                )
            providers.insert(0, (CUDA, {"device_id": device.index or 0, "use_tf32": 0}))
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        # Its errors are raised; what it logs besides is no message for a user.
        options.log_severity_level = 4
        # The content, not the path: from a path it would look for other files beside it.
        content = model if isinstance(model, bytes) else load(model).SerializeToString()
        try:
            self._session = runtime.InferenceSession(content, options, providers=providers)
        except Exception as error:
            text = f"{self.name}: onnxruntime cannot run it: {_line(error)}"
            raise InputError(text, "export the model again") from error
        self._classes = len(description.classes)
        self._check_form(description)

    def _check_form(self, description: ModelDescription) -> None:
        size = description.input.size
        inputs, outputs = self._session.get_inputs(), {one.name: one for one in self._session.get_outputs()}
        names = [one.name for one in inputs]
        shape = inputs[0].shape if names == [IMAGES] and inputs[0].type == "tensor(float)" else None
        if shape is None or len(shape) != 4 or shape[1] not in (1, 3) or shape[2:] != [size, size]:
            raise InputError(
                f"{self.name}: expected one input '{IMAGES}' of float32 (n, 1 or 3, {size}, {size}), found "
                + ", ".join(f"'{one.name}' {one.type} {one.shape}" for one in inputs)
            )
        found = outputs.get(PROBABILITIES)
        if found is None or len(found.shape) != 2 or found.shape[1] != self._classes:
            raise InputError(
                f"{self.name}: expected an output '{PROBABILITIES}' (n, {self._classes}), found "
                + ", ".join(f"'{one.name}' {one.shape}" for one in outputs.values())
            )
        self._channels = shape[1]

    def probabilities(self, images: Tensor) -> Tensor:
        """As `Classifier` has it; a processor computes single images, a GPU batches that are filled up."""
        if images.shape[1] > self._channels:
            images = images.mean(1, keepdim=True)
        images = images.expand(-1, self._channels, -1, -1)
        parts = [images[i : i + 1] for i in range(len(images))] if self.device.type == "cpu" else [filled(images)]
        found = torch.cat([self.run(part) for part in parts])[: len(images)]
        if not bool(((found.sum(1) - 1).abs() <= SUMS_TO).all()):
            raise InputError(f"{self.name}: expected probabilities whose sum is 1, found {found.sum(1).tolist()[:3]}")
        return found

    def run(self, images: Tensor, output: str = PROBABILITIES) -> Tensor:
        """An output (B, K), float64, for images (B, C, S, S) in one batch."""
        try:
            found = self._session.run([output], {IMAGES: np.ascontiguousarray(images.numpy(), np.float32)})[0]
        except Exception as error:
            raise CxrtoolError(f"{self.name}: onnxruntime stopped: {_line(error)}") from error
        return torch.from_numpy(found).double()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
