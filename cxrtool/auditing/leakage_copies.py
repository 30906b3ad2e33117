"""What in a manifest is the same radiograph or the same patient, and on which sides of the splits it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from cxrtool.data.duplicates import find_duplicates
from cxrtool.data.grouping import PATIENT, normalised
from cxrtool.data.manifest import Row
from cxrtool.data.splits import SUBSETS, Run, known_as, valid_in
from cxrtool.imaging.neighbours import near_duplicates

Runs = Mapping[Run, Mapping[str, str]]
Sides = tuple[str, str]
"""Two subsets, in the order of `SUBSETS`."""

SAMPLE = 5000
"""Images among which pairs that are not quite alike are counted; of more, an even choice of as many."""

PIXELS, ALIKE = "same pixels", "look alike"
"""Kinds of pairs."""

COMMON = 10
"""Chance makes at least so many pairs between once and twice the threshold for each one below it."""


@dataclass(frozen=True)
class Radiograph:
    """A radiograph, whatever was made of it.

    Attributes:
        identity: Its id.
        row: Its row, or the first of those that were made of it.
        members: Rows of it and of what was made of it.
    """

    identity: str
    row: Row
    members: tuple[Row, ...]

    def sides(self, run: Run, subsets: Mapping[str, str]) -> set[str]:
        """The subsets in which a fold has it."""
        names = (known_as(row, subsets) for row in self.members if valid_in(row, run))
        return {subsets[name] for name in names if name}


@dataclass(frozen=True)
class Pair:
    """Two radiographs that are, or look, the same.

    Attributes:
        first: The earlier.
        second: The later.
        bits: Differing bits of the perceptual hash; None when the pixels are equal.
        across: For each fold in which they stand on two sides, these sides.
    """

    first: Radiograph
    second: Radiograph
    bits: int | None
    across: Mapping[Run, Sides]

    @property
    def kind(self) -> str:
        """`PIXELS` or `ALIKE`."""
        return PIXELS if self.bits is None else ALIKE

    @property
    def one_patient(self) -> bool:
        """Whether both are known to be of one patient."""
        return bool(self.first.row.get(PATIENT) and self.second.row.get(PATIENT)) and not self.differ(PATIENT)

    def differ(self, column: str) -> bool:
        """Whether both have a value in a column, and not the same."""
        one, other = (normalised(image.row.get(column, "")) for image in (self.first, self.second))
        return bool(one and other and one != other)


def radiographs(rows: Sequence[Row]) -> list[Radiograph]:
    """The rows, those of one radiograph as one: an enhanced picture is no copy of the one that it was made of."""
    members: dict[str, list[Row]] = {}
    for row in rows:
        members.setdefault(row.get("parent_id") or row["image_id"], []).append(row)
    return [
        Radiograph(name, next((row for row in found if row["image_id"] == name), found[0]), tuple(found))
        for name, found in members.items()
    ]


def pairs_of(images: Sequence[Radiograph], runs: Runs, bits: int) -> list[Pair]:
    """The pairs of radiographs that are or look the same, the gravest first.

    Args:
        images: All of them.
        runs: The splits; empty where there are none.
        bits: The most differing bits of pictures that look alike.
    """
    found = []
    for duplicate in find_duplicates([image.row for image in images], bits):
        first, second = images[duplicate.earlier], images[duplicate.later]
        across = {run: sides for run, subsets in runs.items() if (sides := _two_sides([first, second], run, subsets))}
        found.append(Pair(first, second, duplicate.bits, across))
    return sorted(found, key=_gravity)


def _gravity(pair: Pair) -> tuple[bool, bool, bool, bool, int]:
    differing = pair.differ("label"), pair.differ(PATIENT)
    return not pair.across, pair.kind == ALIKE, not differing[0], not differing[1], pair.bits or 0


def split_groups(groups: Mapping[str, Sequence[Radiograph]], runs: Runs) -> dict[str, dict[Run, Sides]]:
    """The groups of radiographs, as those of a patient, that stand on two sides: in which folds, and on which."""
    found = {}
    for name, members in groups.items():
        across = {run: sides for run, subsets in runs.items() if (sides := _two_sides(members, run, subsets))}
        if across:
            found[name] = across
    return found


def _two_sides(members: Sequence[Radiograph], run: Run, subsets: Mapping[str, str]) -> Sides | None:
    present = set[str]().union(*(image.sides(run, subsets) for image in members))
    # Of three sides the pair that costs most: what is tested was learned.
    order = [("train", "test"), ("validation", "test"), ("train", "validation"), *combinations(SUBSETS, 2)]
    return next((sides for sides in order if present.issuperset(sides)), None)


def by_patient(images: Sequence[Radiograph]) -> dict[str, list[Radiograph]]:
    """The radiographs of each patient that is named."""
    found: dict[str, list[Radiograph]] = {}
    for image in images:
        if image.row.get(PATIENT):
            found.setdefault(normalised(image.row[PATIENT]), []).append(image)
    return found


def likely_chance(images: Sequence[Radiograph], pairs: Sequence[Pair], bits: int) -> bool:
    """Whether pictures that look alike may be no copies, because chance makes such pairs in a set like this one.

    Between different radiographs distances have a tail that falls ever faster towards zero; copies stand apart from
    it. Where many pairs that are not known to be of one patient lie just above the threshold, a few below it are to be
    expected.

    Args:
        images: All of them.
        pairs: Those that look alike and are not known to be of one patient.
        bits: The threshold.
    """
    if not pairs:
        return False
    hashed = [image for image in images if image.row.get("dhash", "").strip("0")]
    step = max(1, -(-len(hashed) // SAMPLE))
    chosen = hashed[::step]
    near = near_duplicates([image.row["dhash"] for image in chosen], 2 * bits)
    between = [
        (one, other)
        for one, other, distance in near
        if distance > bits and not Pair(chosen[one], chosen[other], distance, {}).one_patient
    ]
    return len(between) * step**2 >= COMMON * len(pairs)
