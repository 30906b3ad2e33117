"""A lung network from masks, or a rib network from rib-free images: one part, or one for every fold of a split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.fit.measure import FIGURES, TABLES, summarise
from cxrtool.commands.fit.options import PartOptions
from cxrtool.commands.fit.pairs import divide, join, read_folds, read_pairs
from cxrtool.data.file_names import PART, REJECTS
from cxrtool.data.files import locked, saying_what_fails
from cxrtool.data.splitting.splits import splits_digest
from cxrtool.data.tables.manifest import Manifest, Row, read_table, write_table
from cxrtool.errors import count_of
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Assignment, splits_file
from cxrtool.flow.fold_training import (
    Summary,
    complete_run,
    create_run_folder,
    finished_folds,
    raise_if_strict,
    warn_without_validation,
)
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.settings import Settings
from cxrtool.flow.signals import StopRequest
from cxrtool.options import plain
from cxrtool.training.image_to_image_options import LOSSES

if TYPE_CHECKING:
    from cxrtool.commands.fit.part import PartFitter
    from cxrtool.imaging.fits import Form

LIBRARIES = ("numpy", "opencv-python-headless", "torch")
SUMMARY = "summary.csv"
WORST = "worst.png"
LOWEST = 20


def fit(options: PartOptions, settings: Settings) -> Summary | None:
    """Fit a network, or one for each fold of a split, unless it is complete.

    Returns:
        The table of results on the validation images, or on the test images of the folds; None if there was nothing
        to do or to measure.

    Raises:
        UsageError: An option is wrong.
        InputError: No image has a target, or manifest and splits do not match.
        LeakageError: A patient or an image is in more than one subset of a fold.
        StoppedError: A signal arrived.
        StrictError: `--strict`, and an image could not be read; the result is complete nevertheless.
    """
    options, form = resolve(options)
    kind, column = options.KIND, options.target_column
    manifest = read_pairs(options.manifest, kind, column, settings)
    own = len(manifest)
    if options.also:
        manifest = join(manifest, read_pairs(options.also, kind, column, settings), column)
    if options.balance:
        manifest.require(options.balance)
    inputs = Inputs.of(manifest, files=[Path(row[column]) for row in manifest.rows], verify=settings.verify)
    identity = {**options.identity(), "form": form.to_json(), "own": own, "precision": settings.precision}
    if options.splits:
        identity["splits"] = splits_digest(splits_file(options.splits))
    plan = Plan("fit", identity, inputs, (), LIBRARIES, seeded=True, threaded=True)
    files = {name: plain(getattr(options, name)) for name in ("manifest", "splits", "also")}
    shown = {**options.identity(), **files, "validation": options.validation, "precision": settings.precision}
    task = Task(options, form, manifest, own, column, plan, shown, settings)
    return task.fit_folds() if options.splits else task.fit_one()


def resolve(options: PartOptions) -> tuple[PartOptions, Form]:
    """The options with the network's default size and loss, and its input form.

    Raises:
        UsageError: A number is out of range, or options exclude each other.
    """
    from cxrtool.models.parts import networks

    form = networks(options.KIND)[options.network].form
    if options.size:
        form = replace(form, size=options.size)
    options = replace(options, size=form.size, loss=options.loss or next(iter(LOSSES[options.KIND])))
    options.check()
    return options, form


@dataclass(frozen=True)
class Task:
    """One call of `fit`."""

    options: PartOptions
    form: Form
    manifest: Manifest
    own: int
    column: str
    plan: Plan
    shown: dict[str, Any]
    settings: Settings

    def fit_one(self) -> Summary | None:
        """Fit one part; a share of the patients is held out."""
        folder = StepFolder(self.settings.out, self.plan, self.settings, marker=PART)
        if not folder.needs_work():
            return None
        validation = self.options.validation
        assignment = divide(self.manifest, self.own, validation, self.options.balance, self.settings)
        fitter = self._fitter()
        with StopRequest() as request:
            fitter.fit(folder, assignment, request, {})
        rows = read_table(folder.out / TABLES[self.options.KIND]).rows
        self.settings.report.say(f"next: {_next(self.options.KIND, folder.shown)}")
        raise_if_strict(read_table(folder.out / REJECTS).rows, self.settings)
        return (
            (*summarise(rows, self.options.KIND, "validation", self.settings.seed), "Validation images")
            if rows
            else None
        )

    def fit_folds(self) -> Summary | None:
        """Fit one part for each fold, in a run."""
        splits = splits_file(self.options.splits or Path())
        folds = read_folds(splits, self.manifest, self.own, self.settings)
        wanted = runs.select_folds([(a.repeat, a.fold) for a in folds], self.options.only)
        container = StepFolder(self.settings.out, self.plan, self.settings, replaced=False)
        if not container.needs_work():
            return None
        warn_without_validation([a for a in folds if (a.repeat, a.fold) in wanted], self.options, self.settings)
        fitter = self._fitter()
        create_run_folder(container, splits, self.shown, {})
        with StopRequest() as request:
            for assignment in folds:
                if (assignment.repeat, assignment.fold) in wanted:
                    request.raise_if_stopped()
                    self._fit_fold(container, fitter, assignment, request)
        return self._close(container, folds)

    def _fit_fold(
        self, container: StepFolder, fitter: PartFitter, assignment: Assignment, request: StopRequest
    ) -> None:
        options = {**self.plan.options, "repeat": assignment.repeat, "fold": assignment.fold}
        plan = replace(self.plan, options=options)
        folder = StepFolder(container.out / assignment.name, plan, self.settings, marker=PART)
        if folder.needs_work():
            fitter.fit(folder, assignment, request, {"run_digest": container.digest})

    def _fitter(self) -> PartFitter:
        from cxrtool.commands.fit.part import PartFitter, check_design

        check_design(self.options, self.form, self.settings)
        return PartFitter(self.options, self.form, self.manifest, self.settings)

    def _close(self, container: StepFolder, folds: list[Assignment]) -> Summary | None:
        """When every fold is complete, write the files of the run."""
        run, kind, report = container.out, self.options.KIND, self.settings.report
        names = [a.name for a in folds]
        done, rejects = finished_folds(container, names)
        rows = [row for name in done for row in read_table(run / name / TABLES[kind]).rows]
        if len(done) < len(names):
            report.say(f"{container.shown}: {len(done)} of {count_of(len(names), 'fold is', 'folds are')} complete")
            return None
        with saying_what_fails(run), locked(run.parent / f".{run.name}.lock"):
            subset = "test" if any(row["subset"] == "test" for row in rows) else "validation"
            columns = ["image_id", "patient_id", "repeat", "fold", "subset", *FIGURES[kind]]
            write_table(run / TABLES[kind], columns, rows)
            header, table = summarise(rows, kind, subset, self.settings.seed)
            write_table(run / SUMMARY, header, [dict(zip(header, cells, strict=True)) for cells in table])
            self._draw_worst(run, [row for row in rows if row["subset"] == subset])
            complete_run(container, names, rejects, self.manifest)
        report.say(
            f"{container.shown}: {runs.all_folds(len(names))} complete; the worst images are in "
            f"{container.shown / WORST}"
        )
        raise_if_strict(rejects, self.settings)
        return header, table, f"{subset.capitalize()} images"

    def _draw_worst(self, run: Path, rows: list[Row]) -> None:
        from cxrtool.commands.fit.part import captions
        from cxrtool.commands.fit.pictures import draw_examples, predict_with
        from cxrtool.models.parts import load_network

        kind = self.options.KIND
        first = FIGURES[kind][0]
        worst = sorted(rows, key=lambda row: float(row[first]) * (1 if kind == "lungs" else -1))[:LOWEST]
        images = {row["image_id"]: row for row in self.manifest.rows}
        folds = [run / runs.fold_name(row["repeat"], row["fold"]) for row in worst]
        entries = [
            (images[row["image_id"]], captions(row, kind), predict_with(load_network(fold, kind), kind))
            for row, fold in zip(worst, folds, strict=True)
        ]
        title = f"the worst {len(worst)} of {len(rows)} images"
        draw_examples(run / WORST, entries, kind, self.column, self.form, title)


def _next(kind: str, shown: Path) -> str:
    command = {"lungs": "segment MANIFEST --lungs", "ribs": "enhance MANIFEST --steps suppress-ribs --ribs"}[kind]
    return f"cxrtool {command} {shown} -o DIR"
