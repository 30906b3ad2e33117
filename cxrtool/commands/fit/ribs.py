"""Fit a rib network from pictures with and without ribs.

Writes a part that `enhance --ribs` takes; with --splits a run of one part for each fold, and the errors of every test
image. MANIFEST may be a folder that `cxrtool phantom` drew: phantoms are drawn with and without ribs.

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

    network: str = option("{choices}.", next(iter(NETWORKS)), choices=NETWORKS)
    target_column: str = option("The column that names the picture without ribs.", "ribless")
    loss: str = option("{choices}.", "", choices=LOSSES["ribs"], shown="the network's preset")


def run(options: RibOptions, settings: Settings) -> None:
    """Fit, and print the figures."""
    if found := fit(options, settings):
        settings.output.table(*found)
