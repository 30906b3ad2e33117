"""One fold from its images to its probabilities: build the network, choose the source of batches, train, predict."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from cxrtool.errors import UsageError
from cxrtool.models.architecture import Architecture
from cxrtool.models.complexity import try_out
from cxrtool.models.network import Network, count_parameters, set_mode
from cxrtool.models.ordered import OrderedNetwork
from cxrtool.models.registry import build, input_form, loss_of
from cxrtool.training.augment import Augmentation, Augmenter
from cxrtool.training.classifier_losses import class_shares
from cxrtool.training.compiling import Compiled, errors_of_compiling
from cxrtool.training.device import choose_device, choose_precision, keep_freed_memory, local_randomness
from cxrtool.training.engine import Fit, History, Stop, fit, forward, raise_if_stopped
from cxrtool.training.features import FeatureSource, ImageSource, Normalisation, Source, run_backbone
from cxrtool.training.job import Row
from cxrtool.training.norms import norms_of
from cxrtool.training.options import FittingOptions
from cxrtool.training.randomness import image_keys
from cxrtool.training.ranks import Ranks
from cxrtool.training.store import Store


@dataclass(frozen=True)
class Design:
    """All options of `train` that affect the weights.

    Attributes:
        weights: `imagenet`, `none`, or a file.
        recipe: Optimizer, schedule and stopping rule.
        freeze: Train only the head.
        frozen_norms: Batch normalisations of a frozen backbone keep their statistics (`eval`), not those of the batch.
        normalize: `native` or `div255`.
        recompute_norms: Compute the statistics of batch normalisation on all training images.
        compile: Compile what is trained. The predictions at the end are those of the network as it is saved.
    """

    architecture: Architecture
    weights: str
    recipe: FittingOptions
    augmentation: Augmentation
    freeze: bool
    frozen_norms: bool
    normalize: str
    seed: int
    threads: int
    device: str
    precision: str
    recompute_norms: bool = False
    compile: bool = False


@dataclass
class Fitted:
    """A trained fold.

    Attributes:
        network: With the weights of the epoch that was kept, on the CPU, in evaluation mode.
        probabilities: (n, K) of the images to predict, computed in fp32.
        weights_from: The source of the weights, as text.
        notes: For `run.json`: `parameters`, `trained_parameters`, `macs` (of one image), `device`, `precision`, and
            `seconds` of training, without decoding images and without the predictions at the end.
    """

    network: Network
    history: History
    probabilities: np.ndarray
    weights_from: str
    notes: dict[str, int | float | str]


def fit_fold(
    design: Design,
    store: Store,
    ids: Sequence[str],
    labels: np.ndarray,
    training: np.ndarray,
    validation: np.ndarray,
    to_predict: np.ndarray,
    state: Path,
    *,
    watched: np.ndarray | None = None,
    save_every: float = 30.0,
    resumed: Callable[[Sequence[Row]], None] = lambda rows: None,
    epoch_done: Callable[[Row], None] = lambda row: None,
    stop: Stop = lambda: None,
    warn: Callable[[str], None] = lambda text: None,
    ranks: Ranks | None = None,
) -> Fitted:
    """Train one fold and predict some images.

    Args:
        design: What to train and how.
        store: Decoded images.
        ids: Image id of every index of the store.
        labels: Class index of every image of the store; used for training and validation images only.
        training: Indices of the training images.
        validation: Indices of the validation images, which choose the epoch.
        to_predict: Indices of the images to predict.
        state: Folder for states to resume from.
        watched: Indices of images, with a label, whose loss and accuracy are recorded after every epoch; nothing else
            depends on them.
        save_every: Seconds between two states.
        resumed: Called with the rows of the epochs that were done before, if any.
        epoch_done: Called with each epoch's row.
        stop: Called between batches; an error that it returns is raised, after saving the state if there is one.
        warn: Called with each warning.
        ranks: The processes that share the training; on all but the first, its result has no meaning.

    Raises:
        CxrtoolError: Network, weights, device or memory do not suffice, the loss is not finite, or that of `stop`.
    """
    device = choose_device(design.device)
    precision = choose_precision(design.precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    with local_randomness(design.seed, design.threads):
        network, weights_from = build(design.architecture, weights=design.weights)
        channels = len(input_form(design.architecture.name, design.normalize)["mean"])
        macs = try_out(network, design.architecture, channels)
        if isinstance(network, OrderedNetwork):
            # Few steps at a low rate would not bring the thresholds there.
            classes = design.architecture.classes
            network.start(class_shares(labels[training], classes, design.recipe.class_weights))
        if design.freeze:
            network.freeze_backbone()
        if ranks and device.type == "cuda":
            network = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        notes: dict[str, int | float | str] = {**count_parameters(network), "macs": macs}
        notes |= {"device": str(device), "precision": precision}
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = _images(design, store, ids, device)
        began = time.monotonic()
        source = _inputs(design, network, images, np.concatenate([training, validation]), precision, stop)
        # Running a frozen backbone once is part of the training.
        before = time.monotonic() - began
        # In batches of their own: the features of the others must not depend on them, not even in the last bit.
        watched_source = None if watched is None else _inputs(design, network, images, watched, precision, stop)
        module = Head(network) if _is_constant(design) else network
        size = min(design.recipe.batch_size, len(training))
        job = Fit(
            module=module,
            source=source,
            labels=labels,
            training=training,
            validation=validation,
            classes=design.architecture.classes,
            recipe=design.recipe,
            device=device,
            precision=precision,
            seed=design.seed,
            frozen_norms=design.freeze and design.frozen_norms,
            state=state,
            save_every=save_every,
            names=list(ids),
            criterion=loss_of(design.architecture.name),
            recompute_norms=design.recompute_norms,
            watched=watched,
            watched_source=watched_source,
            ranks=ranks,
            compiled=Compiled(module, size, replace(design, seed=0)) if design.compile else None,
        )
        with errors_of_compiling() if design.compile else contextlib.nullcontext():
            history = fit(job, resumed=resumed, epoch_done=epoch_done, stop=stop, warn=warn)
        notes["seconds"] = round(before + history.seconds, 2)
        probabilities = _probabilities(design, network, images, to_predict, stop)
    return Fitted(network.cpu().eval(), history, probabilities, weights_from, notes)


def check_divisible(design: Design, device: torch.device) -> None:
    """Raise a `UsageError` where the processes of `torchrun` cannot divide a batch: a layer normalises over it.

    On GPUs torch has a normalisation over the batches of all processes; on CPUs it has none.
    """
    network, _ = build(design.architecture, weights="none")
    if design.freeze:
        network.freeze_backbone()
    set_mode(network, training=True, frozen_norms=_is_constant(design) or (design.freeze and design.frozen_norms))
    if device.type == "cpu" and norms_of(network):
        raise UsageError(
            f"--model {design.architecture.name}: expected a network without batch normalisation where torchrun "
            "divides a batch on CPUs, found one whose layers normalise over the whole batch",
            "train it on GPUs, or in one process with more --threads, or with --freeze",
        )


def predict(
    design: Design,
    network: Network,
    store: Store,
    ids: Sequence[str],
    to_predict: np.ndarray,
    *,
    stop: Stop = lambda: None,
) -> np.ndarray:
    """Predict images with a trained network, exactly as `fit_fold` does.

    Args:
        design: Of the training of `network`.
        network: With its final weights; left on the CPU, in evaluation mode.
        store: Decoded images.
        ids: Image id of every index of the store.
        to_predict: Indices of the images to predict.
        stop: Called between batches.

    Returns:
        Probabilities (n, K), computed in fp32.

    Raises:
        CxrtoolError: The device or its memory does not suffice, or what `stop` returned.
    """
    device = choose_device(design.device)
    with local_randomness(design.seed, design.threads):
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        probabilities = _probabilities(design, network, _images(design, store, ids, device), to_predict, stop)
    network.cpu().eval()
    return probabilities


def _images(design: Design, store: Store, ids: Sequence[str], device: torch.device) -> ImageSource:
    store.to(device)
    augmenter = Augmenter(design.augmentation, image_keys(ids), design.seed, store.images.shape[1], device)
    form = input_form(design.architecture.name, design.normalize)
    return ImageSource(store, augmenter, Normalisation(form["mean"], form["std"], device), device)


def _probabilities(
    design: Design, network: Network, images: ImageSource, to_predict: np.ndarray, stop: Stop
) -> np.ndarray:
    size, device = design.recipe.batch_size, images.device
    logits = forward(network, images, to_predict, size, device, "fp32", lambda: raise_if_stopped(stop))
    probabilities: np.ndarray = torch.softmax(logits.double(), 1).cpu().numpy()
    return probabilities


def _is_constant(design: Design) -> bool:
    """Whether the backbone gives the same features in every epoch, so that only the head is trained, on features."""
    return design.freeze and design.frozen_norms and not design.augmentation.active


def _inputs(
    design: Design, network: Network, images: ImageSource, indices: np.ndarray, precision: str, stop: Stop
) -> Source:
    """What the trained module receives of the images at `indices`: images, or their features."""
    if not _is_constant(design) or not len(indices):
        return images
    network.eval()
    size, count = design.recipe.batch_size, len(images.store)
    features: FeatureSource = run_backbone(
        network, images, indices, size, precision, count, lambda: raise_if_stopped(stop)
    )
    return features


class Head(nn.Module):
    """The head of a network as a module of its own, which shares the weights of the network."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.parts = nn.ModuleList(network.head_modules())
        # In a tuple, so that the backbone is not a submodule of this module.
        self._network = (network,)

    def train(self, mode: bool = True) -> Head:
        """Switch the whole network: the dropout of timm depends on the mode of the network, not of the head."""
        super().train(mode)
        # Some networks normalise after the pooling; what is not trained keeps its statistics there too.
        set_mode(self._network[0], training=mode, frozen_norms=True)
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features of the backbone to logits (B, K)."""
        return self._network[0].classify(features)
