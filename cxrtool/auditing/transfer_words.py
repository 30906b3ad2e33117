"""What became of simple classifiers elsewhere, in sentences and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxrtool.auditing.part import CLEAR, NOTE, UNKNOWN, WARNING, Finding
from cxrtool.auditing.probes_kinds import PROBES
from cxrtool.evaluation.tables import ABSENT, NAMES, Sheet, cell

CHANCE = 0.5
"""Area under the ROC curve of a coin."""

LEFT_OUT = (
    (WARNING, "falls to guessing on that source once it is left out"),
    (NOTE, "tells the classes of that source less well once it is left out"),
    (CLEAR, "tells the classes of that source about as well"),
    (NOTE, "is no better than guessing on that source either way, so nothing can be said"),
)
"""What may become of a source that is left out."""

Entry = Mapping[str, Any]


def both(classes: Sequence[str]) -> str:
    """Names of classes in a sentence.

    >>> both(["covid", "normal", "pneumonia"])
    'covid, normal and pneumonia'
    """
    return f"{', '.join(classes[:-1])} and {classes[-1]}"


def judge(entries: Sequence[Entry], classes: Sequence[str]) -> list[Finding]:
    """What holds elsewhere and what does not, a sentence each."""
    found = []
    for entry in entries:
        inside, outside = entry["inside"]["auc"], entry["outside"]["auc"]
        if inside["value"] is None or outside["value"] is None:
            continue
        home, away = entry["trained_on"], entry["tested_on"]
        told = (
            f"Trained on {home}, {PROBES[entry['seen']].alone} tells {both(classes)} apart with an AUC of "
            f"{cell(inside)} in {home} and {cell(outside)} in {away}"
        )
        if _end(inside, "low") <= CHANCE:
            text = f"in {home} itself that is no better than guessing, so nothing can be said of {away}."
            found.append(Finding(NOTE, f"{told}: {text}"))
        elif _end(outside, "low") <= CHANCE:
            how = "is worse than" if _end(outside, "high") < CHANCE else "cannot be told from"
            text = f"there it {how} guessing, so it learnt what is peculiar to {home}, not what the illness looks like."
            found.append(Finding(WARNING, f"{told}: {text}"))
        elif _end(outside, "high") < _end(inside, "low"):
            found.append(Finding(NOTE, f"{told}: less, but better than guessing."))
        else:
            found.append(Finding(CLEAR, f"{told}."))
    return found


def tabulate(entries: Sequence[Entry], classes: Sequence[str], notes: Sequence[str]) -> Sheet:
    """Both ways, inside above outside."""
    columns = ["trained on", "tested on", "seen", "images", "AUC", "balanced accuracy"]
    columns += [f"sensitivity of {name}" for name in classes] + [NAMES["ece"], "slope"]
    rows = []
    for entry in entries:
        for side, place in (("inside", "trained_on"), ("outside", "tested_on")):
            figures = entry[side]
            where = f"{entry[place]}{' (cross-validated)' if side == 'inside' else ''}"
            rows.append(
                [
                    *(entry["trained_on"], where, PROBES[entry["seen"]].title, str(figures["images"])),
                    *(cell(figures[name]) for name in ("auc", "balanced_accuracy")),
                    *(cell(figures["sensitivity"][name]) for name in classes),
                    cell(figures["ece"]),
                    _slopes(figures["slope"], classes),
                ]
            )
    told = [
        "Decisions are made at the threshold that the training images gave, all classes weighing the same; of two "
        "classes the specificity of the one is the sensitivity of the other.",
        "Probabilities are those of classes as frequent as in training; a slope below 1: they are too extreme.",
        *notes,
    ]
    return Sheet("Trained in one place, tested in both", columns, rows, told)


def judge_left_out(entries: Sequence[Entry]) -> list[Finding]:
    """Whether what is learnt from the other sources holds in each: one sentence for all sources of a kind."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        if entry["reason"] is not None:
            continue
        inside, outside = entry["trained_with_it"]["auc"], entry["trained_without_it"]["auc"]
        if inside["value"] is None or outside["value"] is None:
            continue
        told = f"{entry['source']} ({both(entry['classes'])}) AUC {cell(inside)} with it, {cell(outside)} without"
        kinds.setdefault(_kind_left_out(inside, outside), []).append(told)
    found = [
        Finding(
            level, f"A thumbnail's classifier, with a source among its training images and without it, {text}: {told}."
        )
        for (level, text), told in ((kind, "; ".join(kinds[kind])) for kind in LEFT_OUT if kind in kinds)
    ]
    reasons = [entry["reason"] for entry in entries if entry["reason"] is not None]
    if reasons:
        found.append(Finding(UNKNOWN, f"Sources that could not be left out: {'; '.join(reasons)}."))
    return found


def _kind_left_out(inside: Mapping[str, Any], outside: Mapping[str, Any]) -> tuple[str, str]:
    fallen, less, same, nothing = LEFT_OUT
    if _end(inside, "low") <= CHANCE:
        return nothing
    if _end(outside, "low") <= CHANCE:
        return fallen
    return less if _end(outside, "high") < _end(inside, "low") else same


def tabulate_left_out(entries: Sequence[Entry], fewest: int) -> Sheet:
    """Each source: trained with it and without it."""
    columns = ["source", "images", "labels", "AUC with it", "AUC without it"]
    columns += ["balanced accuracy with it", "balanced accuracy without it"]
    rows = []
    for entry in entries:
        labels = ", ".join(f"{name} {count}" for name, count in entry["labels"].items())
        cells = [ABSENT] * 4
        if entry["reason"] is None:
            sides = entry["trained_with_it"], entry["trained_without_it"]
            cells = [cell(side[name]) for name in ("auc", "balanced_accuracy") for side in sides]
        rows.append([entry["source"], str(entry["images"]), labels, *cells])
    notes = [
        "Tested on the images of the source: cross-validated by patient over all sources, then trained on the others.",
        f"A label counts that has {fewest} patients in the source and among the others.",
        *(f"{entry['reason'][0].upper()}{entry['reason'][1:]}." for entry in entries if entry["reason"]),
    ]
    return Sheet("A thumbnail's classifier, each source left out", columns, rows, notes)


def _end(measure: Mapping[str, Any], end: str) -> float:
    return float(measure["value"] if measure[end] is None else measure[end])


def _slopes(slopes: Mapping[str, Any], classes: Sequence[str]) -> str:
    if len(classes) == 2:
        return cell(slopes[classes[0]])
    return ", ".join(cell({**slopes[name], "low": None}) for name in classes)
