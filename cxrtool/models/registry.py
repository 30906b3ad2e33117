"""Networks by name: our own, and every network of timm."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.errors import InputError, UsageError
from cxrtool.models import kernels
from cxrtool.models.architecture import Architecture
from cxrtool.models.pretrained import failure, hub_folder, published

if TYPE_CHECKING:
    from torch import Tensor

    from cxrtool.models.network import Network


@dataclass(frozen=True)
class BuiltIn:
    """A network that is not from timm.

    Attributes:
        module: Its module in this package, or a full module name; its `build` takes an `Architecture`.
        size: Default side of its input in pixels.
        channels: Of its input.
        mean: Per channel, of values in [0, 1].
        std: Per channel.
        kernels: Default kernels of its convolutions; empty if there is no choice.
        loss: A name of `LOSSES` in `cxrtool.training.classifier_losses`.
        smallest: Smallest possible side of its input in pixels.
    """

    module: str
    size: int
    channels: int = 1
    mean: tuple[float, ...] = field(default=(0.0,))
    std: tuple[float, ...] = field(default=(1.0,))
    kernels: tuple[int, ...] = ()
    loss: str = "cross-entropy"
    smallest: int = 1

    def build(self, architecture: Architecture) -> Network:
        """Build it with random weights."""
        # A full name may be a module of another package.
        name = self.module if "." in self.module else f"cxrtool.models.{self.module}"
        network: Network = importlib.import_module(name).build(architecture)
        return network


_RGB: dict[str, Any] = {"channels": 3, "mean": (0.0,) * 3, "std": (1.0,) * 3}

BUILT_IN: dict[str, BuiltIn] = {
    # The paper states no normalisation. Adadelta needs centred values: on real radiographs the same 40 epochs end at a
    # test accuracy of 0.89 instead of 0.70.
    "covid-xnet": BuiltIn("covid_xnet", 128, mean=(0.5,), std=(0.25,), kernels=kernels.KERNELS),
    "thumbnail": BuiltIn("thumbnail", 64, mean=(0.5,), std=(0.25,)),
    # Values in [0, 1], as in the reference implementation of COVID-CAPS.
    "covid-caps": BuiltIn("covid_caps", 224, **_RGB, loss="margin"),
    "pepx": BuiltIn("pepx", 224, **_RGB, smallest=32),
}


def check_name(name: str) -> None:
    """Check that a network of this name exists.

    Raises:
        UsageError: It does not; the message names the nearest.
    """
    if name in BUILT_IN:
        return
    from cxrtool.models.backbones import exists, nearest

    if not exists(name):
        near = ", ".join(nearest(name)) or "none"
        raise UsageError(
            f"--model: expected {', '.join(BUILT_IN)} or a network of timm, found '{name}' (nearest: {near})",
            "list the names of timm with: python -c \"import timm; print(*timm.list_models(), sep='\\n')\"",
        )


def native_size(name: str) -> int:
    """The native side in pixels of the network's square input."""
    if name in BUILT_IN:
        return BUILT_IN[name].size
    from cxrtool.models.backbones import normalisation

    return normalisation(name)[2]


def loss_of(name: str) -> str:
    """The loss of a network: a name of `LOSSES` in `cxrtool.training.classifier_losses`."""
    return BUILT_IN[name].loss if name in BUILT_IN else BuiltIn.loss


def input_form(name: str, normalize: str) -> dict[str, list[float]]:
    """Mean and standard deviation per channel, of values in [0, 1].

    Args:
        name: The network.
        normalize: `native`, as the network's weights were trained, or `div255`, unchanged values in [0, 1].
    """
    if name in BUILT_IN:
        mean, std = BUILT_IN[name].mean, BUILT_IN[name].std
    else:
        from cxrtool.models.backbones import normalisation

        mean, std, _ = normalisation(name)
    if normalize == "div255":
        mean, std = tuple(0.0 for _ in mean), tuple(1.0 for _ in std)
    return {"mean": list(mean), "std": list(std)}


SIZES = range(16, 8193)
"""Sides of the input in pixels; a network may need more (`complexity.try_out`)."""


def check(architecture: Architecture, weights: str) -> None:
    """Check what can be checked without building the network, before any image is decoded.

    Raises:
        InputError: There is no such file of weights.
        UsageError: There is no such network, it has no ImageNet weights, or a number is out of range.
    """
    name = architecture.name
    check_name(name)
    if architecture.size not in SIZES:
        raise UsageError(f"--size: expected {SIZES[0]} to {SIZES[-1]} pixels, found {architecture.size}")
    if architecture.hidden < 0:
        raise UsageError(f"--hidden: expected a width, or 0 for the network's own head, found {architecture.hidden}")
    if not 0.0 <= architecture.dropout < 1.0:
        raise UsageError(f"--dropout: expected a number from 0 to below 1, found {architecture.dropout:g}")
    if name in BUILT_IN:
        smallest = BUILT_IN[name].smallest
        if architecture.size < smallest:
            raise UsageError(f"--size: {name} needs {smallest} pixels or more, found {architecture.size}")
        for option in ("hidden", "dropout"):
            if getattr(architecture, option):
                raise UsageError(f"--{option}: {name} has a head of its own; omit --{option}")
    _check_kernels(architecture)
    if architecture.ordered and (loss := loss_of(name)) != BuiltIn.loss:
        raise UsageError(
            f"--target: expected a network with a {BuiltIn.loss} loss for classes in an order, found {name}, which has "
            f"a {loss} loss",
            "choose another --model",
        )
    if weights == "imagenet" and not _has_imagenet(name):
        raise UsageError(
            f"--weights imagenet: there are no ImageNet weights for {name}",
            "choose a network with ImageNet weights, --weights none, or a file",
        )
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise InputError(
            f"--weights {weights}: no such file", "expected imagenet, none, or a .safetensors, .pth or .pt file"
        )


def _check_kernels(architecture: Architecture) -> None:
    chosen, size = architecture.kernels, architecture.size
    choice = [name for name, own in BUILT_IN.items() if own.kernels]
    if chosen and architecture.name not in choice:
        raise UsageError(f"--kernels: expected --model {' or '.join(choice)}, found --model {architecture.name}")
    if chosen and kernels.side_after(size, len(chosen)) < 1:
        raise UsageError(
            f"--kernels: {len(chosen)} layers are too many for {size} x {size} pixels: every layer except the last "
            f"halves them; expected at most {size.bit_length()}"
        )


def network_kernels(name: str, given: str | None) -> str | None:
    """The kernels of a network in normal form; its default if none are given, None if there is no choice.

    Raises:
        UsageError: They cannot be read.
    """
    if given is not None:
        return kernels.show(kernels.parse(given))
    default = BUILT_IN[name].kernels if name in BUILT_IN else ()
    return kernels.show(default) if default else None


def _has_imagenet(name: str) -> bool:
    if name in BUILT_IN:
        return False
    import timm

    return bool(timm.is_model_pretrained(name))


def require_weights(architecture: Architecture, weights: str) -> None:
    """Download ImageNet weights that are not on this machine, so that a step fails before it starts, not in the middle.

    Raises:
        InputError: They cannot be downloaded.
    """
    known = published(architecture.name) if weights == "imagenet" else None
    if known is not None and known.path is None:
        build(architecture, weights=weights)


def build(architecture: Architecture, *, weights: str = "none") -> tuple[Network, str]:
    """Build a network, with the weights of its backbone from ImageNet, from a file, or random.

    Args:
        architecture: The network.
        weights: `imagenet`, `none`, or the path of a `.safetensors`, `.pth` or `.pt` file with a state dictionary.

    Returns:
        The network, and the source of its weights as text.

    Raises:
        InputError: The weights cannot be downloaded or read, or do not fit.
        UsageError: There is no such network, or it has no ImageNet weights.
    """
    check(architecture, weights)
    if architecture.ordered:
        from cxrtool.models.ordered import OrderedNetwork

        scorer, weights_from = build(replace(architecture, classes=1, ordered=False), weights=weights)
        return OrderedNetwork(scorer, architecture.classes), weights_from
    if architecture.name in BUILT_IN:
        network = BUILT_IN[architecture.name].build(architecture)
    else:
        network = _build_timm(architecture, pretrained=weights == "imagenet")
    if weights in ("imagenet", "none"):
        return network, {"imagenet": "ImageNet (timm)", "none": "drawn at random"}[weights]
    return network, load_backbone(network, Path(weights))


def _build_timm(architecture: Architecture, *, pretrained: bool) -> Network:
    from cxrtool.models.backbones import TimmNetwork

    def create(pretrained: bool) -> Network:
        return TimmNetwork(
            architecture.name,
            architecture.classes,
            pretrained=pretrained,
            hidden=architecture.hidden,
            dropout=architecture.dropout,
            size=architecture.size,
        )

    if not pretrained:
        return create(False)
    name = architecture.name
    known = published(name)
    silent = "" if known is None or known.path else failure(known.server)
    hint = (
        f"`cxrtool weights fetch {name} -o {name}.safetensors` on a machine with a network, and here --weights "
        f"{name}.safetensors; or its files in {hub_folder()} (HF_HOME moves it); or --weights none, for random weights"
    )
    if known and silent:
        raise InputError(
            f"--weights imagenet: the weights of {name} are not on this machine, and {known.server} does not answer "
            f"({silent})",
            hint,
        )
    try:
        with _offline() if known and known.path else contextlib.nullcontext():
            return create(True)
    except Exception as error:
        # huggingface_hub and urllib raise a dozen kinds of errors if a file cannot be downloaded.
        raise InputError(
            f"--weights imagenet: the weights of {name} are not on this machine and could not be downloaded "
            f"({_reason(error)})",
            hint,
        ) from error


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Use the hub's cache at once: otherwise it asks the server first, for a minute where there is no network."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reason(error: Exception) -> str:
    """The first line of another library's error, for a message."""
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[0], 120, placeholder=" …") if lines else type(error).__name__


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary from `.safetensors`, or from `.pth`/`.pt` without running any code in it.

    Raises:
        InputError: There is no such file, or it is not a dictionary of tensors.
    """
    import torch
    from safetensors.torch import load_file

    from cxrtool.models.foreign_files import SAVE_WEIGHTS, check_file, check_tensor, why_unreadable

    try:
        check_file(path)
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            # weights_only accepts only tensors and plain containers: a pickle could run any code.
            # timm's train.py saves its command line with the weights, as a harmless `Namespace`.
            with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
                # It warns of what the refusal below says.
                warnings.simplefilter("ignore")
                state = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"--weights {path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # On unusable files torch and safetensors raise anything from EOFError to UnpicklingError.
        raise why_unreadable(path, error) from error
    for key in ("state_dict_ema", "state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"--weights {path}: expected a dictionary of tensors, found another content", SAVE_WEIGHTS)
    for name, value in state.items():
        check_tensor(path, name, value)
    # The prefixes of networks that were wrapped: for several GPUs, compiled, or for ordered classes (`models.ordered`).
    return {re.sub(r"^((module|_orig_mod|scorer)\.)+", "", str(name)): value for name, value in state.items()}


def load_backbone(network: Network, path: Path) -> str:
    """Load a state dictionary into a network's backbone; outputs for other classes are not changed.

    Returns:
        The file and how many tensors were loaded, as text.

    Raises:
        InputError: A tensor of the backbone is missing, has another shape, or is not finite.
    """
    from cxrtool.models.foreign_names import translated
    from cxrtool.models.network import is_finite

    own = network.state_dict()
    state = translated(read_state(path), own)
    head = {id(value) for module in network.head_modules() for value in (*module.parameters(), *module.buffers())}
    named = dict((*network.named_parameters(), *network.named_buffers()))
    backbone = [name for name, value in named.items() if id(value) not in head and name in own]
    prefixes = ("", "timm.")
    prefix = max(prefixes, key=lambda p: sum(name.removeprefix(p) in state for name in backbone))
    found = {name: state[name.removeprefix(prefix)] for name in own if name.removeprefix(prefix) in state}
    # The counter of batches, which older files lack, has no effect.
    missing = [name for name in backbone if name not in found and not name.endswith("num_batches_tracked")]
    if missing:
        raise InputError(
            f"--weights {path}: {len(missing)} of the {len(backbone)} tensors of the backbone are not in it, such as "
            f"'{missing[0].removeprefix(prefix)}'",
            "is it a file of another network? --model names the network",
        )
    for name in backbone:
        if name in found and found[name].shape != own[name].shape:
            raise InputError(
                f"--weights {path}: expected shape {tuple(own[name].shape)} for '{name.removeprefix(prefix)}', "
                f"found {tuple(found[name].shape)}"
            )
    fitting = {name: value for name, value in found.items() if value.shape == own[name].shape}
    network.load_state_dict({**own, **fitting})
    if not is_finite(network):
        raise InputError(f"--weights {path}: some of its weights are not finite numbers")
    return f"{path.name} ({len(fitting)} of {len(own)} tensors)"
