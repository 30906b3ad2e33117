"""Fit a lung network from masks.

Writes a part for `segment --lungs`; with --splits a run with a part for each fold, and the Dice of every test image.
MANIFEST may be a folder of `cxrtool phantom`.

Example: cxrtool fit lungs prepared --splits splits.csv -o lungs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cxrtool.commands.fit.networks import fit
from cxrtool.commands.fit.options import PartOptions
from cxrtool.flow.settings import Settings
from cxrtool.models.lungs import NETWORKS
from cxrtool.options import option
from cxrtool.training.image_to_image_options import LOSSES


@dataclass(frozen=True, kw_only=True)
class LungOptions(PartOptions):
    """The options of `fit lungs`."""

    KIND: ClassVar[str] = "lungs"

    network: str = option("Network: {choices}.", next(iter(NETWORKS)), choices=NETWORKS)
    target_column: str = option("Column with the path of the mask.", "mask")
    loss: str = option("Loss: {choices}.", "", choices=LOSSES["lungs"], shown="the network's preset")


def run(options: LungOptions, settings: Settings) -> None:
    """Fit, and print the results."""
    if found := fit(options, settings):
        settings.output.table(*found)
