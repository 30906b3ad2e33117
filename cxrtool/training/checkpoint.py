"""What a training run leaves behind: the state to go on from, and the finished model folder.

Weights are safetensors and JSON. The state for resuming is torch's own format, read with `weights_only`, which runs no
code; it starts with its checksum and the one before it is kept, so that a crash while saving costs one interval.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from cxrtool.data.files import atomic_path, atomic_write
from cxrtool.errors import CxrtoolError, InputError
from cxrtool.models.network import Network, is_finite
from cxrtool.models.registry import Architecture, build

SCHEMA = 1
MODEL, WEIGHTS = "model.json", "model.safetensors"
STATE, PREVIOUS = "last.pt", "previous.pt"


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Save a state to resume from; the one before it stays as `previous.pt`."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    data = buffer.getvalue()
    last = folder / STATE
    if last.exists():
        last.replace(folder / PREVIOUS)
    atomic_write(last, hashlib.sha256(data).digest() + data)


def load_state(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Load the newest state that is whole, or None; says loudly when it is not the last one."""
    for name in (STATE, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        content = path.read_bytes()
        digest, data = content[:32], content[32:]
        if hashlib.sha256(data).digest() == digest:
            state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            return state
        warn(f"{path}: damaged, going back to the checkpoint before it")
    return None


def save_model(folder: Path, network: Network, description: Mapping[str, Any]) -> None:
    """Write `model.safetensors` and `model.json` into a folder.

    Args:
        folder: The model folder.
        network: Its weights are saved in fp32, contiguous.
        description: Classes, architecture, chain, input, normalization and what else `model.json` tells.

    Raises:
        CxrtoolError: A weight is not a finite number.
    """
    if not is_finite(network):
        raise CxrtoolError(f"{folder}: the network's weights are not finite; nothing was saved", "lower --lr")
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(state, temporary)
    content = {"schema": SCHEMA, **description}
    atomic_write(folder / MODEL, json.dumps(content, indent=1) + "\n")


def read_description(folder: Path) -> dict[str, Any]:
    """The content of a model folder's `model.json`.

    Raises:
        InputError: There is none, or it is of another schema.
    """
    path = Path(folder) / MODEL
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{folder}: expected a model folder with {MODEL} in it, found none",
            "a model folder is a fold of a run, such as run/r0f0",
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: not readable JSON: {error}") from error
    if content.get("schema") != SCHEMA:
        raise InputError(f"{path}: expected schema {SCHEMA}, found {content.get('schema')}", "use a matching cxrtool")
    return dict(content)


def load_model(folder: Path) -> tuple[Network, dict[str, Any]]:
    """Build the network of a model folder and load its weights; in evaluation mode, on the CPU.

    Raises:
        InputError: The folder lacks a file, or the weights do not fit the description.
    """
    description = read_description(folder)
    network, _ = build(Architecture(**description["architecture"]))
    try:
        network.load_state_dict(load_file(Path(folder) / WEIGHTS))
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise InputError(f"{Path(folder) / WEIGHTS}: cannot be loaded: {reason}", "train the model anew") from error
    return network.eval(), description
