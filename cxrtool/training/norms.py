"""Statistics of batch normalisation, computed anew on all training images.

While a network trains, its running statistics are an average over the last batches: after a few steps they are mostly
their initial values, and after steps with large updates they belong to weights that are gone. A network that is tested
with them can answer as if it had learnt nothing. Here the mean and the variance of every channel are those of all
training images, as the network sees them in a test (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3):
without augmentation and dropout, each layer on what the layers before it give in large batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cxrtool.errors import CxrtoolError
from cxrtool.training.device import AtOnce, autocast

BATCH = 64
"""Least number of images in a batch: in small batches the layers after the first would see noise."""

PIECE = 1 << 17
"""Values of fp64 that stay in the cache of a processor, and are enough for torch to divide among its threads."""


class _Pooled:
    """Mean and variance per channel over batches of any size (Chan, Golub & LeVeque 1979)."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, device: torch.device) -> None:
        self.norm, self.count = norm, 0
        self.mean = torch.zeros(norm.num_features, dtype=torch.float64, device=device)
        self.squares = torch.zeros_like(self.mean)

    def take(self, inputs: Tensor) -> None:
        count, mean, variance = moments(inputs.detach())
        squares = variance * count
        delta, total = mean - self.mean, self.count + count
        self.squares += squares + delta**2 * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total

    def give(self) -> None:
        """Set the running statistics."""
        if self.count < 2 or self.norm.running_mean is None or self.norm.running_var is None:
            return
        self.norm.running_mean.copy_(self.mean)
        self.norm.running_var.copy_(self.squares / (self.count - 1))


def moments(inputs: Tensor) -> tuple[int, Tensor, Tensor]:
    """Number of values, mean and variance of every channel of inputs (B, C, …): fp64 of what was rounded to fp32.

    On a CPU `torch.var_mean` divides once a value, by Welford's algorithm in fp64: ten times the whole forward pass of
    MobileNetV2. Here the sums are in fp64 too, of values from which a value of the channel is subtracted, so that
    nothing is lost to cancellation, in pieces that fit the cache; the rounded result is the same, but for ties.
    """
    rows = inputs.movedim(1, -1).reshape(-1, inputs.shape[1])
    if inputs.device.type != "cpu":
        variance, mean = torch.var_mean(rows.float(), 0, correction=0)
        return len(rows), mean.double(), variance.double()
    origin = rows[0].double()
    sums, squares = torch.zeros_like(origin), torch.zeros_like(origin)
    for piece in rows.split(max(1, PIECE // rows.shape[1])):  # type: ignore[no-untyped-call]
        shifted = piece.double().sub_(origin)
        sums += shifted.sum(0)
        squares += shifted.square_().sum(0)
    shift = sums / len(rows)
    variance = (squares / len(rows) - shift.square()).clamp_min_(0.0)
    return len(rows), (origin + shift).float().double(), variance.float().double()


def norms_of(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The layers that normalise over the batch: batch normalisations in training mode."""
    kinds = nn.modules.batchnorm._BatchNorm
    return [part for part in module.modules() if isinstance(part, kinds) and part.training]


@contextlib.contextmanager
def running_kept(norms: Sequence[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Leave the running statistics of normalisations alone inside the block, while the batch's own normalise it."""
    former = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, former, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked


@torch.no_grad()
def renew_norms(
    module: nn.Module,
    images: Callable[[np.ndarray], Tensor],
    indices: np.ndarray,
    batch_size: int,
    device: torch.device,
    precision: str,
    between: Callable[[], None] = lambda: None,
) -> int:
    """Set the running statistics of `module` to those of the images at `indices`.

    Normalisations in evaluation mode, such as those of a frozen backbone, keep their statistics.

    Args:
        module: In training mode; it is in evaluation mode afterwards.
        images: Gives the inputs (B, …) at indices, without augmentation.
        indices: At least one.
        batch_size: Of the training.
        device: Of the module.
        precision: `fp32` or `bf16`.
        between: Called after each batch; it may raise.

    Returns:
        The number of normalisations that were renewed.
    """
    norms = [part for part in norms_of(module) if part.track_running_stats]
    module.eval()
    if not norms or len(indices) < 2:
        return 0
    pooled, at_once = [_Pooled(norm, device) for norm in norms], AtOnce(_refuse)
    hooks = [norm.register_forward_pre_hook(_taking(one)) for norm, one in zip(norms, pooled, strict=True)]
    try:
        for norm in norms:
            norm.train()
        with running_kept(norms):
            for batch in _batches(indices, max(batch_size, BATCH)):

                def work(size: int, batch: np.ndarray = batch) -> None:
                    with autocast(device, precision):
                        module(images(batch[:size]))

                at_once(work, len(batch))
                between()
    finally:
        for hook in hooks:
            hook.remove()
        module.eval()
    for one in pooled:
        one.give()
    return len(norms)


def _refuse(count: int, size: int) -> None:
    # In smaller batches a layer would be normalised differently, and so would be the statistics of those after it.
    raise CxrtoolError(
        f"the GPU's memory does not suffice to compute the statistics of batch normalisation with {count} images at "
        f"once; {size} fit",
        "use a smaller --size, or --bn-stats running",
    )


def _taking(pooled: _Pooled) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda _, inputs: pooled.take(inputs[0])


def _batches(indices: np.ndarray, size: int) -> Sequence[np.ndarray]:
    """Batches of nearly equal size, because a last one of few images would normalise the layers differently."""
    return np.array_split(indices, -(-len(indices) // size))
