"""Leakage: what stands on two sides of a split, and what stands twice in a set at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part
from cxrtool.data.splitting.grouping import PATIENT, normalised
from cxrtool.data.splitting.splits import SUBSETS, Run, known_as, valid_in
from cxrtool.data.tables.duplicates import find_duplicates
from cxrtool.data.tables.manifest import Row
from cxrtool.evaluation.tables import ABSENT, Sheet, count_of
from cxrtool.imaging.neighbours import NEAR, near_duplicates

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


EXAMPLES = 3

MAY_BE_CHANCE = "in this set different patients often look nearly as alike, so these need not be copies"


def across(
    images: Sequence[Radiograph],
    patients: Mapping[str, Sequence[Radiograph]],
    split: Mapping[str, Mapping[str, Mapping[Run, Sides]]],
    pairs: Sequence[Pair],
    chance: bool,
    runs: Runs,
) -> list[Finding]:
    """What stands on two sides of a split, a sentence for patients, versions, equal and similar pictures."""
    found = []
    if leaking := split["patients"]:
        examples = [patients[name][0].row[PATIENT] for name in list(leaking)[:EXAMPLES]]
        text = (
            f"{count_of(len(leaking), 'patient')} of {len(patients)} {_stand(leaking)} in two subsets of a fold "
            f"({_where(leaking.values(), runs)}), such as {', '.join(examples)}: {_consequence(leaking.values())}."
        )
        found.append(Finding(ALARM, text))
    if leaking := split["radiographs"]:
        text = (
            f"{count_of(len(leaking), 'radiograph')} of {len(images)} {_stand(leaking)} in two subsets of a fold as "
            f"different versions ({_where(leaking.values(), runs)}), such as {', '.join(list(leaking)[:EXAMPLES])}."
        )
        found.append(Finding(ALARM, text))
    crossing = [pair for pair in pairs if pair.across]
    equal = [pair for pair in crossing if pair.kind == PIXELS]
    doubtful = [pair for pair in crossing if is_doubtful(pair, chance)]
    alike = [pair for pair in crossing if pair not in equal and pair not in doubtful]
    for some, what in ((equal, "with the same pixels"), (alike, "that look alike"), (doubtful, "that look alike")):
        if not some:
            continue
        across = [pair.across for pair in some]
        text = (
            f"{count_of(len(some), 'pair')} of images {what} {_stand(some)} in two subsets of a fold "
            f"({_where(across, runs)}), such as {_examples(some)}"
        )
        if some is doubtful:
            found.append(Finding(WARNING, f"{text}; {MAY_BE_CHANCE}: look at them."))
        else:
            found.append(Finding(ALARM, f"{text}: {_consequence(across)}."))
    return found


def is_doubtful(pair: Pair, chance: bool) -> bool:
    """Whether a pair may only look alike, in a set where chance makes such pairs."""
    return chance and pair.kind == ALIKE and not pair.one_patient


def inside(
    pairs: Sequence[Pair], patients: Mapping[str, Sequence[Radiograph]], chance: bool, bits: int
) -> list[Finding]:
    """What stands twice wherever it is, and whose label, patient or source differs."""
    found = []
    sure = [pair for pair in pairs if not is_doubtful(pair, chance)]
    doubtful = [pair for pair in pairs if pair not in sure and not pair.across]
    for column, words in (("label", "labels"), (PATIENT, "patients"), ("source", "sources")):
        differing = [pair for pair in sure if pair.differ(column)]
        if differing:
            text = (
                f"{count_of(len(differing), 'pair')} of images that are or look the same "
                f"{'has' if len(differing) == 1 else 'have'} different {words}, such as {_examples(differing)}."
            )
            found.append(Finding(WARNING, text))
    rest = [pair for pair in sure if not pair.across and not any(pair.differ(c) for c in ("label", PATIENT, "source"))]
    if rest:
        text = (
            f"{count_of(len(rest), 'pair')} of images that are or look the same "
            f"{'counts' if len(rest) == 1 else 'count'} twice, such as {_examples(rest)}."
        )
        found.append(Finding(NOTE, text))
    if doubtful:
        text = (
            f"{count_of(len(doubtful), 'pair')} of images look alike, differing in at most {bits} of 256 bits, "
            f"such as {_examples(doubtful)}; {MAY_BE_CHANCE}."
        )
        found.append(Finding(NOTE, text))
    labels = [name for name, members in patients.items() if len({m.row.get("label", "") for m in members} - {""}) > 1]
    sources = [name for name, members in patients.items() if len({m.row.get("source", "") for m in members} - {""}) > 1]
    if sources:
        text = f"{count_of(len(sources), 'patient')} {'has' if len(sources) == 1 else 'have'} images from two sources."
        found.append(Finding(NOTE, text))
    if labels:
        text = f"{count_of(len(labels), 'patient')} {'has' if len(labels) == 1 else 'have'} images of two labels."
        found.append(Finding(NOTE, text))
    return found


def unknown(content: Mapping[str, Any], runs: Runs) -> list[Finding]:
    """What could not be looked for."""
    found = []
    if not runs:
        text = "No split was given: whether a patient or a picture stands on two sides could not be looked at."
        found.append(Finding(UNKNOWN, text))
    if nameless := content["without_patient"]:
        text = f"{nameless} of {content['images']} images name no patient: whether theirs are elsewhere is not known."
        found.append(Finding(UNKNOWN, text))
    if bare := content["without_fingerprint"]:
        text = (
            f"{bare} of {content['images']} images have no fingerprint of their pixels: whether they stand twice is "
            "not known. `cxrtool prepare` computes it."
        )
        found.append(Finding(UNKNOWN, text))
    return found


def clear(content: Mapping[str, Any]) -> list[Finding]:
    """What was looked for and not found."""
    found = []
    across, folds, known = (
        content["across_subsets"],
        content["folds"],
        content["without_fingerprint"] < content["images"],
    )
    sides = [name for name, there in (("patient", content["patients"]), ("picture", known)) if there]
    if folds and sides and not any(entry["count"] for entry in across.values()):
        where = "the split" if folds == 1 else f"any of the {folds} folds"
        found.append(Finding(CLEAR, f"No {' and no '.join(sides)} is in two subsets of {where}."))
    if known and not any(entry["count"] for entry in content["copies"].values()):
        text = f"No picture stands twice, not even nearly (up to {content['bits']} of 256 bits of a perceptual hash)."
        found.append(Finding(CLEAR, text))
    return found


def _consequence(across: Iterable[Mapping[Run, Sides]]) -> str:
    tested = any("test" in sides for one in across for sides in one.values())
    return f"what {'is tested' if tested else 'the choice of a model hangs on'} was partly learned"


def _stand(found: Sequence[object] | Mapping[str, object]) -> str:
    return "stands" if len(found) == 1 else "stand"


def _where(across: Iterable[Mapping[Run, Sides]], runs: Runs) -> str:
    found = list(across)
    sides = sorted({pair for one in found for pair in one.values()}, key=lambda pair: ("test" not in pair, pair))
    named = "; ".join(" and ".join(pair) for pair in sides)
    folds = {run for one in found for run in one}
    return named + (f"; in {len(folds)} of {len(runs)} folds" if len(runs) > 1 else "")


def _examples(pairs: Sequence[Pair]) -> str:
    return ", ".join(f"{pair.first.identity} and {pair.second.identity}" for pair in pairs[:EXAMPLES])


SHOWN_PAIRS = 30


def key_of(kind: str) -> str:
    """The name of a kind of pairs in `audit.json`."""
    return kind.replace(" ", "_")


def name_of(pair: Pair) -> str:
    """What a pair is called there."""
    return f"{pair.first.identity} {pair.second.identity}"


def counted(found: Mapping[str, Mapping[Run, Sides]]) -> dict[str, Any]:
    """How many patients, radiographs or pairs stand on two sides, how many in a test part, in how many folds."""
    folds = {run for across in found.values() for run in across}
    tested = sum(1 for across in found.values() if any("test" in sides for sides in across.values()))
    return {"count": len(found), "with_test": tested, "folds": len(folds), "examples": list(found)[:EXAMPLES]}


def copied(pairs: Sequence[Pair]) -> dict[str, int]:
    """How many pairs there are, and of how many the label, the patient or the source differs."""
    differing = {f"two_{name}s": sum(pair.differ(column) for pair in pairs)
                 for name, column in (("label", "label"), ("patient", PATIENT), ("source", "source"))}  # fmt: skip
    return {"count": len(pairs), **differing}


def as_json(pair: Pair) -> dict[str, Any]:
    """One pair as JSON takes it; `sides` and `where` are of the first fold in which it stands on two sides."""
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
    """The table of what was counted, and that of the pairs, where there are any.

    Args:
        content: Of the part.
        pairs: All of them, the gravest first.
        chance: Whether pictures that look alike may be no copies.
    """
    across, copies, folds = content["across_subsets"], content["copies"], content["folds"]
    columns = ["what", "in the set", "on two sides of a split", "of these in test", "folds"]
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
    kinds = [(kind, key_of(kind)) for kind in (PIXELS, ALIKE)]
    rows += [row(f"pairs, {kind}", key, str(copies[key]["count"]), copies[key]) for kind, key in kinds]
    notes = [
        f"Pictures look alike where at most {content['bits']} of 256 bits of their difference hash differ; of many "
        "with the same pixels each is paired with the first."
    ]
    if chance:
        notes.append(
            f"Pairs of different patients with {content['bits'] + 1} to {2 * content['bits']} differing bits are "
            "common here: some below are to be expected without any copy."
        )
    made = [Sheet("On two sides, and twice at all", columns, rows, notes)]
    if pairs:
        header = ["first", "second", "bits", "labels", "patients", "on two sides"]
        shown = [_pair_row(as_json(pair)) for pair in pairs[:SHOWN_PAIRS]]
        more = [f"{len(pairs) - SHOWN_PAIRS} more pairs are not shown."] if len(pairs) > SHOWN_PAIRS else []
        made.append(Sheet("Pairs of images that are or look the same", header, shown, more))
    return made


def _pair_row(pair: Mapping[str, Any]) -> list[str]:
    bits = "0, same pixels" if pair["bits"] is None else str(pair["bits"])
    labels, patients = (
        " / ".join(dict.fromkeys(cell or ABSENT for cell in pair[key])) for key in ("labels", "patients")
    )
    sides = f"{' / '.join(pair['sides'])}, {pair['where']}" if pair["sides"] else "no"
    more = pair["folds_across"] - 1
    return [pair["first"], pair["second"], bits, labels, patients, sides + (f" and {more} more" if more > 0 else "")]


NAME, TITLE = "leakage", "The same patient or the same picture twice"

MOST_PAIRS = 200
"""Pairs that `audit.json` has; their number is told of all."""

DRAWN_PAIRS = 12


def examine(rows: Sequence[Row], runs: Runs | None, *, bits: int = NEAR) -> Part:
    """Look for patients, identical pictures and near-duplicates on two sides of a split, and in the set at all.

    Levels: `ALARM` where a patient, a radiograph or its copy is in two subsets of a fold. `WARNING` where pictures
    that only look alike are, but pairs just above the threshold are so common that these may be chance; and where
    copies have different labels, patients or sources. `NOTE` for other copies inside one subset. Processed versions of
    one radiograph count as that radiograph.

    Args:
        rows: Of a manifest, with `sha256` and `dhash`, as `prepare` writes them.
        runs: The subset of each image id for every repeat and fold, as `Splits.runs`; None where there are no splits.
        bits: The most differing bits, of 256, of pictures that count as looking alike.
    """
    images, runs = radiographs(rows), runs or {}
    patients = by_patient(images)
    pairs = pairs_of(images, runs, bits)
    split = {
        "patients": split_groups(patients, runs),
        "radiographs": split_groups({image.identity: [image] for image in images if len(image.members) > 1}, runs),
    }
    strangers = [pair for pair in pairs if pair.kind == ALIKE and not pair.one_patient]
    chance = likely_chance(images, strangers, bits)
    content: dict[str, Any] = {
        "bits": bits,
        "folds": len(runs),
        "images": len(images),
        "patients": len(patients),
        "without_patient": sum(1 for image in images if not image.row.get(PATIENT)),
        "without_fingerprint": sum(1 for image in images if not image.row.get("sha256")),
        "chance_pairs_likely": chance,
        "across_subsets": {
            **{name: counted(found) for name, found in split.items()},
            **{
                key_of(kind): counted({name_of(p): p.across for p in pairs if p.across and p.kind == kind})
                for kind in (PIXELS, ALIKE)
            },
        },
        "copies": {key_of(kind): copied([p for p in pairs if p.kind == kind]) for kind in (PIXELS, ALIKE)},
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
    """Draw pairs side by side, the gravest first, so that a reader sees whether they are copies.

    Args:
        pairs: `content["pairs"]` of the part.
        paths: The picture of each image id.
        target: The PNG to write; none is written where there is nothing to show.

    Returns:
        How many pairs it shows.
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
    # Wider beside a pair than within, so that one sees what belongs together.
    within, beside = (np.full((TILE, width, 3), 255, np.uint8) for width in (2, 3 * GAP))
    tiles = [(np.hstack([tile(pair["first"]), within, tile(pair["second"]), beside]), _caption(pair)) for pair in shown]
    title = f"Images that are or look the same: the gravest {len(shown)} pairs"
    title = title if len(shown) < len(pairs) else f"Images that are or look the same: {count_of(len(shown), 'pair')}"
    Image.fromarray(draw_sheet(tiles, title, 2)).save(target, "PNG")
    return len(shown)


def _caption(pair: Mapping[str, Any]) -> list[str]:
    apart = "same pixels" if pair["bits"] is None else f"{pair['bits']} of 256 bits differ"
    where = f"{' and '.join(pair['sides'])} of {pair['where']}" if pair["sides"] else "never on two sides of a split"
    one, other = (label or "(no label)" for label in pair["labels"])
    labels = f"both {one}" if one == other else f"{one} and {other}"
    patients = "one patient" if pair["same_patient"] else "two patients" if all(pair["patients"]) else "patient unknown"
    return [f"{pair['first']}  |  {pair['second']}", f"{apart}; {labels}; {patients}", where]
