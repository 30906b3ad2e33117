"""The first screen of a report: what was tested, on whom, how good it was, and how far to trust it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from cxrtool.commands.report.results import main_figures
from cxrtool.commands.report.study import Study
from cxrtool.data.splitting.grouping import group_images
from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.people import sex_of, years
from cxrtool.data.tables.twins import is_twin

if TYPE_CHECKING:
    from cxrtool.reporting.page import Answer, Figure

Summary = dict[str, Any]

LEAKAGE, EXTERNAL = "leakage", "external_model"
"""Parts of an audit that are reported here also where they found nothing."""

SHOWN = 2
"""Findings of the audit that are not folded."""

MOST_CLASSES = 6
"""With more classes, only the least and the most sensitive are named."""

TWINS = (
    "These are predictions of single twins of images, not of images. `cxrtool fuse twins` combines the twins of an "
    "image into one prediction; a report of its output shows the performance on images."
)
ALLOWED = (
    "Training allowed a patient or an image in two subsets (--allow-leakage): the model may have been tested on what "
    "it was trained on."
)
INTERNAL = (
    "No external test: the test images are from the same sources as the training images. How the model performs at "
    "another hospital is not known."
)
APART = (
    "Each source was tested by a model that was trained on the other sources. It is not known how the model performs "
    "at a hospital that is none of them."
)
UNKNOWN_TRAINING = (
    "These predictions were not made by a run of cxrtool: whether a test patient was also in the training, and whether "
    "this is an external test, is not known."
)

NEW_IMAGES = (
    "The model {} was asked about new images: none of them, and of their patients, was in its training, as far as "
    "digests and patient ids tell. It is an external test if they are from other hospitals than the training images."
)


def answers(study: Study, summaries: Mapping[str, Summary]) -> list[Answer]:
    """The answers to the four questions."""
    from cxrtool.reporting.page import Answer

    return [
        Answer("What was tested", _tested(study, summaries)),
        Answer("On whom", _patients(study, summaries)),
        *_how_good(summaries),
        _trust(study, summaries),
    ]


def _tested(study: Study, summaries: Mapping[str, Summary]) -> list[str]:
    from cxrtool.evaluation.tables import count_of

    summary = next(iter(summaries.values()))
    *rest, last = summary["classes"]
    network = study.model.get("architecture", {}).get("name")
    started = str(study.made.get("started", ""))[:10]
    who = f"The network {network}" if network else "A model"
    who += f", trained on {started}," if started else ""
    positive = f"; the positive class is {summary['positive']}" if summary["positive"] is not None else ""
    lines = [f"{who} classifies a chest radiograph as {', '.join(rest)} or {last}{positive}."]
    if len(summaries) > 1:
        sets = [f"{name} ({', '.join(_paths(study, name))})" for name in summaries]
        return [*lines, f"{count_of(len(sets), 'set')} of predictions are side by side: {', '.join(sets)}."]
    if study.made and not _allowed(study):
        images = "images of patients" if summary["patients_known"] else "images"
        runs = summary["runs"]
        who = f"It was trained {runs} times, and each of these models" if runs > 1 else "It"
        lines.append(f"{who} was tested on {images} that it was not trained on.")
    return lines


def _paths(study: Study, name: str) -> list[str]:
    return [str(source.path) for source in study.sources if source.name == name]


def _patients(study: Study, summaries: Mapping[str, Summary]) -> list[str]:
    if len(summaries) == 1:
        return _people(study.radiographs_tested(), next(iter(summaries.values())))
    return [
        f"{name}: {' '.join(_people(study.radiographs_tested(name), summary))}" for name, summary in summaries.items()
    ]


def _people(rows: Sequence[Row], summary: Summary) -> list[str]:
    """Test images and patients by class, sources, age and sex."""
    from cxrtool.evaluation.tables import count_of

    groups = group_images(rows)
    known = summary["patients_known"]
    classes = []
    for label, entry in summary["per_class"].items():
        own = {group for group, row in zip(groups, rows, strict=True) if row.get("label") == label}
        of = f" ({count_of(len(own), 'patient')})" if known and own else ""
        classes.append(f"{entry['support']} {label}{of}")
    total = count_of(summary["images"], "test image")
    total += f" of {count_of(summary['patients'], 'patient')}" if known else ", patients not known"
    lines = [f"{total}: {', '.join(classes)}."]
    sources = Counter(row.get("source", "").strip() for row in rows)
    named = [f"{name} ({count})" if len(sources) > 1 else name for name, count in sources.most_common() if name]
    facts = [f"{'Source' if len(named) == 1 else 'Sources'}: {', '.join(named)}."] if named else []
    units = groups if known else list(range(len(rows)))
    unit = count_of(len(set(units)), "patient" if known else "image")
    ages = {one: age for one, row in zip(units, rows, strict=True) if (age := years(row.get("age", ""))) is not None}
    if ages:
        span = f"{min(ages.values()):.0f} to {max(ages.values()):.0f} years (median {median(ages.values()):.0f})"
        facts.append(f"Age {span}, known for {len(ages)} of {unit}.")
    sexes = {one: sex for one, row in zip(units, rows, strict=True) if (sex := sex_of(row.get("sex", "")))}
    if sexes:
        counts = Counter(sexes.values())
        facts.append(f"Sex: {counts['F']} female, {counts['M']} male, known for {len(sexes)} of {unit}.")
    return [*lines, " ".join(facts)] if facts else lines


def _how_good(summaries: Mapping[str, Summary]) -> list[Answer]:
    from cxrtool.reporting.page import Answer

    found = []
    for number, (name, summary) in enumerate(summaries.items(), 1):
        lines = _in_counts(summary)
        if number == len(summaries):
            level = f"{summary['interval']['confidence']:.0%}"
            unit = "patients" if summary["patients_known"] else "images"
            lines.append(f"In brackets: {level} intervals over test {unit}, with the trained models fixed.")
        figures = [_figure(*pair) for pair in main_figures(summary)]
        found.append(Answer(f"How good: {name}" if name else "How good", lines, figures))
    return found


def _figure(name: str, measure: Mapping[str, Any]) -> Figure:
    from cxrtool.evaluation.tables import cell
    from cxrtool.reporting.page import Figure

    value, _, interval = cell(measure).partition(" ")
    return Figure(name, value, interval or ("no interval" if measure["value"] is not None else "undefined"))


def _in_counts(summary: Summary) -> list[str]:
    """The decisions as numbers of images, or the sensitivity for each class."""
    from cxrtool.evaluation.tables import cell

    positive, point = summary["positive"], next(iter(summary.get("operating", [])[::-1]), None)
    if point is not None:
        counts = point["counts"]
        if all(float(count).is_integer() for count in counts.values()):
            tp, fn, fp, tn = (int(counts[key]) for key in ("tp", "fn", "fp", "tn"))
            rule = f" (by the {point['rule']})" if len(summary["operating"]) > 1 else ""
            return [
                f"Of {tp + fn} images of {positive}, {tp} were recognised and {fn} were missed; of {fp + tn} other "
                f"images, {fp} {'was' if fp == 1 else 'were'} wrongly predicted {positive}{rule}."
            ]
        return []
    pairs = [(name, entry["sensitivity"]) for name, entry in summary["per_class"].items()]
    pairs = [(name, measure) for name, measure in pairs if measure["value"] is not None]
    if len(pairs) > MOST_CLASSES:
        ranked = sorted(pairs, key=lambda pair: pair[1]["value"])
        pairs, what = [ranked[0], ranked[-1]], "Lowest and highest sensitivity of a class"
    else:
        what = "Sensitivity for each class"
    return [f"{what}: {', '.join(f'{name} {cell(measure)}' for name, measure in pairs)}."] if pairs else []


def _trust(study: Study, summaries: Mapping[str, Summary]) -> Answer:
    from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, by_gravity, capital, parts_of, verdict
    from cxrtool.evaluation.tables import NO_AUDIT
    from cxrtool.reporting.page import Answer

    lines: list[str] = []
    marks: list[tuple[str, str]] = []
    more: list[tuple[str, str]] = []
    if any(is_twin(row) for row in study.tested):
        marks.append((WARNING, TWINS))
    if _allowed(study):
        marks.append((ALARM, ALLOWED))
    parts = parts_of(study.audit.content) if study.audit else []
    if study.audit is None:
        marks.append((UNKNOWN, NO_AUDIT))
    else:
        counted, _, meaning = verdict(parts).partition(": ")
        lines.append(f"Audit of these images: {counted}. {capital(meaning)}" if meaning else counted)
        found = [(one.level, one.text) for one in by_gravity(parts)]
        serious = [one for one in found if one[0] in (ALARM, WARNING)]
        marks += serious[:SHOWN]
        more = serious[SHOWN:]
        # What was searched and not found is worth a line, too.
        searched = [one for part in parts if part.name in (LEAKAGE, EXTERNAL) for one in by_gravity([part])]
        marks += [
            (one.level, one.text) for one in searched if one.level == CLEAR or (one.level == NOTE and not serious)
        ]
    if len(summaries) > 1:
        marks.append((NOTE, f"{len(summaries)} sets were tested side by side: {', '.join(summaries)}."))
    elif asked := next((source.asked for source in study.sources if source.asked), ""):
        marks.append((NOTE, NEW_IMAGES.format(asked)))
    elif not study.made:
        marks.append((UNKNOWN, UNKNOWN_TRAINING))
    elif study.sources_apart():
        marks.append((NOTE, APART))
    elif not any(part.name == EXTERNAL and part.sheets for part in parts):
        marks.append((UNKNOWN, INTERNAL))
    return Answer("How far to trust it", lines, (), marks, more)


def _allowed(study: Study) -> bool:
    return "--allow-leakage" in [str(word) for word in study.made.get("argv", [])]
