"""What was found on two sides of a split, or twice at all, as figures and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxrtool.auditing.leakage_copies import ALIKE, PIXELS, Pair, Sides
from cxrtool.auditing.leakage_words import EXAMPLES
from cxrtool.data.grouping import PATIENT
from cxrtool.data.splits import Run
from cxrtool.evaluation.tables import ABSENT, Sheet

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
