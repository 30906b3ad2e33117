"""Show where a network looks, and measure whether it is the lungs.

Writes maps/ (raw, float32), overlays/, contact sheets, and a manifest with the peak of every map and, where there
are masks, the share of its energy inside them. Heatmaps of training images are marked as such. A model of twins
shows of each image why it is called so and why it might be called the opposite, side by side.

Example: cxrtool explain run prepared -o heatmaps --check-randomised
"""

from __future__ import annotations

from cxrtool.flow.heatmaps import explain
from cxrtool.flow.heatmaps.options import ExplainOptions
from cxrtool.flow.settings import Settings


def run(options: ExplainOptions, settings: Settings) -> None:
    """Explain."""
    explain(options, settings)
