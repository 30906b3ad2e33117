"""COVID-CAPS (Afshar et al. 2020): four convolutions and three layers of capsules with dynamic routing.

As its reference implementation builds it: 3 x 3 convolutions without padding, each behind a rectifier, 64 maps, batch
normalisation, 64 maps, 2 x 2 average pooling, twice 128 maps; every place of the last map is a capsule of dimension
128; then 32 capsules of 8, 32 of 8, and one of 16 a class, whose length is the class's score. With two classes that is
295,360 weights, and 295,488 numbers with the running mean and variance of the normalisation.

Routing is that of Sabour et al. 2017, "Dynamic routing between capsules", in the form of that implementation: a
capsule's matrix is shared by all capsules that feed it, there is no bias, and at each of three rounds the logits of the
coupling are the agreement with the outputs of the round before, in the place of a sum over rounds.

Our own: the running statistics follow the batch by a tenth (Keras: a hundredth), so that a short training has them too.
Not among the multiply-accumulates that a run tells are those of the routing, a twentieth of the whole at 224 x 224.
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
"""Of the capsule of a class."""
ROUNDS = 3

EPSILON = 1e-7
"""Added to squared lengths, as Keras does: the root of 0 has no gradient, and a class of length 0 no logarithm."""


class Capsules(nn.Module):
    """A layer of capsules, each with one matrix for all of its inputs, and routing by agreement.

    Args:
        inputs: Dimension of the capsules that feed it.
        count: Number of capsules K.
        dimension: Of each, D.
    """

    def __init__(self, inputs: int, count: int, dimension: int) -> None:
        super().__init__()
        weight = torch.empty(inputs, count * dimension)
        # Keras draws it as the one kernel that it is, of all capsules together.
        self.weight = nn.Parameter(nn.init.xavier_uniform_(weight).view(inputs, count, dimension))

    def forward(self, inputs: Tensor) -> Tensor:
        """Capsules (B, N, C) to what is routed to each of the layer's own, before it is squashed: (B, K, D).

        What an input predicts of capsule k is the input times k's matrix. As all inputs share the matrix, they are
        weighed first and multiplied once, and agreement is had by multiplying the output back: the same sums, without
        N x K x D predictions to hold, of which a picture of 224 x 224 would have 2.9 million.
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

    Its logits are the logarithms of the class capsules' lengths: softmax makes of them each length's share of all
    lengths, which is what is called a probability here, and `exp` gives back the lengths, of which the margin loss is.

    Args:
        classes: Number of outputs.
        in_channels: 3, as in the reference implementation; a radiograph goes into all alike.
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
        # Agreements of thousands of capsules are summed up: half precision would round them away.
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
    """Build it, with weights drawn at random."""
    return CovidCaps(architecture.classes)
