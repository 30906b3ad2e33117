"""One fold of class-inherent transformations: build the contest, fit it for each weight of the class term, keep one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrtool.errors import DivergedError, UsageError
from cxrtool.models import perceptual
from cxrtool.models.architecture import Architecture
from cxrtool.models.class_inherent import Generators
from cxrtool.models.network import count_parameters, is_finite
from cxrtool.models.registry import build
from cxrtool.training.augment import Augmentation, Augmenter
from cxrtool.training.checkpoint import load_state, save_state
from cxrtool.training.class_inherent import FROZEN, Answers, GeneratorFit, GeneratorTraining, answer
from cxrtool.training.device import choose_device, choose_precision, keep_freed_memory, local_randomness
from cxrtool.training.engine import History, Stop, fit, raise_if_stopped
from cxrtool.training.features import ImageSource, Normalisation
from cxrtool.training.fitting import Fitted
from cxrtool.training.job import Row
from cxrtool.training.options import FittingOptions
from cxrtool.training.randomness import image_keys
from cxrtool.training.store import Store

CLASSIFIER = "resnet18"
NONE = "none"


@dataclass(frozen=True)
class GeneratorDesign:
    """What is fitted and how: all that bears on the weights.

    Attributes:
        classes: Names, in the order of the generators and of the classifier's outputs.
        size: Side of the pictures in pixels.
        weights: Of the classifier: `imagenet`, `none`, or a file.
        perceptual: Weights of the perceptual network: `imagenet`, a file, or `none` for no such term.
        class_loss: `own` or `all`.
        class_loss_weights: To be tried one after the other.
        classifier_lr: Learning rate of the classifier at the start.
        recipe: The generators' learning rate and weight decay, the classifier's schedule, and the stopping rule.
        augmentation: What is done to training pictures.
        seed: Of the weights, the order and the augmentation.
        threads: Of torch.
        device: As `--device`.
        precision: As `--precision`.
    """

    classes: tuple[str, ...]
    size: int
    weights: str
    perceptual: str
    class_loss: str
    class_loss_weights: tuple[float, ...]
    classifier_lr: float
    recipe: FittingOptions
    augmentation: Augmentation
    seed: int
    threads: int
    device: str
    precision: str


@dataclass(frozen=True)
class Trial:
    """How one weight of the class term did on the validation images; figures are None where there are none.

    Attributes:
        weight: Of the class term.
        epoch: The epoch that was kept; 0 where the numbers ran away.
        accuracy: In that epoch.
        loss: In that epoch.
    """

    weight: float
    epoch: int
    accuracy: float | None
    loss: float | None

    def rank(self) -> tuple[float, float]:
        """The smaller, the better: accuracy first, then loss."""
        return -(self.accuracy or 0.0), self.loss or 0.0


@dataclass
class FittedGenerators(Fitted):
    """A fitted fold; `probabilities` are FuCiTNet's own.

    Attributes:
        contest: With the weights that were kept, on the CPU, in evaluation mode.
        answers: What it says of the places in `asked`.
        trials: One for each weight of the class term, in the order of the design.
        chosen: The weight that was kept.
    """

    contest: GeneratorTraining
    answers: Answers
    trials: list[Trial]
    chosen: float


def build_generator_training(design: GeneratorDesign) -> tuple[GeneratorTraining, str]:
    """Draw the generators, and build the classifier with the layers frozen that are not to be trained.

    Returns:
        The contest and a line that says where the classifier's weights came from.

    Raises:
        InputError: The weights cannot be had, read, or do not fit.
        UsageError: The size does not suit the networks.
    """
    # In ResNet-18 and VGG16 alike, 32 pixels become one place of the last features.
    if design.size < perceptual.STRIDE:
        raise UsageError(f"--size: expected {perceptual.STRIDE} pixels or more, found {design.size}")
    classifier, weights_from = build(
        Architecture(CLASSIFIER, len(design.classes), size=design.size), weights=design.weights
    )
    if design.weights != NONE:
        for name in FROZEN:
            classifier.get_submodule(f"timm.{name}").requires_grad_(requires_grad=False)
    return GeneratorTraining(Generators(design.classes), classifier), weights_from


def fit_generator_fold(
    design: GeneratorDesign,
    store: Store,
    ids: Sequence[str],
    labels: np.ndarray,
    training: np.ndarray,
    validation: np.ndarray,
    to_predict: np.ndarray,
    state: Path,
    *,
    shown: Sequence[int] = (),
    save_every: float = 30.0,
    epoch_done: Callable[[float, Row], None] = lambda weight, row: None,
    stop: Stop = lambda: None,
    warn: Callable[[str], None] = lambda text: None,
) -> FittedGenerators:
    """Fit the generators of one fold, once for each weight of the class term, and ask those that did best.

    The best is the one with the highest accuracy on the validation images, then the lowest loss, then the first.

    Args:
        design: What to fit and how.
        store: Decoded pictures.
        ids: Image id of every place in the store.
        labels: Class index of every place; what is neither trained nor validated on may hold anything.
        training: Places to train on.
        validation: Places to choose the epoch and the weight by.
        asked: Places to ask about in the end.
        state: Folder for states to resume from.
        shown: Those of the places in `asked` whose pictures are to be shown.
        save_every: Seconds between two states.
        epoch_done: Called with each epoch's row and the weight that it was fitted with.
        stop: Asked between batches; an error it returns is raised, after the state was saved.
        warn: Told what should not be overlooked.

    Raises:
        CxrtoolError: Size, weights, device or memory will not do, the loss is not a number, or what `stop` returned.
    """
    device = choose_device(design.device)
    precision = choose_precision(design.precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    compare, compared_by = (None, "off") if design.perceptual == NONE else perceptual.load(design.perceptual)
    if compare is not None:
        compare.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    store.to(device)
    augmenter = Augmenter(design.augmentation, image_keys(ids), design.seed, design.size, device)
    source = ImageSource(store, augmenter, Normalisation([0.0], [1.0], device), device)
    trials: list[Trial] = []
    best: tuple[Trial, GeneratorTraining, History] | None = None
    seconds = 0.0
    for number, weight in enumerate(design.class_loss_weights):
        with local_randomness(design.seed, design.threads):
            contest, weights_from = build_generator_training(design)
            notes: dict[str, int | float | str] = {
                **count_parameters(contest),
                "device": str(device),
                "precision": precision,
            }
            contest.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            job = GeneratorFit(
                module=contest,
                training=training,
                validation=validation,
                recipe=design.recipe,
                device=device,
                precision=precision,
                seed=design.seed,
                state=state / str(number),
                save_every=save_every,
                names=list(ids),
                perceptual=compare,
                source=source,
                labels=labels,
                class_loss=design.class_loss,
                class_loss_weight=weight,
                classifier_lr=design.classifier_lr,
            )
            try:
                fitting = fit if len(design.class_loss_weights) == 1 else _fit_or_recall
                history = fitting(job, epoch_done=partial(epoch_done, weight), stop=stop, warn=warn)
            except DivergedError as error:
                if len(design.class_loss_weights) == 1:
                    raise
                warn(f"--class-loss-weight {weight:g}: {error.message}; it cannot be chosen")
                trials.append(Trial(weight, 0, None, None))
                continue
        seconds += history.seconds
        row = history.rows[history.kept - 1]
        trials.append(Trial(weight, history.kept, row["validation_accuracy"], row["validation_loss"]))
        if best is None or trials[-1].rank() < best[0].rank():
            best = trials[-1], contest.cpu(), history
    if best is None:
        raise DivergedError("--class-loss-weight: with every one of its values the numbers ran away", "lower --lr")
    chosen, contest, history = best
    # Where nothing is validated, nobody has looked yet.
    if not is_finite(contest):
        raise DivergedError("the weights are no longer numbers; nothing was saved", "lower --lr or --classifier-lr")
    notes |= {"seconds": round(seconds, 2), "perceptual_term": compared_by, "classifier_weights": weights_from}
    with local_randomness(design.seed, design.threads):
        answers = answer(
            contest.to(device), source, to_predict, design.recipe.batch_size, shown, lambda: raise_if_stopped(stop)
        )
    contest.cpu().eval()
    return FittedGenerators(
        contest.classifier, history, answers.probabilities, weights_from, notes, contest, answers, trials, chosen.weight
    )


def _fit_or_recall(
    job: GeneratorFit, *, epoch_done: Callable[[Row], None], stop: Stop, warn: Callable[[str], None]
) -> History:
    """Fit, unless an interrupted run has come to the end of this fit already."""
    folder = job.state / "end"
    made: dict[str, Any] | None = load_state(folder, warn)
    if made is not None:
        job.module.load_state_dict(made["module"])
        return History(made["rows"], made["kept"], made["seconds"])
    history = fit(job, epoch_done=epoch_done, stop=stop, warn=warn)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.cpu() for name, value in job.module.state_dict().items()}
    state = {"rows": history.rows, "kept": history.kept, "seconds": history.seconds, "module": weights}
    save_state(folder, state)
    return history
