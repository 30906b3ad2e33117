"""Rib-suppressing networks by name, for `cxrtool fit ribs --network` and `enhance`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrtool.imaging.fits import Form
from cxrtool.models.part_network import PartNetwork

if TYPE_CHECKING:
    from torch import nn


def _autoencoder() -> nn.Module:
    from cxrtool.models.rib_autoencoder import RibAutoencoder

    return RibAutoencoder()


def _unet() -> nn.Module:
    from cxrtool.models.rib_unet import RibUNet

    return RibUNet()


NETWORKS: dict[str, PartNetwork] = {
    "rib-unet": PartNetwork(_unet, Form(512, "pad"), "predicts what ribs add and subtracts it; ours, and the default"),
    "autoencoder": PartNetwork(
        _autoencoder, Form(1024, "pad", invert=True), "64,400 tied weights, as COVID-XNet used (Gusarev et al. 2017)"
    ),
}
"""Name to network; the first is the default."""
