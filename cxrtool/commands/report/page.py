"""Makes the page of a report from a study."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxrtool
from cxrtool.commands.report import errors
from cxrtool.commands.report.making import curves_section, machines_section, settings_section
from cxrtool.commands.report.opening import answers
from cxrtool.commands.report.results import Results, evaluate_for
from cxrtool.commands.report.study import Study, divided_in_words, flow_of
from cxrtool.data.splitting.splits import Splits
from cxrtool.data.tables.table_one import of_two_sexes, table_of_study
from cxrtool.flow.audits import sections_of
from cxrtool.flow.folder import without_paths
from cxrtool.flow.replaying import STEPS
from cxrtool.flow.run import read_table_of_predictions
from cxrtool.flow.settings import Settings

if TYPE_CHECKING:
    from cxrtool.commands.report.options import ReportOptions
    from cxrtool.evaluation.scores import Scores
    from cxrtool.reporting.flow_chart import Flow
    from cxrtool.reporting.methods import Facts
    from cxrtool.reporting.page import Page, Section

SUBTITLE = "The performance of a classifier of chest radiographs, and how far it can be trusted."


@dataclass
class Maker:
    """Makes the page of one study.

    Attributes:
        study: What is reported.
        options: The options of the command.
        settings: The shared options.
        folder: A temporary folder for images and figures.
    """

    study: Study
    options: ReportOptions
    settings: Settings
    folder: Path

    def page(self) -> Page:
        """The page.

        Raises:
            CxrtoolError: The predictions cannot be evaluated.
        """
        from cxrtool.reporting.checklists import CHECKLISTS, tabulate
        from cxrtool.reporting.limits import limits
        from cxrtool.reporting.methods import paragraphs
        from cxrtool.reporting.page import Page, Section
        from cxrtool.reporting.titles import CHECKLIST, LIMITS, METHODS, RESULTS

        study, report = self.study, self.settings.report
        report.note("evaluating")
        results = evaluate_for(self.options.evaluation(), study.tested, self.folder / "evaluation", self.settings)
        flow = self._flow()
        facts = self._facts(results, flow)
        report.note("drawing")
        # The order of a paper: patients, results, errors, audit, methods.
        sections = [
            self._flow_section(flow),
            self._table_one(),
            *results.sections(),
            *self._errors(),
            *self._heatmaps(),
            *sections_of(study.audit),
            settings_section(study),
            curves_section(study, *results.training()),
            Section(METHODS, paragraphs(facts)),
            Section(LIMITS, limits(facts)),
            machines_section(study, self._call()),
        ]
        shown = [section for section in sections if section is not None]
        if self.options.checklist:
            titles = [section.title for section in shown]
            sheet = tabulate(CHECKLISTS[self.options.checklist], titles)
            shown.append(Section(CHECKLIST, [], [sheet]))
        # The first screen and the results are open.
        shown = [replace(section, folded=section.folded or section.title != RESULTS) for section in shown]
        what = ", ".join(str(source.path) for source in study.sources[:3]) + (" …" if len(study.sources) > 3 else "")
        footer = (
            f"Made by cxrtool report {cxrtool.__version__} from {what}. This page needs no network and sends nothing."
        )
        opening = answers(study, results.summaries)
        return Page(f"Report: {self._name()}", SUBTITLE, (), shown, footer, opening)

    def _call(self) -> list[str]:
        """The command line of this report, which also evaluates."""
        words = [str(word) for word in self.settings.argv]
        return [shlex.join(["cxrtool", *words[words.index("report") :]])] if "report" in words else []

    def _name(self) -> str:
        source = self.study.sources[0]
        where = source.path if source.path.is_dir() else source.path.with_suffix("")
        rest = len(self.study.sources) - 1
        return where.absolute().name + (f" and {rest} more" if rest else "")

    def _errors(self) -> list[Section]:
        from cxrtool.reporting.page import Picture, Section
        from cxrtool.reporting.titles import ERRORS

        if self.options.errors == 0:
            return []
        found = [(name, scores, errors.find_errors(scores)) for name, scores in self._scores()]
        sections = []
        for name, scores, wrong in found:
            title = f"{ERRORS}: {name}" if name and len(found) > 1 else ERRORS
            shown = wrong[: self.options.errors]
            if not scores.decided.any():
                sections.append(Section(title, ["No class was predicted: the scores are no probabilities."]))
                continue
            if not shown:
                sections.append(Section(title, ["The predicted class of every test image is right."]))
                continue
            lines = [
                f"The predicted class is wrong for {len(wrong)} of {scores.images} test images"
                + (" in at least one test" if any(one.of > 1 for one in wrong) else "")
                + f". These are the {len(shown)} most confident errors. A radiologist should look at each: "
                "is the label right, is the image usable, did the model look at the lungs?"
            ]
            if self.options.sensitivity is not None:
                lines.append("Predicted: the most probable class; the threshold of --sensitivity is not used here.")
            folds = [fold for source in self.study.sources if source.name == name for fold in source.folds]
            known = {row["path"]: row for row in self.study.rows if row.get("path")}
            folder = self.folder / f"errors{len(sections)}"
            folder.mkdir()
            pictures, remarks = errors.draw_errors(
                shown, folds, known, folder, self.settings, heatmaps=self.options.heatmaps
            )
            sheets = [errors.tabulate(shown)]
            drawn = [Picture(path, caption) for path, caption in pictures]
            sections.append(Section(title, lines + remarks, sheets, drawn))
        return sections

    def _heatmaps(self) -> list[Section]:
        explained = self.study.explained
        return [explained.section({row["image_id"] for row in self.study.tested})] if explained else []

    def _scores(self) -> list[tuple[str, Scores]]:
        from cxrtool.data.tables.foreign import ForeignColumns, as_runs
        from cxrtool.data.tables.predictions import join
        from cxrtool.evaluation.scores import scores_of

        tables: dict[str, list[Path]] = {}
        for source in self.study.sources:
            tables.setdefault(source.name, []).extend(source.tables)
        found = []
        for name, paths in tables.items():
            parts = [read_table_of_predictions(path, ForeignColumns(positive=self.options.positive)) for path in paths]
            as_runs(parts)
            joined = parts[0] if len(parts) == 1 else join(parts, name or str(paths[0]))
            found.append((name, scores_of(joined, abstaining=True)))
        return found

    def _flow(self) -> Flow:
        study = self.study
        return flow_of(study.origins, study.rows, study.splits, study.unread, study.radiographs_tested())

    def _flow_section(self, flow: Flow) -> Section:
        from cxrtool.reporting.flow_chart import draw_flow, tabulate
        from cxrtool.reporting.page import Picture, Section
        from cxrtool.reporting.titles import FLOW

        path = self.folder / "flow.png"
        draw_flow(flow, path)
        caption = (
            "The flow of images: each box is what was left after a step, from the source to the subsets; boxes at the "
            "right are excluded images with the reasons."
            if any(stage.exclusions for stage in flow.stages)
            else "The flow of images: each box is what was left after a step, from the source to the subsets. No image "
            "was excluded."
        )
        return Section(FLOW, [], [tabulate(flow)], [Picture(path, caption)])

    def _table_one(self) -> Section:
        from cxrtool.data.tables.manifest import Manifest
        from cxrtool.evaluation.tables import Sheet
        from cxrtool.reporting.page import Section
        from cxrtool.reporting.titles import TABLE_ONE

        study = self.study
        manifest = Manifest(list(study.rows[0]), study.rows) if study.rows else Manifest([], [])
        notes = [
            "SMD: the largest standardised mean difference between two of the groups. Between the subsets of a random "
            "division it should be small; a value over 0.1 is usually taken as a difference.",
            "Age and sex are a patient's, the rest an image's.",
            *(f"{warning}." for warning in of_two_sexes(manifest)),
        ]
        divisions: list[tuple[str, Splits | None]] = [("By class", None)]
        if study.splits is not None:
            first = next(iter(study.splits.runs))
            one = Splits({first: study.splits.runs[first]}, study.splits.name)
            several = len(study.splits.runs) > 1
            title = f"By subset, in the first of {len(study.splits.runs)} divisions" if several else "By subset"
            divisions.insert(0, (title, one))
        sheets: list[Sheet] = []
        for title, splits in divisions:
            (columns, rows), _ = table_of_study(manifest, splits)
            sheets.append(Sheet(title, columns, rows, [] if sheets else notes))
        lines = [
            f"From {study.named}." if study.named else "From the columns of the predictions; there is no manifest."
        ]
        return Section(TABLE_ONE, lines, sheets)

    def _facts(self, results: Results, flow: Flow) -> Facts:
        from cxrtool.reporting.methods import Facts

        study = self.study
        summaries: Sequence[Any] = list(results.summaries.values())
        last = flow.stages[-1]
        chain = (
            study.fold.get("chain") or study.made.get("chain") or (study.model.get("chain") if study.model else None)
        )
        before = [entry for origin in study.origins if origin.made for entry in origin.made.get("chain", [])]
        # A prepared folder that kept its sizes is no processing, and stands in no chain of a model.
        told = list(without_paths(chain)) if chain else before if study.origins else None
        return Facts(
            images=last.images,
            patients=last.patients,
            classes=study.counts("label"),
            sources=study.counts("source"),
            excluded=flow.excluded(),
            chain=told if chain is not None or study.origins else None,
            divided=divided_in_words(study),
            run=study.made,
            fold=study.fold,
            model=study.model,
            summary=summaries[0],
            folds=len(study.folds) or summaries[0]["runs"],
            loss=_loss(study),
            audited=study.audit is not None,
            external=len(summaries) > 1,
            sources_apart=study.sources_apart(),
            calibrated=self.options.calibrated,
            sensitivity=self.options.sensitivity,
            enhancing={name: step.describe for name, step in STEPS.items()},
        )


def _loss(study: Study) -> str:
    """The loss of the network of a run; empty where the network is not known."""
    network = study.model.get("architecture", {})
    if not (name := network.get("name")):
        return ""
    from cxrtool.models.registry import loss_of

    return "cumulative" if network.get("ordered") else loss_of(name)
