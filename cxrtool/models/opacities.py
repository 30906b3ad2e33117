"""Opacity networks by name, for `cxrtool fit opacities --network` and `segment --opacities`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrtool.imaging.fits import Form
from cxrtool.models.part_network import PartNetwork

if TYPE_CHECKING:
    from torch import nn


def _unet() -> nn.Module:
    from cxrtool.models.opacity_unet import OpacityUNet

    return OpacityUNet()


NETWORKS: dict[str, PartNetwork] = {
    "opacity-unet": PartNetwork(_unet, Form(192, crop_lungs=True), "on a crop to the lungs; ours, and the default"),
}
"""Name to network; the first is the default."""
