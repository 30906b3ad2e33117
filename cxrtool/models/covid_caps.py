"""COVID-CAPS (Afshar et al. 2020): four convolutions and three layers of capsules with dynamic routing.

As in the reference implementation: 3 x 3 convolutions without padding, each with ReLU, 64 maps, batch normalisation, 64
maps, 2 x 2 average pooling, twice 128 maps; every position of the last map is a capsule of dimension 128; then 32
capsules of 8, 32 of 8, and one of 16 per class, whose length is the score of the class. With two classes that is
295,360 weights, and 295,488 numbers with the running mean and variance of the normalisation.

Routing is that of Sabour et al. 2017, "Dynamic routing between capsules", in the form of that implementation:
all input capsules of a capsule share one matrix, there is no bias, and in each of three rounds the coupling logits are
the agreement with the outputs of the round before, instead of a sum over rounds.

Our difference: the momentum of the running statistics is 0.1 (Keras: 0.01), so that a short training has them too. The
multiply-accumulates of a run do not include the routing, which is a twentieth of the whole at 224 x 224.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cxrtool.models.architecture import Architecture
from cxrtool.models.initialisation import draw_as_keras
from cxrtool.models.network import Network

MAPS = (64, 64, 128, 128)
LAYERS = ((32, 8), (32, 8))
"""Number and dimension of the capsules of each layer before the last."""
DIMENSION = 16
"""Dimension of the capsule of a class."""
ROUNDS = 3

EPSILON = 1e-7
"""Added to squared lengths, as in Keras: the square root of 0 has no gradient, and a length of 0 no logarithm."""


class Capsules(nn.Module):
    """A layer of capsules, each with one matrix for all of its inputs, and routing by agreement.

    Args:
        inputs: Dimension C of the input capsules.
        dimension: Dimension D of each.
    """

    def __init__(self, inputs: int, count: int, dimension: int) -> None:
        super().__init__()
        weight = torch.empty(inputs, count * dimension)
        # Keras initialises it as one kernel of all capsules together.
        self.weight = nn.Parameter(nn.init.xavier_uniform_(weight).view(inputs, count, dimension))

    def forward(self, inputs: Tensor) -> Tensor:
        """Input capsules (B, N, C) to capsules before they are squashed (B, K, D).

        The prediction of an input for capsule k is the input times the matrix of k. As all inputs share the matrix,
        they are weighted first and multiplied once, and the agreement is the output times the transposed matrix: the
        same sums without N x K x D predictions, which are 2.9 million for an image of 224 x 224.
        """
        batch, positions, _ = inputs.shape
        count = self.weight.shape[1]
        coupling = inputs.new_full((batch, positions, count), 1 / count)
        for last in (*(False,) * (ROUNDS - 1), True):
            weighed = coupling.transpose(1, 2) @ inputs
            routed = torch.einsum("bkc,ckd->bkd", weighed, self.weight)
            if last:
                break
            back = torch.einsum("bkd,ckd->bck", squash(routed), self.weight)
            coupling = torch.softmax(inputs @ back, 2)
        return routed


def squash(vectors: Tensor) -> Tensor:
    """Vectors (..., D) to the same direction with length s / (1 + s), s their squared length."""
    squared = vectors.square().sum(-1, keepdim=True) + EPSILON
    return vectors * squared.sqrt() / (1 + squared)


class CovidCaps(Network):
    """COVID-CAPS.

    Its logits are the logarithms of the lengths of the class capsules. Their softmax, the probability, is the share of
    a length in the sum of all lengths; their `exp` are the lengths, which the margin loss uses.

    Args:
        in_channels: 3, as in the reference implementation; a radiograph is repeated in all of them.
    """

    def __init__(self, classes: int, in_channels: int = 3) -> None:
        super().__init__()
        first, second, third, fourth = MAPS
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, first, 3),
            nn.ReLU(),
            nn.BatchNorm2d(first, eps=1e-3),
            nn.Conv2d(first, second, 3),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(second, third, 3),
            nn.ReLU(),
            nn.Conv2d(third, fourth, 3),
            nn.ReLU(),
        )
        draw_as_keras(self.body)
        layers: list[Capsules] = []
        width = fourth
        for count, dimension in (*LAYERS, (classes, DIMENSION)):
            layers.append(Capsules(width, count, dimension))
            width = dimension
        self.head = nn.ModuleList(layers)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), normalised, to the last maps (B, 128, (S - 4) // 2 - 4, …)."""
        maps: Tensor = self.body(images)
        return maps

    def classify(self, features: Tensor) -> Tensor:
        """Maps to the logarithms of the lengths of the classes' capsules (B, K)."""
        # The agreements of thousands of capsules are summed, for which half precision is too coarse.
        with torch.autocast(features.device.type, enabled=False):
            capsules = features.to(next(self.head.parameters()).dtype).flatten(2).transpose(1, 2)
            *before, last = self.head
            for layer in before:
                capsules = squash(layer(capsules))
            squared: Tensor = last(capsules).square().sum(-1) + EPSILON
            return squared.log() - squared.log1p()

    def head_modules(self) -> list[nn.Module]:
        """The capsules."""
        return [self.head]


def build(architecture: Architecture) -> CovidCaps:
    """Build it with random weights."""
    return CovidCaps(architecture.classes)
