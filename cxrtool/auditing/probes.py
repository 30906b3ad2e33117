"""Probes for shortcuts: how far a simple classifier comes that is shown no lung, or nothing but the lungs.

Every probe is trained and tested on the model's own splits, and measured as the model is, on the same resamples of
patients. A probe that is shown no lung and yet tells the classes apart shows that their images differ in something
beside the lungs. Whether a model makes use of it is another question; its accuracy can no longer answer it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cxrtool.auditing import alarm, probes_plots, probes_words
from cxrtool.auditing.alarm import PERMUTATIONS, Run, Trial
from cxrtool.auditing.inputs import Fold, Pictures, Progress, Unseen
from cxrtool.auditing.part import ALARM, UNKNOWN, Finding, Part
from cxrtool.auditing.probes_kinds import PROBES, Figure, Outcome, Result, check_names
from cxrtool.auditing.probes_scores import main_figures, predictions
from cxrtool.auditing.probes_views import VIEWS
from cxrtool.evaluation import metrics
from cxrtool.evaluation.comparison_align import align, in_order
from cxrtool.evaluation.estimates import Estimates, estimate
from cxrtool.evaluation.intervals import IMAGES, PATIENTS, RESAMPLES, Measure, measure
from cxrtool.evaluation.metrics import FloatArray
from cxrtool.evaluation.scores import Scores, scores_of

NAME, TITLE = "probes", "Shortcut probes"

NO_MODEL, NO_GAIN = "no model was given", "the model is not better than chance"


def examine(
    pictures: Pictures,
    folds: Sequence[Fold],
    *,
    model: Scores | None = None,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    resamples: int = RESAMPLES,
    names: Sequence[str] | None = None,
    place: Path | None = None,
    report: Progress | None = None,
) -> Part:
    """Run the probes.

    Args:
        pictures: Of the manifest that the splits are of.
        folds: The model's own.
        model: Its test predictions, of the same images or of fewer; None where there is no model yet.
        seed: Of labellings and resamples.
        permutations: Labellings dealt by chance, P.
        resamples: Of patients.
        names: Which of `PROBES`; None takes all.
        place: The folder in which pictures are written; None draws none.
        report: Shows how far it is.

    Raises:
        UsageError: A name is none of a probe.
    """
    names = tuple(PROBES) if names is None else names
    check_names(names)
    runs = alarm.runs_of(pictures, folds, seed)
    labels = pictures.labels
    classes = sorted({labels[i] for run in runs for i in run.train.tolist()} - {""})
    if not runs or len(classes) < 2:
        what = "no fold has readable images to train and to test on" if not runs else "there is one class only"
        return Part(NAME, TITLE, {"reason": what}, [Finding(UNKNOWN, f"The probes could not be run: {what}.")])
    patients = pictures.patients
    labellings = alarm.deal(pictures.numbers(classes), patients, permutations, seed)
    measuring = _Measuring(pictures, runs, classes, model, seed, resamples)
    results = {}
    with (report or Unseen()).progress("probing", len(names)) as advance:
        for name in names:
            view = VIEWS[name](pictures)
            results[name] = Result(replace(view, features=None, shown=None))
            if view.features is not None:
                trial = alarm.attempt(view.features, PROBES[name].kernel, labellings, patients, runs, len(classes))
                results[name] = measuring.of(results[name], trial)
            advance(1)
    outcome = measuring.outcome(results, permutations)
    if "thumbnail" in names:
        whole = pictures.thumbs.reshape(len(pictures), -1)
        outcome = replace(outcome, permuted=alarm.nearest(whole, labellings, runs, len(classes))[1:])
    drawn = probes_plots.draw(outcome, pictures, place) if place is not None else ()
    told = probes_words.content(outcome), probes_words.findings(outcome), probes_words.sheets(outcome)
    return Part(NAME, TITLE, *told, drawn)


class _Measuring:
    """Measures probes as the model is measured, and against it."""

    def __init__(
        self, pictures: Pictures, runs: Sequence[Run], classes: Sequence[str], model: Scores | None, seed: int,
        resamples: int,
    ) -> None:  # fmt: skip
        self.pictures, self.runs, self.classes, self.seed, self.resamples = pictures, runs, classes, seed, resamples
        self.model = None if model is None else in_order(model, classes)
        self.chance = 1 / len(classes)
        self.notes: list[str] = []
        self.against: tuple[Scores, Estimates] | None = None
        self.by_patient = True

    def of(self, result: Result, trial: Trial) -> Result:
        scores = scores_of(predictions(self.pictures.rows, self.runs, self.classes, trial))
        self.by_patient = scores.by_patient
        found = self._estimate(scores)
        difference, share = self._against(scores, found)
        return replace(result, trial=trial, difference=difference, share=share, **main_figures(scores, found))

    def _against(self, scores: Scores, found: Estimates) -> tuple[Figure, Figure]:
        """Difference from the model, and share of what it gains; with the reason where there is no model."""
        reason = NO_MODEL
        if self.model is not None:
            pair = align(scores, self.model, ("the probes", "the model"))
            if pair.first is not None and pair.second is not None:
                if pair.differs:
                    self._note(f"Of probes and model {pair.differs}.")
                if self.against is None:
                    self.against = pair.second, self._estimate(pair.second)
                own = found if pair.whole else self._estimate(pair.first)
                return self._compared(own, self.against[1], pair.first)
            reason = pair.reason
            self._note(f"The model cannot be set beside the probes: {reason}.")
        nothing = Measure(reason=reason).as_json()
        return nothing, nothing

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
            self._note("No patient is named: every image counts as a patient, so intervals may be too narrow.")
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
            None,
            max(run.left_out for run in self.runs),
            tuple(self.notes),
        )

    def _compared(self, own: Estimates, theirs: Estimates, scores: Scores) -> tuple[Figure, Figure]:
        method = f"paired {PATIENTS if scores.by_patient else IMAGES}"
        (value, reached), (ours, models) = (
            [getattr(found, level)["balanced_accuracy"] for found in (own, theirs)] for level in ("value", "replicates")
        )

        def told(figure: float, replicates: FloatArray, undefined: str = "") -> Figure:
            return measure(
                figure, replicates, patients=scores.patients, proportion=False, method=method, undefined=undefined
            ).as_json()

        # A resample in which the model is no better than chance has no share; nor has the whole then.
        share, shares = (
            metrics.divide(mine - self.chance, np.where(others > self.chance, others - self.chance, 0.0))
            for mine, others in ((value, reached), (ours, models))
        )
        return told(float(value - reached), ours - models), told(float(share), shares, NO_GAIN)

    def _estimate(self, scores: Scores) -> Estimates:
        return estimate(scores, seed=self.seed, resamples=self.resamples, calibrated=False)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
