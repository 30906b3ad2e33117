"""What the probes found, in sentences, as a table, and as figures for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Finding
from cxrtool.auditing.probes_kinds import LUNG, PERMUTED, PROBES, Outcome, Result
from cxrtool.evaluation.intervals import DIGITS
from cxrtool.evaluation.tables import ABSENT, Sheet, cell, count_of

LEAKING = 0.02
"""Balanced accuracy above chance from which on labels dealt by chance are told as learnt."""

SOME_LUNG = 0.01
"""Share of the lungs' area from which on it is said that a probe without lungs still holds some."""

BECAUSE = {
    "size-and-shape": "the classes come in different files, which a model may see by proportions or compression",
    "mask-shape": (
        "the classes differ in the size or shape of the lungs, as children and adults do; but an illness can change "
        "the outline too"
    ),
    "metadata": "where an image is from, or of whom, tells its label, and a model may have learnt that instead",
}


def findings(outcome: Outcome) -> list[Finding]:
    """The findings, the gravest first."""
    results = outcome.results
    made = {name: result for name, result in results.items() if result.trial is not None}
    alarming = [name for name in made if PROBES[name].level == ALARM]
    raised = [name for name in alarming if made[name].raised]
    pictures = [name for name in raised if name not in BECAUSE]
    found = []
    if pictures:
        text = f"{_reaches(outcome, pictures)}. The classes differ in something outside the lungs, so "
        text += f"{_whose(outcome)} need not come from the lungs.{_held(made, pictures)}"
        found.append(Finding(ALARM, text))
    found += [Finding(ALARM, f"{_reaches(outcome, [name])}: {BECAUSE[name]}.") for name in raised if name in BECAUSE]
    found += _of_permuted(outcome)
    found += [
        Finding(WARNING, f"{_reaches(outcome, [name])}: {BECAUSE[name]}.")
        for name, result in made.items()
        if PROBES[name].level == WARNING and result.raised
    ]
    notes = [name for name in made if PROBES[name].level == NOTE and made[name].raised]
    if notes:
        text = f"{_reaches(outcome, notes)}. This holds lungs and may be the illness itself"
        found.append(Finding(NOTE, f"{text}; but it takes neither fine detail nor a deep network."))
    if alarming and not raised:
        shown = ", ".join(f"{PROBES[name].title} {_value(made[name]):.2f}" for name in alarming)
        text = f"Without the lungs the classes could not be told apart better than by chance ({shown}; chance stays "
        found.append(Finding(CLEAR, f"{text}below {outcome.level:.2f}). At 64 x 64 a small letter may escape notice."))
    return [*found, *_of_missing(results)]


def sheets(outcome: Outcome) -> list[Sheet]:
    """The table of all probes, the model on top."""
    columns = ["seen", "holds", "balanced accuracy", "AUC", "minus model", "share of model", "chance below", "found"]
    rows = [["the model", "all", cell(outcome.model), cell(outcome.model_auc), *[ABSENT] * 4]]
    for name, result in outcome.results.items():
        probe = PROBES[name]
        cells = [cell(part) for part in (result.balanced_accuracy, result.auc, result.difference, result.share)]
        rows.append([probe.title, probe.holds, *cells, _two(result.limit), _verdict(name, result)])
    if (chance := permuted(outcome)) is not None:
        told = f"{chance['mean']:.2f} ({chance['low']:.2f}-{chance['high']:.2f})"
        learnt = "the splits leak" if chance["learnt"] else "no"
        rows.append(["nearest thumbnail, labels dealt by chance", LUNG, told, *[ABSENT] * 4, learnt])
    return [Sheet("What a simple classifier reaches on the model's own splits", columns, rows, _notes(outcome))]


def content(outcome: Outcome) -> dict[str, Any]:
    """The figures of the part."""
    return {
        "classes": list(outcome.classes),
        "chance": round(outcome.chance, DIGITS),
        "images": outcome.images,
        "patients": outcome.patients,
        "runs": outcome.runs,
        "permutations": outcome.permutations,
        "seed": outcome.seed,
        "level": _known(outcome.level),
        "model": {"balanced_accuracy": dict(outcome.model), "auc": dict(outcome.model_auc)},
        "probes": {name: _entry(name, result) for name, result in outcome.results.items()},
        PERMUTED: permuted(outcome),
        "training_images_left_out": outcome.left_out,
        "notes": list(outcome.notes),
    }


def permuted(outcome: Outcome) -> dict[str, Any] | None:
    """What the nearest thumbnail tells of labels dealt by chance: the mean, and the range of 95 % of the labellings."""
    reached = outcome.permuted
    if reached is None or not len(reached):
        return None
    low, high = np.quantile(reached, [0.025, 0.975])
    mean = float(reached.mean())
    figures = {name: round(float(value), DIGITS) for name, value in (("mean", mean), ("low", low), ("high", high))}
    return {**figures, "learnt": mean > outcome.chance + LEAKING}


def _entry(name: str, result: Result) -> dict[str, Any]:
    probe = PROBES[name]
    entry: dict[str, Any] = {"title": probe.title, "holds": probe.holds, "level": probe.level, "raised": result.raised}
    for figure in ("balanced_accuracy", "auc", "difference", "share"):
        entry[figure] = dict(getattr(result, figure))
    trial = result.trial
    dealt = None if trial is None or len(trial.reached) < 2 else trial
    return {
        **entry,
        "limit": _known(result.limit),
        "chance_mean": None if dealt is None else _known(float(dealt.reached[1:].mean())),
        "p": None if dealt is None else _known(dealt.p),
        "lung_held": None if result.view.lung is None else _known(result.view.lung),
        "reason": result.view.reason or None,
    }


def _of_permuted(outcome: Outcome) -> list[Finding]:
    chance = permuted(outcome)
    if chance is None or not chance["learnt"]:
        return []
    text = (
        "With labels dealt to patients by chance, the label of the nearest training image is right for "
        f"{chance['mean']:.2f} of the test images (balanced accuracy), where guessing gives {outcome.chance:.2f}: the "
        "same patients or pictures stand in training and in test, and every accuracy on these splits is too high."
    )
    return [Finding(WARNING, text)]


def _of_missing(results: Mapping[str, Result]) -> list[Finding]:
    reasons: dict[tuple[str, bool], list[str]] = {}
    for name, result in results.items():
        if result.trial is None:
            reasons.setdefault((result.view.reason, result.view.alike), []).append(PROBES[name].title)
    return [
        Finding(CLEAR, f"{reason[0].upper()}{reason[1:]}, so a label cannot be read off them ({_listed(titles)}).")
        if alike
        else Finding(UNKNOWN, f"Probes that could not be made: {_listed(titles)} ({reason}).")
        for (reason, alike), titles in reasons.items()
    ]


def _reaches(outcome: Outcome, names: Sequence[str]) -> str:
    """The sentence's beginning: what each reaches of what the model reaches."""
    first, *rest = names
    verb = "reach" if first in ("size-and-shape", "metadata") else "reaches"
    model = outcome.model["value"]
    own = _value(outcome.results[first])
    of = "" if model is None else f" of the model's {model:.2f}" if own < model else f", the model {model:.2f}"
    subject = PROBES[first].alone
    text = f"{subject[0].upper()}{subject[1:]} {verb} {own:.2f}{of} (balanced accuracy; "
    limit = max(outcome.results[name].limit for name in names)
    text += f"guessing gives {outcome.chance:.2f}, chance stays below {limit:.2f})"
    others = [f"{PROBES[name].alone} {_value(outcome.results[name]):.2f}" for name in rest]
    return ", ".join([text, *others[:-1]]) + (f" and {others[-1]}" if others else "")


def _whose(outcome: Outcome) -> str:
    return "the model's accuracy" if outcome.model["value"] is not None else "a model's accuracy on these images"


def _held(made: dict[str, Result], names: Sequence[str]) -> str:
    shares = {name: made[name].view.lung or 0.0 for name in names}
    told = [f"{PROBES[name].title} {share:.0%}" for name, share in shares.items() if share >= SOME_LUNG]
    return f" (Of the lungs' area it still holds: {', '.join(told)}.)" if told else ""


def _notes(outcome: Outcome) -> list[str]:
    notes = [
        f"{count_of(outcome.images, 'test image')} of {count_of(outcome.patients, 'patient')}, "
        f"{count_of(outcome.runs, 'run')}; thumbnails of 64 x 64, a linear classifier for pictures and one of Gaussian "
        "kernels for figures, trained on the training images alone.",
        f"Chance: the best balanced accuracy in 99 % of {outcome.permutations} dealings of the labels among patients; "
        "of the first four, which alone raise an alarm, the best of them all.",
        "Share of model: (probe - guessing) / (model - guessing).",
    ]
    if outcome.left_out:
        notes.append(f"Trained on a sample by patient where there are more images: {outcome.left_out} were left out.")
    reasons: dict[str, list[str]] = {}
    for name, result in outcome.results.items():
        if result.view.reason:
            reasons.setdefault(result.view.reason, []).append(PROBES[name].title)
        if result.view.lung is not None and PROBES[name].level == ALARM and result.view.lung >= SOME_LUNG / 2:
            notes.append(f"Of the lungs' area {result.view.lung:.1%} lie in what this sees: {PROBES[name].title}.")
    notes += [f"{', '.join(titles)}: {reason}." for reason, titles in reasons.items()]
    return [*notes, *outcome.notes]


def _verdict(name: str, result: Result) -> str:
    if result.trial is None:
        return "nothing to tell" if result.view.alike else "unknown"
    return PROBES[name].level if result.raised else "no"


def _listed(titles: Sequence[str]) -> str:
    return ", ".join(titles)


def _value(result: Result) -> float:
    return float(result.balanced_accuracy["value"])


def _two(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{value:.2f}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, DIGITS) + 0.0
