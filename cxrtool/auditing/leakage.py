"""Leakage: what stands on two sides of a split, and what stands twice in a set at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrtool.auditing import leakage_tables as tables
from cxrtool.auditing import leakage_words as words
from cxrtool.auditing.leakage_copies import (
    ALIKE,
    PIXELS,
    Runs,
    by_patient,
    likely_chance,
    pairs_of,
    radiographs,
    split_groups,
)
from cxrtool.auditing.part import Part
from cxrtool.data.grouping import PATIENT
from cxrtool.data.manifest import Row
from cxrtool.evaluation.tables import count_of
from cxrtool.imaging.neighbours import NEAR

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
            **{name: tables.counted(found) for name, found in split.items()},
            **{
                tables.key_of(kind): tables.counted(
                    {tables.name_of(p): p.across for p in pairs if p.across and p.kind == kind}
                )
                for kind in (PIXELS, ALIKE)
            },
        },
        "copies": {
            tables.key_of(kind): tables.copied([p for p in pairs if p.kind == kind]) for kind in (PIXELS, ALIKE)
        },
        "pairs": [tables.as_json(pair) for pair in pairs[:MOST_PAIRS]],
    }
    findings = [
        *words.across(images, patients, split, pairs, chance, runs),
        *words.inside(pairs, patients, chance, bits),
        *words.clear(content),
        *words.unknown(content, runs),
    ]
    return Part(NAME, TITLE, content, findings, tables.sheets(content, pairs, chance))


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

    from cxrtool.data.images import read_image
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
