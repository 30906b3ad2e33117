"""One fold of class-inherent transformations: fit generators for each weight of the class term, and keep the best."""

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
from cxrtool.training.class_inherent import FROZEN, GeneratorFit, GeneratorPredictions, GeneratorTraining, predict
from cxrtool.training.device import choose_device, choose_precision, keep_freed_memory, local_randomness
from cxrtool.training.engine import History, Stop, fit, raise_if_stopped
from cxrtool.training.features import ImageSource, Normalisation
from cxrtool.training.fitting import Fitted
from cxrtool.training.job import Row
from cxrtool.training.options import FittingOptions
from cxrtool.training.randomness import image_keys
from cxrtool.training.store import Store

CLASSIFIER = "resnet18.tv_in1k"
NONE = "none"


@dataclass(frozen=True)
class GeneratorDesign:
    """All options that affect the weights.

    Attributes:
        classes: Names, in the order of the generators and of the classifier's outputs.
        size: Side of the images in pixels.
        weights: Of the classifier: `imagenet`, `none`, or a file.
        perceptual: Weights of the perceptual network: `imagenet`, a file, or `none` for no such term.
        class_loss: `own` or `all`.
        class_loss_weights: Are tried one after the other.
        classifier_lr: Initial learning rate of the classifier.
        recipe: The generators' learning rate and weight decay, the classifier's schedule, and the stopping rule.
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
    """Validation result of one weight of the class term; None where there are no validation images.

    Attributes:
        epoch: The epoch that was kept; 0 where the training diverged.
    """

    weight: float
    epoch: int
    accuracy: float | None
    loss: float | None

    def rank(self) -> tuple[float, float]:
        """Sort key, best first: highest accuracy, then lowest loss."""
        return -(self.accuracy or 0.0), self.loss or 0.0


@dataclass
class FittedGenerators(Fitted):
    """A fitted fold; `probabilities` are those of FuCiTNet itself.

    Attributes:
        contest: With the weights that were kept, on the CPU, in evaluation mode.
        trials: One for each weight of the class term, in the order of the design.
        chosen: The chosen weight of the class term.
    """

    module: GeneratorTraining
    predictions: GeneratorPredictions
    trials: list[Trial]
    chosen: float


def build_generator_training(design: GeneratorDesign) -> tuple[GeneratorTraining, str]:
    """Build the generators and the classifier, with its first layers frozen if it is pretrained.

    Returns:
        The module, and the source of the classifier's weights.

    Raises:
        InputError: The weights cannot be downloaded or read, or do not fit.
        UsageError: The size is too small for the networks.
    """
    # Both ResNet-18 and VGG16 reduce 32 pixels to one position of the last feature map.
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
    """Fit the generators of one fold, once for each weight of the class term, and predict with the best.

    The best has the highest accuracy on the validation images, then the lowest loss, then comes first.

    Args:
        design: What to fit and how.
        store: Decoded images.
        ids: Image id of every index of the store.
        labels: Class index of every image of the store; used for training and validation images only.
        training: Indices of the training images.
        validation: Indices of the validation images, which choose the epoch and the weight.
        to_predict: Indices of the images to predict.
        state: Folder for states to resume from.
        shown: Those of them whose generated images are returned.
        save_every: Seconds between two states.
        epoch_done: Called with each epoch's row and the weight that it was fitted with.
        stop: Called between batches; an error that it returns is raised, after the state was saved.
        warn: Called with each warning.

    Raises:
        CxrtoolError: Size, weights, device or memory do not suffice, the loss is not finite, or what `stop` returned.
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
            module, weights_from = build_generator_training(design)
            notes: dict[str, int | float | str] = {
                **count_parameters(module),
                "device": str(device),
                "precision": precision,
            }
            module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            job = GeneratorFit(
                module=module,
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
            best = trials[-1], module.cpu(), history
    if best is None:
        raise DivergedError("--class-loss-weight: the training diverged with every value", "lower --lr")
    chosen, module, history = best
    # Without validation images the weights have not been checked yet.
    if not is_finite(module):
        raise DivergedError("the weights are not finite; nothing was saved", "lower --lr or --classifier-lr")
    notes |= {"seconds": round(seconds, 2), "perceptual_term": compared_by, "classifier_weights": weights_from}
    with local_randomness(design.seed, design.threads):
        predictions = predict(
            module.to(device), source, to_predict, design.recipe.batch_size, shown, lambda: raise_if_stopped(stop)
        )
    module.cpu().eval()
    return FittedGenerators(
        module.classifier,
        history,
        predictions.probabilities,
        weights_from,
        notes,
        module,
        predictions,
        trials,
        chosen.weight,
    )


def _fit_or_recall(
    job: GeneratorFit, *, epoch_done: Callable[[Row], None], stop: Stop, warn: Callable[[str], None]
) -> History:
    """Fit, unless an interrupted run has finished this fit already."""
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
