"""Lung networks by name: what `cxrtool fit lungs --network` takes, and `segment` understands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrtool.imaging.view import Form
from cxrtool.models.parts import PartNetwork

if TYPE_CHECKING:
    from torch import nn


def _unet() -> nn.Module:
    from cxrtool.models.unet import UNet

    return UNet()


NETWORKS: dict[str, PartNetwork] = {
    "unet": PartNetwork(_unet, Form(256), "small and fast, with group normalisation; ours, and the default"),
}
"""Name to network; the first is the default."""
