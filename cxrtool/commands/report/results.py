"""The results of a report: the evaluation that `cxrtool evaluate` makes, its tables and pictures with captions."""

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
"""What figures are grouped by where the columns are there; ages under 18 are children's."""

MOST_GROUPS = 12

CAPTIONS = {
    "roc": "ROC curves: sensitivity over the share of false alarms; of good ones the upper left corner is enlarged.",
    "precision_recall": "Precision over recall; dotted, the share of the class, which is what guessing reaches.",
    "reliability": "Calibration: how often the model is right, over how sure it is; below, how often it is so sure.",
    "confusion": "Confusion matrix: counts, and shares of each true class.",
    "decision_curve": "Decision curve: net benefit over the threshold, beside treating all and treating none.",
    "coverage": "What happens when the model may leave cases undecided: accuracy of the others over their share.",
    "repetitions": "How training went: mean over the folds and one standard deviation.",
}
"""By the name of the file, what a picture shows."""

TRAINING = "repetitions"
BY, EACH = "By ", "Each fold"


@dataclass
class Results:
    """An evaluation.

    Attributes:
        summaries: Name to the content of `metrics.json`; a single evaluation has an empty name.
        pictures: Name to the pictures of that evaluation.
    """

    summaries: dict[str, Summary]
    pictures: dict[str, list[Path]]

    def sections(self) -> list[Section]:
        """The tables and pictures of the whole, those by group, and those of each fold."""
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
            lines = ["Small groups have wide intervals; a difference between groups may come from another column, such "
                     "as the source."]  # fmt: skip
            found.append(Section(f"{RESULTS} by group", lines, by, self._shown(lambda stem: stem.startswith("by_"))))
        if each:
            found.append(Section(f"{RESULTS} of each fold", [], each, folded=True))
        return found

    def training(self) -> list[Path]:
        """The pictures of how folds trained."""
        return [path for paths in self.pictures.values() for path in paths if path.stem == TRAINING]

    def _shown(self, wanted: Any) -> list[Picture]:
        from cxrtool.reporting.page import Picture

        return [
            Picture(path, f"{name}: {caption_of(path.stem)}" if name else caption_of(path.stem))
            for name, paths in self.pictures.items() for path in paths if path.stem != TRAINING and wanted(path.stem)
        ]  # fmt: skip


def evaluate_for(asked: EvaluateOptions, rows: Sequence[Row], place: Path, settings: Settings) -> Results:
    """Evaluate as `cxrtool evaluate` does, into a folder that is thrown away later.

    Args:
        asked: What to evaluate; without `by`, the groups that there are.
        rows: Of the predictions, by which the groups are chosen.
        place: The folder.
        settings: The shared options.

    Raises:
        CxrtoolError: They cannot be evaluated.
    """
    asked = replace(asked, by=asked.by or default_groups(rows))
    quiet = replace(settings, out=place, force=False, dry_run=False, strict=False, report=Muted(settings.report))
    summaries = evaluate(asked, quiet)
    pictures = {}
    for name in find_sources(asked):
        order = [*CAPTIONS, *(f"by_{column}" for column in summaries[name]["per_group"])]
        ranks = {stem: rank for rank, stem in enumerate(order)}
        drawn = (place / name).glob("*.png")
        pictures[name] = sorted(drawn, key=lambda path: (ranks.get(path.stem, len(ranks)), path.name))
    return Results(summaries, pictures)


def default_groups(rows: Sequence[Row]) -> str | None:
    """The groups that every row may have a say in: columns that are there, with two to a dozen values.

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
    """What a picture of an evaluation shows.

    >>> caption_of("by_sex")
    'Accuracy by sex with intervals; dashed, that of all images.'
    """
    if stem.startswith("by_"):
        return f"Accuracy by {stem[3:].replace('_', ' ')} with intervals; dashed, that of all images."
    return CAPTIONS.get(stem, f"{stem.replace('_', ' ').capitalize()}.")


def first_lines(summaries: Mapping[str, Summary]) -> list[str]:
    """The main figures with their intervals, in words."""
    from cxrtool.evaluation.tables import cell, count_of

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
        said = ", ".join(f"{what} {cell(measure)}" for what, measure in figures)
        patients = f" of {count_of(summary['patients'], 'patient')}" if summary["patients_known"] else ""
        start = f"{name}: " if name else ""
        tested = count_of(summary["images"], "test image")
        level = f"{summary['interval']['confidence']:.0%}"
        lines.append(f"{start}{said[0].upper()}{said[1:]}, on {tested}{patients}; in brackets, {level} intervals.")
    return lines
