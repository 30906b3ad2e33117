"""Ordered classes, such as severities, by any network: one score, which rising thresholds divide.

The proportional-odds model of cumulative logits (McCullagh 1980, "Regression models for ordinal data", Journal of the
Royal Statistical Society B 42, 109-142, section 2.2): P(class <= k) = sigmoid(threshold_k - score), with K - 1
thresholds for K classes. The outputs are the logarithms of the probabilities of the classes. So their softmax is these
probabilities, as of any other network here, and their cross-entropy is the negative log-likelihood of the model.

It was chosen over CORAL (Cao, Mirjalili & Raschka 2020), whose loss, a sum of K - 1 binary ones, is no likelihood of
the class and lets thresholds cross on the way, and over CORN (Shi, Cao & Raschka 2023), which has K - 1 outputs in
place of one, where a class may have no more than ten images. With two classes it is logistic regression.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from cxrtool.models.network import Network


class CumulativeLogits(nn.Module):
    """From a score to the logarithms of the probabilities of K ordered classes.

    The first threshold is a parameter; each of the others is the one before it and a positive step, the softplus of a
    parameter. So thresholds rise whatever the parameters are. All classes are equally probable at a score of 0, until
    `start` says otherwise.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.empty(classes - 1))
        self.start(torch.full((classes,), 1 / classes))

    @torch.no_grad()
    def start(self, shares: Tensor) -> None:
        """Set the thresholds so that a score of 0 has these probabilities (K,), all above 0, whose sum is 1."""
        thresholds = torch.logit(shares.double().cumsum(0)[:-1])
        self.values.copy_(torch.cat([thresholds[:1], thresholds.diff().expm1().log()]))

    def thresholds(self) -> Tensor:
        """The K - 1 thresholds, which rise."""
        return torch.cat([self.values[:1], self.values[:1] + softplus(self.values[1:]).cumsum(0)])

    def forward(self, score: Tensor) -> Tensor:
        """Scores (B, 1) to the logarithms of probabilities (B, K)."""
        margins = self.thresholds() - score.to(self.values.dtype)
        below, above = logsigmoid(margins), logsigmoid(-margins)
        # Of a < b: log(sigmoid(b) - sigmoid(a)) = log sigmoid(b) + log sigmoid(-a) + log(1 - exp(a - b)), in which no
        # digits are lost where both are near 0 or near 1.
        between = below[:, 1:] + above[:, :-1] + torch.log(-torch.expm1(-softplus(self.values[1:])))
        return torch.cat([below[:, :1], between, above[:, -1:]], 1)


class OrderedNetwork(Network):
    """A network of one output, and the thresholds that divide it."""

    def __init__(self, scorer: Network, classes: int) -> None:
        super().__init__()
        self.scorer = scorer
        self.cumulative = CumulativeLogits(classes)

    @torch.no_grad()
    def start(self, shares: Tensor) -> None:
        """Begin with a score of 0 for every image, and thresholds that give these probabilities (K,) to it.

        Some output layers are drawn for many outputs: with one, scores would be far beyond the thresholds, and the
        training would have to undo that first.
        """
        for module in (module for outer in self.scorer.head_modules() for module in outer.modules()):
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.shape[0] == 1:
                nn.init.zeros_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.cumulative.start(shares)

    def features(self, images: Tensor) -> Tensor:
        """Those of the network."""
        return self.scorer.features(images)

    def classify(self, features: Tensor) -> Tensor:
        """Features to the logarithms of probabilities (B, K)."""
        logits: Tensor = self.cumulative(self.scorer.classify(features))
        return logits

    def head_modules(self) -> list[nn.Module]:
        """The head of the network, and the thresholds."""
        return [*self.scorer.head_modules(), self.cumulative]
