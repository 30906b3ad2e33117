"""Which module's output a heatmap is made of, and how that output lies on the picture.

The map of a convolutional network is (B, C, h, w); Swin and its kin keep the channels last, (B, h, w, C); transformers
keep a row of tokens, (B, N, C), some of which (class, distillation, registers) belong to no place. All of them become
(B, C, h, w) here. Pictures are square in this program, and so are the maps that are made of them: that is how the axes
are told apart.
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
"""Modules that are tried, from the last one back, before the last is taken whatever it tells."""


@dataclass(frozen=True)
class Shape:
    """How an output lies on the picture.

    Attributes:
        layout: `CONVOLUTIONAL`, `CHANNELS_LAST` or `TOKENS`.
        channels: C.
        side: Of the map, in cells.
        extra: Tokens in front that belong to no place.
    """

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
    """The module that a heatmap looks at.

    Attributes:
        name: Its name within the network, as `named_modules` gives it.
        shape: How its output lies on the picture.
    """

    name: str
    shape: Shape


def shape_of(output: object, network: nn.Module) -> Shape | None:
    """How a module's output lies on a square picture; None where it lies on none.

    Args:
        output: What the module returned.
        network: Told which way round it is where the numbers alone do not tell, and how many tokens have no place.
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
        # timm says how many; where it does not, all tokens are places or one, of the class, is not.
        for extra in dict.fromkeys((int(getattr(inner, "num_prefix_tokens", 0) or 0), 0, 1, 2)):
            side = math.isqrt(max(tokens - extra, 0))
            if side > 1 and side * side == tokens - extra:
                return Shape(TOKENS, channels, side, extra)
    return None


@contextlib.contextmanager
def watch(module: nn.Module, keep: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let `keep` see the module's output and say what takes its place, while the block runs, whatever happens in it.

    Args:
        module: Any module; one that is called several times is seen every time.
        keep: From the output to the output.
    """

    def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor | None:
        return keep(output) if isinstance(output, Tensor) else None

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no parameter that wants a gradient, while the block runs; then all as it was."""
    modes = [(module, module.training) for module in network.modules()]
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode


@dataclass(frozen=True)
class _Seen:
    """An output that lies on the picture.

    Attributes:
        name: The module's.
        shape: How it lies there.
        pooled: Where a pooling made it, the map that was pooled.
        outer: Whether the module has others in it.
        part: Whether it is a part of an attention, such as its keys, that no one would call a feature map.
    """

    name: str
    shape: Shape
    pooled: Shape | None
    outer: bool
    part: bool


def find_layer(network: Network, images: Tensor, gradient: Callable[[Layer], Tensor]) -> Layer:
    """Find the module whose output is the last map before pooling on which the answer depends.

    That is the last convolutional block of a ResNet, the normalisation after the last dense block of a DenseNet, the
    rectifier before the last pooling of a VGG (a pooling at the body's end is stepped over, so that the map is the
    finer one); and of a transformer that reads its class token alone, the normalisation before the last attention,
    because behind it no other token has a say.

    Args:
        network: Any.
        images: (B, C, S, S), normalised; what they show is of no importance.
        gradient: The gradient (B, C, h, w) of some answer with respect to a layer's map.

    Raises:
        InputError: The network has no such map.
    """
    seen, last = _look_through(network, images)
    if last is None:
        raise InputError(
            f"{kind_of(network)} has no feature map that lies on the picture; no heatmap can be made of it",
            "--layer NAME may name a module that has one",
        )
    if last.side < 2:
        raise InputError(
            f"the last feature map of {kind_of(network)} is 1 x 1 at {images.shape[-1]} pixels: it tells of no place",
            "train at a larger --size, or name an earlier layer: --layer NAME",
        )
    candidates = [Layer(entry.name, entry.shape) for entry in reversed(seen) if entry.shape == last and not entry.part]
    for layer in candidates[:TRIED]:
        if bool((gradient(layer) != 0).any()):
            return layer
    return candidates[0]


def named_layer(network: Network, name: str, images: Tensor) -> Layer:
    """The layer that the user names.

    Raises:
        UsageError: There is no such module, or its output does not lie on the picture.
    """
    modules = dict(network.named_modules())
    name = name if name in modules or f"timm.{name}" not in modules else f"timm.{name}"
    if not name or name not in modules:
        near = difflib.get_close_matches(name, modules, 3, 0.3)
        raise UsageError(
            f"--layer: {kind_of(network)} has no module '{name}'" + (f"; nearest: {', '.join(near)}" if near else ""),
            "without --layer the last map before pooling is taken",
        )
    found: list[object] = []
    with at_rest(network), torch.no_grad(), contextlib.ExitStack() as stack:
        stack.callback(modules[name].register_forward_hook(lambda _m, _i, output: found.append(output)).remove)
        network(images)
    shape = shape_of(found[-1], network) if found else None
    if shape is None or shape.side < 2:
        size = tuple(found[-1].shape) if found and isinstance(found[-1], Tensor) else "nothing that is one tensor"
        raise UsageError(
            f"--layer {name}: expected a module that gives a map of the picture, found one that gives {size}",
            "name a convolution, a block or a normalisation before the pooling",
        )
    return Layer(name, shape)


def _look_through(network: Network, images: Tensor) -> tuple[list[_Seen], Shape | None]:
    """What every module of the body gives, in the order in which they finish; and the map that ends the body."""
    seen: list[_Seen] = []

    def remember(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            shape = shape_of(output, network)
            if shape is not None:
                pooled = shape_of(inputs[0], network) if isinstance(module, POOLS) and inputs else None
                part = shape.layout == TOKENS and isinstance(module, nn.Linear)
                seen.append(_Seen(name, shape, pooled, any(module.children()), part))

        return hook

    with at_rest(network), torch.no_grad(), contextlib.ExitStack() as stack:
        for name, module in network.named_modules():
            if name:
                stack.callback(module.register_forward_hook(remember(name)).remove)
        last = shape_of(network.features(images), network)
    leaves = [entry for entry in seen if not entry.outer]
    if not leaves or last is None:
        return seen, None
    end = leaves[-1]
    return seen, end.pooled if end.pooled is not None and end.shape == last else last


def kind_of(network: nn.Module) -> str:
    """What to call a network in a message."""
    inner = getattr(network, "timm", network)
    config = getattr(inner, "pretrained_cfg", None)
    return str((config or {}).get("architecture") or type(inner).__name__)
