"""A network that somebody else has trained: its whole state dictionary, head included, or nothing.

Where `registry.load_backbone` begins a training and takes what fits, a network that shall answer as it stands must be
the very network that was saved: every tensor is there, none is left over, the outputs are the classes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.errors import InputError
from cxrtool.models.registry import read_state

if TYPE_CHECKING:
    from torch import Tensor

    from cxrtool.models.network import Network

IDLE = re.compile(r"(.*\.)?num_batches_tracked|n_averaged|AuxLogits\..*")
"""Tensors that bear on no answer: counters of batches and of averaged networks, and Inception's second head, which
is for training alone."""

AVERAGED = "state_dict_ema"


def load_whole(network: Network, path: Path, classes: Collection[str]) -> None:
    """Load a file's state dictionary into a network that was built for as many classes.

    Args:
        network: As `registry.build` made it.
        path: `.safetensors`, or a file of `torch.save`, which may hold the dictionary within another, as timm's
            train.py writes it.
        classes: What the outputs mean; for messages.

    Raises:
        InputError: The file cannot be read safely, has another number of outputs, lacks a tensor of the network, has
            one too many, one of another shape, or one with a value that is not finite.
    """
    import torch

    try:
        state = read_state(path)
    except InputError as error:
        raise InputError(error.message.removeprefix("--weights "), error.hint) from error
    own = network.state_dict()
    # timm's names stand below `timm.` in our network; a file that came from ours has them so too.
    prefix = max(("", "timm."), key=lambda p: sum(name.removeprefix(p) in state for name in own))
    shapes = {name.removeprefix(prefix): value.shape for name, value in own.items()}
    _check_outputs(network, state, prefix, path, classes)
    missing = [name for name in shapes if name not in state and not IDLE.fullmatch(name)]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of the network's {len(shapes)} tensors are not in it, such as '{missing[0]}'",
            "is it a file of another network? --model names which one to build",
        )
    extra = [name for name in state if name not in shapes and not IDLE.fullmatch(name)]
    if extra:
        raise InputError(
            f"{path}: expected the {len(shapes)} tensors of the network, found {len(extra)} more, such as '{extra[0]}'",
            "is it a file of another network? --model names which one to build",
        )
    for name, shape in shapes.items():
        if name in state and state[name].shape != shape:
            raise InputError(
                f"{path}: expected shape {tuple(shape)} for '{name}', found {tuple(state[name].shape)}",
                _why(shape, state[name].shape),
            )
    broken = [name for name, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"{path}: '{broken[0]}' has values that are not finite numbers; its training went wrong")
    found = {name: state[name.removeprefix(prefix)] for name in own if name.removeprefix(prefix) in state}
    network.load_state_dict({**own, **found})


def holds_averaged(path: Path) -> bool:
    """Whether a file has, beside its last weights, their moving average, which is what is loaded from it."""
    import argparse

    import torch

    if path.suffix == ".safetensors":
        return False
    with torch.serialization.safe_globals([argparse.Namespace]):
        # Only the names are wanted: on this device no tensor takes room.
        content = torch.load(path, map_location="meta", weights_only=True)
    return isinstance(content, dict) and isinstance(content.get(AVERAGED), dict)


def _check_outputs(
    network: Network, state: Mapping[str, Tensor], prefix: str, path: Path, classes: Collection[str]
) -> None:
    """Compare the last layer's outputs first: they are what most often differs, and what says most."""
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
        return "the file's network reads one grey channel; cxrtool's of timm read three equal ones"
    return "is it a file of another network? --model names which one to build, --size for which input"
