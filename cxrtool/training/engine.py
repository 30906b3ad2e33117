"""The training loop: one fold, from drawn or pretrained weights to the epoch that is kept.

The loop never sees a path: a `Source` hands it batches by index. All that is random is a function of seed, epoch and
image or part of the saved state, so that a run which was killed goes on to the very weights it would have had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cxrtool.errors import CxrtoolError, DivergedError
from cxrtool.models.network import is_finite, set_mode
from cxrtool.training.checkpoint import load_state, save_state
from cxrtool.training.device import autocast
from cxrtool.training.features import Source
from cxrtool.training.optimization import OPTIMIZERS, Recipe, class_weights, cross_entropy, learning_rate
from cxrtool.training.randomness import permutation

COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
Row = dict[str, float | None]
Stop = Callable[[], CxrtoolError | None]
"""Asked between two batches; what it returns is raised once the state is saved."""


@dataclass
class Fit:
    """What `fit` has to do.

    Attributes:
        module: What is trained: a whole network, or the head alone on kept features.
        source: Hands out its inputs.
        labels: Class index of every image of the store (N,).
        training: Places in the store to train on.
        validation: Places to choose the epoch by; may be empty.
        classes: Number of classes.
        recipe: Optimizer, schedule and stopping rule.
        device: Where `module` is.
        precision: `fp32` or `bf16`.
        seed: Of the order of the images.
        frozen_norms: Keep the body's normalisations in evaluation mode.
        state: Folder for states to resume from.
        save_every: Seconds between two states, also within an epoch; 0 saves after every epoch, and then alone.
        names: Image ids, for messages.
    """

    module: nn.Module
    source: Source
    labels: np.ndarray
    training: np.ndarray
    validation: np.ndarray
    classes: int
    recipe: Recipe
    device: torch.device
    precision: str
    seed: int
    frozen_norms: bool
    state: Path
    save_every: float = 30.0
    names: list[str] = field(default_factory=list)


@dataclass
class History:
    """What came of it.

    Attributes:
        rows: One row an epoch.
        kept: The epoch (from 1) whose weights `module` now has.
        seconds: What the epochs took, those before an interruption included.
    """

    rows: list[Row]
    kept: int
    # How long it took is no part of what came of it.
    seconds: float = field(default=0.0, compare=False)


def fit(
    job: Fit,
    *,
    epoch_done: Callable[[Row], None] = lambda row: None,
    stop: Stop = lambda: None,
    warn: Callable[[str], None] = lambda text: None,
) -> History:
    """Train `job.module` in place, going on from a saved state where there is one.

    Args:
        job: What to do.
        epoch_done: Called with each epoch's row.
        stop: Asked between batches, those of the validation images too.
        warn: Told what should not be overlooked.

    Raises:
        CxrtoolError: The loss is not a number, memory does not suffice, or what `stop` returned.
    """
    return Loop(job, warn).run(epoch_done, stop)


class Loop:
    """One call of `fit`: what is carried from batch to batch and into a saved state."""

    def __init__(self, job: Fit, warn: Callable[[str], None]) -> None:
        self.job = job
        trained = [parameter for parameter in job.module.parameters() if parameter.requires_grad]
        if not trained:
            raise CxrtoolError("there is nothing to train: every weight is frozen")
        self.optimizer = OPTIMIZERS[job.recipe.opt](trained, job.recipe)
        weights = class_weights(job.labels[job.training], job.classes, job.recipe.class_weights)
        self.weights = None if weights is None else weights.to(job.device)
        self.target = torch.from_numpy(job.labels.astype(np.int64)).to(job.device)
        self.rows: list[Row] = []
        self.best: dict[str, Any] = {"epoch": 0, "score": (math.inf, math.inf), "weights": {}}
        self.epoch = self.step = 0
        self.losses: list[Tensor] = []
        self.hits: list[Tensor] = []
        self.spent = 0.0
        self.began = self.saved = time.monotonic()
        state = load_state(job.state, warn)
        if state:
            self._restore(state)

    def run(self, epoch_done: Callable[[Row], None], stop: Stop) -> History:
        """Train the epochs that are left, and give the module the weights of the one to keep."""
        job, recipe = self.job, self.job.recipe
        while self.epoch < recipe.epochs and not self._patience_is_out():
            losses = [row["validation_loss"] for row in self.rows]
            rate = learning_rate(recipe, self.epoch, [value for value in losses if value is not None])
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.train_epoch(stop)
            row = self._finish_epoch(rate, stop)
            epoch_done(row)
            if time.monotonic() - self.saved >= job.save_every:
                self._save()
        if self.best["weights"]:
            job.module.load_state_dict(self.best["weights"])
        return History(self.rows, int(self.best["epoch"]), self.seconds())

    def seconds(self) -> float:
        """Seconds of training until now, in this process and in those that were interrupted before it."""
        return self.spent + time.monotonic() - self.began

    def _patience_is_out(self) -> bool:
        patience = self.job.recipe.patience
        return bool(patience and len(self.job.validation) and self.epoch - self.best_loss_epoch() >= patience)

    def best_loss_epoch(self) -> int:
        """The epoch (from 1) of the smallest validation loss; 0 before the first."""
        losses = [row["validation_loss"] for row in self.rows]
        known = [(value, index + 1) for index, value in enumerate(losses) if value is not None]
        return min(known)[1] if known else 0

    def _batches(self) -> list[np.ndarray]:
        job = self.job
        order = job.training[permutation(len(job.training), self.epoch, job.seed)]
        size = job.recipe.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        if len(batches) > 1 and len(batches[-1]) == 1:
            # Batch normalisation cannot normalise over a single image with a 1 x 1 map.
            last = batches.pop()
            batches[-1] = np.concatenate([batches[-1], last])
        return batches

    def train_epoch(self, stop: Stop) -> None:
        """Train on the batches of this epoch that are left."""
        job = self.job
        set_mode(job.module, training=True, frozen_norms=job.frozen_norms)
        batches = self._batches()
        for indices in batches[self.step :]:
            try:
                self._train_batch(indices)
            except torch.OutOfMemoryError as error:
                raise CxrtoolError(
                    f"the GPU's memory does not hold a batch of {len(indices)} images",
                    f"try --batch-size {max(1, len(indices) // 2)}",
                ) from error
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise CxrtoolError(
                    "batch normalisation cannot be trained on one image at a time, at this --size",
                    "--batch-size 2 or more, or more training images",
                ) from error
            self.step += 1
            self._heed(stop)
            if job.save_every and time.monotonic() - self.saved >= job.save_every:
                self._save()

    def _heed(self, stop: Stop) -> None:
        reason = stop()
        if reason is not None:
            self._save()
            raise reason

    def _train_batch(self, indices: np.ndarray) -> None:
        job = self.job
        inputs = job.source.batch(indices, self.epoch)
        target = self.target[torch.from_numpy(indices).to(self.target.device)]
        with autocast(job.device, job.precision):
            logits = job.module(inputs)
        loss = cross_entropy(logits, target, self.weights)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        # Kept on the device: reading them now would make it wait.
        self.losses.append(loss.detach() * len(indices))
        self.hits.append((logits.detach().argmax(1) == target).sum())

    def _finish_epoch(self, rate: float, stop: Stop) -> Row:
        job, recipe = self.job, self.job.recipe
        losses = torch.stack(self.losses).double().cpu()
        if not bool(torch.isfinite(losses).all()):
            self._complain(int((~torch.isfinite(losses)).nonzero()[0]))
        count = len(job.training)
        validation_loss, validation_accuracy = self._validate(stop)
        row: Row = {
            "epoch": self.epoch + 1,
            "lr": rate,
            "train_loss": float(losses.sum()) / count,
            "train_accuracy": float(torch.stack(self.hits).sum()) / count,
            "validation_loss": validation_loss,
            "validation_accuracy": validation_accuracy,
        }
        self.rows.append(row)
        self.epoch, self.step, self.losses, self.hits = self.epoch + 1, 0, [], []
        score = {
            "best-loss": (validation_loss, 0.0),
            "best-accuracy": (-(validation_accuracy or 0.0), validation_loss),
            "last": (-float(self.epoch), 0.0),
        }[recipe.checkpoint if len(job.validation) else "last"]
        if score < self.best["score"]:
            weights = {name: value.detach().clone() for name, value in job.module.state_dict().items()}
            self.best = {"epoch": self.epoch, "score": score, "weights": weights}
        return row

    def _validate(self, stop: Stop) -> tuple[float | None, float | None]:
        job = self.job
        if not len(job.validation):
            return None, None
        logits = forward(
            job.module, job.source, job.validation, job.recipe.batch_size, job.device, job.precision,
            between=lambda: self._heed(stop),
        )  # fmt: skip
        target = self.target[torch.from_numpy(job.validation).to(self.target.device)]
        loss = float(cross_entropy(logits, target, self.weights).double())
        if not math.isfinite(loss):
            raise DivergedError(
                f"epoch {self.epoch + 1}: the validation loss is {loss}; nothing of this epoch was saved",
                "the learning rate is too high for this network, most likely: lower --lr",
            )
        return loss, float((logits.argmax(1) == target).float().mean())

    def _complain(self, step: int) -> None:
        indices = self._batches()[step]
        shown = ", ".join(self.job.names[int(i)] for i in indices[:4]) if self.job.names else f"{len(indices)} images"
        raise DivergedError(
            f"epoch {self.epoch + 1}, batch {step + 1}: the loss is not a number, at the images {shown} …; "
            "nothing of this epoch was saved",
            "lower --lr, or look at these images; the same command goes on from the last good checkpoint",
        )

    def _save(self) -> None:
        job = self.job
        if self.losses:
            finite = torch.isfinite(torch.stack(self.losses)).cpu()
            if not bool(finite.all()):
                self._complain(int((~finite).nonzero()[0]))
        if not is_finite(job.module):
            raise DivergedError(f"epoch {self.epoch}: the weights are no longer numbers; not saved", "lower --lr")
        save_state(
            job.state,
            {
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds(),
                "rows": self.rows,
                "best": {**self.best, "score": list(self.best["score"])},
                "losses": [value.cpu() for value in self.losses],
                "hits": [value.cpu() for value in self.hits],
                "module": job.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "random_device": torch.cuda.get_rng_state(job.device) if job.device.type == "cuda" else None,
            },
        )
        self.saved = time.monotonic()

    def _restore(self, state: Mapping[str, Any]) -> None:
        job = self.job
        job.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.rows = state["epoch"], state["step"], list(state["rows"])
        # A state of an earlier version does not tell.
        self.spent = float(state.get("seconds", 0.0))
        weights = {name: value.to(job.device) for name, value in state["best"]["weights"].items()}
        self.best = {**state["best"], "score": tuple(state["best"]["score"]), "weights": weights}
        self.losses = [value.to(job.device) for value in state["losses"]]
        self.hits = [value.to(job.device) for value in state["hits"]]
        torch.set_rng_state(state["random"])
        if state["random_device"] is not None and job.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_device"], job.device)


@torch.inference_mode()
def forward(
    module: nn.Module,
    source: Source,
    indices: np.ndarray,
    batch_size: int,
    device: torch.device,
    precision: str,
    between: Callable[[], None] = lambda: None,
) -> Tensor:
    """Logits (n, K) in fp32 of the images at `indices`, in evaluation mode and without augmentation.

    A batch that a GPU's memory does not hold is halved until it does. `between` is called after each batch.
    """
    module.eval()
    parts, start = [], 0
    while start < len(indices):
        try:
            with autocast(device, precision):
                parts.append(module(source.batch(indices[start : start + batch_size], None)).float())
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise CxrtoolError("the GPU's memory does not hold a single image", "use --device cpu") from None
            batch_size //= 2
            torch.cuda.empty_cache()
            continue
        start += batch_size
        between()
    return torch.cat(parts) if parts else torch.empty((0, 0), device=device)
