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
    from cxrtool.reporting.page import Picture, Section

GROUPS = ("severity", "view", "source", "sex", "age:18,40,65")
"""Default groups, where the columns exist; under 18 are children."""

MOST_GROUPS = 12

CAPTIONS = {
    "roc": "ROC curves: sensitivity against false positive rate; of good ones, the upper left corner is enlarged.",
    "precision_recall": "Precision against recall; dotted: the share of the class, which guessing reaches.",
    "reliability": "Calibration: share of correct predictions against confidence; below: distribution of confidence.",
    "confusion": "Confusion matrix: counts, and shares of each true class.",
    "decision_curve": "Decision curve: net benefit against threshold, compared with treating all and treating none.",
    "coverage": "Abstaining: accuracy of the decided cases against their share.",
    "repetitions": "Training curves: mean over the folds and one standard deviation.",
}
"""File name without suffix to caption."""

TRAINING = "repetitions"
BY, EACH = "By ", "Each fold"


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
        from cxrtool.reporting.page import Section
        from cxrtool.reporting.titles import RESULTS

        every = tables.sheets(self.summaries)
        by = [sheet for sheet in every if sheet.title.startswith(BY)]
        each = [sheet for sheet in every if sheet.title.startswith(EACH)]
        whole = [sheet for sheet in every if sheet not in by and sheet not in each]
        audit = set(tables.audit_lines(self.summaries.values()))
        lines = [line.strip() for line in tables.opening(self.summaries) if line not in audit]
        found = [Section(RESULTS, lines, whole, self._shown(lambda stem: not stem.startswith("by_")))]
        if by:
            lines = [
                "Small groups have wide intervals; a difference between groups may come from another column, such "
                "as the source."
            ]
            found.append(Section(f"{RESULTS} by group", lines, by, self._shown(lambda stem: stem.startswith("by_"))))
        if each:
            found.append(Section(f"{RESULTS} of each fold", [], each, folded=True))
        return found

    def training(self) -> list[Path]:
        """The training curves."""
        return [path for paths in self.pictures.values() for path in paths if path.stem == TRAINING]

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
    'Accuracy by sex with intervals; dashed line: all images.'
    """
    if stem.startswith("by_"):
        return f"Accuracy by {stem[3:].replace('_', ' ')} with intervals; dashed line: all images."
    return CAPTIONS.get(stem, f"{stem.replace('_', ' ').capitalize()}.")


def first_lines(summaries: Mapping[str, Summary]) -> list[str]:
    """The main figures with their intervals, in words."""
    from cxrtool.evaluation.tables import cell, count_of
    from cxrtool.evaluation.unknown import NO_CLASS, NO_SCORES

    lines = []
    for name, summary in summaries.items():
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
        # Predictions of another tool may have no classes, or no scores.
        figures = [(what, measure) for what, measure in figures if measure.get("reason") not in (NO_CLASS, NO_SCORES)]
        text = ", ".join(f"{what} {cell(measure)}" for what, measure in figures)
        patients = f" of {count_of(summary['patients'], 'patient')}" if summary["patients_known"] else ""
        start = f"{name}: " if name else ""
        tested = count_of(summary["images"], "test image")
        level = f"{summary['interval']['confidence']:.0%}"
        lines.append(f"{start}{text[0].upper()}{text[1:]}, on {tested}{patients}; {level} intervals in brackets.")
    return lines
