"""Does what is learnt on one set hold on another? The probes are trained on one set and tested on the other, both ways.

A difference between classes that comes from the collection of a set does not exist in other sets; the disease does
(DeGrave, Janizek & Lee 2021, "AI for Radiographic COVID-19 Detection Selects Shortcuts over Signal").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cxrtool.auditing.alarm import Run, divided, figures_of, run_probe, sampled, scored
from cxrtool.auditing.catalogue import PROBES, THUMBNAIL, Probe, for_external
from cxrtool.auditing.part import CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part, capital, listed
from cxrtool.auditing.views import ImageSet
from cxrtool.data.splitting.grouping import PATIENT, normalised
from cxrtool.data.tables.duplicates import find_duplicates
from cxrtool.evaluation.resampling.intervals import RESAMPLES
from cxrtool.evaluation.scores import Scores
from cxrtool.evaluation.sheet import ABSENT, Sheet, cell, count_of
from cxrtool.evaluation.summary import summarise
from cxrtool.evaluation.tables import NAMES

ALIKE = 2
"""Pairs of images that look the same, up to which they are taken for chance."""

EXTERNAL, EXTERNAL_TITLE = "external", "Simple classifiers on external images"
LEFT_OUT, LEFT_OUT_TITLE = "left_out", "Each source excluded"

FEWEST = 5
"""Patients of a class on either side, below which the class is excluded."""

FOLDS = 5

CHANCE = 0.5
"""AUC of guessing."""

FALLEN, LESS, SAME, NOTHING = VERDICTS = (
    (WARNING, "is no better than guessing on that source once it is excluded"),
    (NOTE, "separates the classes of that source less well once it is excluded"),
    (CLEAR, "separates the classes of that source about as well"),
    (NOTE, "is no better than guessing on that source either way, so nothing can be concluded"),
)
"""What may happen on a source that is excluded from training."""

Entry = Mapping[str, Any]


def judge(entries: Sequence[Entry], classes: Sequence[str]) -> Iterator[Finding]:
    """What holds on external images and what does not, a sentence each."""
    for entry in entries:
        inside, outside = entry["inside"]["auc"], entry["outside"]["auc"]
        if inside["value"] is None or outside["value"] is None:
            continue
        internal, external = entry["trained_on"], entry["tested_on"]
        text = (
            f"Trained on {internal}, {PROBES[entry['seen']].subject} separates {listed(classes)} with an AUC of "
            f"{cell(inside)} in {internal} and {cell(outside)} in {external}"
        )
        if _end(inside, "low") <= CHANCE:
            why = f"in {internal} itself this is no better than guessing, so nothing can be concluded for {external}."
            yield Finding(NOTE, f"{text}: {why}")
        elif _end(outside, "low") <= CHANCE:
            how = "worse" if _end(outside, "high") < CHANCE else "no better"
            why = f"so it learnt what is specific to {internal}, not the disease."
            yield Finding(WARNING, f"{text}: in {external} it is {how} than guessing, {why}")
        elif _end(outside, "high") < _end(inside, "low"):
            yield Finding(NOTE, f"{text}: less, but better than guessing.")
        else:
            yield Finding(CLEAR, f"{text}.")


def tabulate(entries: Sequence[Entry], classes: Sequence[str], notes: Sequence[str]) -> Sheet:
    """Both directions, each with the internal row above the external one."""
    columns = ["trained on", "tested on", "input", "images", "AUC", "balanced accuracy"]
    columns += [f"sensitivity of {name}" for name in classes] + [NAMES["ece"], "slope"]

    def slopes(found: Mapping[str, Any]) -> str:
        if len(classes) == 2:
            return cell(found[classes[0]])
        return ", ".join(cell({**found[name], "low": None}) for name in classes)

    rows = []
    for entry in entries:
        for side, key in (("inside", "trained_on"), ("outside", "tested_on")):
            figures = entry[side]
            tested_on = f"{entry[key]}{' (cross-validated)' if side == 'inside' else ''}"
            rows.append(
                [
                    *(entry["trained_on"], tested_on, PROBES[entry["seen"]].title, str(figures["images"])),
                    *(cell(figures[name]) for name in ("auc", "balanced_accuracy")),
                    *(cell(figures["sensitivity"][name]) for name in classes),
                    cell(figures["ece"]),
                    slopes(figures["slope"]),
                ]
            )
    remarks = [
        "Decisions use the threshold of the training images, with equal weights of the classes. For two "
        "classes, the specificity of one is the sensitivity of the other.",
        "Probabilities use the class frequencies of training. A slope below 1 means that they are too extreme.",
        *notes,
    ]
    return Sheet("Trained on one set, tested on both", columns, rows, remarks)


def judge_left_out(entries: Sequence[Entry]) -> list[Finding]:
    """Whether what is learnt from the other sources holds in each: one sentence for all sources with one result."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        if entry["reason"] is not None:
            continue
        inside, outside = entry["trained_with_it"]["auc"], entry["trained_without_it"]["auc"]
        if inside["value"] is None or outside["value"] is None:
            continue
        if _end(inside, "low") <= CHANCE:
            kind = NOTHING
        elif _end(outside, "low") <= CHANCE:
            kind = FALLEN
        else:
            kind = LESS if _end(outside, "high") < _end(inside, "low") else SAME
        text = f"{entry['source']} ({listed(entry['classes'])}) AUC {cell(inside)} with it, {cell(outside)} without"
        kinds.setdefault(kind, []).append(text)
    found = [
        Finding(
            level,
            f"A classifier of thumbnails, trained with and without a source, {text}: {'; '.join(kinds[level, text])}.",
        )
        for level, text in VERDICTS
        if (level, text) in kinds
    ]
    reasons = [entry["reason"] for entry in entries if entry["reason"] is not None]
    if reasons:
        found.append(Finding(UNKNOWN, f"Sources that could not be excluded: {'; '.join(reasons)}."))
    return found


def tabulate_left_out(entries: Sequence[Entry]) -> Sheet:
    """Each source: trained with and without it."""
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
        "Tested on the images of the source. With it: cross-validated by patient over all sources. Without it: trained "
        "on the other sources.",
        f"Only labels with {FEWEST} patients in the source and {FEWEST} in the others are used.",
        *(f"{capital(entry['reason'])}." for entry in entries if entry["reason"]),
    ]
    return Sheet("A classifier of thumbnails, each source excluded", columns, rows, notes)


def _end(measure: Mapping[str, Any], end: str) -> float:
    return float(measure["value"] if measure[end] is None else measure[end])


def external(
    here: ImageSet,
    there: ImageSet,
    *,
    names: tuple[str, str] = ("here", "there"),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Part:
    """Train on one set and test on both, both ways, on the classes that both have.

    `names` are those of the two sets in tables and sentences.
    """
    there, notes = _without_shared(here, there, names)
    alike = list(_alike(here, there, names))
    classes = [name for name in here.classes if min(_patients(here, name), _patients(there, name)) >= FEWEST]
    if len(classes) < 2:
        text = (
            f"External images could not be tested: expected two labels with {FEWEST} patients in both sets, found "
            f"{_patient_counts(here)} in {names[0]} and {_patient_counts(there)} in {names[1]}."
        )
        text = " ".join([text, *notes])
        return Part(EXTERNAL, EXTERNAL_TITLE, {"reason": text}, [Finding(UNKNOWN, text), *alike])
    sides = [pictures.where(np.isin(pictures.labels, classes)) for pictures in (here, there)]
    entries = []
    for probe in for_external():
        views = [probe.see(pictures) for pictures in sides]
        features = [view.features for view in views]
        if features[0] is None or features[1] is None:
            continue
        for home, away in ((0, 1), (1, 0)):
            runs = divided(sides[home], FOLDS, seed)
            inside = _scores(probe, sides[home], np.asarray(features[home]), runs, classes)
            outside = _external_scores(probe, sides[home], sides[away], (features[home], features[away]), classes, seed)
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
    return Part(
        EXTERNAL, EXTERNAL_TITLE, content, [*alike, *judge(entries, classes)], [tabulate(entries, classes, notes)]
    )


def left_out(pictures: ImageSet, *, seed: int = 0, resamples: int = RESAMPLES) -> Part:
    """For each source: a classifier of thumbnails trained with and without it, tested on its images."""
    sources = sorted(set(pictures.sources) - {""})
    if len(sources) < 2:
        what = f"all images come from one source, {sources[0]}" if sources else "no image has a source"
        text = f"No source could be excluded: {what}."
        return Part(LEFT_OUT, LEFT_OUT_TITLE, {"reason": text}, [Finding(UNKNOWN, text)])
    entries = [{"source": name, **_leave_out(pictures, name, seed, resamples)} for name in sources]
    sheets = [tabulate_left_out(entries)]
    return Part(LEFT_OUT, LEFT_OUT_TITLE, {"sources": entries}, judge_left_out(entries), sheets)


def _leave_out(pictures: ImageSet, source: str, seed: int, resamples: int) -> dict[str, Any]:
    own = np.array(pictures.sources) == source
    patients = pictures.patients
    # A patient with images in two sources would leak from one to the other.
    others = ~own & ~np.isin(patients, patients[own])
    inside, rest = pictures.where(own), pictures.where(others)
    classes = [name for name in inside.classes if min(_patients(inside, name), _patients(rest, name)) >= FEWEST]
    sizes = {"images": len(inside), "labels": {name: inside.labels.count(name) for name in inside.classes}}
    if len(classes) < 2:
        reason = f"{source} and the others do not have two labels of {FEWEST} patients each in common"
        if len(inside.classes) < 2:
            reason = f"{source} has images of one label only, {', '.join(inside.classes) or 'none'}"
        return {**sizes, "reason": reason}
    used = pictures.where(np.isin(pictures.labels, classes) & (own | others))
    tested = np.array(used.sources) == source
    probe = PROBES[THUMBNAIL]
    features = np.asarray(probe.see(used).features)
    run = sampled("0", "0", np.flatnonzero(~tested), np.flatnonzero(tested), used.patients, [seed])
    included = _scores(probe, used, features, divided(used, FOLDS, seed), classes)
    included = included.where(np.array([row.get("source") == source for row in included.rows], np.bool_))
    excluded = _scores(probe, used, features, [run], classes)
    with_it, without = (figures_of(scores, seed, resamples) for scores in (included, excluded))
    return {**sizes, "reason": None, "classes": classes, "trained_with_it": with_it, "trained_without_it": without}


def _scores(probe: Probe, pictures: ImageSet, features: Any, runs: Sequence[Run], classes: Sequence[str]) -> Scores:
    labels = pictures.numbers(classes)[:, None]
    trial = run_probe(features, probe.kernel, labels, pictures.patients, runs, len(classes))
    return scored(pictures.rows, runs, classes, trial)


def _external_scores(
    probe: Probe, home: ImageSet, away: ImageSet, features: tuple[Any, Any], classes: Sequence[str], seed: int
) -> Scores:
    patients = np.concatenate([home.patients, away.patients + len(home)])
    labels = np.concatenate([home.numbers(classes), away.numbers(classes)])[:, None]
    indices = np.arange(len(patients))
    run = sampled("0", "0", indices[: len(home)], indices[len(home) :], patients, [seed])
    trial = run_probe(np.concatenate(features), probe.kernel, labels, patients, [run], len(classes))
    return scored([*home.rows, *away.rows], [run], classes, trial)


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


def _without_shared(here: ImageSet, there: ImageSet, names: tuple[str, str]) -> tuple[ImageSet, list[str]]:
    """The external set without what is in both, and a note: an image that was trained on is not external."""

    def keys(row: Mapping[str, str]) -> set[tuple[str, str]]:
        return {(name, value) for name in (PATIENT, "sha256") if (value := normalised(row.get(name, "")))}

    known = set[tuple[str, str]]().union(*map(keys, here.rows))
    kept = np.array([known.isdisjoint(keys(row)) for row in there.rows], np.bool_)
    shared = int((~kept).sum())
    excluded = f"{count_of(shared, 'image')} of {names[1]} (or their patients) are also in {names[0]}: excluded."
    return there.where(kept), [excluded] if shared else []


def _alike(here: ImageSet, there: ImageSet, names: tuple[str, str]) -> Iterator[Finding]:
    """A warning where the sets have more images that look the same than different patients of the first one have.

    A copy that was saved again, or at another size, has another digest and often another name of its patient.
    """
    whole = len(here)
    pairs = np.array([(one.earlier, one.later) for one in find_duplicates([*here.rows, *there.rows])], np.intp)
    pairs = pairs.reshape(-1, 2)
    across = pairs[(pairs[:, 0] < whole) & (pairs[:, 1] >= whole)]
    inside = pairs[pairs[:, 1] < whole]
    chance = np.count_nonzero(here.patients[inside[:, 0]] != here.patients[inside[:, 1]])
    # Of as many pairs as there are between the sets.
    expected = chance * 2 * len(there) / max(1, whole - 1)
    if len(across) > ALIKE + 2 * expected:
        found = count_of(len(np.unique(across[:, 1])), "image")
        yield Finding(
            WARNING,
            f"{found} of {len(there)} in {names[1]} look the same as images in {names[0]}, under other names: if they "
            "are copies, this is no external test. `cxrtool select` joins both manifests, and `audit` lists the pairs.",
        )


def _patients(pictures: ImageSet, label: str) -> int:
    return len(np.unique(pictures.patients[[name == label for name in pictures.labels]])) if len(pictures) else 0


def _patient_counts(pictures: ImageSet) -> str:
    return ", ".join(f"{name} {_patients(pictures, name)}" for name in pictures.classes) or "no labels"
