"""Load a network that was trained with another program: its whole state dictionary, including the head.

`registry.load_backbone` loads the tensors that fit, as the start of a training. A network that is used without training
must be exactly the network that was saved: no tensor is missing or surplus, and the outputs are the classes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.errors import InputError
from cxrtool.models.foreign_names import translated
from cxrtool.models.registry import read_state

if TYPE_CHECKING:
    from torch import Tensor

    from cxrtool.models.network import Network

UNUSED = re.compile(r"(.*\.)?num_batches_tracked|n_averaged|AuxLogits\..*")
"""Tensors that do not affect a prediction: counters of batches and of averaged networks, and the auxiliary head of
Inception, which is used only in training."""

AVERAGED = "state_dict_ema"


def load_whole(network: Network, path: Path, classes: Collection[str]) -> None:
    """Load the state dictionary of a file into a network with the same number of classes.

    Args:
        network: As `registry.build` made it.
        path: `.safetensors`, or a file of `torch.save`, in which the dictionary may be nested, as timm's train.py
            writes it.
        classes: Of the outputs; for messages.

    Raises:
        InputError: The file cannot be read safely, has another number of outputs, or has a tensor that is missing,
            surplus, of another shape, or not finite.
    """
    import torch

    try:
        state = read_state(path)
    except InputError as error:
        raise InputError(error.message.removeprefix("--weights "), error.hint) from error
    own = network.state_dict()
    state = translated(state, own)
    # Our network has the prefix `timm.` before timm's names, and so has a file that was written by cxrtool.
    prefix = max(("", "timm."), key=lambda p: sum(name.removeprefix(p) in state for name in own))
    shapes = {name.removeprefix(prefix): value.shape for name, value in own.items()}
    _check_outputs(network, state, prefix, path, classes)
    missing = [name for name in shapes if name not in state and not UNUSED.fullmatch(name)]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of the network's {len(shapes)} tensors are not in it, such as '{missing[0]}'",
            "is it a file of another network? --model names the network",
        )
    extra = [name for name in state if name not in shapes and not UNUSED.fullmatch(name)]
    if extra:
        raise InputError(
            f"{path}: expected the {len(shapes)} tensors of the network, found {len(extra)} more, such as '{extra[0]}'",
            "is it a file of another network? --model names the network",
        )
    for name, shape in shapes.items():
        if name in state and state[name].shape != shape:
            raise InputError(
                f"{path}: expected shape {tuple(shape)} for '{name}', found {tuple(state[name].shape)}",
                _why(shape, state[name].shape),
            )
    broken = [name for name, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"{path}: '{broken[0]}' has values that are not finite numbers; its training failed")
    found = {name: state[name.removeprefix(prefix)] for name in own if name.removeprefix(prefix) in state}
    network.load_state_dict({**own, **found})


def holds_averaged(path: Path) -> bool:
    """Whether a file has, beside its last weights, their moving average, which then is loaded."""
    import argparse

    import torch

    if path.suffix == ".safetensors":
        return False
    with torch.serialization.safe_globals([argparse.Namespace]):
        # Only the names are needed: on this device tensors use no memory.
        content = torch.load(path, map_location="meta", weights_only=True)
    return isinstance(content, dict) and isinstance(content.get(AVERAGED), dict)


def _check_outputs(
    network: Network, state: Mapping[str, Tensor], prefix: str, path: Path, classes: Collection[str]
) -> None:
    """Compare the outputs of the last layer first: they differ most often, and their message is the clearest."""
    head = {id(value) for module in network.head_modules() for value in module.parameters()}
    layers = [name for name, value in network.named_parameters() if id(value) in head and value.ndim > 1]
    for name in layers[-1:]:
        found = state.get(name.removeprefix(prefix))
        if found is not None and found.ndim > 1 and found.shape[0] != len(classes):
            raise InputError(
                f"{path}: expected {len(classes)} outputs, one for each of {', '.join(classes)}, found "
                f"{found.shape[0]} in '{name.removeprefix(prefix)}'",
                "--classes names every output, in the order in which the network was trained on them (timm's "
                "train.py: folders in alphabetical order, and --num-classes)",
            )


def _why(expected: tuple[int, ...], found: tuple[int, ...]) -> str:
    if len(expected) == len(found) == 4 and expected[1] == 3 and found[1] == 1:
        return "the network of the file has one grey channel; networks of timm in cxrtool have three equal ones"
    return "is it a file of another network? --model names the network, --size its input"
