"""COVID-XNet's classifier (Duran-Lopez et al. 2020, section 2.3): five convolutions, global average pooling, softmax.

Kernels 5, 5, 5, 3, 3 with 2x2 max pooling after the first four, and classes read from the pooled last maps, as the
paper states; so that the class activation map of Zhou et al. is exact. The paper does not print the number of filters:
16, 32, 64, 128, 256 are ours, which with two classes makes 434,050 parameters and, at 128 x 128 pixels, a last map of
8 x 8. Other kernels make the networks of its search (`cxrtool.models.kernels`).
"""

from __future__ import annotations

from torch import Tensor, nn

from cxrtool.models.architecture import Architecture
from cxrtool.models.kernels import KERNELS
from cxrtool.models.kernels import filters as usual
from cxrtool.models.network import Network


class CovidXNet(Network):
    """The small network of COVID-XNet.

    Args:
        classes: Number of outputs.
        in_channels: 1 for a radiograph.
        kernels: Size of each convolution's kernel, odd; one a layer.
        filters: Maps of each convolution; None takes those of the search.
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
        for index, (kernel, maps) in enumerate(zip(kernels, filters or usual(len(kernels)), strict=True)):
            layers += [nn.Conv2d(width, maps, kernel, padding=kernel // 2), nn.ReLU()]
            if index < len(kernels) - 1:
                layers.append(nn.MaxPool2d(2))
            width = maps
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He's start keeps the values' spread through the rectifiers; PyTorch's own lets it fade, and the loss
                # then stands still for the first dozen epochs.
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W), normalised, to the last maps, with the paper's kernels (B, 256, H/16, W/16)."""
        maps: Tensor = self.body(images)
        return maps

    def classify(self, features: Tensor) -> Tensor:
        """Average each map and weigh them into logits (B, K)."""
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits

    def head_modules(self) -> list[nn.Module]:
        """The output layer."""
        return [self.head]


def build(architecture: Architecture) -> CovidXNet:
    """Build it, with weights drawn at random."""
    return CovidXNet(architecture.classes, kernels=architecture.kernels or KERNELS)
