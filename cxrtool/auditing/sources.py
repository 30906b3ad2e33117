"""Can the source of an image be told from it, among images of one label?

Where it can, a classifier can learn the source in place of the disease as soon as the two go together; and no masking
of what lies outside the lungs helps as long as it can still be told from the lungs alone (Teixeira et al. 2021, "Impact
of Lung Segmentation on the Diagnosis and Explanation of COVID-19 in Chest X-ray Images"). Looking at one label at a
time, the disease itself gives nothing away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cxrtool.auditing import alarm
from cxrtool.auditing.alarm import PERMUTATIONS
from cxrtool.auditing.answers import divided, figures_of
from cxrtool.auditing.association import PERMUTATIONS as PERMUTED_LABELS
from cxrtool.auditing.catalogue import Probe, of_source
from cxrtool.auditing.factors import CATEGORY, SOURCE, Factor
from cxrtool.auditing.inputs import Pictures, Progress, Unseen
from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part
from cxrtool.auditing.questions import CERTAIN, VALUE, associate, gravity, per_unit, units_of
from cxrtool.data.tables.manifest import Row
from cxrtool.evaluation.resampling.intervals import DIGITS, RESAMPLES
from cxrtool.evaluation.tables import ABSENT, Sheet, cell, count_of

NAME, TITLE = "sources", "Telling the source within one label"

FEWEST = 10
"""Patients of a source within a label, below which nothing is asked about it."""

FOLDS = 5
TIED = "Source and label go together in these images, so a model can learn the source in place of the disease."
UNTIED = (
    "In these images the label does not hang on the source, so it is of no use to a model; where the two go together, "
    "a model can learn it."
)


def examine(
    stages: Mapping[str, Pictures],
    *,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    resamples: int = RESAMPLES,
    report: Progress | None = None,
) -> Part:
    """Ask for the source, label by label, from the images as they are at each stage of a preprocessing.

    Args:
        stages: Name of a stage, as `prepared` or `segmented`, to the pictures there.
        seed: Of folds, labellings and resamples.
        permutations: Dealings of the sources among the patients of a label.
        resamples: Of patients.
        report: Shows how far it is.
    """
    questions = [
        (stage, label, probe)
        for stage, pictures in stages.items()
        for label in pictures.classes
        for probe in of_source()
        if pictures.lungs is not None or not probe.needs_lungs
    ]
    entries = []
    with (report or Unseen()).progress("asking for the source", len(questions)) as advance:
        for stage, label, probe in questions:
            told = {"stage": stage, "label": label, "seen": probe.source}
            entries.append(told | _ask(stages[stage], label, probe, seed, permutations, resamples))
            advance(1)
    tied = any(goes_with_label(pictures.rows, seed) for pictures in stages.values())
    content = {"answers": entries, "source_goes_with_label": tied}
    return Part(NAME, TITLE, content, _findings(entries, tied=tied), [_tabulate(entries, permutations)])


def goes_with_label(rows: Sequence[Row], seed: int = 0) -> bool:
    """Whether the label hangs on the source, more than by chance and at all strongly: only then it helps to know it."""
    units = units_of(rows)
    values = per_unit(Factor(SOURCE, CATEGORY, tuple(row.get(SOURCE, "") for row in units.rows)), units)
    if not any(values):
        return False
    answer = associate(
        values, CATEGORY, VALUE, units.labels, len(units.classes), seed=seed, permutations=PERMUTED_LABELS
    )
    return answer.p is not None and answer.p < CERTAIN and gravity(answer) in (ALARM, WARNING, NOTE)


def _ask(pictures: Pictures, label: str, probe: Probe, seed: int, permutations: int, resamples: int) -> dict[str, Any]:
    own = pictures.where(np.array([name == label for name in pictures.labels], np.bool_))
    patients = own.patients
    counts = {
        source: len({patients[i] for i, name in enumerate(own.sources) if name == source})
        for source in sorted(set(own.sources) - {""})
    }
    asked = [source for source, count in counts.items() if count >= FEWEST]
    small = [source for source, count in counts.items() if count < FEWEST]
    known = {"patients": counts, "without": small}
    if len(asked) < 2:
        return {**known, "reason": _why_not(label, counts, asked)}
    # The source takes the place of the label, so that everything else is as with any other question.
    rows = tuple({**row, "label": row.get("source", "")} for row in own.rows)
    own = replace(own, rows=rows).where(np.array([name in asked for name in own.sources], np.bool_))
    view = probe.see(own)
    if view.features is None:
        return {**known, "reason": view.reason}
    patients = own.patients
    runs = divided(own, FOLDS, seed)
    labellings = alarm.deal(own.numbers(asked), patients, permutations, seed)
    trial = alarm.attempt(view.features, probe.kernel, labellings, patients, runs, len(asked))
    figures = figures_of(own.rows, runs, asked, trial, seed, resamples)
    limit = alarm.level_of([trial])
    return {
        **known,
        "reason": None,
        "sources": asked,
        "guessing": round(1 / len(asked), DIGITS),
        **figures,
        "limit": round(limit, DIGITS),
        "p": round(trial.p, DIGITS),
        "told": bool(trial.reached[0] > limit),
    }


def _why_not(label: str, counts: Mapping[str, int], asked: list[str]) -> str:
    if not counts:
        return f"the source of no image of {label} is known"
    if len(counts) == 1:
        return f"all images of {label} come from one source, {next(iter(counts))}"
    least = ", ".join(f"{source} {count}" for source, count in counts.items())
    return f"{'only one source' if asked else 'no source'} has {FEWEST} patients of {label} or more ({least})"


def _findings(entries: list[dict[str, Any]], *, tied: bool) -> list[Finding]:
    found = []
    answered = [entry for entry in entries if entry["reason"] is None]
    for stage, seen in dict.fromkeys((entry["stage"], entry["seen"]) for entry in answered):
        here = [entry for entry in answered if (entry["stage"], entry["seen"]) == (stage, seen)]
        told = [entry for entry in here if entry["told"]]
        where = f"the {seen} ({stage})"
        for level, some in ((WARNING if tied else NOTE, told), (CLEAR, [entry for entry in here if not entry["told"]])):
            if not some:
                continue
            reached = ", ".join(
                f"{entry['label']} {entry['balanced_accuracy']['value']:.2f}, guessing {entry['guessing']:.2f}, chance "
                f"below {entry['limit']:.2f}"
                for entry in some
            )
            text = (
                f"A thumbnail of {where} tells from which source an image is, among images of one and the same label "
                f"(balanced accuracy: {reached}). {TIED if tied else UNTIED}"
                if level != CLEAR
                else f"From a thumbnail of {where} the source cannot be told better than by chance, among images of "
                f"one label (balanced accuracy: {reached})."
            )
            found.append(Finding(level, text))
    reasons = dict.fromkeys(entry["reason"] for entry in entries if entry["reason"] is not None)
    if reasons:
        text = f"Whether the source can be told within one label is not known everywhere: {'; '.join(reasons)}."
        found.append(Finding(UNKNOWN, text))
    return found


def _tabulate(entries: list[dict[str, Any]], permutations: int) -> Sheet:
    rows = []
    for entry in entries:
        answered = entry["reason"] is None
        figures = [cell(entry[name]) for name in ("balanced_accuracy", "auc")] if answered else [ABSENT] * 2
        limits = [f"{entry[name]:.2f}" for name in ("guessing", "limit")] if answered else [ABSENT] * 2
        verdict = ("yes" if entry["told"] else "no") if answered else "unknown"
        sources = ", ".join(f"{name} {count}" for name, count in entry["patients"].items()) or ABSENT
        rows.append([entry["stage"], entry["label"], entry["seen"], sources, *figures, *limits, verdict])
    columns = [
        "stage",
        "label",
        "seen",
        "patients by source",
        "balanced accuracy",
        "AUC",
        "guessing",
        "chance below",
        "told",
    ]
    notes = [
        f"Thumbnails of 64 x 64 and a linear classifier, {FOLDS} folds by patient. Chance: what {permutations} dealings"
        " of the sources among the patients of a label stay below in 99 %.",
        *dict.fromkeys(f"{entry['reason'][0].upper()}{entry['reason'][1:]}." for entry in entries if entry["reason"]),
    ]
    left = sorted({source for entry in entries if entry["reason"] is None for source in entry["without"]})
    if left:
        notes.append(f"Left out, with fewer than {count_of(FEWEST, 'patient')} of a label: {', '.join(left)}.")
    return Sheet(TITLE, columns, rows, notes)
