"""COVID-XNet's classifier (Duran-Lopez et al. 2020, section 2.3): five convolutions, global average pooling, softmax.

Kernels 5, 5, 5, 3, 3 with 2x2 max pooling after the first four, and a dense layer on the pooled last maps, as the paper
states; so the class activation map of Zhou et al. is exact. The paper does not state the number of filters: 16, 32, 64,
128, 256 are ours, which gives 434,050 parameters with two classes and, at 128 x 128 pixels, a last map of 8 x 8. Other
kernels give the networks of its search (`cxrtool.models.kernels`).
"""

from __future__ import annotations

from torch import Tensor, nn

from cxrtool.models.architecture import Architecture
from cxrtool.models.kernels import KERNELS
from cxrtool.models.kernels import filters as default_filters
from cxrtool.models.network import Network


class CovidXNet(Network):
    """The small network of COVID-XNet.

    Args:
        in_channels: 1 for a radiograph.
        kernels: Size of each convolution's kernel, odd.
        filters: Maps of each convolution; None means those of the search.
    """

    def __init__(
        self,
        classes: int,
        in_channels: int = 1,
        kernels: tuple[int, ...] = KERNELS,
        filters: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for index, (kernel, maps) in enumerate(zip(kernels, filters or default_filters(len(kernels)), strict=True)):
            layers += [nn.Conv2d(width, maps, kernel, padding=kernel // 2), nn.ReLU()]
            if index < len(kernels) - 1:
                layers.append(nn.MaxPool2d(2))
            width = maps
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He initialisation keeps the variance through the ReLUs; with that of PyTorch it fades, and the loss
                # does not change in the first dozen epochs.
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W), normalised, to the last maps, with the paper's kernels (B, 256, H/16, W/16)."""
        maps: Tensor = self.body(images)
        return maps

    def classify(self, features: Tensor) -> Tensor:
        """Average each map, and apply the dense layer: logits (B, K)."""
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits

    def head_modules(self) -> list[nn.Module]:
        """The output layer."""
        return [self.head]


def build(architecture: Architecture) -> CovidXNet:
    """Build it with random weights."""
    return CovidXNet(architecture.classes, kernels=architecture.kernels or KERNELS)
