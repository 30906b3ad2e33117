"""What every classifier of cxrtool looks like: a body that sees the image, a head that names the class."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A classifier in two halves, so that a frozen body can be run once and its features kept.

    Children implement `features` and `classify`; both halves together are `forward`.
    """

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised, to the body's last features."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """The body's features to logits (B, K)."""

    @abstractmethod
    def head_modules(self) -> list[nn.Module]:
        """The modules that belong to `classify`; all others are the body."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised, to logits (B, K)."""
        return self.classify(self.features(images))

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of the head, in a fixed order."""
        return [parameter for module in self.head_modules() for parameter in module.parameters()]

    def freeze_backbone(self) -> None:
        """Let the head alone be trained."""
        head = {id(parameter) for parameter in self.head_parameters()}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in head)

    def backbone_norms(self) -> list[nn.Module]:
        """The body's batch normalisations, whose running statistics move unless they are kept in eval mode."""
        head = {id(module) for outer in self.head_modules() for module in outer.modules()}
        kinds = (nn.modules.batchnorm._BatchNorm,)
        return [module for module in self.modules() if isinstance(module, kinds) and id(module) not in head]


def dense_head(features: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    """Dense layer with ReLU, dropout, and the output layer: the head of systems that replace an ImageNet network's own.

    Args:
        features: Length of the pooled feature vector.
        hidden: Width of the dense layer.
        classes: Number of outputs.
        dropout: Probability with which a hidden value is dropped in training.
    """
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes))


def count_parameters(module: nn.Module) -> dict[str, int]:
    """Number of all parameters and of those that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return {"parameters": sum(n for n, _ in sizes), "trained_parameters": sum(n for n, trained in sizes if trained)}


def set_mode(network: nn.Module, *, training: bool, frozen_norms: bool) -> None:
    """Switch to training or evaluation, leaving the body's normalisations in evaluation where they are frozen."""
    network.train(training)
    if training and frozen_norms and isinstance(network, Network):
        for module in network.backbone_norms():
            module.eval()


def is_finite(module: nn.Module) -> bool:
    """Whether every parameter and running statistic is a number."""
    return all(bool(torch.isfinite(value).all()) for value in module.state_dict().values() if value.is_floating_point())
