"""Scores of the extent of disease, as raters give them. Needs only the standard library."""

from __future__ import annotations

from dataclasses import dataclass

from cxrtool.data.tables.severity import ESTIMATED
from cxrtool.imaging.regions import SIDES, ZONES


@dataclass(frozen=True)
class Scale:
    """A score of the extent of disease: the sum of the points of some regions.

    Attributes:
        regions: Each with an opaque share.
        top: The most points of a region.
        by_region: Whether raters give points to each region, and not a total alone.
        strata: Whether the total says the severity.
        column: The column of the total; that of a region has its name appended.
        about: What it is, for texts.
    """

    regions: tuple[str, ...]
    top: int
    by_region: bool
    strata: bool
    column: str
    about: str

    @property
    def highest(self) -> int:
        """The highest total."""
        return self.top * len(self.regions)

    @property
    def estimates(self) -> tuple[str, ...]:
        """The columns of an estimated total, of the ends of its interval, and of regions that raters give points."""
        regions = self.regions if self.by_region else ()
        total = (f"{self.column}_{what}" for what in ("estimated", "low", "high"))
        return (*total, *(f"{self.column}_{region}_estimated" for region in regions))


SCALES = {
    "extent": Scale(SIDES, 4, False, True, "extent", "extent of lung involvement, 0 to 4 for each lung"),
    "brixia": Scale(ZONES, 3, True, False, "brixia", "Brixia score, 0 to 3 for each of six zones"),
}
"""Name to scale; the first is the default."""

ESTIMATES = (*(name for scale in SCALES.values() for name in scale.estimates), ESTIMATED)
"""All columns that `grade` writes; they are of the opaque shares beside them."""
