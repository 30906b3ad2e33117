"""Files of a training: the state to resume from, and the finished model folder.

Weights are safetensors and JSON. The state for resuming is torch's own format, read with `weights_only`, which runs no
code. It starts with its checksum, and the state before it is kept, so that a crash while saving costs one interval.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from cxrtool.data.digests import check
from cxrtool.data.file_names import MODEL, MODEL_WEIGHTS
from cxrtool.data.files import atomic_write
from cxrtool.errors import CxrtoolError, DivergedError, InputError
from cxrtool.models.description import ModelDescription
from cxrtool.models.foreign_files import why_not_loaded
from cxrtool.models.network import Network, is_finite
from cxrtool.models.registry import build

STATE, PREVIOUS = "last.pt", "previous.pt"


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Save a state to resume from; the state before it is kept as `previous.pt`."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    data = buffer.getvalue()
    last = folder / STATE
    if last.exists():
        last.replace(folder / PREVIOUS)
    atomic_write(last, hashlib.sha256(data).digest() + data)


def load_state(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Load the newest intact state, or None; warns when a file is damaged."""
    for name in (STATE, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        content = path.read_bytes()
        digest, data = content[:32], content[32:]
        if hashlib.sha256(data).digest() == digest:
            with contextlib.suppress(pickle.UnpicklingError, RuntimeError, EOFError):
                state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
                return state
        older = name == STATE and (folder / PREVIOUS).exists()
        back = "going back to the checkpoint before it" if older else "starting from the beginning"
        warn(f"{path}: damaged, or not a state saved by cxrtool; {back}")
    return None


def save_model(folder: Path, network: Network, description: ModelDescription) -> None:
    """Write `model.safetensors` (fp32) and `model.json` into a folder.

    Raises:
        DivergedError: A weight is not a finite number.
    """
    if not is_finite(network):
        raise DivergedError(f"{folder}: the network's weights are not finite; nothing was saved", "lower --lr")
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    atomic_write(folder / MODEL_WEIGHTS, save(state))
    atomic_write(folder / MODEL, json.dumps(description.to_json(), indent=1) + "\n")


def load_model(folder: Path) -> tuple[Network, ModelDescription]:
    """Build the network of a model folder and load its weights; in evaluation mode, on the CPU.

    Raises:
        ChangedError: A file is not as it was written.
        InputError: The folder lacks a file, the weights do not fit the description, or are not finite.
    """
    description = ModelDescription.read(folder)
    weights = Path(folder) / MODEL_WEIGHTS
    check(weights)
    try:
        network, _ = build(description.architecture)
    except (TypeError, CxrtoolError) as error:
        raise InputError(f"{Path(folder) / MODEL}: cannot build a network from it: {error}") from error
    try:
        network.load_state_dict(load_file(weights))
    except Exception as error:
        # safetensors, torch and the operating system each have their own errors for an unusable file.
        raise InputError(why_not_loaded(weights, MODEL, error), "train the model again") from error
    if not is_finite(network):
        raise InputError(f"{weights}: some of the weights are not finite numbers", "train the model again")
    return network.eval(), description
