"""Shortcuts that are planted on purpose: features that are associated with the class but not with the lungs.

An audit should find them in a set with planted shortcuts, and find nothing in a set without.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from cxrtool.errors import UsageError, count_of
from cxrtool.phantom.sources import BORDERS, MARKERS, Source

SIZES = ((1.0, 1.0), (0.8, 1.0), (1.0, 0.8), (1.2, 1.0), (1.0, 1.2))
"""Height and width relative to `--size`; as with markers and borders, the first class has the first entry."""

PLANTS = {
    "marker": "each class has a letter of its own at the shoulder",
    "border": "each class has a border of its own",
    "size": "each class has a size and proportions of its own",
    "source": "each class comes from a source of its own",
    "age": "the first class are small children, all others adults",
    "duplicate": "some patients are repeated with another id in another subset, with the same bytes",
    "near-duplicate": "some patients are repeated with another id in another subset, in a new exposure",
}
"""Name and description of every shortcut."""

TWINS = ("duplicate", "near-duplicate")
"""Shortcuts that repeat a patient with another id."""

TWIN_EVERY = 10
"""One patient in ten is a duplicate, of each kind."""

LEAST_FOR_TWINS = 12
"""With fewer radiographs there may not be two duplicated patients."""


def check_plants(plants: Sequence[str], classes: Sequence[str], sources: Sequence[str], count: int) -> None:
    """Check that shortcuts can be planted.

    Raises:
        UsageError: There are too few classes, sources or radiographs for one of them.
    """
    for plant in plants:
        if plant not in TWINS and len(classes) < 2:
            raise UsageError(f"--plant {plant}: expected at least two classes, found {classes[0]} alone")
    if "source" in plants and len(sources) < len(classes):
        found = f"{count_of(len(sources), 'source')} for {count_of(len(classes), 'class', 'classes')}"
        raise UsageError(f"--plant source: expected a source for each class, found {found}", "name fewer --classes")
    least = LEAST_FOR_TWINS * sum(plant in TWINS for plant in plants)
    if count < least:
        kinds = ",".join(plant for plant in plants if plant in TWINS)
        raise UsageError(f"--plant {kinds}: expected a --count of at least {least}, found {count}")


def plant_style(source: Source, follows: Collection[str], index: int) -> Source:
    """A source with the planted marker, border or size of class number `index`."""
    if "marker" in follows:
        source = replace(source, marker=MARKERS[index])
    if "border" in follows:
        source = replace(source, border=BORDERS[index])
    if "size" in follows:
        source = replace(source, height=SIZES[index][0], width=SIZES[index][1])
    return source


def twin_period(plants: Collection[str], count: int) -> int:
    """The number n for which every n-th patient is a duplicate; 0 for none.

    It is small enough for at least two duplicates of each kind even where every patient has three visits.
    """
    kinds = sum(plant in TWINS for plant in plants)
    return max(2, min(TWIN_EVERY, count // 6) // kinds) if kinds else 0
