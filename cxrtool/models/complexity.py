"""The multiply-accumulates (MACs) of a network for one image, counted in a forward pass.

Convolutions, dense layers and the two products of attention are counted, which are all but a few percent of any modern
network; biases, normalisations, activations and poolings are excluded, as in the tables of timm and fvcore.
"FLOPs" in a paper are usually this number, sometimes twice this number.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cxrtool.errors import UsageError
from cxrtool.models.architecture import Architecture
from cxrtool.models.network import Network
from cxrtool.models.registry import native_size

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass
class Counter:
    """The count so far, of all images of the batches."""

    macs: int = 0


@contextlib.contextmanager
def counting(module: nn.Module) -> Iterator[Counter]:
    """Count the multiply-accumulates of every forward pass through `module` while the block runs.

    Every call of a layer is counted.

    >>> with counting(nn.Linear(10, 3)) as counter, torch.inference_mode():
    ...     pass
    >>> counter.macs
    0
    """
    counter = Counter()

    def add(layer: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        counter.macs += macs_of(layer, given[0], result)

    handles = [layer.register_forward_hook(add) for layer in module.modules() if is_counted(layer)]
    try:
        yield counter
    finally:
        for handle in handles:
            handle.remove()


def is_counted(layer: nn.Module) -> bool:
    """Whether a layer itself, without its children, multiplies."""
    return isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)) or _is_attention(layer)


def macs_of(layer: Any, given: Tensor, result: Tensor) -> int:
    """Multiply-accumulates of one call of one layer.

    Args:
        layer: One for which `is_counted` is true.
        given: Its input, with the batch first.
        result: Its output.

    >>> layer = nn.Conv2d(3, 8, 3, padding=1)
    >>> macs_of(layer, torch.zeros(1, 3, 4, 4), torch.zeros(1, 8, 4, 4)) == 8 * 4 * 4 * 3 * 9
    True
    """
    if isinstance(layer, nn.Linear):
        return result.numel() * layer.in_features
    if isinstance(layer, CONVOLUTIONS):
        return result.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    if isinstance(layer, TRANSPOSED):
        return given.numel() * layer.out_channels // layer.groups * math.prod(layer.kernel_size)
    # Products of queries and keys, and of weights and values; the dense layers are counted themselves.
    batch, tokens, _ = given.shape
    width = layer.qkv.out_features // 3
    return int(2 * batch * tokens * tokens * width)


def count_macs(module: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of one image.

    Args:
        module: In any mode, which is restored.
        images: (B, C, H, W) of any content.
    """
    training = module.training
    with counting(module) as counter, torch.inference_mode():
        module.eval()(images)
    module.train(training)
    return counter.macs // len(images)


def try_out(network: Network, architecture: Architecture, channels: int) -> int:
    """Run the network on a blank image: many networks fail only then if the input is too small.

    Returns:
        The multiply-accumulates.

    Raises:
        UsageError: It fails.
    """
    try:
        return count_macs(network.eval(), torch.zeros(1, channels, architecture.size, architecture.size))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UsageError(
            f"--size {architecture.size}: {architecture.name} does not accept images of this size: {reason}",
            f"its native size is {native_size(architecture.name)}",
        ) from error


def _is_attention(layer: nn.Module) -> bool:
    """Self-attention as timm writes it, in windows or not: one dense layer makes queries, keys and values."""
    return isinstance(getattr(layer, "num_heads", None), int) and isinstance(getattr(layer, "qkv", None), nn.Linear)
