"""Find the lungs; crop to them, keep them alone, or erase them.

Writes masks/ at the size of each picture, contact sheets, and a manifest that says how large each mask is, how well
it agrees with a mask that was there before, and where it can hardly be that of two lungs. Pictures are written anew
only where their pixels change.

Example: cxrtool segment prepared --crop -o cropped
"""

from __future__ import annotations

from cxrtool.flow.segmenting import SegmentOptions, segment
from cxrtool.flow.settings import Settings


def run(options: SegmentOptions, settings: Settings) -> None:
    """Segment."""
    segment(options, settings)
