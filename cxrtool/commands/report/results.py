"""The results of a report: the evaluation of `cxrtool evaluate`, its tables, and its figures with captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.tables.manifest import Row
from cxrtool.flow.evaluating import EvaluateOptions, Summary, evaluate, find_sources
from cxrtool.flow.settings import Muted, Settings

if TYPE_CHECKING:
    from cxrtool.evaluation.tables import Sheet
    from cxrtool.reporting.page import Picture, Section

GROUPS = ("severity", "view", "source", "sex", "age:18,40,65")
"""Default groups, where the columns exist; under 18 are children."""

MOST_GROUPS = 12

CAPTIONS = {
    "roc": (
        "ROC curves: the share of the images of the class that is found (sensitivity) against the share of the other "
        "images that is wrongly predicted to be of the class. The nearer to the upper left corner, the better; the "
        "dotted line is chance. Black: the operating point, at which the sensitivity and specificity of the tables "
        "were measured, with their intervals. Where a curve passes through the upper left corner, it is enlarged."
    ),
    "precision_recall": (
        "Precision-recall curves: of the images predicted to be of the class, the share that is (precision, positive "
        "predictive value), against the share of the class that is found (recall, sensitivity). The nearer to the "
        "upper right corner, the better; the dotted line is the share of the class, which guessing reaches. Precision "
        "depends on this share and is lower where the disease is rarer."
    ),
    "reliability": (
        "Calibration: what was observed against the predicted probability, in bins of at least 20 images (bars: 95 % "
        "intervals). On the dotted line a probability means what it says; below it the model is too sure, above it "
        "not sure enough. Below: how often each probability was predicted."
    ),
    "confusion": (
        "Confusion matrix: the number of images of each true class (rows) by predicted class (columns), and their "
        "share of the true class. Correct predictions are on the diagonal."
    ),
    "decision_curve": (
        "Decision curve: the net benefit of acting on the prediction where its probability exceeds the threshold "
        "risk, compared with acting on all images and on none. A model is useful at the risks where its curve is the "
        "highest."
    ),
    "coverage": (
        "Accuracy of the decided images when the least confident predictions are left to the reader: to the right "
        "fewer are decided."
    ),
    "repetitions": (
        "Training curves: mean over the folds and one standard deviation (band), over the epochs on a logarithmic axis."
    ),
}
"""File name without suffix to caption."""

TRAINING = "repetitions"
BY, EACH, MEAN_CURVES = "By ", "Each fold", "Training curves"
"""The first words of the titles of some tables of an evaluation."""


@dataclass
class Results:
    """An evaluation.

    Attributes:
        summaries: Name to the content of `metrics.json`; a single evaluation has an empty name.
        pictures: Name to the figures of that evaluation.
    """

    summaries: dict[str, Summary]
    pictures: dict[str, list[Path]]

    def sections(self) -> list[Section]:
        """Sections with tables and figures of all images, by group, and of each fold."""
        from cxrtool.evaluation import tables
        from cxrtool.evaluation.plots.reliability import why_no_reliability
        from cxrtool.reporting.page import Section
        from cxrtool.reporting.titles import RESULTS

        every = tables.sheets(self.summaries)
        by = [sheet for sheet in every if sheet.title.startswith(BY)]
        each = [sheet for sheet in every if sheet.title.startswith(EACH)]
        whole = [sheet for sheet in every if not sheet.title.startswith((BY, EACH, MEAN_CURVES))]
        audit = set(tables.audit_lines(self.summaries.values()))
        lines = [line.strip() for line in tables.opening(self.summaries) if line not in audit]
        lines += [why for summary in self.summaries.values() if (why := why_no_reliability(summary))]
        found = [Section(RESULTS, lines, whole, self._shown(lambda stem: not stem.startswith("by_")))]
        if by:
            lines = [
                "Small groups have wide intervals; a difference between groups may come from another column, such "
                "as the source."
            ]
            drawn = self._shown(lambda stem: stem.startswith("by_"))
            found.append(Section(f"{RESULTS} by group", lines, by, drawn, folded=True))
        if each:
            found.append(Section(f"{RESULTS} of each fold", [], each, folded=True))
        return found

    def training(self) -> tuple[list[Sheet], list[Path]]:
        """The mean training curves: their best values, and their figures."""
        from cxrtool.evaluation import tables

        sheets = [sheet for sheet in tables.sheets(self.summaries) if sheet.title.startswith(MEAN_CURVES)]
        return sheets, [path for paths in self.pictures.values() for path in paths if path.stem == TRAINING]

    def _shown(self, wanted: Any) -> list[Picture]:
        from cxrtool.reporting.page import Picture

        return [
            Picture(path, f"{name}: {caption_of(path.stem)}" if name else caption_of(path.stem))
            for name, paths in self.pictures.items()
            for path in paths
            if path.stem != TRAINING and wanted(path.stem)
        ]


def evaluate_for(options: EvaluateOptions, rows: Sequence[Row], folder: Path, settings: Settings) -> Results:
    """Evaluate as `cxrtool evaluate` does, into a temporary folder.

    Args:
        options: The evaluation; without `by`, the default groups are used.
        rows: Rows of the predictions, to choose default groups.
        folder: Where figures are written.
        settings: The shared options.

    Raises:
        CxrtoolError: They cannot be evaluated.
    """
    options = replace(options, by=options.by or default_groups(rows))
    quiet = replace(settings, out=folder, force=False, dry_run=False, strict=False, report=Muted(settings.report))
    summaries = evaluate(options, quiet)
    pictures = {}
    for name in find_sources(options):
        order = [*CAPTIONS, *(f"by_{column}" for column in summaries[name]["per_group"])]
        ranks = {stem: rank for rank, stem in enumerate(order)}
        drawn = (folder / name).glob("*.png")
        pictures[name] = sorted(drawn, key=lambda path: (ranks.get(path.stem, len(ranks)), path.name))
    return Results(summaries, pictures)


def default_groups(rows: Sequence[Row]) -> str | None:
    """The groups of a report: columns that all rows have, with 2 to `MOST_GROUPS` values.

    >>> default_groups([{"sex": "F", "view": "PA"}, {"sex": "M", "view": "PA"}])
    'sex'
    """
    found = []
    for group in GROUPS:
        column = group.partition(":")[0]
        if all(column in row for row in rows) and rows:
            values = {row[column].strip() for row in rows} - {""}
            if len(values) > 1 and (":" in group or len(values) <= MOST_GROUPS):
                found.append(group)
    return ",".join(found) or None


def caption_of(stem: str) -> str:
    """The caption of a figure of an evaluation.

    >>> caption_of("by_sex")
    'Accuracy by sex with 95 % intervals, which are wide in small groups; dashed line: all images.'
    """
    if stem.startswith("by_"):
        column = stem[3:].replace("_", " ")
        return f"Accuracy by {column} with 95 % intervals, which are wide in small groups; dashed line: all images."
    return CAPTIONS.get(stem, f"{stem.replace('_', ' ').capitalize()}.")


def main_figures(summary: Summary) -> list[tuple[str, Mapping[str, Any]]]:
    """The main figures with their names; those that predictions of another tool do not allow are left out."""
    from cxrtool.evaluation.unknown import NO_CLASS, NO_SCORES

    overall, positive = summary["overall"], summary["positive"]
    figures = [("balanced accuracy", overall["balanced_accuracy"]), ("accuracy", overall["accuracy"])]
    if positive is not None or len(summary["classes"]) == 2:
        of = summary["per_class"][positive or summary["classes"][0]]
        figures.append(("AUC", of["auc"]))
    else:
        figures.append(("AUC, mean over the classes", overall["macro_auc"]))
    if positive is not None:
        of = summary["per_class"][positive]
        figures = [(f"sensitivity for {positive}", of["sensitivity"]), ("specificity", of["specificity"]), *figures]
    return [(what, measure) for what, measure in figures if measure.get("reason") not in (NO_CLASS, NO_SCORES)]


def first_lines(summaries: Mapping[str, Summary]) -> list[str]:
    """The main figures with their intervals, in words."""
    from cxrtool.evaluation.tables import cell, count_of

    lines = []
    for name, summary in summaries.items():
        text = ", ".join(f"{what} {cell(measure)}" for what, measure in main_figures(summary))
        patients = f" of {count_of(summary['patients'], 'patient')}" if summary["patients_known"] else ""
        start = f"{name}: " if name else ""
        tested = count_of(summary["images"], "test image")
        level = f"{summary['interval']['confidence']:.0%}"
        lines.append(f"{start}{text[0].upper()}{text[1:]}, on {tested}{patients}; {level} intervals in brackets.")
    return lines
