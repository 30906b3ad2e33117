"""Shortcuts that are planted on purpose: what tells the class although it has nothing to do with the lungs.

An audit that finds them in a set in which they were planted, and nothing in one without, may be believed elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from cxrtool.errors import UsageError
from cxrtool.phantom.sources import BORDERS, MARKERS, Source

SIZES = ((1.0, 1.0), (0.8, 1.0), (1.0, 0.8), (1.2, 1.0), (1.0, 1.2))
"""Height and width over the size that was asked for: as with markers and borders, the first class has the first."""

PLANTS = {
    "marker": "each class has a letter of its own at the shoulder",
    "border": "each class has a border of its own",
    "size": "each class has a size and proportions of its own",
    "source": "each class comes from a source of its own",
    "age": "the first class are small children, all others adults",
    "duplicate": "some patients return under another id in another subset, with the same bytes",
    "near-duplicate": "some patients return under another id in another subset, shot anew",
}
"""Name of every shortcut, and what it does."""

TWINS = ("duplicate", "near-duplicate")
"""Those that bring a patient back under another id."""

TWIN_EVERY = 10
"""One patient in so many is another one come back, of each kind."""

LEAST_FOR_TWINS = 12
"""With fewer radiographs than this there may not be room for two patients who return."""


def check_plants(plants: Sequence[str], classes: Sequence[str], sources: Sequence[str], count: int) -> None:
    """Check that shortcuts can be planted.

    Raises:
        UsageError: There are too few classes, sources or radiographs for one of them.
    """
    for plant in plants:
        if plant not in TWINS and len(classes) < 2:
            raise UsageError(f"--plant {plant}: expected at least two classes to tell apart, found {classes[0]} alone")
    if "source" in plants and len(sources) < len(classes):
        found = f"{len(sources)} sources for {len(classes)} classes"
        raise UsageError(f"--plant source: expected a source for each class, found {found}", "name fewer --classes")
    least = LEAST_FOR_TWINS * sum(plant in TWINS for plant in plants)
    if count < least:
        kinds = ",".join(plant for plant in plants if plant in TWINS)
        raise UsageError(f"--plant {kinds}: expected a --count of at least {least}, found {count}")


def plant_style(source: Source, follows: Collection[str], index: int) -> Source:
    """A source with the marker, border or size of the class of number `index`, as far as these are planted."""
    if "marker" in follows:
        source = replace(source, marker=MARKERS[index])
    if "border" in follows:
        source = replace(source, border=BORDERS[index])
    if "size" in follows:
        source = replace(source, height=SIZES[index][0], width=SIZES[index][1])
    return source


def twin_period(plants: Collection[str], count: int) -> int:
    """Of how many patients in a row the last one is another one come back; 0 for never.

    So small that at least two of each kind return even where every patient has three visits.
    """
    kinds = sum(plant in TWINS for plant in plants)
    return max(2, min(TWIN_EVERY, count // 6) // kinds) if kinds else 0
