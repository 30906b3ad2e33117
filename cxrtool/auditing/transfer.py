"""Does what is learnt here hold elsewhere? The probes trained in one place and asked in another, both ways.

A difference between classes that the collector of a set brought in ends at the door of that set; the disease does not
(DeGrave, Janizek & Lee 2021, "AI for Radiographic COVID-19 Detection Selects Shortcuts over Signal").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxrtool.auditing import alarm
from cxrtool.auditing.alarm import Run, Trial
from cxrtool.auditing.answers import divided, main_figures, predictions
from cxrtool.auditing.catalogue import PROBES, THUMBNAIL, Probe, elsewhere
from cxrtool.auditing.inputs import Pictures
from cxrtool.auditing.part import CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part
from cxrtool.data.splitting.grouping import PATIENT, normalised
from cxrtool.evaluation.metrics.estimates import estimate
from cxrtool.evaluation.resampling.intervals import RESAMPLES
from cxrtool.evaluation.scores import Scores, scores_of
from cxrtool.evaluation.summary import summarise
from cxrtool.evaluation.tables import ABSENT, NAMES, Sheet, cell, count_of

CHANCE = 0.5
"""Area under the ROC curve of a coin."""

VERDICTS = (
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
        for (level, text), told in ((kind, "; ".join(kinds[kind])) for kind in VERDICTS if kind in kinds)
    ]
    reasons = [entry["reason"] for entry in entries if entry["reason"] is not None]
    if reasons:
        found.append(Finding(UNKNOWN, f"Sources that could not be left out: {'; '.join(reasons)}."))
    return found


def _kind_left_out(inside: Mapping[str, Any], outside: Mapping[str, Any]) -> tuple[str, str]:
    fallen, less, same, nothing = VERDICTS
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


EXTERNAL, EXTERNAL_TITLE = "external", "Simple classifiers elsewhere"
LEFT_OUT, LEFT_OUT_TITLE = "left_out", "Each source left out"

FEWEST = 5
"""Patients of a class on either side, below which it is not asked about."""

FOLDS = 5


def external(
    here: Pictures,
    there: Pictures,
    *,
    names: tuple[str, str] = ("here", "there"),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Part:
    """Train on one set and test on it and on the other, both ways, on the classes that both have.

    Args:
        here: The one set.
        there: The other, with its labels named as here.
        names: What to call them.
        seed: Of folds and resamples.
        resamples: Of patients.
    """
    here, there, notes = _apart(here, there, names)
    classes = [name for name in here.classes if min(_patients(here, name), _patients(there, name)) >= FEWEST]
    if len(classes) < 2:
        both = f"{names[0]} has {_told(here)}, {names[1]} {_told(there)}"
        text = f"Nothing could be asked elsewhere: two labels with {FEWEST} patients in both are needed; {both}."
        return Part(EXTERNAL, EXTERNAL_TITLE, {"reason": text}, [Finding(UNKNOWN, text)])
    sides = [_of_classes(pictures, classes) for pictures in (here, there)]
    entries = []
    for probe in elsewhere():
        views = [probe.see(pictures) for pictures in sides]
        features = [view.features for view in views]
        if features[0] is None or features[1] is None:
            continue
        for home, away in ((0, 1), (1, 0)):
            inside = _ask(probe, sides[home], np.asarray(features[home]), divided(sides[home], FOLDS, seed), classes)
            outside = _ask_elsewhere(probe, sides[home], sides[away], (features[home], features[away]), classes, seed)
            entries.append(
                {
                    "seen": probe.name,
                    "trained_on": names[home],
                    "tested_on": names[away],
                    "inside": _figures(inside, seed, resamples),
                    "outside": _figures(outside, seed, resamples),
                }
            )
    content = {"classes": classes, "names": list(names), "answers": entries, "notes": notes}
    return Part(EXTERNAL, EXTERNAL_TITLE, content, judge(entries, classes), [tabulate(entries, classes, notes)])


def left_out(pictures: Pictures, *, seed: int = 0, resamples: int = RESAMPLES) -> Part:
    """For each source: a thumbnail's classifier trained with and without it, tested on its images.

    Args:
        pictures: Of all sources.
        seed: Of folds and resamples.
        resamples: Of patients.
    """
    sources = sorted(set(pictures.sources) - {""})
    if len(sources) < 2:
        what = f"all images come from one source, {sources[0]}" if sources else "the source of no image is known"
        text = f"No source could be left out: {what}."
        return Part(LEFT_OUT, LEFT_OUT_TITLE, {"reason": text}, [Finding(UNKNOWN, text)])
    entries = [{"source": name, **_leave_out(pictures, name, seed, resamples)} for name in sources]
    return Part(
        LEFT_OUT,
        LEFT_OUT_TITLE,
        {"sources": entries},
        judge_left_out(entries),
        [tabulate_left_out(entries, FEWEST)],
    )


def _leave_out(pictures: Pictures, source: str, seed: int, resamples: int) -> dict[str, Any]:
    own = np.array([name == source for name in pictures.sources], np.bool_)
    patients = pictures.patients
    # A patient seen in two places would tell the one about the other.
    others = ~own & ~np.isin(patients, patients[own])
    inside, rest = pictures.where(own), pictures.where(others)
    classes = [name for name in inside.classes if min(_patients(inside, name), _patients(rest, name)) >= FEWEST]
    sizes = {"images": len(inside), "labels": {name: inside.labels.count(name) for name in inside.classes}}
    if len(classes) < 2:
        return {**sizes, "reason": _why_not(source, inside, rest)}
    # The label of who has none of these classes is of no use to either side.
    of_classes = np.isin(pictures.numbers(classes), np.arange(len(classes)))
    asked = pictures.where(of_classes & (own | others))
    tested = np.array([name == source for name in asked.sources], np.bool_)
    probe = PROBES[THUMBNAIL]
    features = probe.see(asked).features
    test, train = np.flatnonzero(tested), np.flatnonzero(~tested)
    run = alarm.sampled("0", "0", train, test, asked.patients, [seed])
    known = _ask(probe, asked, np.asarray(features), divided(asked, FOLDS, seed), classes)
    known = known.where(np.array([row.get("source") == source for row in known.rows], np.bool_))
    strange = _ask(probe, asked, np.asarray(features), [run], classes)
    with_it, without = (
        main_figures(scores, estimate(scores, seed=seed, resamples=resamples, calibrated=False))
        for scores in (known, strange)
    )
    return {**sizes, "reason": None, "classes": classes, "trained_with_it": with_it, "trained_without_it": without}


def _why_not(source: str, inside: Pictures, rest: Pictures) -> str:
    if len(inside.classes) < 2:
        return f"{source} has images of one label only, {', '.join(inside.classes) or 'none'}"
    return f"{source} and the others have not two labels of {FEWEST} patients each in common"


def _ask(probe: Probe, pictures: Pictures, features: Any, runs: Sequence[Run], classes: Sequence[str]) -> Scores:
    labels = pictures.numbers(classes)[:, None]
    trial = alarm.attempt(features, probe.kernel, labels, pictures.patients, runs, len(classes))
    return scores_of(predictions(pictures.rows, runs, classes, trial))


def _ask_elsewhere(
    probe: Probe, home: Pictures, away: Pictures, features: tuple[Any, Any], classes: Sequence[str], seed: int
) -> Scores:
    patients = np.concatenate([home.patients, away.patients + len(home)])
    labels = np.concatenate([home.numbers(classes), away.numbers(classes)])[:, None]
    places = np.arange(len(patients))
    run = alarm.sampled("0", "0", places[: len(home)], places[len(home) :], patients, [seed])
    trial: Trial = alarm.attempt(np.concatenate(features), probe.kernel, labels, patients, [run], len(classes))
    return scores_of(predictions([*home.rows, *away.rows], [run], classes, trial))


def _figures(scores: Scores, seed: int, resamples: int) -> dict[str, Any]:
    found = summarise(scores, seed=seed, resamples=resamples)
    overall, calibration = found["overall"], found["calibration"]
    return {
        "images": found["images"],
        "patients": found["patients"],
        "auc": overall["macro_auc"],
        "balanced_accuracy": overall["balanced_accuracy"],
        "sensitivity": {name: entry["sensitivity"] for name, entry in found["per_class"].items()},
        "specificity": {name: entry["specificity"] for name, entry in found["per_class"].items()},
        "ece": overall["ece"],
        "ece_if_calibrated": calibration["ece_if_calibrated"],
        "slope": {name: entry["slope"] for name, entry in calibration["per_class"].items()},
    }


def _apart(here: Pictures, there: Pictures, names: tuple[str, str]) -> tuple[Pictures, Pictures, list[str]]:
    """The two sets without what stands in both: an image that was trained on is none from elsewhere."""
    known = {_key(row, column) for row in here.rows for column in (PATIENT, "sha256")} - {None}
    kept = np.array(
        [not any(_key(row, column) in known for column in (PATIENT, "sha256")) for row in there.rows], np.bool_
    )
    shared = int((~kept).sum())
    notes = []
    if shared:
        notes.append(f"{count_of(shared, 'image')} of {names[1]}, or their patients, are in {names[0]} too: left out.")
    return here, there.where(kept), notes


def _key(row: Mapping[str, str], column: str) -> tuple[str, str] | None:
    value = normalised(row.get(column, ""))
    return (column, value) if value else None


def _of_classes(pictures: Pictures, classes: Sequence[str]) -> Pictures:
    return pictures.where(np.array([label in classes for label in pictures.labels], np.bool_))


def _patients(pictures: Pictures, label: str) -> int:
    return len(np.unique(pictures.patients[[name == label for name in pictures.labels]])) if len(pictures) else 0


def _told(pictures: Pictures) -> str:
    return ", ".join(f"{name} {_patients(pictures, name)}" for name in pictures.classes) or "no labels"
