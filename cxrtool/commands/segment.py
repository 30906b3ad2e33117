"""Segment the lungs; crop to them, mask them, or erase them.

Writes masks/ at the size of each image, contact sheets, and a manifest with the area of each mask, its agreement with
an existing mask, and a warning where the mask is implausible. Images are written again only where pixels change.

Several images: cxrtool segment first.png second.dcm ward/*.jpg -o lungs

A list of paths: find new -name '*.png' | cxrtool segment - --crop -o cropped

Example: cxrtool segment prepared --crop -o cropped
"""

from __future__ import annotations

from cxrtool.flow.segmenting import SegmentOptions, segment
from cxrtool.flow.settings import Settings


def run(options: SegmentOptions, settings: Settings) -> None:
    """Segment."""
    segment(options, settings)
