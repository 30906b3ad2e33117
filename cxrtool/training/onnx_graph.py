"""A trained network as one ONNX graph: from grey values to probabilities, and its comparison with torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from cxrtool.errors import InputError
from cxrtool.models.description import ModelDescription
from cxrtool.models.network import Network
from cxrtool.models.onnx_file import CALIBRATED, IMAGES, PROBABILITIES, check_graph, library, seal
from cxrtool.training.features import Normalisation

TOLERANCE = 1e-5
"""How much a probability may differ from that of torch."""


class Graph(nn.Module):
    """A network with its normalisation before and the softmax after it.

    Args:
        temperature: Of the second output; None has no second output.
    """

    def __init__(self, network: Network, description: ModelDescription, temperature: float | None) -> None:
        super().__init__()
        form = description.normalization
        self.network, self.temperature = network, temperature
        self._normalise = Normalisation(form.mean, form.std, torch.device("cpu"))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 1 or 3, S, S) of values in [0, 1] to probabilities (B, K), and these at the temperature."""
        logits = self.network(self._normalise.scale(images)).float().double()
        found = [logits] if self.temperature is None else [logits, logits / self.temperature]
        return tuple(torch.softmax(one, 1).float() for one in found)


def export(
    network: Network,
    description: ModelDescription,
    channels: int,
    temperature: float | None,
    metadata: Mapping[str, str],
) -> bytes:
    """The graph of a network as the content of a file.

    The input `images` is float32 (n, channels, S, S) with any n: grey values from 0 (black) to 1 (white), resized.
    The output `probabilities` is float32 (n, K); with a temperature there is also `calibrated`.

    Args:
        network: In evaluation mode, on the CPU.
        description: Its classes, size and normalisation.
        channels: Of the input.
        temperature: Fitted on validation images.
        metadata: Entries of the file.

    Raises:
        InputError: The network has an operation that cannot be exported, or the graph would not be accepted again.
    """
    library("onnxscript")
    library("onnxruntime")
    size = description.input.size
    outputs = [PROBABILITIES] if temperature is None else [PROBABILITIES, CALIBRATED]
    name = str(description.network.get("name"))
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                Graph(network, description, temperature).eval(),
                # Of two images: a batch of one is taken as fixed.
                (torch.zeros(2, channels, size, size),),
                input_names=[IMAGES],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("n")},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        # Its own error is about its passes; the cause is about the network.
        reason = error.__cause__ or error
        lines = [line.strip() for line in str(reason).splitlines() if line.strip()] or [type(reason).__name__]
        raise InputError(f"{name} cannot be exported: {lines[0][:200]}") from error
    model = program.model_proto  # type: ignore[union-attr]
    sides = f"(n, {channels}, {size}, {size})"
    model.doc_string = (
        f"{IMAGES}: float32 {sides}, values from 0 (black) to 1 (white), resized by {description.input.fit}; "
        f"{', '.join(outputs)}: float32 (n, {len(description.classes)}), {', '.join(description.classes)}"
    )
    model.producer_name, model.producer_version = "cxrtool", metadata["cxrtool"]
    for key, value in sorted(metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    check_graph(model, name)
    seal(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter prints and logs on its way; its errors say it again."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        silent = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def samples(size: int, channels: int, count: int = 8) -> Tensor:
    """Images (count, channels, size, size) of values in [0, 1]: noise from fine to coarse, drawn from a fixed seed."""
    import cv2

    draw = np.random.default_rng(0)
    images = []
    for number in range(count):
        side = max(2, size >> number)
        noise = draw.random((side, side, channels), np.float32)
        images.append(cv2.resize(noise, (size, size), interpolation=cv2.INTER_LINEAR).reshape(size, size, channels))
    return torch.from_numpy(np.stack(images)).movedim(-1, 1).contiguous()
