"""The base class of all classifiers: a backbone for the image, a head for the class."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A classifier in two parts, so that a frozen backbone can be run once and its features kept.

    Subclasses implement `features` and `classify`, which together are `forward`.
    """

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised, to the last features of the backbone."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Features of the backbone to logits (B, K)."""

    @abstractmethod
    def head_modules(self) -> list[nn.Module]:
        """The modules that belong to `classify`; all others are the backbone."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised, to logits (B, K)."""
        return self.classify(self.features(images))

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of the head, in a fixed order."""
        return [parameter for module in self.head_modules() for parameter in module.parameters()]

    def freeze_backbone(self) -> None:
        """Train only the head."""
        head = {id(parameter) for parameter in self.head_parameters()}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in head)

    def backbone_norms(self) -> list[nn.Module]:
        """The batch normalisations of the backbone, whose running statistics change in training mode."""
        head = {id(module) for outer in self.head_modules() for module in outer.modules()}
        kinds = (nn.modules.batchnorm._BatchNorm,)
        return [module for module in self.modules() if isinstance(module, kinds) and id(module) not in head]


def dense_head(features: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    """Dense layer with ReLU, dropout, and the output layer: a new head of an ImageNet network."""
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes))


def count_parameters(module: nn.Module) -> dict[str, int]:
    """Number of all parameters and of the trained ones."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return {"parameters": sum(n for n, _ in sizes), "trained_parameters": sum(n for n, trained in sizes if trained)}


def set_mode(network: nn.Module, *, training: bool, frozen_norms: bool) -> None:
    """Switch to training or evaluation, with frozen normalisations of the backbone in evaluation mode."""
    network.train(training)
    if training and frozen_norms and isinstance(network, Network):
        for module in network.backbone_norms():
            module.eval()


def is_finite(module: nn.Module) -> bool:
    """Whether every parameter and running statistic is finite."""
    return all(bool(torch.isfinite(value).all()) for value in module.state_dict().values() if value.is_floating_point())
