"""A network of PEPX blocks: COVIDNet-style, **not COVIDNet**.

COVID-Net (Wang & Wong 2020, "COVID-Net: a tailored deep convolutional neural network design", section 2.2) was found by
a machine search. Its paper describes the block (1 x 1 projection, 1 x 1 expansion, 3 x 3 depthwise representation,
1 x 1 projection, 1 x 1 extension), four stages of 3, 4, 6 and 3 such blocks after a 7 x 7 convolution, and long-range
connections of blocks through 1 x 1 convolutions. The graph itself is published only as a trained file, whose widths and
connections differ from block to block. What the paper does not state is ours:

- widths of 56, 112, 216 and 424 maps, one per stage; a block projects to half of its width and expands to all of it;
- each stage begins with one long-range 1 x 1 convolution of its input; the input of a block is the sum of this
  convolution and of all earlier blocks of its stage, and the output of the stage is the sum of all;
- batch normalisation before each ReLU, 2 x 2 max pooling between stages, and global average pooling with one dense
  layer of 256 at the end, instead of flattened maps, so that any size of image is possible.
"""

from __future__ import annotations

from torch import Tensor, nn

from cxrtool.models.architecture import Architecture
from cxrtool.models.network import Network, dense_head

WIDTHS = (56, 112, 216, 424)
BLOCKS = (3, 4, 6, 3)
HIDDEN = 256


class PEPX(nn.Sequential):
    """Projection, expansion, depthwise representation, projection, extension.

    Args:
        inputs: Number of input maps.
        width: Number of output maps; projections have half of it.
    """

    def __init__(self, inputs: int, width: int) -> None:
        half = width // 2
        super().__init__(
            *_step(inputs, half),
            *_step(half, width),
            *_step(width, width, 3, width),
            *_step(width, half),
            *_step(half, width),
        )


def _step(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class Stage(nn.Module):
    """Blocks at one resolution, whose input is the sum of the long-range 1 x 1 convolution and of all blocks before.

    Args:
        inputs: Number of input maps.
        width: Number of output maps.
    """

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.far = nn.Sequential(*_step(inputs, width))
        self.blocks = nn.ModuleList(PEPX(inputs if index == 0 else width, width) for index in range(blocks))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, inputs, h, w) to (B, width, h, w)."""
        first, *others = self.blocks
        total: Tensor = self.far(maps) + first(maps)
        for block in others:
            total = total + block(total)
        return total


class PEPXNet(Network):
    """The COVIDNet-style network; 1,997,818 weights with two classes.

    Args:
        in_channels: 3, as in COVID-Net; a radiograph is repeated in all of them.
    """

    def __init__(self, classes: int, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, WIDTHS[0], 7, 2, 3, bias=False)]
        layers += [nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
        nn.init.kaiming_normal_(layers[0].weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
        before = WIDTHS[0]
        for width, blocks in zip(WIDTHS, BLOCKS, strict=True):
            layers += [nn.MaxPool2d(2), Stage(before, width, blocks)]
            before = width
        self.body = nn.Sequential(*layers)
        self.head = dense_head(before, HIDDEN, classes, 0.0)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), normalised, to the last maps (B, 424, S // 32, S // 32)."""
        maps: Tensor = self.body(images)
        return maps

    def classify(self, features: Tensor) -> Tensor:
        """Average each map, and apply the head: logits (B, K)."""
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits

    def head_modules(self) -> list[nn.Module]:
        """The two dense layers."""
        return [self.head]


def build(architecture: Architecture) -> PEPXNet:
    """Build it with random weights."""
    return PEPXNet(architecture.classes)
