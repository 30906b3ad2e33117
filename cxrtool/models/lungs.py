"""Lung networks by name, for `cxrtool fit lungs --network` and `segment`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.errors import InputError
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

DEFAULT = "default"


def start(weights: str) -> Path:
    """The folder of the part that a fit begins with: `default` for the one that comes with cxrtool."""
    from cxrtool.models.parts import default_part

    return default_part("lungs").folder if weights == DEFAULT else Path(weights)


def begin(network: nn.Module, weights: str) -> None:
    """Load the weights of a fitted lung network.

    Args:
        network: Of the same kind.
        weights: The folder of its part, or `default`.

    Raises:
        InputError: There is no such part, or it is of another network.
    """
    from cxrtool.models.parts import load_network, read_part

    folder = start(weights)
    known = load_network(folder, "lungs")
    if type(known) is not type(network):
        raise InputError(
            f"--weights {weights}: expected a part of the network that is fitted, found '{read_part(folder).network}'",
            f"give --network {read_part(folder).network}, or another part",
        )
    network.load_state_dict(known.state_dict())
