"""The default opacity network: the mean of two small U-Nets, one that knows chests and one that knows things.

Few radiographs have outlines of opacities, so each branch begins with what others have learnt: the first is the U-Net
of the lungs (`cxrtool.models.unet`) with its weights; the second has the stem and the first five stages of
EfficientNet-Lite0 (Tan & Le 2019, without squeeze and excitation) with weights of ImageNet, which stay as they are,
and a decoder of blocks, concatenating skip connections (Ronneberger et al. 2015) and pixel shuffling (Shi et al. 2016).
Whole feature maps of that encoder are dropped in training (Tompson et al. 2015). In training each image is seen by one
branch, so that the branches make different mistakes, as those of an ensemble.

Diffuse disease has no outline that a few examples could teach. So the share of a region is estimated in two ways: by
the probability of the mask, and by a linear map of the same frozen features, whose mean over a lung is fitted to what
raters said of it (`cxrtool.training.share_fit`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cxrtool.models.unet import FLAT, SHUFFLE, Block, UNet

NAME = "tf_efficientnet_lite0"
STAGES = 5
SKIPS = {1: 24, 2: 40, 3: 80, 4: 112}
"""Stage to channels: the feature maps at a quarter, an eighth and twice a sixteenth of the resolution."""

WIDTHS = (96, 64, 32)
DROPPED = 0.2
SPREAD = 0.5
"""Standard deviation of the input: EfficientNet-Lite0 was trained on values from -1 to 1."""


class ThingsUNet(nn.Module):
    """Grey values to logits of opacity, with a frozen encoder of ImageNet."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        network = timm.create_model(NAME, pretrained=False)
        self.stem = nn.Sequential(network.get_submodule("conv_stem"), network.get_submodule("bn1"))
        self.stages = nn.ModuleList(list(network.get_submodule("blocks").children())[:STAGES])
        for frozen in (self.stem, self.stages):
            frozen.requires_grad_(requires_grad=False)
        self.drop = nn.Dropout2d(DROPPED)
        low, middle, high = WIDTHS
        self.coarse = Block(SKIPS[3] + SKIPS[4], low)
        self.rising = Block(low + SKIPS[2], middle)
        self.fine = Block(middle + SKIPS[1], high)
        self.head = nn.Conv2d(high, SHUFFLE**2, 1)

    def train(self, mode: bool = True) -> ThingsUNet:
        """Set the mode; the encoder's statistics stay those of ImageNet."""
        super().train(mode)
        self.stem.eval()
        self.stages.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, S, S) of values in [0, 1] to logits of the same shape; S divisible by 16."""
        return self.decode(self.encode(images))

    def encode(self, images: Tensor) -> list[Tensor]:
        """The feature maps (B, C, s, s) of `SKIPS`, from fine to coarse.

        Each image is standardised by its own mean and deviation, so that dose and window do not matter.
        """
        deviation, mean = torch.std_mean(images, (1, 2, 3), keepdim=True)
        values = (images - mean) / deviation.clamp_min(FLAT) * SPREAD
        kept: list[Tensor] = []
        with torch.no_grad():
            features = self.stem(values.expand(-1, 3, -1, -1))
            for number, stage in enumerate(self.stages):
                features = stage(features)
                if number in SKIPS:
                    kept.append(features)
        return kept

    def decode(self, kept: list[Tensor]) -> Tensor:
        """Feature maps to logits."""
        quarter, eighth, *sixteenth = (self.drop(one) for one in kept)
        found = self.coarse(torch.cat(sixteenth, 1))
        found = self.rising(torch.cat((_doubled(found), eighth), 1))
        found = self.fine(torch.cat((_doubled(found), quarter), 1))
        logits: Tensor = functional.pixel_shuffle(self.head(found), SHUFFLE)
        return logits


class ShareMap(nn.Module):
    """A linear map of feature maps and of a probability, whose mean over a region is the opaque share of the region.

    Attributes:
        weight: (C,) of the channels of `SKIPS`, one after the other; 0 as long as it is not fitted.
        bias: ().
        own: () weight of the probability of the mask; 1 as long as the map is not fitted.
    """

    weight: Tensor
    bias: Tensor
    own: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(sum(SKIPS.values())))
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("own", torch.ones(()))

    def forward(self, kept: list[Tensor], probability: Tensor) -> Tensor:
        """Feature maps (B, C, s, s) and a probability (B, 1, S, S) to a map (B, 1, S, S)."""
        size = probability.shape[-2:]
        parts = torch.split(self.weight, list(SKIPS.values()))
        # A product and a sum stay in fp32 under autocast, as a matrix product would not.
        maps = [(one.float() * part[:, None, None]).sum(1, True) for one, part in zip(kept, parts, strict=True)]
        # Without smoothing: so the mean over a region is the product with the means of the features, as it was fitted.
        linear = sum(functional.interpolate(one, size=size, mode="nearest") for one in maps)
        return self.own * probability + self.bias + linear


def means_of(kept: list[Tensor], regions: Tensor) -> Tensor:
    """Means of all channels of feature maps (B, C, s, s) over regions (B, R, S, S) of 0 and 1: (B, R, C)."""
    found = []
    for one in kept:
        weights = functional.adaptive_avg_pool2d(regions, (one.shape[-2], one.shape[-1]))
        weights = weights / weights.sum((2, 3), keepdim=True).clamp_min(1e-6)
        found.append(torch.einsum("bcyx,bryx->brc", one.float(), weights))
    return torch.cat(found, 2)


class OpacityUNet(nn.Module):
    """Grey values of a crop to the lungs to logits of opacity, and to shares of regions."""

    def __init__(self) -> None:
        super().__init__()
        self.chest = UNet()
        self.things = ThingsUNet()
        self.shares = ShareMap()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, S, S) of values in [0, 1] to logits of the same shape; S divisible by 64.

        The mean of both branches; in training, of every other image those of one branch alone. In evaluation mode there
        is a second channel, (B, 2, S, S): the mean of it over a region is the share of the region that is opaque.
        """
        if not self.training:
            kept = self.things.encode(images)
            logits = ((self.chest(images) + self.things.decode(kept)) / 2).float()
            return torch.cat((logits, self.shares(kept, logits.sigmoid())), 1)
        if len(images) < 2:
            mean: Tensor = (self.chest(images) + self.things(images)) / 2
            return mean
        one: Tensor = self.chest(images[::2])
        other: Tensor = self.things(images[1::2])
        found = one.new_empty((len(images), *one.shape[1:]))
        found[::2], found[1::2] = one, other.to(one.dtype)
        return found


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2, mode="nearest")
