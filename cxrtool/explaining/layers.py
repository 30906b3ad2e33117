"""The module whose output a heatmap is made of, and the layout of that output.

The feature map of a convolutional network is (B, C, h, w). Swin and similar networks have the channels last, (B, h, w,
C). Transformers have tokens, (B, N, C), some of which (class, distillation, registers) have no position in the image.
All of them are converted to (B, C, h, w) here. Input images and their maps are square, which identifies the axes.
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cxrtool.errors import InputError, UsageError
from cxrtool.models.network import Network

CONVOLUTIONAL, CHANNELS_LAST, TOKENS = "channels first", "channels last", "tokens"
POOLS = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.LPPool2d,
    nn.FractionalMaxPool2d,
)
TRIED = 24
"""Modules that are tried, from the last one back; if none has a gradient, the last is used."""


@dataclass(frozen=True)
class Shape:
    """The layout of an output as a map of C channels, its side in cells, and the leading tokens without a position."""

    layout: str
    channels: int
    side: int
    extra: int = 0

    def to_map(self, output: Tensor) -> Tensor:
        """The output as (B, C, h, w)."""
        if self.layout == TOKENS:
            grid = output[:, self.extra :].reshape(len(output), self.side, self.side, self.channels)
            return grid.permute(0, 3, 1, 2)
        return output.permute(0, 3, 1, 2) if self.layout == CHANNELS_LAST else output


@dataclass(frozen=True)
class Layer:
    """The module that a heatmap is made of, by its name in `named_modules`."""

    name: str
    shape: Shape


def shape_of(output: object, network: nn.Module) -> Shape | None:
    """The layout of the output of a module for square images; None where it is not a map.

    `network` decides on the order of the axes where the sizes are ambiguous, and has the number of tokens without a
    position.
    """
    if not isinstance(output, Tensor):
        return None
    inner = getattr(network, "timm", None)
    if output.ndim == 4:
        _, a, b, c = output.shape
        last = a == b and (b != c or getattr(inner, "output_fmt", "NCHW") == "NHWC")
        if last:
            return Shape(CHANNELS_LAST, c, a)
        return Shape(CONVOLUTIONAL, a, b) if b == c else None
    if output.ndim == 3:
        _, tokens, channels = output.shape
        # timm has the number of prefix tokens; other networks may have none, one (class) or two.
        for extra in dict.fromkeys((int(getattr(inner, "num_prefix_tokens", 0) or 0), 0, 1, 2)):
            side = math.isqrt(max(tokens - extra, 0))
            if side > 1 and side * side == tokens - extra:
                return Shape(TOKENS, channels, side, extra)
    return None


@contextlib.contextmanager
def watch(module: nn.Module, keep: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace every output of a module by `keep(output)` while the block runs."""

    def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor | None:
        return keep(output) if isinstance(output, Tensor) else None

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients of parameters while the block runs; restores the state afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode


def find_layer(network: Network, images: Tensor, gradient: Callable[[Layer], Tensor]) -> Layer:
    """Find the module whose output is the last map before pooling on which the prediction depends.

    For a ResNet this is the last convolutional block, for a DenseNet the normalisation after the last dense block, for
    a VGG the ReLU before the last pooling (a pooling at the end of the backbone is skipped, for the finer map). For a
    transformer that uses only its class token it is the normalisation before the last attention, because after it no
    other token affects the prediction.

    Args:
        network: Any network.
        images: (B, C, S, S), normalised; their content does not matter.
        gradient: Returns the gradient (B, C, h, w) of some logit with respect to the map of a layer.

    Raises:
        InputError: The network has no such map.
    """
    layers: list[Layer] = []
    leaves: list[tuple[Shape, Shape | None]] = []

    def remember(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            shape = shape_of(output, network)
            if shape is None:
                return
            # A part of an attention, such as its keys, is no feature map.
            if shape.layout != TOKENS or not isinstance(module, nn.Linear):
                layers.append(Layer(name, shape))
            if not any(module.children()):
                leaves.append((shape, shape_of(inputs[0], network) if isinstance(module, POOLS) and inputs else None))

        return hook

    with at_rest(network), torch.no_grad(), contextlib.ExitStack() as stack:
        for name, module in network.named_modules():
            if name:
                stack.callback(module.register_forward_hook(remember(name)).remove)
        last = shape_of(network.features(images), network)
    if not leaves or last is None:
        raise InputError(
            f"{kind_of(network)} has no feature map of the image, so no heatmap can be made",
            "use --layer NAME to name a module that has one",
        )
    end, pooled = leaves[-1]
    if pooled is not None and end == last:
        last = pooled
    if last.side < 2:
        raise InputError(
            f"the last feature map of {kind_of(network)} is 1 x 1 at {images.shape[-1]} pixels and has no positions",
            "train at a larger --size, or name an earlier layer: --layer NAME",
        )
    candidates = [layer for layer in reversed(layers) if layer.shape == last]
    for layer in candidates[:TRIED]:
        if bool((gradient(layer) != 0).any()):
            return layer
    return candidates[0]


def named_layer(network: Network, name: str, images: Tensor) -> Layer:
    """The layer named by the user.

    Raises:
        UsageError: There is no such module, or its output is not a map.
    """
    modules = dict(network.named_modules())
    name = name if name in modules or f"timm.{name}" not in modules else f"timm.{name}"
    if not name or name not in modules:
        near = difflib.get_close_matches(name, modules, 3, 0.3)
        raise UsageError(
            f"--layer: {kind_of(network)} has no module '{name}'" + (f"; nearest: {', '.join(near)}" if near else ""),
            "without --layer the last map before pooling is used",
        )
    found: list[object] = []
    with at_rest(network), torch.no_grad(), contextlib.ExitStack() as stack:
        stack.callback(modules[name].register_forward_hook(lambda _m, _i, output: found.append(output)).remove)
        network(images)
    shape = shape_of(found[-1], network) if found else None
    if shape is None or shape.side < 2:
        size = tuple(found[-1].shape) if found and isinstance(found[-1], Tensor) else "not a tensor"
        raise UsageError(
            f"--layer {name}: expected a module whose output is a map of the image, found an output of {size}",
            "name a convolution, a block or a normalisation before the pooling",
        )
    return Layer(name, shape)


def kind_of(network: nn.Module) -> str:
    """The name of a network in messages."""
    scorer = getattr(network, "scorer", network)
    inner = getattr(scorer, "timm", scorer)
    config = getattr(inner, "pretrained_cfg", None)
    return str((config or {}).get("architecture") or type(inner).__name__)
