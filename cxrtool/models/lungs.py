"""Lung networks by name, for `cxrtool fit lungs --network` and `segment`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrtool.imaging.fits import Form
from cxrtool.models.part_network import PartNetwork

if TYPE_CHECKING:
    from torch import nn


def _unet() -> nn.Module:
    from cxrtool.models.unet import UNet

    return UNet()


def _unet_imlab() -> nn.Module:
    from cxrtool.models.unet_imlab import ImlabUNet

    return ImlabUNet()


def _unet_eduardomineo() -> nn.Module:
    from cxrtool.models.unet_eduardomineo import EduardomineoUNet

    return EduardomineoUNet()


NETWORKS: dict[str, PartNetwork] = {
    "unet": PartNetwork(_unet, Form(256), "small and fast, with group normalisation; ours, and the default"),
    "unet-imlab": PartNetwork(
        _unet_imlab, Form(256, crop_borders=True, equalise=True), "of imlab-uiip, used by the portable VGG16 system"
    ),
    "unet-eduardomineo": PartNetwork(
        _unet_eduardomineo, Form(512), "of eduardomineo, used by COVID-XNet and COVID-SDNet"
    ),
}
"""Name to network; the first is the default."""
