"""Probes for shortcuts: how much a simple classifier reaches that sees no lung, or nothing but the lungs.

Every probe is trained and tested on the splits of the model, and measured as the model is, on the same resamples of
patients. A probe that sees no lung and separates the classes shows that their images differ outside the lungs. It does
not show that the model uses this difference, but the accuracy of the model can no longer rule it out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrtool.auditing import alarm
from cxrtool.auditing.alarm import PERMUTATIONS, Fold, NoProgress, Progress, Run, Trial, main_figures, scored
from cxrtool.auditing.catalogue import LUNG, NO_LUNG, OUTLINE, PROBES, THUMBNAIL
from cxrtool.auditing.part import ALARM, CLEAR, LEVELS, NOTE, UNKNOWN, WARNING, Finding, Part, capital, listed
from cxrtool.auditing.views import IS_LUNG, ImageSet, View
from cxrtool.evaluation.comparison.align import align, in_order
from cxrtool.evaluation.metrics import confusion as metrics
from cxrtool.evaluation.metrics.confusion import FloatArray
from cxrtool.evaluation.metrics.estimates import Estimates, estimate
from cxrtool.evaluation.resampling.intervals import DIGITS, RESAMPLES, Measure, measure, method_of
from cxrtool.evaluation.scores import Scores
from cxrtool.evaluation.sheet import ABSENT, Sheet, cell, count_of
from cxrtool.imaging.canvas import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    draw_interval,
    legend_below,
    picture,
    shorten,
    write_beside,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

NAME, TITLE = "probes", "Shortcut probes"

LEAKING = 0.02
"""Balanced accuracy above chance from which permuted labels are reported as learnt."""

SOME_LUNG = 0.01
"""Share of the lungs' area from which it is reported that a probe without lungs still contains some."""

PERMUTED = "permuted-labels"
"""The nearest thumbnail with permuted labels: it must stay at chance, otherwise the splits leak."""

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

NO_MODEL, NO_GAIN = "no model was given", "the model is not better than chance"

Figure = Mapping[str, Any]
"""A `Measure` as JSON."""

NOTHING: Figure = Measure().as_json()


@dataclass(frozen=True)
class Result:
    """The result of one probe.

    Attributes:
        view: Its input, without the arrays.
        trial: Its predictions; None where it could not be run.
        balanced_accuracy: Measured as for the model.
        auc: The mean over the classes, each against the rest.
        difference: Balanced accuracy, probe minus model, on the images that both were tested on.
        share: (probe - chance) / (model - chance), on the same images.
        limit: The level below which chance stays: that of the best of all alarming probes where it is one of these,
            otherwise its own.
    """

    view: View
    trial: Trial | None = None
    balanced_accuracy: Figure = field(default_factory=lambda: NOTHING)
    auc: Figure = field(default_factory=lambda: NOTHING)
    difference: Figure = field(default_factory=lambda: NOTHING)
    share: Figure = field(default_factory=lambda: NOTHING)
    limit: float = math.nan

    @property
    def raised(self) -> bool:
        """Whether it reaches more than chance."""
        return self.trial is not None and float(self.trial.reached[0]) > self.limit

    @property
    def value(self) -> float:
        """Its balanced accuracy; only where it has a trial."""
        return float(self.balanced_accuracy["value"])


@dataclass(frozen=True)
class Outcome:
    """The results of all probes.

    Attributes:
        model: Balanced accuracy of the model, on the test images of the probes.
        level: Level of alarm; NaN where no probe was run that can raise one.
        images: Number of test images.
        patients: Number of their patients.
        runs: Number of repeats times folds.
        excluded: Most training images in a fold that were excluded because there were too many.
        notes: Remarks below the table.
        permuted: Balanced accuracy of the nearest training thumbnail's label with permuted labels: mean, range of 95 %
            of the permutations, whether it is learnt; None where it was not computed.
    """

    results: Mapping[str, Result]
    classes: tuple[str, ...]
    model: Figure
    model_auc: Figure
    level: float
    permutations: int
    seed: int
    images: int
    patients: int
    runs: int
    excluded: int
    notes: tuple[str, ...]
    permuted: dict[str, Any] | None = None

    @property
    def chance(self) -> float:
        """Balanced accuracy of guessing."""
        return 1 / len(self.classes)


def findings(outcome: Outcome) -> list[Finding]:
    """The findings, the most serious first."""
    made = {name: result for name, result in outcome.results.items() if result.trial is not None}
    alarming = [name for name in made if PROBES[name].level == ALARM]
    raised = [name for name in alarming if made[name].raised]
    without_lungs = [name for name in raised if not PROBES[name].because]
    found = []
    if without_lungs:
        whose = "the model" if outcome.model["value"] is not None else "a model on these images"
        shares = {name: made[name].view.lung or 0.0 for name in without_lungs}
        visible = [f"{PROBES[name].title} {share:.0%}" for name, share in shares.items() if share >= SOME_LUNG]
        text = (
            f"{_reaches(outcome, without_lungs)}. The classes differ in something outside the lungs, so the accuracy "
            f"of {whose} need not come from the lungs."
        )
        text += f" (Share of the lungs' area that is still visible: {', '.join(visible)}.)" if visible else ""
        found.append(Finding(ALARM, text))
    found += [Finding(ALARM, _explained(outcome, name)) for name in raised if PROBES[name].because]
    if outcome.permuted is not None and outcome.permuted["learnt"]:
        text = (
            "With labels permuted among patients, the label of the nearest training image is right for "
            f"{outcome.permuted['mean']:.2f} of the test images (balanced accuracy; guessing gives "
            f"{outcome.chance:.2f}). The same patients or images are in training and in test, and every accuracy on "
            "these splits is too high."
        )
        found.append(Finding(WARNING, text))
    found += [
        Finding(WARNING, _explained(outcome, name))
        for name, result in made.items()
        if PROBES[name].level == WARNING and result.raised
    ]
    notes = [name for name in made if PROBES[name].level == NOTE and made[name].raised]
    if notes:
        text = f"{_reaches(outcome, notes)}. This contains lungs and may be the disease itself"
        found.append(Finding(NOTE, f"{text}, but it needs neither fine detail nor a deep network."))
    if alarming and not raised:
        shown = ", ".join(f"{PROBES[name].title} {made[name].value:.2f}" for name in alarming)
        text = f"Without the lungs no probe separates the classes better than chance ({shown}; chance stays "
        found.append(Finding(CLEAR, f"{text}below {outcome.level:.2f}). At 64 x 64 a small letter may be missed."))
    reasons: dict[tuple[str, bool], list[str]] = {}
    for name, result in outcome.results.items():
        if result.trial is None:
            reasons.setdefault((result.view.reason, result.view.alike), []).append(PROBES[name].title)
    return found + [
        Finding(CLEAR, f"{capital(reason)}, so this cannot predict a label ({', '.join(titles)}).")
        if alike
        else Finding(UNKNOWN, f"Probes that could not be run: {', '.join(titles)} ({reason}).")
        for (reason, alike), titles in reasons.items()
    ]


def _reaches(outcome: Outcome, names: Sequence[str]) -> str:
    """The start of a sentence: what each reaches, compared with the model."""
    first, *rest = names
    verb = "reach" if PROBES[first].plural else "reaches"
    model = outcome.model["value"]
    own = outcome.results[first].value
    of = "" if model is None else f" of the {model:.2f} of the model" if own < model else f", the model {model:.2f}"
    limit = max(outcome.results[name].limit for name in names)
    text = (
        f"{capital(PROBES[first].subject)} {verb} {own:.2f}{of} (balanced accuracy; guessing gives "
        f"{outcome.chance:.2f}, chance stays below {limit:.2f})"
    )
    return listed([text, *(f"{PROBES[name].subject} {outcome.results[name].value:.2f}" for name in rest)])


def _explained(outcome: Outcome, name: str) -> str:
    because = PROBES[name].because
    return f"{_reaches(outcome, [name])}: {because}." if because else f"{_reaches(outcome, [name])}."


def sheets(outcome: Outcome) -> list[Sheet]:
    """The table of all probes, the model on top."""
    columns = [
        "input",
        "contains",
        "balanced accuracy",
        "AUC",
        "minus model",
        "share of model",
        "chance below",
        "level",
    ]
    rows = [["the model", "all", cell(outcome.model), cell(outcome.model_auc), *[ABSENT] * 4]]
    for name, result in outcome.results.items():
        probe = PROBES[name]
        if result.trial is None:
            verdict = "same for all" if result.view.alike else "unknown"
        else:
            verdict = probe.level if result.raised else "no"
        cells = [cell(part) for part in (result.balanced_accuracy, result.auc, result.difference, result.share)]
        limit = ABSENT if math.isnan(result.limit) else f"{result.limit:.2f}"
        rows.append([probe.title, probe.holds, *cells, limit, verdict])
    if (chance := outcome.permuted) is not None:
        reached = f"{chance['mean']:.2f} ({chance['low']:.2f}-{chance['high']:.2f})"
        learnt = "the splits leak" if chance["learnt"] else "no"
        rows.append(["nearest thumbnail, permuted labels", LUNG, reached, *[ABSENT] * 4, learnt])
    return [Sheet("What a simple classifier reaches on the splits of the model", columns, rows, _notes(outcome))]


def _notes(outcome: Outcome) -> list[str]:
    notes = [
        f"{count_of(outcome.images, 'test image')} of {count_of(outcome.patients, 'patient')}, "
        f"{count_of(outcome.runs, 'run')}; thumbnails of 64 x 64, a linear classifier for images and Gaussian "
        "kernels for numbers, trained on the training images alone.",
        f"Chance: the balanced accuracy below which 99 % of {outcome.permutations} permutations of the labels among "
        f"patients stay{_together(list(outcome.results))}.",
        "Share of model: (probe - guessing) / (model - guessing).",
    ]
    if outcome.excluded:
        notes.append(f"Trained on a sample of patients: {outcome.excluded} training images were excluded.")
    reasons: dict[str, list[str]] = {}
    for name, result in outcome.results.items():
        if result.view.reason:
            reasons.setdefault(result.view.reason, []).append(PROBES[name].title)
        if result.view.lung is not None and PROBES[name].level == ALARM and result.view.lung >= SOME_LUNG / 2:
            notes.append(f"{PROBES[name].title}: {result.view.lung:.1%} of the lungs' area is still visible.")
    notes += [f"{', '.join(titles)}: {reason}." for reason, titles in reasons.items()]
    return [*notes, *outcome.notes]


def _together(names: Sequence[str]) -> str:
    """The probes whose best defines chance: all that can raise an alarm, where there are several."""
    alarming = [name for name in names if PROBES[name].level == ALARM]
    if len(alarming) < 2:
        return ""
    count = NUMBERS[len(alarming)] if len(alarming) < len(NUMBERS) else str(len(alarming))
    leading = list(names[: len(alarming)]) == alarming
    which = f"the first {count}" if leading else ", ".join(PROBES[name].title for name in alarming)
    return f"; for {which}, the only ones that can raise an alarm, that of the best of them"


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
        PERMUTED: outcome.permuted,
        "training_images_left_out": outcome.excluded,
        "notes": list(outcome.notes),
    }


def _entry(name: str, result: Result) -> dict[str, Any]:
    probe, trial = PROBES[name], result.trial
    tested = None if trial is None or len(trial.reached) < 2 else trial
    return {
        "title": probe.title,
        "holds": probe.holds,
        "level": probe.level,
        "raised": result.raised,
        **{name: dict(getattr(result, name)) for name in ("balanced_accuracy", "auc", "difference", "share")},
        "limit": _known(result.limit),
        "chance_mean": None if tested is None else _known(float(tested.reached[1:].mean())),
        "p": None if tested is None else _known(tested.p),
        "lung_held": None if result.view.lung is None else _known(result.view.lung),
        "reason": result.view.reason or None,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, DIGITS) + 0.0


COLOURS = {NO_LUNG: (VERMILION, "s"), OUTLINE: (ORANGE, "^"), LUNG: (BLUE, "o")}
"""Colour and marker of what a probe sees."""

WIDTH, LINE, TILE = 7.2, 0.36, 1.25
MOST_CLASSES = 4
"""Most classes of which an example is shown."""


def draw(outcome: Outcome, pictures: ImageSet, folder: Path) -> list[tuple[str, str]]:
    """Draw the figures of the part; their file names and captions."""
    drawn = []
    if any(result.trial is not None for result in outcome.results.values()):
        draw_forest(outcome, folder / "probes.png")
        text = "What each probe reaches, compared with the model, with 95 % intervals; the light grey area is chance."
        drawn.append(("probes.png", text))
    shown = [name for name, result in outcome.results.items() if not PROBES[name].figures and result.trial is not None]
    if shown:
        draw_inputs(outcome, pictures, shown, folder / "probe_inputs.png")
        drawn.append(("probe_inputs.png", "What each probe sees of a typical image of each class."))
    return drawn


def draw_forest(outcome: Outcome, path: Path) -> None:
    """Draw balanced accuracy of every probe with its interval, the model as a line, chance, and the level of alarm."""
    made = {name: result for name, result in outcome.results.items() if result.trial is not None}
    with picture(path, WIDTH, 1.75 + LINE * (len(made) + 1)) as figure:
        axes = figure.subplots()
        low = [outcome.chance - 0.02]
        for y, (name, result) in enumerate(made.items()):
            reached = result.balanced_accuracy
            draw_interval(axes, y, reached, *COLOURS[PROBES[name].holds])
            write_beside(axes, y, cell(reached))
            low.append(reached["value"] if reached["low"] is None else reached["low"])
            if _informs(name, result):
                axes.plot([result.limit] * 2, [y - 0.3, y + 0.3], color=GREY, linewidth=1)
        labels = [PROBES[name].title for name in made]
        if (chance := outcome.permuted) is not None:
            labels.append("permuted labels")
            entry = {"value": chance["mean"], "low": chance["low"], "high": chance["high"]}
            draw_interval(axes, len(made), entry, GREY, "D")
            write_beside(axes, len(made), cell(entry))
            low.append(chance["low"])
        axes.axvline(outcome.chance, color=GREY, linestyle=":", linewidth=1.2)
        left = max(0.0, min(low) - 0.03)
        if not math.isnan(outcome.level):
            axes.axvspan(left, outcome.level, color="#eeeeee", zorder=-2, linewidth=0)
        if outcome.model["value"] is not None:
            axes.axvline(outcome.model["value"], color="black", linewidth=1.4, zorder=0)
            if outcome.model["low"] is not None:
                axes.axvspan(outcome.model["low"], outcome.model["high"], color="#d9d9d9", zorder=-1, linewidth=0)
        axes.set_yticks(range(len(labels)), labels)
        axes.set(ylim=(len(labels) - 0.4, -0.6), xlim=(left, 1.005), xlabel="balanced accuracy")
        axes.set_title("What a simple classifier reaches that sees …")
        _legend(figure, outcome, {PROBES[name].holds for name in made})


def _informs(name: str, result: Result) -> bool:
    """Whether a probe that was run cannot raise an alarm, and so has a level of chance of its own."""
    return result.trial is not None and PROBES[name].level != ALARM and not math.isnan(result.limit)


def draw_inputs(outcome: Outcome, pictures: ImageSet, names: list[str], path: Path) -> None:
    """Draw one image of each class as every probe sees it."""
    examples = {label: _typical(pictures, label) for label in outcome.classes[:MOST_CLASSES]}
    few = pictures.where(np.array(list(examples.values()), np.intp))
    inputs = {name: PROBES[name].see(few).shown for name in names}
    shown = {name: seen for name, seen in inputs.items() if seen is not None}
    with picture(path, 0.5 + TILE * len(shown), 0.35 + TILE * len(examples)) as figure:
        grid = figure.subplots(len(examples), len(shown), squeeze=False)
        for column, (name, seen) in enumerate(shown.items()):
            grid[0][column].set_title(PROBES[name].title, fontsize=9, loc="center")
            for row, label in enumerate(examples):
                axes = grid[row][column]
                axes.imshow(seen[row], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[["top", "right"]].set_visible(True)
                if column == 0:
                    axes.set_ylabel(shorten(label, 16), fontsize=9)


def _typical(pictures: ImageSet, label: str) -> int:
    """Index of the image nearest to the mean of its class, among those with lungs where there are any."""
    own = np.flatnonzero([name == label for name in pictures.labels])
    if pictures.lungs is not None:
        found = own[pictures.lungs[own].max(axis=(1, 2)) >= IS_LUNG]
        own = found if len(found) else own
    thumbs = pictures.thumbs[own]
    return int(own[((thumbs - thumbs.mean(axis=0)) ** 2).sum(axis=(1, 2)).argmin()])


def _legend(figure: Drawing, outcome: Outcome, holds: set[str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Line2D([], [], color=colour, marker=marker, linewidth=2, label=kind)
        for kind, (colour, marker) in COLOURS.items()
        if kind in holds
    ]
    if outcome.model["value"] is not None:
        handles.append(Line2D([], [], color="black", linewidth=1.4, label=f"the model, {outcome.model['value']:.2f}"))
        if outcome.model["low"] is not None:
            handles.append(Patch(color="#d9d9d9", label="95 % interval of the model"))
    handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=1.2, label="guessing"))
    if not math.isnan(outcome.level):
        handles.append(Patch(color="#eeeeee", label="chance, no alarm"))
    if any(_informs(name, result) for name, result in outcome.results.items()):
        line: dict[str, Any] = {"marker": "|", "linestyle": "none", "markersize": 10}
        handles.append(Line2D([], [], color=GREY, label="end of chance of this probe", **line))
    legend_below(figure, handles)


def examine(
    pictures: ImageSet,
    folds: Sequence[Fold],
    *,
    model: Scores | None = None,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    resamples: int = RESAMPLES,
    names: Sequence[str] | None = None,
    folder: Path | None = None,
    report: Progress | None = None,
) -> Part:
    """Run the probes.

    Args:
        pictures: The images of the manifest of the splits.
        folds: The splits of the model.
        model: Its test predictions, for the same images or fewer; None where there is no model yet.
        seed: The seed of permutations and resamples.
        permutations: Of the labels.
        resamples: Of patients.
        names: Of probes; None takes all, those first that can raise an alarm.
        folder: Where figures are written; None draws none.
        report: Shows the progress.
    """
    names = sorted(PROBES, key=lambda name: LEVELS.index(PROBES[name].level)) if names is None else names
    runs = alarm.runs_of(pictures, folds, seed)
    labels = pictures.labels
    classes = sorted({labels[i] for run in runs for i in run.train.tolist()} - {""})
    if not runs or len(classes) < 2:
        what = "no fold has readable images to train and to test on" if not runs else "there is one class only"
        return Part(NAME, TITLE, {"reason": what}, [Finding(UNKNOWN, f"The probes could not be run: {what}.")])
    patients = pictures.patients
    labellings = alarm.permute_labels(pictures.numbers(classes), patients, permutations, seed)
    model = None if model is None else in_order(model, classes)
    measuring = _Measuring(pictures, runs, classes, model, seed, resamples)
    results = {}
    with (report or NoProgress()).progress("running probes", len(names)) as advance:
        for name in names:
            view = PROBES[name].see(pictures)
            results[name] = Result(replace(view, features=None, shown=None))
            if view.features is not None:
                trial = alarm.run_probe(view.features, PROBES[name].kernel, labellings, patients, runs, len(classes))
                results[name] = measuring.of(results[name], trial)
            advance(1)
    outcome = measuring.outcome(results, permutations)
    if THUMBNAIL in names:
        whole = pictures.thumbs.reshape(len(pictures), -1)
        reached = alarm.nearest(whole, labellings, runs, len(classes))[1:]
        outcome = replace(outcome, permuted=_permuted(reached, outcome.chance))
    drawn = draw(outcome, pictures, folder) if folder is not None else ()
    return Part(NAME, TITLE, content(outcome), findings(outcome), sheets(outcome), drawn)


def _permuted(reached: FloatArray, chance: float) -> dict[str, Any] | None:
    if not len(reached):
        return None
    low, high = np.quantile(reached, [0.025, 0.975])
    mean = float(reached.mean())
    figures = {name: round(float(value), DIGITS) for name, value in (("mean", mean), ("low", low), ("high", high))}
    return {**figures, "learnt": mean > chance + LEAKING}


@dataclass
class _Measuring:
    """Measures probes in the same way as the model, and compares them with it."""

    pictures: ImageSet
    runs: Sequence[Run]
    classes: Sequence[str]
    model: Scores | None
    seed: int
    resamples: int
    notes: list[str] = field(default_factory=list)
    against: tuple[Scores, Estimates] | None = None
    by_patient: bool = True

    def of(self, result: Result, trial: Trial) -> Result:
        scores = scored(self.pictures.rows, self.runs, self.classes, trial)
        self.by_patient = scores.by_patient
        found = self._estimate(scores)
        difference, share = self._against(scores, found)
        return replace(result, trial=trial, difference=difference, share=share, **main_figures(scores, found))

    def _against(self, scores: Scores, found: Estimates) -> tuple[Figure, Figure]:
        """Difference from the model, and share of its gain over chance; with the reason where there is no model."""
        reason = NO_MODEL
        if self.model is not None:
            pair = align(scores, self.model, ("the probes", "the model"))
            if pair.first is not None and pair.second is not None:
                if pair.differs:
                    self.notes.append(f"Probes and model: {pair.differs}.")
                if self.against is None:
                    self.against = pair.second, self._estimate(pair.second)
                own = found if pair.whole else self._estimate(pair.first)
                return self._compared(own, self.against[1], pair.first)
            reason = pair.reason
            self.notes.append(f"The model cannot be compared with the probes: {reason}.")
        nothing = Measure(reason=reason).as_json()
        return nothing, nothing

    def _compared(self, own: Estimates, theirs: Estimates, scores: Scores) -> tuple[Figure, Figure]:
        method = "paired " + method_of(by_patient=scores.by_patient, by_influence=own.strata is not None)
        (value, reached), (ours, models) = (
            [getattr(found, level)["balanced_accuracy"] for found in (own, theirs)] for level in ("value", "replicates")
        )

        def with_interval(figure: float, replicates: FloatArray, undefined: str = "") -> Figure:
            uncertain = own.uncertainty("balanced_accuracy", replicates)
            return measure(
                figure, uncertain, patients=scores.patients, proportion=False, method=method, undefined=undefined
            ).as_json()

        # A resample in which the model is no better than chance has no share; nor has the whole then.
        chance = 1 / len(self.classes)
        gain = np.where(reached > chance, reached - chance, 0.0)
        share = metrics.divide(value - chance, gain)
        if own.strata is None:
            shares = metrics.divide(ours - chance, np.where(models > chance, models - chance, 0.0))
        else:
            shares = metrics.divide(ours - share * models, gain)
        return with_interval(float(value - reached), ours - models), with_interval(float(share), shares, NO_GAIN)

    def outcome(self, results: dict[str, Result], permutations: int) -> Outcome:
        alarming = [r.trial for name, r in results.items() if PROBES[name].level == ALARM and r.trial is not None]
        level = alarm.level_of(alarming) if alarming and permutations else math.nan
        for name, result in results.items():
            if result.trial is not None and permutations:
                limit = level if PROBES[name].level == ALARM else alarm.level_of([result.trial])
                results[name] = replace(result, limit=limit)
        model = model_auc = Measure(reason=NO_MODEL if self.model is None else "tested on other images").as_json()
        if self.against is not None:
            model, model_auc = main_figures(*self.against).values()
        tested = np.unique(np.concatenate([run.test for run in self.runs]))
        if not self.by_patient:
            self.notes.append(
                "No image has a patient_id: every image counts as a patient, so intervals may be too narrow."
            )
        return Outcome(
            results,
            tuple(self.classes),
            model,
            model_auc,
            level,
            permutations,
            self.seed,
            len(tested),
            len(np.unique(self.pictures.patients[tested])),
            len(self.runs),
            max(run.excluded for run in self.runs),
            tuple(dict.fromkeys(self.notes)),
        )

    def _estimate(self, scores: Scores) -> Estimates:
        return estimate(scores, seed=self.seed, resamples=self.resamples, calibrated=False)
