"""Fit a network that finds opacities from masks of them.

Writes a part for `segment --opacities`; with --splits a run with a part for each fold, and the Dice of every test
image. The masks are of ground glass and consolidation together. Images of the classes of --clear have none, and need no
mask. The images need lung masks, as `segment` writes them, because the network sees a crop to the lungs. MANIFEST may
be a folder of `cxrtool phantom`.

Example: cxrtool fit opacities prepared --clear normal --splits splits.csv -o opacities
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cxrtool.commands.fit.networks import fit
from cxrtool.commands.fit.options import PartOptions
from cxrtool.commands.fit.pairs import Targets
from cxrtool.flow.settings import Settings
from cxrtool.models.opacities import NETWORKS
from cxrtool.options import option
from cxrtool.training.image_to_image_options import LOSSES


@dataclass(frozen=True, kw_only=True)
class OpacityOptions(PartOptions):
    """The options of `fit opacities`."""

    KIND: ClassVar[str] = "opacities"

    # There is one network so far.
    network: str = next(iter(NETWORKS))
    weights: str = option(
        "Weights of the encoder, which stays as it is: imagenet, a file, or default for those that come with cxrtool.",
        "default",
    )
    target_column: str = option(
        "Column with the path of the mask; an empty mask is one without opacities.", "opacities"
    )
    clear: str = option(
        "Classes of images that have no opacities where they have no mask.", "", metavar="NAMES", shown=""
    )
    extent: str = option(
        "Column with an extent from 0 to 8 by raters. Images that have it and no mask of opacities are trained on so "
        "that the opaque share of the lungs fits; and the shares of regions are estimated from it, too.",
        "",
        metavar="COLUMN",
        shown="",
    )
    loss: str = option("Loss: {choices}.", "", choices=LOSSES["opacities"], shown="the network's preset")

    def targets(self) -> Targets:
        """Where the targets are."""
        clear = frozenset(filter(None, (name.strip() for name in self.clear.split(","))))
        return Targets(self.target_column, clear, self.extent, "mask")


def run(options: OpacityOptions, settings: Settings) -> None:
    """Fit, and print the results."""
    if found := fit(options, settings):
        settings.output.table(*found)
