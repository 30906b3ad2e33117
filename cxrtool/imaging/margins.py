"""The margin around a crop to the lungs. Needs the standard library alone."""

from __future__ import annotations

IMAGE, BOX = "image", "box"
MARGINS_OF = (IMAGE, BOX)
"""The reference of a margin: the image's sides, or those of the rectangle around the lungs."""

MARGIN = 0.025
"""On each side, as in Tabik et al. 2020."""
