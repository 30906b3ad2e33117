"""Leakage: what is on two sides of a split, and what is listed twice at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part
from cxrtool.data.confinement import check_inside
from cxrtool.data.splitting.grouping import PATIENT, identities, normalised
from cxrtool.data.splitting.splits import SUBSETS, Run, known_as, valid_in
from cxrtool.data.tables.duplicates import find_duplicates
from cxrtool.data.tables.views import RowView, cells_of
from cxrtool.evaluation.sheet import ABSENT, Sheet, count_of
from cxrtool.imaging.hashing import NEAR, near_duplicates

NAME, TITLE = "leakage", "Patients and images that are listed twice"

MOST_PAIRS, SHOWN_PAIRS, DRAWN_PAIRS, EXAMPLES = 200, 30, 12, 3
"""Pairs that `audit.json`, a table, the figure and a sentence list; counts are of all."""

MAY_BE_CHANCE = "in this set images of different patients are often nearly as similar, so these need not be copies"

Runs = Mapping[Run, Mapping[str, str]]
Sides = tuple[str, str]
"""Two subsets, in the order of `SUBSETS`."""

SAMPLE = 5000
"""Images among which pairs just above the threshold are counted; of more, about as many at even steps."""

PIXELS, NEAR_DUPLICATE = "same pixels", "near-duplicates"
"""Kinds of pairs."""

KEYS = {PIXELS: "same_pixels", NEAR_DUPLICATE: "look_alike"}
"""Their names in `audit.json`."""

COMMON = 10
"""Pairs between once and twice the threshold for each pair below it, from which near-duplicates may be chance."""


@dataclass(frozen=True, slots=True)
class Radiograph:
    """A radiograph: its row, or that of its first version, and the rows of all versions."""

    identity: str
    row: RowView
    members: tuple[RowView, ...]

    def sides(self, run: Run, subsets: Mapping[str, str]) -> set[str]:
        """The subsets that contain it in a fold."""
        names = (known_as(row, subsets) for row in self.members if valid_in(row, run))
        return {subsets[name] for name in names if name}


@dataclass(frozen=True)
class Pair:
    """Two radiographs that are identical or near-duplicates.

    `bits` are the differing bits of the perceptual hash, None where the pixels are equal. `across` has these sides for
    each fold in which they are on two sides.
    """

    first: Radiograph
    second: Radiograph
    bits: int | None
    across: Mapping[Run, Sides]

    @property
    def kind(self) -> str:
        """`PIXELS` or `NEAR_DUPLICATE`."""
        return PIXELS if self.bits is None else NEAR_DUPLICATE

    @property
    def one_patient(self) -> bool:
        """Whether both are known to be of one patient."""
        return bool(self.first.row.get(PATIENT) and self.second.row.get(PATIENT)) and not self.differ(PATIENT)

    def differ(self, column: str) -> bool:
        """Whether both have a value in a column, and the values differ."""
        one, other = (normalised(image.row.get(column, "")) for image in (self.first, self.second))
        return bool(one and other and one != other)


def radiographs(rows: Sequence[RowView]) -> list[Radiograph]:
    """The radiographs of rows: an enhanced image is a version of its original, not a copy."""
    if not any(cells_of(rows, "parent_id")) and len({*(ids := cells_of(rows, "image_id"))}) == len(rows):
        return [Radiograph(name, row, (row,)) for name, row in zip(ids, rows, strict=True)]
    members: dict[str, list[RowView]] = {}
    for row in rows:
        members.setdefault(row.get("parent_id") or row["image_id"], []).append(row)
    return [
        Radiograph(name, next((row for row in found if row["image_id"] == name), found[0]), tuple(found))
        for name, found in members.items()
    ]


def pairs_of(images: Sequence[Radiograph], runs: Runs, bits: int) -> list[Pair]:
    """The pairs of identical and near-duplicate radiographs, at most `bits` apart, the most serious first."""
    found = []
    for duplicate in find_duplicates([image.row for image in images], bits):
        first, second = images[duplicate.earlier], images[duplicate.later]
        found.append(Pair(first, second, duplicate.bits, sides_of([first, second], runs)))

    def gravity(pair: Pair) -> tuple[bool, bool, bool, bool, int]:
        kind = pair.kind == NEAR_DUPLICATE
        return not pair.across, kind, not pair.differ("label"), not pair.differ(PATIENT), pair.bits or 0

    return sorted(found, key=gravity)


def split_groups(groups: Mapping[str, Sequence[Radiograph]], runs: Runs) -> dict[str, Mapping[Run, Sides]]:
    """The groups of radiographs, such as those of a patient, that are on two sides: the sides in each fold."""
    return {name: across for name, members in groups.items() if (across := sides_of(members, runs))}


def sides_of(members: Sequence[Radiograph], runs: Runs) -> dict[Run, Sides]:
    """The folds in which radiographs that belong together are on two sides, with these sides."""
    # Of three sides, the most serious pair: test images that were trained on.
    order = [("train", "test"), ("validation", "test"), ("train", "validation"), *combinations(SUBSETS, 2)]
    found = {}
    for run, subsets in runs.items():
        present = set[str]().union(*(image.sides(run, subsets) for image in members))
        if sides := next((sides for sides in order if present.issuperset(sides)), None):
            found[run] = sides
    return found


def by_patient(images: Sequence[Radiograph]) -> dict[str, list[Radiograph]]:
    """The radiographs of each patient."""
    found: dict[str, list[Radiograph]] = {}
    for image, patient in zip(images, identities([image.row for image in images]), strict=True):
        if patient:
            found.setdefault(patient, []).append(image)
    return found


def likely_chance(images: Sequence[Radiograph], pairs: Sequence[Pair], bits: int) -> bool:
    """Whether near-duplicates may be chance in a set like this one.

    The distances between different radiographs have a tail that decreases towards zero; copies lie outside this tail.
    Where many pairs that are not known to be of one patient are just above the threshold, a few below it are expected.
    `pairs` are the near-duplicates that are not known to be of one patient.
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


def across(
    images: Sequence[Radiograph],
    patients: Mapping[str, Sequence[Radiograph]],
    split: Mapping[str, Mapping[str, Mapping[Run, Sides]]],
    pairs: Sequence[Pair],
    chance: bool,
    runs: Runs,
) -> Iterator[Finding]:
    """What is on two sides of a split: a sentence each for patients, versions, identical and near-duplicate images."""
    if leaking := split["patients"]:
        examples = [patients[name][0].row[PATIENT] for name in list(leaking)[:EXAMPLES]]
        text = (
            f"{count_of(len(leaking), 'patient')} of {len(patients)} {_are(leaking)} in two subsets of a fold "
            f"({_where(leaking.values(), runs)}), such as {', '.join(examples)}: {_consequence(leaking.values())}."
        )
        yield Finding(ALARM, text)
    if leaking := split["radiographs"]:
        text = (
            f"{count_of(len(leaking), 'radiograph')} of {len(images)} {_are(leaking)} in two subsets of a fold as "
            f"different versions ({_where(leaking.values(), runs)}), such as {', '.join(list(leaking)[:EXAMPLES])}."
        )
        yield Finding(ALARM, text)
    crossing = [pair for pair in pairs if pair.across]
    for kind, doubtful in ((PIXELS, False), (NEAR_DUPLICATE, False), (NEAR_DUPLICATE, True)):
        some = [pair for pair in crossing if pair.kind == kind and is_doubtful(pair, chance) == doubtful]
        if not some:
            continue
        between = [pair.across for pair in some]
        what = "images with the same pixels" if kind == PIXELS else "near-duplicate images"
        text = (
            f"{count_of(len(some), 'pair')} of {what} {_are(some)} in two subsets of a fold "
            f"({_where(between, runs)}), such as {_examples(some)}"
        )
        if doubtful:
            yield Finding(WARNING, f"{text}; {MAY_BE_CHANCE}: look at them.")
        else:
            yield Finding(ALARM, f"{text}: {_consequence(between)}.")


def is_doubtful(pair: Pair, chance: bool) -> bool:
    """Whether a pair may be a near-duplicate by chance."""
    return chance and pair.kind == NEAR_DUPLICATE and not pair.one_patient


def inside(
    pairs: Sequence[Pair], patients: Mapping[str, Sequence[Radiograph]], chance: bool, bits: int
) -> Iterator[Finding]:
    """What is listed twice on any side, and pairs whose label, patient or source differs."""
    sure = [pair for pair in pairs if not is_doubtful(pair, chance)]
    doubtful = [pair for pair in pairs if is_doubtful(pair, chance) and not pair.across]
    for column, words in (("label", "labels"), (PATIENT, "patients"), ("source", "sources")):
        differing = [pair for pair in sure if pair.differ(column)]
        if differing:
            text = (
                f"{count_of(len(differing), 'pair')} of identical or near-duplicate images "
                f"{_have(differing)} different {words}, such as {_examples(differing)}."
            )
            yield Finding(WARNING, text)
    rest = [pair for pair in sure if not pair.across and not any(pair.differ(c) for c in ("label", PATIENT, "source"))]
    if rest:
        text = (
            f"{count_of(len(rest), 'pair')} of identical or near-duplicate images: the same radiograph is listed "
            f"twice, such as {_examples(rest)}."
        )
        yield Finding(NOTE, text)
    if doubtful:
        text = (
            f"{count_of(len(doubtful), 'pair')} of images {_are(doubtful)} near-duplicates (at most {bits} of 256 bits "
            f"differ), such as {_examples(doubtful)}; {MAY_BE_CHANCE}."
        )
        yield Finding(NOTE, text)
    for column, words in (("source", "from two sources"), ("label", "of two labels")):
        some = [name for name, members in patients.items() if len({m.row.get(column, "") for m in members} - {""}) > 1]
        if some:
            yield Finding(NOTE, f"{count_of(len(some), 'patient')} {_have(some)} images {words}.")


def unknown(content: Mapping[str, Any], runs: Runs) -> Iterator[Finding]:
    """What could not be searched."""
    if not runs:
        text = "No split was given: whether a patient or an image is on two sides could not be searched."
        yield Finding(UNKNOWN, text)
    for key, lack in (
        ("without_patient", "patient_id: whether their patients are on two sides is not known."),
        (
            "without_fingerprint",
            "fingerprint of their pixels: whether they are listed twice is not known. `cxrtool prepare` computes it.",
        ),
    ):
        if count := content[key]:
            yield Finding(UNKNOWN, f"{count} of {count_of(content['images'], 'image')} have no {lack}")


def clear(content: Mapping[str, Any]) -> Iterator[Finding]:
    """What was searched and not found."""
    across, folds = content["across_subsets"], content["folds"]
    known = content["without_fingerprint"] < content["images"]
    sides = [name for name, there in (("patient", content["patients"]), ("image", known)) if there]
    if folds and sides and not any(entry["count"] for entry in across.values()):
        where = "the split" if folds == 1 else f"any of the {count_of(folds, 'fold')}"
        yield Finding(CLEAR, f"No {' and no '.join(sides)} is in two subsets of {where}.")
    if known and not any(entry["count"] for entry in content["copies"].values()):
        text = (
            f"No image is listed twice, not even as a near-duplicate (at most {content['bits']} of 256 bits of a "
            "perceptual hash differ)."
        )
        yield Finding(CLEAR, text)


def _consequence(across: Iterable[Mapping[Run, Sides]]) -> str:
    tested = any("test" in sides for one in across for sides in one.values())
    return f"the model was partly {'tested' if tested else 'selected'} on what it was trained on"


def _are(found: Sequence[object] | Mapping[str, object]) -> str:
    return "is" if len(found) == 1 else "are"


def _have(found: Sequence[object]) -> str:
    return "has" if len(found) == 1 else "have"


def _where(across: Iterable[Mapping[Run, Sides]], runs: Runs) -> str:
    found = list(across)
    sides = sorted({pair for one in found for pair in one.values()}, key=lambda pair: ("test" not in pair, pair))
    named = "; ".join(" and ".join(pair) for pair in sides)
    folds = {run for one in found for run in one}
    return named + (f"; in {len(folds)} of {len(runs)} folds" if len(runs) > 1 else "")


def _examples(pairs: Sequence[Pair]) -> str:
    return ", ".join(f"{pair.first.identity} and {pair.second.identity}" for pair in pairs[:EXAMPLES])


def counted(found: Mapping[str, Mapping[Run, Sides]]) -> dict[str, Any]:
    """How many patients, radiographs or pairs are on two sides, how many of these in test, and in how many folds."""
    folds = {run for across in found.values() for run in across}
    tested = sum(any("test" in sides for sides in across.values()) for across in found.values())
    return {"count": len(found), "with_test": tested, "folds": len(folds), "examples": list(found)[:EXAMPLES]}


def copied(pairs: Sequence[Pair]) -> dict[str, int]:
    """The number of pairs, and of those whose label, patient or source differs."""
    columns = {"two_labels": "label", "two_patients": PATIENT, "two_sources": "source"}
    return {"count": len(pairs), **{key: sum(pair.differ(name) for pair in pairs) for key, name in columns.items()}}


def as_json(pair: Pair) -> dict[str, Any]:
    """One pair for JSON; `sides` and `where` are those of the first fold in which it is on two sides."""
    both = [pair.first.row, pair.second.row]
    run = next(iter(pair.across), None)
    return {
        "first": both[0]["image_id"],
        "second": both[1]["image_id"],
        "bits": pair.bits,
        "labels": [row.get("label", "") for row in both],
        "patients": [row.get(PATIENT, "") for row in both],
        "same_patient": pair.one_patient,
        "sources": [row.get("source", "") for row in both],
        "folds_across": len(pair.across),
        "sides": list(pair.across[run]) if run else [],
        "where": f"repeat {run[0]}, fold {run[1]}" if run else "",
    }


def sheets(content: Mapping[str, Any], pairs: Sequence[Pair], chance: bool) -> list[Sheet]:
    """The table of counts, and that of the pairs, where there are any."""
    across, copies, folds = content["across_subsets"], content["copies"], content["folds"]
    columns = ["unit", "in the set", "on two sides of a split", "of these in test", "folds"]
    columns += ["two labels", "two patients", "two sources"]

    def row(what: str, key: str, whole: str, found: Mapping[str, int] | None) -> list[str]:
        sides = across[key]
        split = (
            [str(sides["count"]), str(sides["with_test"]), f"{sides['folds']} of {folds}"] if folds else [ABSENT] * 3
        )
        rest = [str(found[f"two_{name}s"]) for name in ("label", "patient", "source")] if found else [ABSENT] * 3
        return [what, whole, *split, *rest]

    rows = [row("patients", "patients", str(content["patients"]), None)]
    if across["radiographs"]["count"]:
        rows.append(row("radiographs, as versions", "radiographs", str(content["images"]), None))
    rows += [row(f"pairs, {kind}", key, str(copies[key]["count"]), copies[key]) for kind, key in KEYS.items()]
    notes = [
        f"Near-duplicates: at most {content['bits']} of 256 bits of the difference hash differ. Of several images with "
        "the same pixels, each is paired with the first."
    ]
    if chance:
        notes.append(
            f"Pairs of different patients with {content['bits'] + 1} to {2 * content['bits']} differing bits are "
            "common here, so some pairs with fewer are expected without any copy."
        )
    made = [Sheet("On two sides of a split, and listed twice", columns, rows, notes)]
    if pairs:
        header = ["first", "second", "bits", "labels", "patients", "on two sides"]
        shown = [_pair_row(as_json(pair)) for pair in pairs[:SHOWN_PAIRS]]
        more = [f"{len(pairs) - SHOWN_PAIRS} more pairs are not shown."] if len(pairs) > SHOWN_PAIRS else []
        made.append(Sheet("Pairs of identical or near-duplicate images", header, shown, more))
    return made


def _pair_row(pair: Mapping[str, Any]) -> list[str]:
    bits = "0, same pixels" if pair["bits"] is None else str(pair["bits"])
    labels, patients = (
        " / ".join(dict.fromkeys(cell or ABSENT for cell in pair[key])) for key in ("labels", "patients")
    )
    sides = f"{' / '.join(pair['sides'])}, {pair['where']}" if pair["sides"] else "no"
    more = pair["folds_across"] - 1
    return [pair["first"], pair["second"], bits, labels, patients, sides + (f" and {more} more" if more > 0 else "")]


def examine(rows: Sequence[RowView], runs: Runs | None, *, bits: int = NEAR) -> Part:
    """Search patients, identical images and near-duplicates on two sides of a split, and in the whole set.

    Levels: `ALARM` where a patient, a radiograph or its copy is in two subsets of a fold. `WARNING` where
    near-duplicates are, but pairs just above the threshold are so common that these may be chance; and where copies
    have different labels, patients or sources. `NOTE` for other copies inside one subset. Processed versions of one
    radiograph count as that radiograph.

    `rows` have `sha256` and `dhash`, as `prepare` writes them. `runs` has the subset of each image id for every repeat
    and fold, as `Splits.runs`. Near-duplicates differ in at most `bits` of 256.
    """
    images, runs = radiographs(rows), runs or {}
    patients = by_patient(images)
    pairs = pairs_of(images, runs, bits)
    split = {
        "patients": split_groups(patients, runs),
        "radiographs": split_groups({image.identity: [image] for image in images if len(image.members) > 1}, runs),
    }
    crossing = {
        key: {f"{p.first.identity} {p.second.identity}": p.across for p in pairs if p.across and p.kind == kind}
        for kind, key in KEYS.items()
    }
    unrelated = [pair for pair in pairs if pair.kind == NEAR_DUPLICATE and not pair.one_patient]
    chance = likely_chance(images, unrelated, bits)
    content: dict[str, Any] = {
        "bits": bits,
        "folds": len(runs),
        "images": len(images),
        "patients": len(patients),
        "without_patient": sum(1 for image in images if not image.row.get(PATIENT)),
        "without_fingerprint": sum(1 for image in images if not image.row.get("sha256")),
        "chance_pairs_likely": chance,
        "across_subsets": {name: counted(found) for name, found in (split | crossing).items()},
        "copies": {key: copied([p for p in pairs if p.kind == kind]) for kind, key in KEYS.items()},
        "pairs": [as_json(pair) for pair in pairs[:MOST_PAIRS]],
    }
    findings = [
        *across(images, patients, split, pairs, chance, runs),
        *inside(pairs, patients, chance, bits),
        *clear(content),
        *unknown(content, runs),
    ]
    return Part(NAME, TITLE, content, findings, sheets(content, pairs, chance))


def draw_pairs(pairs: Sequence[Mapping[str, Any]], paths: Mapping[str, str], target: Path) -> int:
    """Draw pairs of the part's content side by side, the most serious first, for a reader to judge; return how many.

    `paths` has the file of each image id. Without pairs no PNG is written.
    """
    import numpy as np
    from PIL import Image

    from cxrtool.data.reading.images import read_image
    from cxrtool.errors import CxrtoolError
    from cxrtool.imaging.sheet import GAP, TILE, Picture, draw_sheet, grey_tile

    def tile(identity: str) -> Picture:
        square = np.full((TILE, TILE, 3), 235, np.uint8)
        try:
            small = grey_tile(read_image(paths[identity]).pixels)
        except (CxrtoolError, KeyError):
            return square
        top, left = (TILE - small.shape[0]) // 2, (TILE - small.shape[1]) // 2
        square[top : top + small.shape[0], left : left + small.shape[1]] = small
        return square

    shown = pairs[:DRAWN_PAIRS]
    if not shown:
        return 0
    # The gap between pairs is wider than that inside a pair, so that pairs are recognised.
    within, beside = (np.full((TILE, width, 3), 255, np.uint8) for width in (2, 3 * GAP))
    tiles = [(np.hstack([tile(pair["first"]), within, tile(pair["second"]), beside]), _caption(pair)) for pair in shown]
    some = f"the {len(shown)} most serious pairs" if len(shown) < len(pairs) else count_of(len(shown), "pair")
    title = f"Identical or near-duplicate images: {some}"
    check_inside(target)
    Image.fromarray(draw_sheet(tiles, title, 2)).save(target, "PNG")
    return len(shown)


def _caption(pair: Mapping[str, Any]) -> list[str]:
    distance = "same pixels" if pair["bits"] is None else f"{pair['bits']} of 256 bits differ"
    where = f"{' and '.join(pair['sides'])} of {pair['where']}" if pair["sides"] else "never on two sides of a split"
    one, other = (label or "(no label)" for label in pair["labels"])
    labels = f"both {one}" if one == other else f"{one} and {other}"
    patients = "one patient" if pair["same_patient"] else "two patients" if all(pair["patients"]) else "patient unknown"
    return [f"{pair['first']}  |  {pair['second']}", f"{distance}; {labels}; {patients}", where]
