"""What a training loop is told: which images, by which rule, and what is lost on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cxrtool.training.device import autocast
from cxrtool.training.options import OPTIMIZERS, FittingOptions
from cxrtool.training.randomness import permutation

Row = dict[str, float | None]
"""One epoch of a history, by `columns`."""


def columns(score: str, terms: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns of a history; further terms of the loss stand at its end.

    >>> columns("dice", ["tv"])
    ('epoch', 'lr', 'train_loss', 'train_dice', 'validation_loss', 'validation_dice', 'train_tv')
    """
    own = "epoch", "lr", "train_loss", f"train_{score}", "validation_loss", f"validation_{score}"
    return *own, *(f"train_{term}" for term in terms)


COLUMNS = columns("accuracy")
"""Those of a classifier's."""


@dataclass(kw_only=True)
class Job(ABC):
    """What `fit` has to do; children say what a batch is, what is lost on it, and how good it is.

    Attributes:
        module: What is trained.
        training: Places in the store to train on.
        validation: Places to choose the epoch by; may be empty.
        recipe: Optimizer, schedule and stopping rule.
        device: Where `module` is.
        precision: `fp32` or `bf16`.
        seed: Of the order of the images.
        frozen_norms: Keep the body's normalisations in evaluation mode.
        average: Share that an average over the steps' weights keeps at each step; the average is what is validated and
            kept. 0 keeps the weights themselves.
        state: Folder for states to resume from.
        save_every: Seconds between two states, also within an epoch; 0 saves after every epoch, and then alone.
        names: Image ids, for messages.
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

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of further figures that `learn` gives, for a history."""
        return ()

    def optimizer(self) -> torch.optim.Optimizer:
        """What moves the weights that are trained; one group of them, unless a child says otherwise."""
        return OPTIMIZERS[self.recipe.opt].build(self.trained(), self.recipe)

    def trained(self) -> list[nn.Parameter]:
        """The weights that are trained."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def rates(self, epoch: int, losses: Sequence[float]) -> Sequence[float]:
        """The learning rate of each group of the optimizer in an epoch, given the validation losses before it.

        A history tells the first.
        """
        return (self.recipe.rate(epoch, losses),)

    def learn(self, items: np.ndarray, epoch: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Fill the gradients of what is trained, which are empty before.

        Returns:
            The mean loss of the batch, the sum of its images' scores, and the mean of each of `terms`; detached.
        """
        inputs, target = self.batch(items, epoch)
        with autocast(self.device, self.precision):
            outputs = self.module(inputs)
        loss = self.loss(outputs, target)
        torch.autograd.backward(loss)
        return loss.detach(), self.score_sum(outputs.detach(), target), {}

    def order(self, epoch: int) -> np.ndarray:
        """What an epoch visits, in its order: places in the store (n,), or rows (n, …) that begin with one."""
        indices: np.ndarray = self.training[permutation(len(self.training), epoch, self.seed)]
        return indices

    @property
    @abstractmethod
    def score(self) -> str:
        """What a history calls the figure beside the loss."""

    @abstractmethod
    def batch(self, items: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        """Inputs of a training batch, augmented, and what the network should make of them."""

    @abstractmethod
    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The mean loss of a batch's images."""

    @abstractmethod
    def score_sum(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The sum of the scores of a batch's images."""

    @abstractmethod
    def validate(self, between: Callable[[], None]) -> tuple[float, float]:
        """Loss and score on the validation images; `between` is called after each batch."""
