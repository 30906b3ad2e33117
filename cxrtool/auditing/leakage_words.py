"""What was found on two sides of a split, or twice at all, in words: each sentence stands for itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cxrtool.auditing.leakage_copies import ALIKE, PIXELS, Pair, Radiograph, Runs, Sides
from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Finding
from cxrtool.data.grouping import PATIENT
from cxrtool.data.splits import Run
from cxrtool.evaluation.tables import count_of

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
