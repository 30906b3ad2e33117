"""Fit a lung network from masks.

Writes a part for `segment --lungs`; with --splits a run with a part for each fold, and the Dice of every test image.
MANIFEST may be a folder of `cxrtool phantom`.

Example: cxrtool fit lungs prepared --splits splits.csv -o lungs
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cxrtool.commands.fit.networks import fit
from cxrtool.commands.fit.options import PartOptions
from cxrtool.flow.settings import Settings
from cxrtool.models.lungs import NETWORKS
from cxrtool.options import option
from cxrtool.training.image_to_image_options import LOSSES, SHOWN


@dataclass(frozen=True, kw_only=True)
class LungOptions(PartOptions):
    """The options of `fit lungs`."""

    KIND: ClassVar[str] = "lungs"

    network: str = option("Network: {choices}.", next(iter(NETWORKS)), choices=NETWORKS)
    target_column: str = option("Column with the path of the mask.", "mask")
    weights: str = option(
        "What the network begins with: a part of `fit lungs` with the same network, default for the one that comes "
        "with cxrtool, or nothing.",
        "",
        metavar="PART",
        shown="",
    )
    opacify: float = option(
        "Share of the training images whose lungs are made opaque, up to white, inside their outline.",
        0.0,
        minimum=0,
        maximum=1,
        shown=SHOWN,
    )
    loss: str = option("Loss: {choices}.", "", choices=LOSSES["lungs"], shown="the network's preset")

    def start(self) -> Path | None:
        """The part of --weights."""
        from cxrtool.models.lung_start import start

        return start(self.weights) if self.weights else None


def run(options: LungOptions, settings: Settings) -> None:
    """Fit, and print the results."""
    if found := fit(options, settings):
        settings.output.table(*found)
