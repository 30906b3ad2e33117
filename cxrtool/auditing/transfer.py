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
from cxrtool.auditing.inputs import Pictures
from cxrtool.auditing.part import UNKNOWN, Finding, Part
from cxrtool.auditing.probes_scores import divided, main_figures, predictions
from cxrtool.auditing.probes_views import VIEWS
from cxrtool.auditing.transfer_words import judge, judge_left_out, tabulate, tabulate_left_out
from cxrtool.data.grouping import PATIENT, normalised
from cxrtool.evaluation.estimates import estimate
from cxrtool.evaluation.intervals import RESAMPLES
from cxrtool.evaluation.scores import Scores, scores_of
from cxrtool.evaluation.summary import summarise
from cxrtool.evaluation.tables import count_of

EXTERNAL, EXTERNAL_TITLE = "external", "Simple classifiers elsewhere"
LEFT_OUT, LEFT_OUT_TITLE = "left_out", "Each source left out"

SEEN = ("thumbnail", "border", "lungs-only")
"""Probes that are asked elsewhere, as far as both sides can make them."""

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
    for seen in SEEN:
        views = [VIEWS[seen](pictures) for pictures in sides]
        features = [view.features for view in views]
        if features[0] is None or features[1] is None:
            continue
        for home, away in ((0, 1), (1, 0)):
            inside = _ask(sides[home], np.asarray(features[home]), divided(sides[home], FOLDS, seed), classes)
            outside = _ask_elsewhere(sides[home], sides[away], (features[home], features[away]), classes, seed)
            entries.append(
                {
                    "seen": seen,
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
    features = VIEWS["thumbnail"](asked).features
    test, train = np.flatnonzero(tested), np.flatnonzero(~tested)
    run = alarm.sampled("0", "0", train, test, asked.patients, [seed])
    known = _ask(asked, np.asarray(features), divided(asked, FOLDS, seed), classes)
    known = known.where(np.array([row.get("source") == source for row in known.rows], np.bool_))
    strange = _ask(asked, np.asarray(features), [run], classes)
    with_it, without = (
        main_figures(scores, estimate(scores, seed=seed, resamples=resamples, calibrated=False))
        for scores in (known, strange)
    )
    return {**sizes, "reason": None, "classes": classes, "trained_with_it": with_it, "trained_without_it": without}


def _why_not(source: str, inside: Pictures, rest: Pictures) -> str:
    if len(inside.classes) < 2:
        return f"{source} has images of one label only, {', '.join(inside.classes) or 'none'}"
    return f"{source} and the others have not two labels of {FEWEST} patients each in common"


def _ask(pictures: Pictures, features: Any, runs: Sequence[Run], classes: Sequence[str]) -> Scores:
    labels = pictures.numbers(classes)[:, None]
    trial = alarm.attempt(features, "linear", labels, pictures.patients, runs, len(classes))
    return scores_of(predictions(pictures.rows, runs, classes, trial))


def _ask_elsewhere(
    home: Pictures, away: Pictures, features: tuple[Any, Any], classes: Sequence[str], seed: int
) -> Scores:
    patients = np.concatenate([home.patients, away.patients + len(home)])
    labels = np.concatenate([home.numbers(classes), away.numbers(classes)])[:, None]
    places = np.arange(len(patients))
    run = alarm.sampled("0", "0", places[: len(home)], places[len(home) :], patients, [seed])
    trial: Trial = alarm.attempt(np.concatenate(features), "linear", labels, patients, [run], len(classes))
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
