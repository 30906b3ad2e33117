"""Fit class-inherent transformations (FuCiTNet): a generator for each class, and a classifier of their output.

Rey-Area et al. 2020, with the loss of its reference implementation (gonzalezsieira/UGR-FuCiTNet). Generator k of K
changes every image x so that the classifier recognises its class more easily. Its loss is

    MSE(G_k(x), x) + 0.006 MSE(V(G_k(x)), V(x)) + 2e-8 TV(G_k(x)) + w C_k

with V the features of VGG16 and w the weight of the class term. With `own`, C_k is the classifier's mean cross-entropy
over the K versions of the images whose true label is k, 0 where a batch has none; with `all`, its weighted
cross-entropy over all versions of all images. The loss of the classifier is the cross-entropy of all versions, each
weighted by the inverse frequency of its class. Everything is computed on standardised images of three channels.

All K + 1 gradients are computed before any weight is changed. (The implementation updates the classifier first, and
then computes the generators' gradients with its former weights.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cxrtool.models.class_inherent import Generators, standardise, to_pictures
from cxrtool.models.network import Network
from cxrtool.models.perceptual import Perceptual
from cxrtool.training.classifier_losses import class_weights, cross_entropy
from cxrtool.training.device import autocast, memory_left, on_device
from cxrtool.training.features import Source
from cxrtool.training.job import Job
from cxrtool.training.norms import norms_of, running_kept
from cxrtool.training.options import OPTIMIZERS

PERCEPTUAL, VARIATION = 0.006, 2e-8
"""Weights of the feature error and of the total variation, relative to the pixel error."""

TERMS = ("mse", "perceptual", "tv", "class", "total")
"""The terms of a generator's loss, unweighted, and their weighted sum."""

GRAPH = 600
"""Values that a generator's gradient needs, for each of its input: five a residual block, in 64 channels for three."""

FROZEN = ("conv1", "bn1", "layer1", "layer2")
"""The frozen layers of the pretrained ResNet-18; the running statistics of their normalisations are still updated."""


class GeneratorTraining(nn.Module):
    """The generators, and the classifier of their output.

    Args:
        classifier: Takes standardised images (B, 3, S, S).
    """

    def __init__(self, generators: Generators, classifier: Network) -> None:
        super().__init__()
        self.generators, self.classifier = generators, classifier

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised images (B, 3, S, S) to their K versions (K, B, 3, S, S) and logits (K, B, K)."""
        made = torch.cat([member(inputs) for member in self.generators.members])
        return made.view(-1, *inputs.shape), self.judge(made)

    def judge(self, made: Tensor) -> Tensor:
        """The K versions (K * B, 3, S, S) of images, one generator's after the other's, to logits (K, B, K).

        All versions pass the classifier in one batch, so that they share the statistics of batch normalisation.
        """
        logits: Tensor = self.classifier(made).float()
        return logits.view(len(self.generators.members), -1, logits.shape[1])


def decide(logits: Tensor) -> Tensor:
    """The logits of FuCiTNet itself: for every class the largest over all versions, (K, B, K) to (B, K).

    The largest entry is the class that the implementation predicts: the argmax over all K * K logits, modulo K.
    """
    return logits.amax(0)


def total_variation(pictures: Tensor) -> Tensor:
    """Twice the sum of the mean squared steps down and to the right, of images (B, C, H, W).

    As in the SRGAN implementations, squares are used instead of absolute values.
    """
    down, right = pictures.diff(dim=-2), pictures.diff(dim=-1)
    return 2 * (down.square().mean() + right.square().mean())


def class_cross_entropy(logits: Tensor, target: Tensor, label: int) -> Tensor:
    """Mean cross-entropy over the versions of the images of one class; 0 where there is none.

    It has no class weight, which would be the same for all of these images.

    Args:
        logits: (K, B, K).
        target: Classes (B,).
        label: Index of the class.
    """
    mine = logits[:, target == label]
    if not mine.numel():
        return logits.new_zeros(())
    return -functional.log_softmax(mine, 2)[..., label].mean()


@dataclass(kw_only=True)
class GeneratorFit(Job):
    """Fit the generators and their classifier; `recipe` holds the generators' learning rate, which is constant.

    The schedule in `recipe` is that of the classifier, which has no weight decay. Loss and accuracy of a history are
    those of the classifier: cross-entropy over all versions, and the share of images that `decide` predicts correctly.

    Attributes:
        perceptual: Compares images; None omits that term.
        source: Gives grey images (B, 1, S, S) in [0, 1].
        labels: Class index of every image of the store (N,).
        class_loss: `own` or `all`.
        class_loss_weight: Weight of C_k.
        classifier_lr: Initial learning rate of the classifier.
    """

    module: GeneratorTraining
    perceptual: Perceptual | None
    source: Source
    labels: np.ndarray
    class_loss: str
    class_loss_weight: float
    classifier_lr: float
    _names: list[str] = field(init=False)
    _kept: bool | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._names = list(self.module.generators.classes)
        weights = class_weights(self.labels[self.training], len(self._names), "balanced")
        self._weights = None if weights is None else weights.to(self.device)
        self._target = torch.from_numpy(self.labels.astype(np.int64)).to(self.device)

    @property
    def score(self) -> str:
        """The share of correct predictions."""
        return "accuracy"

    @property
    def terms(self) -> tuple[str, ...]:
        """Every term of every generator's loss."""
        parts = [part for part in TERMS if self.perceptual is not None or part != "perceptual"]
        return tuple(term_of(part, name) for part in parts for name in self._names)

    def optimizer(self) -> torch.optim.Optimizer:
        """One group of parameters for the generators, one for the classifier."""
        classifier = {"params": self.parameter_groups()[-1], "lr": self.classifier_lr, "weight_decay": 0.0}
        groups = [{"params": [weight for player in self.parameter_groups()[:-1] for weight in player]}, classifier]
        # The type hints of torch know only parameters, not groups.
        return OPTIMIZERS[self.recipe.opt].build(cast(list[nn.Parameter], groups), self.recipe)

    def rates(self, epoch: int, losses: Sequence[float]) -> Sequence[float]:
        """The constant rate of the generators, and the scheduled rate of the classifier."""
        return self.recipe.lr, replace(self.recipe, lr=self.classifier_lr).rate(epoch, losses)

    @property
    def divisible(self) -> bool:
        """No: a generator's loss is of the images of its class, of which a part of a batch may have none."""
        return False

    def learn(self, items: np.ndarray, epoch: int, share: float = 1.0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Compute the gradient of each generator's loss and of the classifier's loss; the batch is never divided.

        Where memory is short, a generator computes its version a second time for its gradient, with the same result:
        then the memory holds what one block of one generator needs, not all of all.
        """
        inputs, target = self.batch(items, epoch)
        members, players = self.module.generators.members, self.parameter_groups()
        if self._kept is None:
            # Once, because a GPU is waited for where it is asked.
            needed = GRAPH * len(members) * inputs.numel() * (2 if self.precision == "bf16" else 4)
            self._kept = needed < self.room()
        versions = [self._version(member, inputs, kept=self._kept) for member in members]
        # The losses are led back to the versions, and from each of them to the weights of its generator.
        shown = [version.detach().requires_grad_() for version in versions]
        with autocast(self.device, self.precision):
            logits = self.module.judge(torch.cat(shown))
        judged = self.loss(logits, target)
        of_class = [self._of_class(logits, target, judged, index) for index in range(len(members))]
        slopes = [self._slope(self.class_loss_weight * loss, one) for loss, one in zip(of_class, shown, strict=True)]
        torch.autograd.backward(judged, inputs=players[-1])
        truth = self._see(inputs)
        found: list[dict[str, Tensor]] = []
        for index, member in enumerate(members):
            parts, own = self._own_loss(inputs, shown[index], truth)
            slope = self._slope(own, shown[index], again=False) + slopes[index]
            # They know the images already, and a layer may be computed again here.
            with running_kept(norms_of(member)):
                torch.autograd.backward(versions[index], slope, inputs=players[index])
            class_term = of_class[index].detach()
            found.append({**parts, "class": class_term, "total": own.detach() + self.class_loss_weight * class_term})
        terms = {
            term_of(part, name): values[part]
            for name, values in zip(self._names, found, strict=True)
            for part in values
        }
        return judged.detach(), self.score_sum(logits.detach(), target), terms

    def room(self) -> float:
        """Bytes of memory that what the generators' gradients need may take."""
        return memory_left(self.device) / 2

    def batch(self, items: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S), augmented and standardised, and their classes (B,)."""
        return self._inputs(items, epoch), self._classes(items)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of logits (K, B, K), each image weighted by its class."""
        return cross_entropy(outputs.flatten(0, 1), target.repeat(len(outputs)), self._weights)

    def score_sum(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Number of correct predictions."""
        return (decide(outputs).argmax(1) == target).sum()

    @torch.inference_mode()
    def validate(self, between: Callable[[], None]) -> tuple[float, float]:
        """Loss and accuracy of the classifier; each batch is weighted by its number of images."""
        self.module.eval()
        loss, right = torch.zeros(2, dtype=torch.float64, device=self.device)
        size, count = self.recipe.batch_size, len(self.validation)
        for start in range(0, count, size):
            indices = self.validation[start : start + size]
            target = self._classes(indices)
            with autocast(self.device, self.precision):
                _, logits = self.module(self._inputs(indices, None))
            # They stay on the device until the end.
            loss += self.loss(logits, target).double() * len(indices)
            right += self.score_sum(logits, target)
            between()
        return float(loss) / count, float(right) / count

    def _version(self, member: nn.Module, inputs: Tensor, *, kept: bool) -> Tensor:
        """A generator's version (B, 3, S, S) of the images, with all that its gradient needs, or what leads back to it.

        Without it, every layer or block is computed again when its turn comes, with the same result.
        """
        version = inputs
        with autocast(self.device, self.precision):
            for layer in member.children():
                if kept:
                    version = layer(version)
                else:
                    version = checkpoint(layer, version, use_reentrant=False, preserve_rng_state=False)
        return version

    def _of_class(self, logits: Tensor, target: Tensor, judged: Tensor, label: int) -> Tensor:
        return class_cross_entropy(logits, target, label) if self.class_loss == "own" else judged

    @staticmethod
    def _slope(loss: Tensor, version: Tensor, *, again: bool = True) -> Tensor:
        """The gradient of a loss by a version; 0 where no image of the batch bears on it.

        Args:
            loss: The loss.
            version: The version.
            again: Other gradients will be led back the same way.
        """
        if not loss.requires_grad:
            return torch.zeros_like(version)
        return torch.autograd.grad(loss, version, retain_graph=again)[0]

    def _see(self, inputs: Tensor) -> Tensor | None:
        """Features of the images (B, C, s, s)."""
        if self.perceptual is None:
            return None
        with torch.no_grad(), autocast(self.device, self.precision):
            features: Tensor = self.perceptual(inputs).float()
        return features

    def _own_loss(self, inputs: Tensor, version: Tensor, truth: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        """The terms of a generator's loss that depend on its version alone, detached, and their weighted sum."""
        exact = version.float()
        pixels, variation = functional.mse_loss(exact, inputs), total_variation(exact)
        total = pixels + VARIATION * variation
        parts = {"mse": pixels.detach(), "tv": variation.detach()}
        if truth is not None and self.perceptual is not None:
            with autocast(self.device, self.precision):
                features = self.perceptual(version).float()
            difference = functional.mse_loss(features, truth)
            total = total + PERCEPTUAL * difference
            parts["perceptual"] = difference.detach()
        return parts, total

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """The trained parameters of each generator, then those of the classifier."""
        players = [*self.module.generators.members, self.module.classifier]
        return [[weight for weight in player.parameters() if weight.requires_grad] for player in players]

    def _inputs(self, indices: np.ndarray, epoch: int | None) -> Tensor:
        grey = self.source.batch(indices, epoch)
        return standardise(grey).contiguous(memory_format=torch.channels_last)

    def _classes(self, indices: np.ndarray) -> Tensor:
        return self._target[on_device(indices, self.device)]


def term_of(part: str, name: str) -> str:
    """The name in a history of one term of the loss of the generator of class `name`."""
    return f"{part} {name}"


@dataclass
class GeneratorPredictions:
    """Predictions for n images and K classes.

    Attributes:
        probabilities: (n, K) of FuCiTNet itself: softmax of `decide`.
        before: (n, K) of the classifier on the unchanged images.
        after: (K, n, K) of the classifier on each generator's image, as `transform` writes it but for its rounding.
        psnr: (K, n) peak signal-to-noise ratio of these images in dB, for values in [0, 1]; at most 100, for equal
            images.
        pictures: By index in the store, the output of each generator (K, S, S, 3) in [0, 1] for the images to show.
    """

    probabilities: np.ndarray
    before: np.ndarray
    after: np.ndarray
    psnr: np.ndarray
    pictures: dict[int, np.ndarray]


SMALLEST_ERROR = 1e-10


@torch.inference_mode()
def predict(
    module: GeneratorTraining,
    source: Source,
    to_predict: np.ndarray,
    batch_size: int,
    shown: Sequence[int] = (),
    between: Callable[[], None] = lambda: None,
) -> GeneratorPredictions:
    """Run fitted generators and their classifier, in fp32.

    Args:
        module: On the device of `source`; is left in evaluation mode.
        source: Gives grey images (B, 1, S, S) in [0, 1].
        to_predict: Indices in the store (n,).
        batch_size: Images in a batch.
        shown: Those indices whose generated images are returned.
        between: Called after each batch; it may raise.
    """
    module.eval()
    count = len(module.generators.members)
    parts: list[tuple[Tensor, ...]] = []
    kept: dict[int, np.ndarray] = {}
    for start in range(0, len(to_predict), batch_size):
        indices = to_predict[start : start + batch_size]
        grey = source.batch(indices, None)
        inputs = standardise(grey).contiguous(memory_format=torch.channels_last)
        made, logits = module(inputs)
        pictures = to_pictures(made)
        again = standardise(pictures.flatten(0, 1)).contiguous(memory_format=torch.channels_last)
        error = (pictures - grey).square().flatten(2).mean(2).clamp_min(SMALLEST_ERROR)
        after = _softmax(module.classifier(again)).view(count, len(grey), -1)
        before = _softmax(module.classifier(inputs))
        parts.append((_softmax(decide(logits)), before, after.transpose(0, 1), -10 * error.log10().transpose(0, 1)))
        for row, index in enumerate(indices):
            if index in shown:
                kept[int(index)] = pictures[:, row].movedim(1, -1).cpu().numpy()
        between()
    if not parts:
        empty = np.empty((0, count))
        return GeneratorPredictions(empty, empty, np.empty((count, 0, count)), empty.T, kept)
    whole = [torch.cat(column).double().cpu().numpy() for column in zip(*parts, strict=True)]
    return GeneratorPredictions(whole[0], whole[1], whole[2].transpose(1, 0, 2), whole[3].T, kept)


def _softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits.double(), -1)
