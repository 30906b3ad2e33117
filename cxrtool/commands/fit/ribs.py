"""Fit a rib network from images with and without ribs.

Writes a part for `enhance --ribs`; with --splits a run with a part for each fold, and the errors of every test image.
MANIFEST may be a folder of `cxrtool phantom`: phantoms are drawn with and without ribs.

Example: cxrtool fit ribs phantoms -o ribs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cxrtool.commands.fit.networks import fit
from cxrtool.commands.fit.options import PartOptions
from cxrtool.flow.settings import Settings
from cxrtool.models.ribs import NETWORKS
from cxrtool.options import option
from cxrtool.training.image_to_image_options import LOSSES


@dataclass(frozen=True, kw_only=True)
class RibOptions(PartOptions):
    """The options of `fit ribs`."""

    KIND: ClassVar[str] = "ribs"

    network: str = option("Network: {choices}.", next(iter(NETWORKS)), choices=NETWORKS)
    target_column: str = option("Column with the path of the image without ribs.", "ribless")
    loss: str = option("Loss: {choices}.", "", choices=LOSSES["ribs"], shown="the network's preset")


def run(options: RibOptions, settings: Settings) -> None:
    """Fit, and print the results."""
    if found := fit(options, settings):
        settings.output.table(*found)
