"""The training loop: one fold, from random or pretrained weights to the epoch that is kept.

The loop knows no paths and no task: a `Job` gives it batches and computes the loss. Everything random is a function of
seed, epoch and image, or part of the saved state, so that a training that was killed continues and ends with the same
weights.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cxrtool.errors import CxrtoolError, DivergedError, StoppedError, count_of
from cxrtool.models.network import is_finite, set_mode
from cxrtool.training.checkpoint import load_state, save_state
from cxrtool.training.classifier_losses import LOSSES, class_weights
from cxrtool.training.compiling import Compiled
from cxrtool.training.device import AtOnce, autocast, on_device, within_memory
from cxrtool.training.features import Source
from cxrtool.training.job import Job, Row, columns
from cxrtool.training.norms import renew_norms
from cxrtool.training.ranks import DropoutOfBatch


class Average:
    """A running average of a module's parameters over the steps (Polyak & Juditsky 1992), which fluctuates less.

    Args:
        kept: Share that the average keeps at each step; less in the first steps, so that it soon forgets them.
    """

    def __init__(self, module: nn.Module, kept: float) -> None:
        self.kept, self.steps, self._showing = kept, 0, False
        self._live = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._mean = [parameter.detach().clone() for parameter in self._live]

    @torch.no_grad()
    def take(self) -> None:
        """Update the average after a step."""
        kept = min(self.kept, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        torch._foreach_lerp_(self._mean, [parameter.detach() for parameter in self._live], 1 - kept)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Give the module the average inside the block, or until `hide`."""
        self._swap()
        try:
            yield
        finally:
            self.hide()

    def hide(self) -> None:
        """Give the module its own weights again, if it has the average."""
        if self._showing:
            self._swap()

    def _swap(self) -> None:
        self._showing = not self._showing
        for parameter, mean in zip(self._live, self._mean, strict=True):
            parameter.data, mean.data = mean.data, parameter.data

    def state(self) -> dict[str, Any]:
        """The state to save."""
        return {"steps": self.steps, "mean": self._mean}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load a saved state."""
        self.steps = state["steps"]
        for mean, saved in zip(self._mean, state["mean"], strict=True):
            mean.copy_(saved)


_NAMED = 64
"""Images of a batch that a message names."""

DIVERGING = 10
"""From this multiple of the loss of guessing a training is reported as one that does not learn."""

GROWN = 2
"""Up to this multiple of the loss of its first batch, the first epoch's loss was as high from the beginning."""

Stop = Callable[[], StoppedError | None]
"""Called between two batches; what it returns is raised after the state has been saved."""


@dataclass(kw_only=True)
class Fit(Job):
    """Fit a classifier.

    Attributes:
        module: A whole network, or only its head if the features are kept.
        source: Gives its inputs.
        labels: Class index of every image of the store (N,).
        criterion: A name of `LOSSES`.
        recompute_norms: Test with statistics of batch normalisation of all training images, not the running ones.
        watched: Indices of images whose loss and accuracy are recorded after every epoch and used for nothing; None
            records none.
        watched_source: Gives the inputs of the watched images, if not `source`.
    """

    source: Source
    labels: np.ndarray
    classes: int
    criterion: str = "cross-entropy"
    recompute_norms: bool = False
    watched: np.ndarray | None = None
    watched_source: Source | None = None

    def __post_init__(self) -> None:
        weights = class_weights(self.labels[self.training], self.classes, self.recipe.class_weights)
        self._weights = None if weights is None else weights.to(self.device)
        self._target = torch.from_numpy(self.labels.astype(np.int64)).to(self.device)

    @property
    def score(self) -> str:
        """The share of correct predictions."""
        return "accuracy"

    def batch(self, items: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        """Images or features, and the classes (B,)."""
        return self.source.batch(items, epoch), self._classes(items)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of `criterion`, each image weighted by its class."""
        return LOSSES[self.criterion](outputs, target, self._weights)

    def score_sum(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Number of correct predictions."""
        return (outputs.argmax(1) == target).sum()

    @property
    def guessing(self) -> float:
        """The cross-entropy of equal probabilities."""
        return math.log(self.classes)

    def renew_norms(self, between: Callable[[], None]) -> None:
        """Compute the statistics on all training images, as they are without augmentation."""
        if self.recompute_norms:
            renew_norms(
                self.module,
                lambda indices: self.source.batch(indices, None),
                self.training,
                self.recipe.batch_size,
                self.device,
                self.precision,
                between,
            )

    def validate(self, between: Callable[[], None]) -> tuple[float, float]:
        """Loss and accuracy."""
        return self._measure(self.source, self.validation, between)

    @property
    def watching(self) -> bool:
        """Whether `watched` was given."""
        return self.watched is not None

    def watch(self, between: Callable[[], None], *, renewed: bool) -> tuple[float | None, float | None]:
        """Loss and accuracy, as of a network that is finished; a loss that is not finite is None, and stops nothing.

        The statistics of batch normalisation that are renewed here are not used in training, and those of the last
        epoch are renewed without it.
        """
        if self.watched is None or not len(self.watched):
            return None, None
        if not renewed:
            self.renew_norms(between)
        loss, accuracy = self._measure(self.watched_source or self.source, self.watched, between)
        return loss if math.isfinite(loss) else None, accuracy

    def _measure(self, source: Source, indices: np.ndarray, between: Callable[[], None]) -> tuple[float, float]:
        size, precision = self.recipe.batch_size, self.precision
        logits = forward(self.module, source, indices, size, self.device, precision, between, self.compiled)
        target = self._classes(indices)
        return float(self.loss(logits, target).double()), float((logits.argmax(1) == target).float().mean())

    def _classes(self, indices: np.ndarray) -> Tensor:
        return self._target[on_device(indices, self.device)]


@dataclass
class History:
    """The result of `fit`.

    Attributes:
        rows: One row per epoch.
        kept: The epoch (from 1) whose weights `module` now has.
        seconds: Time of all epochs, including those before an interruption.
    """

    rows: list[Row]
    kept: int
    # Two runs with the same result are equal whatever time they took.
    seconds: float = field(default=0.0, compare=False)


def fit(
    job: Job,
    *,
    resumed: Callable[[Sequence[Row]], None] = lambda rows: None,
    epoch_done: Callable[[Row], None] = lambda row: None,
    stop: Stop = lambda: None,
    warn: Callable[[str], None] = lambda text: None,
) -> History:
    """Train `job.module` in place, from a saved state if there is one.

    Args:
        job: What to train.
        resumed: Called with the rows of the epochs in the saved state, if any.
        epoch_done: Called with each epoch's row.
        stop: Called between batches, also those of the validation images.
        warn: Called with each warning.

    Raises:
        CxrtoolError: The loss is not finite, or memory does not suffice.
        StoppedError: What `stop` returned.
    """
    loop = Loop(job, warn)
    if loop.rows:
        resumed(loop.rows)
    return loop.run(epoch_done, stop)


class Loop:
    """The state of one call of `fit`, from batch to batch, as it is saved."""

    def __init__(self, job: Job, warn: Callable[[str], None]) -> None:
        self.job, self.warn, self._warned, self._fits = job, warn, False, False
        self.at_once = AtOnce(self._fewer_at_once)
        if not job.trained():
            raise CxrtoolError("expected weights to train, found that all are frozen")
        self.optimizer = job.optimizer()
        self.average = Average(job.module, job.average) if job.average else None
        self.rows: list[Row] = []
        self.best: dict[str, Any] = {"epoch": 0, "score": (math.inf, math.inf), "weights": {}}
        self.epoch = self.step = 0
        self.losses: list[Tensor] = []
        self.score_sums: list[Tensor] = []
        self.terms: list[Tensor] = []
        self.spent = 0.0
        self.began = self.saved = time.monotonic()
        ranks = job.ranks
        state = load_state(job.state, warn) if ranks is None or not ranks.rank else None
        if ranks:
            state = ranks.tell(state)
        if state:
            self._restore(state)
        elif ranks:
            ranks.equal(job.module)

    def run(self, epoch_done: Callable[[Row], None], stop: Stop) -> History:
        """Train the remaining epochs, and load the weights of the epoch to keep."""
        job, recipe = self.job, self.job.recipe
        while self.epoch < recipe.epochs and not self._patience_is_out():
            losses = [row["validation_loss"] for row in self.rows]
            rates = job.rates(self.epoch, [value for value in losses if value is not None])
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            self.train_epoch(stop)
            measured = partial(self._measured, rates[0], stop)
            row = job.ranks.led(measured) if job.ranks else measured()
            self._begin_epoch(row)
            epoch_done(row)
            if time.monotonic() - self.saved >= job.save_every:
                self._save()
        if self.best["weights"]:
            job.module.load_state_dict(self.best["weights"])
        return History(self.rows, int(self.best["epoch"]), self.seconds())

    def seconds(self) -> float:
        """Seconds of training until now, including interrupted processes."""
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
        order = job.order(self.epoch)
        size = job.recipe.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        if len(batches) > 1 and len(batches[-1]) == 1:
            # Batch normalisation cannot normalise over a single image with a 1 x 1 map.
            last = batches.pop()
            batches[-1] = np.concatenate([batches[-1], last])
        return batches

    def train_epoch(self, stop: Stop) -> None:
        """Train on the remaining batches of this epoch."""
        job = self.job
        set_mode(job.module, training=True, frozen_norms=job.frozen_norms)
        batches = self._batches()
        stop = job.ranks.agreed(stop) if job.ranks else stop
        for indices in batches[self.step :]:
            try:
                self._train_batch(indices)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise CxrtoolError(
                    "batch normalisation cannot be trained with one image in a batch, at this --size",
                    "use --batch-size 2 or more, or more training images",
                ) from error
            self.step += 1
            with self._saved_if_stopped(stop) as between:
                between()
            if job.save_every and time.monotonic() - self.saved >= job.save_every:
                self._save()

    @contextlib.contextmanager
    def _saved_if_stopped(self, stop: Stop) -> Iterator[Callable[[], None]]:
        """Give what is called between batches; the state is saved after the block was left, not within.

        Inside, the module may have the average's weights, or normalisations without their counter.
        """
        reasons: list[StoppedError] = []

        def between() -> None:
            reason = stop()
            if reason is not None:
                reasons.append(reason)
                raise reason

        try:
            yield between
        except StoppedError:
            if reasons:
                self._save()
            raise

    def _train_batch(self, indices: np.ndarray) -> None:
        job, count, ranks = self.job, len(indices), self.job.ranks
        own = ranks.share(count) if ranks else range(count)
        # Without an image of its own, a rank computes one for nothing: all need gradients of the same parameters.
        counts = 1 if own else 0
        own = own or range(count - 1, count)

        def learn(size: int) -> tuple[Tensor, ...]:
            self.optimizer.zero_grad(set_to_none=True)
            sums: tuple[Tensor, ...] = ()
            for start in range(own.start, own.stop, size):
                part = indices[start : min(start + size, own.stop)]
                with DropoutOfBatch(start, count) if ranks else contextlib.nullcontext():
                    loss, score_sum, terms = job.learn(part, self.epoch, counts * len(part) / count)
                means = [loss, *([torch.stack([terms[name] for name in job.terms])] if job.terms else [])]
                found = score_sum * counts, *(mean * (counts * len(part)) for mean in means)
                sums = tuple(map(torch.add, sums, found)) if sums else found
            return sums

        # All batches of a training need as much memory as its first, or less.
        watched = not (self._fits or ranks or job.compiled)
        with within_memory(job.module, job.device, count) if watched else contextlib.nullcontext():
            # A layer that normalises over the batch needs two images.
            sums = self.at_once(learn, len(own), 1 if job.divisible else min(2, len(own)))
        self._fits = True
        if ranks:
            ranks.add(job.trained(), sums)
        score_sum, loss_sum, *term_sums = sums
        self.optimizer.step()
        if self.average:
            self.average.take()
        # They stay on the device: reading them now would make it wait.
        self.losses.append(loss_sum)
        self.score_sums.append(score_sum)
        self.terms += term_sums

    def _fewer_at_once(self, count: int, size: int) -> None:
        """Say that gradients are accumulated, or, where this is another training, which batch fits."""
        too_little = f"the GPU's memory does not suffice for a batch of {count_of(count, 'image')}"
        if not self.job.divisible:
            raise CxrtoolError(
                f"{too_little}, which cannot be divided: the network normalises over the batch, or the loss is of it",
                f"{size} fit: --batch-size {size}",
            )
        if self.job.compiled:
            self.job.compiled.size = size
        self.warn(f"{too_little}: its gradient is the sum of those of {size} at a time, equal but for rounding")

    def _measured(self, rate: float, stop: Stop) -> Row:
        """The row of an epoch whose batches are done; and its weights are kept, if they are the best."""
        job, recipe = self.job, self.job.recipe
        losses = torch.stack(self.losses).double().cpu()
        if not bool(torch.isfinite(losses).all()):
            self._raise_diverged(int((~torch.isfinite(losses)).nonzero()[0]))
        sizes = [len(batch) for batch in self._batches()]
        count = sum(sizes)
        train_loss = float(losses.sum()) / count
        self._warn_of_divergence(train_loss, float(losses[0]) / sizes[0])
        alone = job.ranks.only_here(job.module) if job.ranks else contextlib.nullcontext()
        with self._saved_if_stopped(stop) as between, self._averaged(), alone:
            renewing = bool(len(job.validation)) or self.epoch + 1 == recipe.epochs
            if renewing:
                job.renew_norms(between)
            validation_loss, validation_score = self._validate(between)
            watched = self._watch(between, renewed=renewing) if job.watching else ()
        figures = (
            self.epoch + 1,
            rate,
            train_loss,
            float(torch.stack(self.score_sums).sum()) / count,
            validation_loss,
            validation_score,
            *watched,
        )
        means = (torch.stack(self.terms).double().sum(0) / count).tolist() if job.terms else []
        names = columns(job.score, job.terms, watching=job.watching)
        score = {
            "best-loss": (validation_loss, 0.0),
            "best-accuracy": (-(validation_score or 0.0), validation_loss),
            "last": (-float(self.epoch + 1), 0.0),
        }[recipe.checkpoint if len(job.validation) else "last"]
        if score < self.best["score"]:
            with self._averaged():
                weights = {name: value.detach().clone() for name, value in job.module.state_dict().items()}
            self.best = {"epoch": self.epoch + 1, "score": score, "weights": weights}
        return dict(zip(names, (*figures, *means), strict=True))

    def _begin_epoch(self, row: Row) -> None:
        """Take the row of the last epoch, and be ready for the next."""
        self.rows.append(row)
        self.epoch, self.step, self.losses, self.score_sums, self.terms = self.epoch + 1, 0, [], [], []

    def _warn_of_divergence(self, train_loss: float, first_loss: float) -> None:
        guessing, rate = self.job.guessing, self.job.recipe.lr
        if self._warned or guessing is None or train_loss < DIVERGING * guessing:
            return
        self._warned = True
        text = (
            f"epoch {self.epoch + 1}: the training loss is {train_loss:.3g}, where guessing gives {guessing:.2f}: the "
        )
        if self.epoch or train_loss > GROWN * first_loss:
            self.warn(f"{text}network does not learn at --lr {rate:g}; a lower --lr, such as {rate / 10:g}, may help")
        else:
            # It began there, as an untrained head on large features does, and falls.
            self.warn(
                f"{text}network learns slowly at --lr {rate:g}; a higher --lr, such as {rate * 10:g}, or more "
                "--epochs may help"
            )

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return self.average.shown() if self.average else contextlib.nullcontext()

    def _validate(self, between: Callable[[], None]) -> tuple[float | None, float | None]:
        if not len(self.job.validation):
            return None, None
        loss, score = self.job.validate(between)
        if not math.isfinite(loss):
            raise DivergedError(
                f"epoch {self.epoch + 1}: the validation loss is {loss}; nothing of this epoch was saved",
                "the learning rate is probably too high for this network: lower --lr",
            )
        return loss, score

    def _watch(self, between: Callable[[], None], *, renewed: bool) -> tuple[float | None, float | None]:
        """Loss and score of the watched images; the time for it is not part of `seconds`."""
        began = time.monotonic()
        try:
            return self.job.watch(between, renewed=renewed)
        finally:
            self.began += time.monotonic() - began

    def _raise_diverged(self, step: int) -> None:
        batch = self._batches()[step]
        indices = batch if batch.ndim == 1 else batch[:, 0]
        # Any of them may be the cause, so all of a usual batch are named.
        shown = (
            ", ".join(self.job.names[int(i)] for i in indices[:_NAMED]) + " …" * (len(indices) > _NAMED)
            if self.job.names
            else count_of(len(indices), "image")
        )
        raise DivergedError(
            f"epoch {self.epoch + 1}, batch {step + 1}: the loss is not finite, at the images {shown}; "
            "nothing of this epoch was saved",
            "lower --lr, or inspect these images; the same command continues from the last good checkpoint",
        )

    def _save(self) -> None:
        job = self.job
        if job.ranks and job.ranks.rank:
            return
        if self.losses:
            finite = torch.isfinite(torch.stack(self.losses)).cpu()
            if not bool(finite.all()):
                self._raise_diverged(int((~finite).nonzero()[0]))
        if not is_finite(job.module):
            raise DivergedError(f"epoch {self.epoch}: the weights are not finite; not saved", "lower --lr")
        save_state(
            job.state,
            {
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds(),
                "rows": self.rows,
                "best": {**self.best, "score": list(self.best["score"])},
                "losses": [value.cpu() for value in self.losses],
                "hits": [value.cpu() for value in self.score_sums],
                "terms": [value.cpu() for value in self.terms],
                "module": job.module.state_dict(),
                "average": self.average.state() if self.average else {},
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
        # States of earlier versions lack it.
        self.spent = float(state.get("seconds", 0.0))
        weights = {name: value.to(job.device) for name, value in state["best"]["weights"].items()}
        self.best = {**state["best"], "score": tuple(state["best"]["score"]), "weights": weights}
        self.losses = [value.to(job.device) for value in state["losses"]]
        self.score_sums = [value.to(job.device) for value in state["hits"]]
        self.terms = [value.to(job.device) for value in state.get("terms", [])]
        if self.average:
            self.average.restore(state["average"])
        torch.set_rng_state(state["random"])
        if state["random_device"] is not None and job.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_device"], job.device)


def raise_if_stopped(stop: Stop) -> None:
    """Raise the error that `stop` returns, if any; for loops without a state to save."""
    reason = stop()
    if reason is not None:
        raise reason


@torch.inference_mode()
def forward(
    module: nn.Module,
    source: Source,
    indices: np.ndarray,
    batch_size: int,
    device: torch.device,
    precision: str,
    between: Callable[[], None] = lambda: None,
    compiled: Compiled | None = None,
) -> Tensor:
    """Logits (n, K) in fp32 of the images at `indices`, in evaluation mode and without augmentation.

    The batch is halved until the GPU's memory suffices. `between` is called after each batch. What is `compiled` gets
    batches of its own size, the last one filled up.
    """
    module.eval()
    answers = torch.empty((0, 0), device=device)
    at_once = AtOnce()
    call, batch_size = (compiled, compiled.size) if compiled else (module, batch_size)
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]

        def work(size: int, batch: np.ndarray = batch) -> list[Tensor]:
            with autocast(device, precision):
                if compiled and size == len(batch):
                    return [call(source.batch(np.resize(batch, batch_size), None))[:size].float()]
                portions = (batch[first : first + size] for first in range(0, len(batch), size))
                return [call(source.batch(portion, None)).float() for portion in portions]

        found = torch.cat(at_once(work, len(batch)))
        if not start:
            # At once for all: a tensor that each batch leaves behind keeps the freed memory before it from being used
            # again, nine megabytes a batch.
            answers = found.new_empty((len(indices), found.shape[1]))
        answers[start : start + len(batch)] = found
        between()
    return answers
