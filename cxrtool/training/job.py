"""The interface of what the training loop trains: batches, loss and score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cxrtool.training.compiling import Compiled
from cxrtool.training.device import autocast
from cxrtool.training.norms import norms_of
from cxrtool.training.options import OPTIMIZERS, FittingOptions
from cxrtool.training.randomness import permutation
from cxrtool.training.ranks import Ranks

Row = dict[str, float | None]
"""One epoch of a history; its keys are `columns`."""


def columns(score: str, terms: Sequence[str] = (), *, watching: bool = False) -> tuple[str, ...]:
    """The columns of a history: of watched test images where there are some, and further terms of the loss at the end.

    >>> columns("dice", ["tv"])
    ('epoch', 'lr', 'train_loss', 'train_dice', 'validation_loss', 'validation_dice', 'train_tv')
    """
    common = "epoch", "lr", "train_loss", f"train_{score}", "validation_loss", f"validation_{score}"
    watched = ("test_loss", f"test_{score}") if watching else ()
    return *common, *watched, *(f"train_{term}" for term in terms)


COLUMNS = columns("accuracy")
"""Those of a classifier."""


@dataclass(kw_only=True)
class Job(ABC):
    """What `fit` trains; subclasses define batch, loss and score.

    Attributes:
        training: Indices of the training images in the store.
        validation: Indices of the validation images, which choose the epoch; may be empty.
        recipe: Optimizer, schedule and stopping rule.
        frozen_norms: Keep the normalisations of the backbone in evaluation mode.
        average: Share that an average over the steps' weights keeps at each step; the average is what is validated and
            kept. 0 keeps the weights themselves.
        state: Folder for states to resume from.
        save_every: Seconds between two states, also within an epoch; 0 saves only after every epoch.
        names: Image ids, for messages.
        ranks: The processes that share the training.
        compiled: The module, compiled.
    """

    module: nn.Module
    training: np.ndarray
    validation: np.ndarray
    recipe: FittingOptions
    device: torch.device
    precision: str
    seed: int
    frozen_norms: bool = False
    average: float = 0.0
    state: Path
    save_every: float = 30.0
    names: list[str] = field(default_factory=list)
    ranks: Ranks | None = None
    compiled: Compiled | None = None

    @property
    def watching(self) -> bool:
        """Whether loss and score of images that nothing is chosen by are recorded after every epoch."""
        return False

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of further values that `learn` returns, for a history."""
        return ()

    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the trained weights, in one group unless a subclass has several."""
        return OPTIMIZERS[self.recipe.opt].build(self.trained(), self.recipe)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def rates(self, epoch: int, losses: Sequence[float]) -> Sequence[float]:
        """The learning rate of each group of the optimizer in an epoch, given the validation losses before it.

        A history has the first.
        """
        return (self.recipe.rate(epoch, losses),)

    @property
    def divisible(self) -> bool:
        """Whether the gradient of a batch is the sum of its parts': not if a layer normalises over the batch."""
        return not norms_of(self.module)

    def learn(self, items: np.ndarray, epoch: int, share: float = 1.0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Add the gradients of a batch to those of the trained parameters; all that is known of a step on the device.

        Args:
            items: The batch, or a part of it.
            epoch: From 0.
            share: Of the batch that `items` are; their gradient is multiplied by it.

        Returns:
            The mean loss of the batch, the sum of its images' scores, and the mean of each of `terms`; detached.
        """
        inputs, target = self.batch(items, epoch)
        with autocast(self.device, self.precision):
            outputs = (self.compiled or self.module)(inputs)
        loss = self.loss(outputs, target)
        torch.autograd.backward(loss if share == 1 else loss * share)
        return loss.detach(), self.score_sum(outputs.detach(), target), {}

    def order(self, epoch: int) -> np.ndarray:
        """The items of an epoch in order: indices in the store (n,), or rows (n, …) that begin with one."""
        indices: np.ndarray = self.training[permutation(len(self.training), epoch, self.seed)]
        return indices

    @property
    @abstractmethod
    def score(self) -> str:
        """The name of the score in a history."""

    @abstractmethod
    def batch(self, items: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        """Inputs of a training batch, augmented, and their targets."""

    @abstractmethod
    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The mean loss of a batch's images."""

    @abstractmethod
    def score_sum(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The sum of the scores of a batch's images."""

    def renew_norms(self, between: Callable[[], None]) -> None:
        """Compute the statistics of batch normalisation anew, before a validation and at the end; here nothing."""
        return

    @property
    def guessing(self) -> float | None:
        """The loss of a network that answers alike for every image; None where there is no such number."""
        return None

    @abstractmethod
    def validate(self, between: Callable[[], None]) -> tuple[float, float]:
        """Loss and score on the validation images; `between` is called after each batch."""

    def watch(self, between: Callable[[], None], *, renewed: bool) -> tuple[float | None, float | None]:
        """Loss and score on the watched images, None where there are none; the training must not depend on it.

        Args:
            between: Called after each batch.
            renewed: `renew_norms` was called after the last step.
        """
        return None, None
