"""Heatmaps of where a network looks, and how much is in the lungs.

Writes maps/ (raw, float32), overlays/, contact sheets, and a manifest with the peak of every map and, where there are
masks, the share of its energy inside them. Heatmaps of training images are marked. A model of twins explains both the
predicted and the opposite class of each image, side by side. --reference scores the maps of each --method against
outlines of lesions or devices, beside what chance gives in the lungs, and tests whether the prediction depends on them.

Several images: cxrtool explain run/r0f0 first.png second.dcm ward/*.jpg -o heatmaps

A list of paths: find new -name '*.png' | cxrtool explain run/r0f0 - -o heatmaps

Example: cxrtool explain run prepared -o heatmaps --check-randomised
"""

from __future__ import annotations

from cxrtool.flow.heatmaps import explain
from cxrtool.flow.heatmaps.options import ExplainOptions
from cxrtool.flow.settings import Settings


def run(options: ExplainOptions, settings: Settings) -> None:
    """Make the heatmaps."""
    explain(options, settings)
