"""Fit a network that returns an image: lungs from masks, or rib-free images from pairs.

The loop is the same as for classifiers (`cxrtool.training.engine`). Image and target are decoded once and moved by the
same map; the grey values of the image only are changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cxrtool.errors import UsageError
from cxrtool.imaging.fits import Form
from cxrtool.models import lung_start, opacity_start
from cxrtool.models.network import count_parameters
from cxrtool.models.parts import answer_of, networks
from cxrtool.training import losses
from cxrtool.training.augment import Augmentation, Augmenter
from cxrtool.training.device import (
    autocast,
    choose_device,
    choose_precision,
    in_halves,
    keep_freed_memory,
    local_randomness,
    on_device,
)
from cxrtool.training.engine import History, Stop, fit, raise_if_stopped
from cxrtool.training.image_to_image_options import LOSSES
from cxrtool.training.job import Job, Row
from cxrtool.training.losses import SCORES
from cxrtool.training.opacify import Opacify
from cxrtool.training.options import FittingOptions
from cxrtool.training.randomness import image_keys, permutation
from cxrtool.training.store import Store

PASS = 1 << 16
"""Added to the number of the epoch each time an image is used again in it, so that it is changed in another way."""


BEGIN = {"lungs": lung_start.begin, "opacities": opacity_start.begin}
"""By kind, what loads the weights that a network begins with."""


class Exposure(Protocol):
    """Changes the grey values of training images after they have been moved."""

    def __call__(self, images: Tensor, indices: np.ndarray, epoch: np.ndarray) -> Tensor:
        """Change images (B, 1, S, S) of values in [0, 1]; `indices` in the store and `epoch` are (B,)."""


@dataclass(frozen=True)
class ImageToImageDesign:
    """All options that affect the weights.

    Attributes:
        kind: `lungs`, `opacities` or `ribs`.
        network: A key of that kind's networks.
        recipe: Optimizer, schedule and stopping rule.
        exposure: A name of `EXPOSURES`.
        opacify: Share of the training images whose lungs are made opaque.
        loss: A key of `LOSSES` of the kind.
        weights: What the network begins with: of lungs a part, of opacities an encoder; empty for random weights.
        average: Share that the running average of the weights keeps at each step; 0 keeps the weights themselves.
        copies: How often each training image is used in an epoch, each time changed in another way.
    """

    kind: str
    network: str
    form: Form
    recipe: FittingOptions
    augmentation: Augmentation
    exposure: str
    opacify: float
    loss: str
    weights: str
    average: float
    copies: int
    seed: int
    threads: int
    device: str
    precision: str


@dataclass
class FittedImageToImage:
    """A fitted network.

    Attributes:
        module: With the weights of the epoch that was kept, on the CPU, in evaluation mode.
        notes: For `run.json`: `parameters`, `trained_parameters`, `device`, `precision` and `seconds` of training.
    """

    module: nn.Module
    history: History
    notes: dict[str, int | float | str]


class Pairs:
    """Batches of images and targets, (B, 1, S, S) of values in [0, 1], on the device.

    Args:
        images: Decoded images.
        targets: In the same order.
        augmenter: Moves both, and changes the images, in training.
        exposure: Changes the images further.
        opacify: Before that, lays haze over the lungs, which are the targets.
    """

    def __init__(
        self,
        images: Store,
        targets: Store,
        device: torch.device,
        augmenter: Augmenter | None = None,
        exposure: Exposure | None = None,
        opacify: Opacify | None = None,
    ) -> None:
        self.images, self.targets, self.device = images, targets, device
        self.augmenter, self.exposure, self.opacify = augmenter, exposure, opacify

    def batch(self, indices: np.ndarray, numbers: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """Images and targets of these indices in the stores; augmented with `numbers` (B,), unchanged without."""
        images, targets = (self._values(store, indices) for store in (self.images, self.targets))
        if numbers is not None and self.augmenter is not None:
            images, targets = self.augmenter.pair(images, targets, indices, numbers)
        if numbers is not None and self.opacify is not None:
            images = self.opacify(images, targets, indices, numbers)
        if numbers is not None and self.exposure is not None:
            images = self.exposure(images, indices, numbers)
        return images.contiguous(memory_format=torch.channels_last), targets

    def _values(self, store: Store, indices: np.ndarray) -> Tensor:
        return on_device(store[indices], self.device).to(torch.float32).mul_(1.0 / store.scale)


@dataclass(kw_only=True)
class ImageToImageFit(Job):
    """Fit a network that returns an image.

    Attributes:
        kind: `lungs`, `opacities` or `ribs`.
        pairs: Gives images and targets.
        criterion: A key of `LOSSES` of the kind.
        copies: How often each training image is used in an epoch.
        groups: The group of each training image (n,); an epoch draws the same number from each. None uses all images
            equally often.
    """

    kind: str
    pairs: Pairs
    criterion: str
    copies: int = 1
    groups: np.ndarray | None = None

    @property
    def score(self) -> str:
        """Dice, or the mean squared error."""
        return SCORES[self.kind][0]

    @property
    def divisible(self) -> bool:
        """Not if the loss is of the batch as a whole, either."""
        return super().divisible and LOSSES[self.kind][self.criterion] not in losses.OF_BATCH

    def order(self, epoch: int) -> np.ndarray:
        """Rows of an index and how often it was already used in this epoch (n, 2)."""
        count = len(self.training) * self.copies
        groups = np.zeros(len(self.training), np.int64) if self.groups is None else self.groups
        chosen = draw_evenly(groups, count, epoch, self.seed)
        items: np.ndarray = np.stack([self.training[chosen], occurrences(chosen)], 1)
        return np.asarray(items[permutation(count, epoch, self.seed)])

    def batch(self, items: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        """Images and targets, augmented."""
        return self.pairs.batch(items[:, 0], epoch + PASS * items[:, 1])

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of `criterion`."""
        found: Tensor = getattr(losses, LOSSES[self.kind][self.criterion])(outputs, target)
        return found

    def score_sum(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The sum of the images' scores."""
        return SCORES[self.kind][1](outputs, target).sum()

    @torch.inference_mode()
    def validate(self, between: Callable[[], None]) -> tuple[float, float]:
        """Loss and score; each batch is weighted by its number of images."""
        self.module.eval()
        loss, score = torch.zeros(2, dtype=torch.float64, device=self.device)
        size, count = self.recipe.batch_size, len(self.validation)
        for start in range(0, count, size):
            images, target = self.pairs.batch(self.validation[start : start + size], None)
            with autocast(self.device, self.precision):
                outputs = in_halves(self.module, images)[:, :1]
            # They stay on the device until the end.
            loss += self.loss(outputs, target).double() * len(images)
            score += self.score_sum(outputs, target).double()
            between()
        return float(loss) / count, float(score) / count


def draw_evenly(groups: np.ndarray, count: int, epoch: int, seed: int) -> np.ndarray:
    """Draw the same number of members from each group, and each member of a group equally often (up to one).

    Each epoch takes the next part of an endless sequence of shuffles of a group. So over the epochs no member is
    excluded, and a draw depends only on the number of the epoch.

    Args:
        groups: The group of each member (n,).
        count: How many to draw; if it is not divisible, the first groups give one more.
        epoch: Number of the epoch.
        seed: Of the run.

    Returns:
        Indices of members (count,), group by group.
    """
    chosen = []
    values = np.unique(groups)
    for number, value in enumerate(values):
        members = np.flatnonzero(groups == value)
        quota = count // len(values) + (number < count % len(values))
        if not quota:
            continue
        start, size = epoch * quota, len(members)
        cycles = range(start // size, (start + quota - 1) // size + 1)
        line = np.concatenate([permutation(size, cycle, seed + 1 + number) for cycle in cycles])
        chosen.append(members[line[start - cycles[0] * size :][:quota]])
    return np.concatenate(chosen)


def occurrences(values: np.ndarray) -> np.ndarray:
    """How often each value occurred before.

    >>> occurrences(np.array([3, 5, 3, 3, 5])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(values, kind="stable")
    ranks = np.arange(len(values))
    first = np.r_[True, values[order][1:] != values[order][:-1]] if len(values) else np.empty(0, bool)
    result = np.empty(len(values), np.int64)
    result[order] = ranks - np.maximum.accumulate(np.where(first, ranks, 0))
    return result


def fit_image_to_image(
    design: ImageToImageDesign,
    images: Store,
    targets: Store,
    ids: Sequence[str],
    training: np.ndarray,
    validation: np.ndarray,
    groups: np.ndarray | None,
    state: Path,
    *,
    save_every: float = 30.0,
    epoch_done: Callable[[Row], None] = lambda row: None,
    stop: Stop = lambda: None,
    warn: Callable[[str], None] = lambda text: None,
) -> FittedImageToImage:
    """Fit one network.

    Args:
        design: What to fit and how.
        images: Decoded images.
        targets: In the same order.
        ids: Image id of every index of the stores.
        training: Indices of the training images.
        validation: Indices of the validation images, which choose the epoch.
        groups: As `ImageToImageFit.groups`.
        state: Folder for states to resume from.
        save_every: Seconds between two states.
        epoch_done: Called with each epoch's row.
        stop: Called between batches; an error that it returns is raised, after the state was saved.
        warn: Called with each warning.

    Raises:
        CxrtoolError: Size, device or memory do not suffice, the loss is not finite, or what `stop` returned.
    """
    device = choose_device(design.device)
    precision = choose_precision(design.precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    with local_randomness(design.seed, design.threads):
        module = build(design)
        notes: dict[str, int | float | str] = {**count_parameters(module), "device": str(device)}
        notes["precision"] = precision
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        keys = image_keys(ids)
        augmenter = Augmenter(design.augmentation, keys, design.seed, design.form.size, device)
        exposure = _exposure(design, keys, device)
        opacify = Opacify(design.opacify, keys, design.seed, design.form.size, device) if design.opacify else None
        pairs = Pairs(images.to(device), targets.to(device), device, augmenter, exposure, opacify)
        history = fit(
            ImageToImageFit(
                module=module,
                training=training,
                validation=validation,
                recipe=design.recipe,
                device=device,
                precision=precision,
                seed=design.seed,
                average=design.average,
                state=state,
                save_every=save_every,
                names=list(ids),
                kind=design.kind,
                pairs=pairs,
                criterion=design.loss,
                copies=design.copies,
                groups=groups,
            ),
            epoch_done=epoch_done,
            stop=stop,
            warn=warn,
        )
    notes["seconds"] = round(history.seconds, 2)
    return FittedImageToImage(module.cpu().eval(), history, notes)


def build(design: ImageToImageDesign) -> nn.Module:
    """Build the network, load what it begins with, and check that it takes such images.

    Raises:
        UsageError: It does not.
        InputError: The weights cannot be read or downloaded.
    """
    module = networks(design.kind)[design.network].build()
    if design.weights:
        BEGIN[design.kind](module, design.weights)
    size = design.form.size
    try:
        with torch.inference_mode():
            shape = tuple(module.eval()(torch.zeros(1, 1, size, size)).shape)
    except RuntimeError as error:
        raise UsageError(
            f"--size {size}: {design.network} cannot take it: {str(error).splitlines()[0][:120]}",
            "use a multiple of 64, such as 256",
        ) from error
    if shape[-2:] != (size, size):
        raise UsageError(
            f"--size {size}: {design.network} returns {shape[-1]} pixels", "use a multiple of 64, such as 256"
        )
    return module


def _exposure(design: ImageToImageDesign, keys: np.ndarray, device: torch.device) -> Exposure | None:
    if design.exposure == "none":
        return None
    from cxrtool.training import lung_augment

    return lung_augment.Exposure(keys, design.seed, design.form.size, device)


@torch.inference_mode()
def predict(
    design: ImageToImageDesign, module: nn.Module, images: Store, indices: np.ndarray, *, stop: Stop = lambda: None
) -> Iterator[np.ndarray]:
    """Run a fitted network on some images of a store, one after the other, in fp32.

    Yields:
        As `answer_of`, float32, for each image (S, S) or (2, S, S).

    Raises:
        CxrtoolError: What `stop` returned.
    """
    device, size = choose_device(design.device), min(design.recipe.batch_size, 8)
    module.to(device)
    try:
        for start in range(0, len(indices), size):
            batch = images[indices[start : start + size]].to(device, torch.float32).mul_(1.0 / images.scale)
            yield from answer_of(in_halves(module, batch), design.kind).cpu().numpy()
            raise_if_stopped(stop)
    finally:
        module.cpu()
