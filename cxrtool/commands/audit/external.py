"""The model itself on external images, compared with its internal test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.auditing.part import ALARM, CLEAR, UNKNOWN, WARNING, Finding, Part
from cxrtool.errors import CxrtoolError
from cxrtool.evaluation.tables import NAMES, Sheet, cell, count_of
from cxrtool.flow.images import read_images
from cxrtool.flow.predicting import Question, answer, to_table
from cxrtool.flow.run import model_folders
from cxrtool.flow.settings import Muted, Settings
from cxrtool.reporting.titles import EXTERNAL_MODEL

if TYPE_CHECKING:
    from cxrtool.data.tables.predictions import Predictions
    from cxrtool.evaluation.scores import Scores

NAME, TITLE = "external_model", EXTERNAL_MODEL

OVERALL = ("macro_auc", "balanced_accuracy", "accuracy", "ece", "brier")
OF_CLASS = ("sensitivity", "specificity", "auc")
CALIBRATION = ("slope", "intercept")

CHANCE = 0.5
"""AUC of guessing."""


def examine(
    run: Path, predictions: Predictions, external: Path, settings: Settings, *, partial: bool, max_pixels: int | None
) -> Part:
    """Run every fold of a run on external images.

    Args:
        run: A run of models.
        predictions: Its predictions of its internal test images.
        external: A manifest; images of classes that the run does not know are excluded.
        settings: Device, workers, seed.
        partial: Folds of the run may be missing.
        max_pixels: Refuse larger images before they are decoded.

    Returns:
        The part `external_model`: AUC, calibration and operating point (the class of the highest probability) on
        internal and external images, for the classes that both have.
    """
    try:
        found = _predict(run, external, settings, partial=partial, max_pixels=max_pixels)
        both = _common(predictions, found)
    except CxrtoolError as error:
        text = f"The results of the model in {external} are not known: {error.message}"
        return Part(NAME, TITLE, findings=[Finding(UNKNOWN, text)])
    from cxrtool.evaluation.summary import summarise

    here, there = (summarise(scores, seed=settings.seed) for scores in both)
    content = {"classes": here["classes"], "internal": _figures(here), "external": _figures(there)}
    return Part(NAME, TITLE, content, [_judge(here, there, external)], [_tabulate(here, there)])


def _predict(run: Path, external: Path, settings: Settings, *, partial: bool, max_pixels: int | None) -> Predictions:
    """The predictions of each fold for every image; each fold predicts all images, so it counts as a repeat."""
    question = Question(run, (str(external),), max_pixels=max_pixels)
    quiet = replace(settings, report=Muted(settings.report))
    manifest = read_images(external, quiet)
    members, answers, _ = answer(question, quiet, model_folders(run, partial=partial), manifest)
    predictions = to_table(members, answers, manifest.columns, manifest.name, by_member=True)
    number = {member.folder.name: str(i) for i, member in enumerate(members)}
    for row in predictions.rows:
        row["repeat"], row["fold"] = number.get(f"r{row['repeat']}f{row['fold']}", "0"), "0"
    return predictions


def _common(predictions: Predictions, found: Predictions) -> tuple[Scores, Scores]:
    """The scores of both for the classes that have images in both.

    Raises:
        CxrtoolError: There are fewer than two such classes.
    """
    from cxrtool.evaluation.scores import scores_of

    labels = [{row.get("label", "") for row in part.rows} for part in (predictions, found)]
    classes = [name for name in predictions.classes if name in labels[0] & labels[1]]
    if len(classes) < 2:
        raise CxrtoolError(
            f"expected images of two or more of its classes ({', '.join(predictions.classes)}), found "
            f"{', '.join(sorted(labels[1] - {''})) or 'no labels'}"
        )
    wanted = classes if set(classes) != set(predictions.classes) else []
    kept = [i for i, row in enumerate(found.rows) if row.get("label") in classes]
    known = replace(found, rows=[found.rows[i] for i in kept], probabilities=found.probabilities[kept])
    return scores_of(predictions, classes=wanted), scores_of(known, classes=wanted)


def _figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {name: summary[name] for name in ("images", "patients", "overall", "per_class", "calibration", "confusion")}


def _judge(here: Mapping[str, Any], there: Mapping[str, Any], external: Path) -> Finding:
    inside, outside = here["overall"]["macro_auc"], there["overall"]["macro_auc"]
    if inside["value"] is None or outside["value"] is None:
        reason = outside["reason"] or inside["reason"]
        return Finding(UNKNOWN, f"The AUC of the model in {external} is undefined: {reason}.")
    text = (
        f"The AUC of the model is {cell(inside)} on internal images and {cell(outside)} in {external} "
        f"({', '.join(here['classes'])}; {count_of(there['images'], 'image')})"
    )
    low, high = (outside[end] if outside[end] is not None else outside["value"] for end in ("low", "high"))
    if high < CHANCE:
        return Finding(ALARM, f"{text}: externally it is worse than guessing.")
    if low <= CHANCE:
        return Finding(ALARM, f"{text}: externally it is no better than guessing.")
    if high < (inside["low"] if inside["low"] is not None else inside["value"]):
        return Finding(WARNING, f"{text}: externally it is worse.")
    return Finding(CLEAR, f"{text}.")


def _tabulate(here: Mapping[str, Any], there: Mapping[str, Any]) -> Sheet:
    rows = [[unit, str(here[unit]), str(there[unit])] for unit in ("images", "patients")]
    rows += [[NAMES[name], cell(here["overall"][name]), cell(there["overall"][name])] for name in OVERALL]
    for label in here["classes"]:
        sides = here["per_class"][label], there["per_class"][label]
        rows += [[f"{NAMES[name]} of {label}", *(cell(side[name]) for side in sides)] for name in OF_CLASS]
        fits = [side["calibration"]["per_class"][label] for side in (here, there)]
        rows += [[f"{NAMES[name]} of {label}", *(cell(fit[name]) for fit in fits)] for name in CALIBRATION]
    notes = ["Every fold predicted every external image; external results are means over the folds."]
    return Sheet(TITLE, ["", "internal", "external"], rows, notes)
