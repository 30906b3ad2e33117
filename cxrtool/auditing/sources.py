"""Can the source of an image be predicted, among images of one label?

If it can, a classifier can learn the source instead of the disease as soon as the two are associated. Masking what is
outside the lungs does not help as long as the lungs alone still show the source (Teixeira et al. 2021, "Impact of Lung
Segmentation on the Diagnosis and Explanation of COVID-19 in Chest X-ray Images"). Within one label the disease itself
cannot explain the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cxrtool.auditing import alarm, association
from cxrtool.auditing.alarm import PERMUTATIONS, NoProgress, Progress
from cxrtool.auditing.association import CERTAIN, VALUE, associate, per_unit, units_of
from cxrtool.auditing.catalogue import Probe, for_source
from cxrtool.auditing.factors import CATEGORY, SOURCE, Factor
from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part, capital
from cxrtool.auditing.views import ImageSet
from cxrtool.data.tables.views import RowView, cells_of
from cxrtool.evaluation.resampling.intervals import DIGITS, RESAMPLES
from cxrtool.evaluation.sheet import ABSENT, Sheet, cell, count_of

NAME, TITLE = "sources", "Predicting the source within one label"

FEWEST = 10
"""Patients of a source within a label, below which the source is excluded."""

FOLDS = 5
ASSOCIATED = "Source and label are associated in these images, so a model can learn the source instead of the disease."
INDEPENDENT = (
    "In these images the label is not associated with the source, so the source is of no use to a model. Where they "
    "are associated, a model can learn it."
)


def examine(
    stages: Mapping[str, ImageSet],
    *,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    resamples: int = RESAMPLES,
    report: Progress | None = None,
) -> Part:
    """Predict the source, label by label, from the images at each stage of a preprocessing.

    `stages` maps the name of a stage, such as `prepared` or `segmented`, to its images. Sources are permuted among the
    patients of a label.
    """
    questions = [
        (stage, label, probe)
        for stage, pictures in stages.items()
        for label in pictures.classes
        for probe in for_source()
        if pictures.lungs is not None or not probe.needs_lungs
    ]
    entries = []
    with (report or NoProgress()).progress("predicting the source", len(questions)) as advance:
        for stage, label, probe in questions:
            entry = {"stage": stage, "label": label, "seen": probe.source}
            entries.append(entry | _predict_source(stages[stage], label, probe, seed, permutations, resamples))
            advance(1)
    associated = any(associated_with_label(pictures.rows, seed) for pictures in stages.values())
    content = {"answers": entries, "source_goes_with_label": associated}
    return Part(
        NAME, TITLE, content, list(_findings(entries, associated=associated)), [_tabulate(entries, permutations)]
    )


def associated_with_label(rows: Sequence[RowView], seed: int = 0) -> bool:
    """Whether the label is associated with the source, more than by chance and not only weakly."""
    units = units_of(rows)
    values = per_unit(Factor(SOURCE, CATEGORY, tuple(cells_of(units.rows, SOURCE))), units)
    if not any(values):
        return False
    answer = associate(values, CATEGORY, VALUE, units.labels, len(units.classes), seed=seed)
    return answer.p is not None and answer.p < CERTAIN and association.level_of(answer) in (ALARM, WARNING, NOTE)


def _predict_source(
    pictures: ImageSet, label: str, probe: Probe, seed: int, permutations: int, resamples: int
) -> dict[str, Any]:
    own = pictures.where(np.array(pictures.labels) == label)
    patients = own.patients
    counts = {
        source: len({patients[i] for i, name in enumerate(own.sources) if name == source})
        for source in sorted(set(own.sources) - {""})
    }
    classes = [source for source, count in counts.items() if count >= FEWEST]
    small = [source for source, count in counts.items() if count < FEWEST]
    known = {"patients": counts, "without": small}
    if len(classes) < 2:
        sizes = ", ".join(f"{source} {count}" for source, count in counts.items())
        reason = f"{'only one source' if classes else 'no source'} has {FEWEST} patients of {label} or more ({sizes})"
        if not counts:
            reason = f"no image of {label} has a source"
        elif len(counts) == 1:
            reason = f"all images of {label} come from one source, {next(iter(counts))}"
        return {**known, "reason": reason}
    # The source replaces the label; everything else is as for any other probe.
    rows = tuple({**row, "label": row.get("source", "")} for row in own.rows)
    own = replace(own, rows=rows).where(np.isin(own.sources, classes))
    view = probe.see(own)
    if view.features is None:
        return {**known, "reason": view.reason}
    patients = own.patients
    runs = alarm.divided(own, FOLDS, seed)
    labellings = alarm.permute_labels(own.numbers(classes), patients, permutations, seed)
    trial = alarm.run_probe(view.features, probe.kernel, labellings, patients, runs, len(classes))
    figures = alarm.figures_of(alarm.scored(own.rows, runs, classes, trial), seed, resamples)
    limit = alarm.level_of([trial])
    return {
        **known,
        "reason": None,
        "sources": classes,
        "guessing": round(1 / len(classes), DIGITS),
        **figures,
        "limit": round(limit, DIGITS),
        "p": round(trial.p, DIGITS),
        "told": bool(trial.reached[0] > limit),
    }


def _findings(entries: list[dict[str, Any]], *, associated: bool) -> Iterator[Finding]:
    answered = [entry for entry in entries if entry["reason"] is None]
    for stage, seen in dict.fromkeys((entry["stage"], entry["seen"]) for entry in answered):
        here = [entry for entry in answered if (entry["stage"], entry["seen"]) == (stage, seen)]
        where = f"the {seen} ({stage})"
        for told in (True, False):
            some = [entry for entry in here if entry["told"] == told]
            if not some:
                continue
            reached = ", ".join(
                f"{entry['label']} {entry['balanced_accuracy']['value']:.2f}, guessing {entry['guessing']:.2f}, chance "
                f"below {entry['limit']:.2f}"
                for entry in some
            )
            if told:
                text = (
                    f"A thumbnail of {where} predicts the source of an image, among images of one label (balanced "
                    f"accuracy: {reached}). {ASSOCIATED if associated else INDEPENDENT}"
                )
                yield Finding(WARNING if associated else NOTE, text)
            else:
                text = (
                    f"A thumbnail of {where} does not predict the source better than chance, among images of one label "
                    f"(balanced accuracy: {reached})."
                )
                yield Finding(CLEAR, text)
    reasons = dict.fromkeys(entry["reason"] for entry in entries if entry["reason"] is not None)
    if reasons:
        text = f"Whether the source can be predicted within one label is partly unknown: {'; '.join(reasons)}."
        yield Finding(UNKNOWN, text)


def _tabulate(entries: list[dict[str, Any]], permutations: int) -> Sheet:
    rows = []
    for entry in entries:
        answered = entry["reason"] is None
        figures = [cell(entry[name]) for name in ("balanced_accuracy", "auc")] if answered else [ABSENT] * 2
        limits = [f"{entry[name]:.2f}" for name in ("guessing", "limit")] if answered else [ABSENT] * 2
        verdict = ("yes" if entry["told"] else "no") if answered else "unknown"
        sources = ", ".join(f"{name} {count}" for name, count in entry["patients"].items()) or ABSENT
        rows.append([entry["stage"], entry["label"], entry["seen"], sources, *figures, *limits, verdict])
    columns = ["stage", "label", "input", "patients by source", "balanced accuracy", "AUC", "guessing"]
    columns += ["chance below", "predicted"]
    notes = [
        f"Thumbnails of 64 x 64 and a linear classifier, {FOLDS} folds by patient. Chance: the level below which 99 % "
        f"of {permutations} permutations of the sources among the patients of a label stay.",
        *dict.fromkeys(f"{capital(entry['reason'])}." for entry in entries if entry["reason"]),
    ]
    excluded = sorted({source for entry in entries if entry["reason"] is None for source in entry["without"]})
    if excluded:
        notes.append(f"Excluded, with fewer than {count_of(FEWEST, 'patient')} of a label: {', '.join(excluded)}.")
    return Sheet(TITLE, columns, rows, notes)
