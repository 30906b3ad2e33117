"""A lung network from masks, or a rib network from rib-free images: one part, or one for every fold of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.commands.fit.measure import FIGURES, TABLES, summarise
from cxrtool.commands.fit.options import PartOptions
from cxrtool.commands.fit.pairs import divide, join, read_folds, read_pairs
from cxrtool.data.file_names import PART, PART_WEIGHTS, REJECTS
from cxrtool.data.files import locked, saying_what_fails
from cxrtool.data.splitting.splits import splits_digest
from cxrtool.data.tables.manifest import Manifest, Row, read_table, write_table
from cxrtool.errors import UsageError, count_of
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Assignment, splits_file
from cxrtool.flow.fold_training import (
    Summary,
    complete_run,
    create_run_folder,
    finished_folds,
    report_rejects,
    warn_without_validation,
)
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.jobs import FoldJob, apart, check_processes, check_same, do_apart
from cxrtool.flow.settings import Reporter, Settings, Silent
from cxrtool.flow.signals import StopRequest
from cxrtool.models.parts import read_part
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
    task = Task.open(options, settings)
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
    """A call of `fit` that has read its tables, and the fits of its folds, which any process can do.

    Attributes:
        own: Images that may be held out; those after them are of `--also`.
        folds: Those of `--splits`.
        settings: With the report of the fits.
        speaks: Whether rejects are reported here.
    """

    options: PartOptions
    form: Form
    manifest: Manifest
    own: int
    folds: Sequence[Assignment]
    plan: Plan
    settings: Settings
    speaks: bool

    @classmethod
    def open(cls, options: PartOptions, settings: Settings, report: Reporter | None = None) -> Task:
        """Read the tables that the options name; without a `report` of their own, fits have that of the settings.

        Raises:
            UsageError: An option is wrong.
            InputError: No image has a target, or manifest and splits do not match.
            LeakageError: A patient or an image is in more than one subset of a fold.
        """
        options, form = resolve(options)
        if settings.cluster and not options.splits:
            raise UsageError("--cluster: expected --splits, whose folds are given to workers, found one network to fit")
        tables = {"the manifest": options.manifest, "--splits": options.splits, "--also": options.also}
        check_processes(settings, options.jobs, {name: path for name, path in tables.items() if path})
        kind, targets = options.KIND, options.targets()
        manifest = read_pairs(options.manifest, kind, targets, settings)
        if targets.extent:
            manifest.require(targets.extent)
        own = len(manifest)
        if options.also:
            manifest = join(manifest, read_pairs(options.also, kind, targets, settings), targets.column)
        labels = {row.get("label", "") for row in manifest.rows}
        if unknown := sorted(targets.clear - labels):
            raise UsageError(
                f"--clear: expected classes of the images, found '{unknown[0]}'",
                f"they are: {', '.join(sorted(labels - {''}))}",
            )
        if options.balance:
            manifest.require(options.balance)
        files = [file for row in manifest.rows for file in targets.pair(row).files[1:]]
        if Path(options.weights).is_file():
            files.append(Path(options.weights))
        if start := options.start():
            files.append(read_part(start, kind).folder / PART_WEIGHTS)
        inputs = Inputs.of(manifest, files=files, verify=settings.verify)
        identity = {**options.identity(), "form": form.to_json(), "own": own, "precision": settings.precision}
        folds: Sequence[Assignment] = ()
        if options.splits:
            splits = splits_file(options.splits)
            identity["splits"] = splits_digest(splits)
            folds = read_folds(splits, manifest, own, settings)
        plan = Plan("fit", identity, inputs, (), LIBRARIES, seeded=True, threaded=True)
        settings = replace(settings, report=report or settings.report)
        return cls(options, form, manifest, own, folds, plan, settings, report is None)

    def fit_one(self) -> Summary | None:
        """Fit one part; a share of the patients is held out."""
        from cxrtool.commands.fit.part import check_design

        folder = StepFolder(self.settings.out, self.plan, self.settings, marker=PART)
        if not folder.needs_work():
            return None
        validation = self.options.validation
        assignment = divide(self.manifest, self.own, validation, self.options.balance, self.settings)
        check_design(self.options, self.form, self.settings)
        with StopRequest() as request:
            self.fitter.fit(folder, assignment, request, {})
        rows = read_table(folder.out / TABLES[self.options.KIND]).rows
        self.settings.report.say(f"next: {_next(self.options.KIND, folder.shown)}")
        report_rejects(read_table(folder.out / REJECTS).rows, self.settings)
        return (
            (*summarise(rows, self.options.KIND, "validation", self.settings.seed), "Validation images")
            if rows
            else None
        )

    def fit_folds(self) -> Summary | None:
        """Fit one part for each fold, in a run."""
        from cxrtool.commands.fit.part import check_design

        container, options, settings = self.container, self.options, self.settings
        wanted = runs.select_folds([(a.repeat, a.fold) for a in self.folds], options.only)
        mine = [a for a in self.folds if (a.repeat, a.fold) in wanted]
        if not container.needs_work(a.name for a in mine):
            return None
        warn_without_validation(mine, options, settings)
        check_design(options, self.form, settings)
        files = {name: plain(getattr(options, name)) for name in ("manifest", "splits", "also")}
        shown = {**options.identity(), **files, "validation": options.validation, "precision": settings.precision}
        create_run_folder(container, splits_file(options.splits or Path()), shown, {})
        with StopRequest() as request:
            if apart(settings, options.jobs):
                start = partial(start_fitting, options, settings.portable(), container.digest)
                jobs = [FoldJob(a.name) for a in mine if self._folder(a.name).needs_work()]
                do_apart(start, [jobs], options.jobs, settings, request, partial(self.fitter.decoded, container))
            else:
                for assignment in mine:
                    request.raise_if_stopped()
                    self.do(FoldJob(assignment.name), request)
        return self._close(container, self.folds)

    def do(self, job: FoldJob, request: StopRequest) -> None:
        """Fit the network of a fold, unless it is complete."""
        folder = self._folder(job.fold)
        if folder.needs_work():
            assignment = next(a for a in self.folds if a.name == job.fold)
            self.fitter.fit(folder, assignment, request, {"run_digest": self.container.digest})

    @cached_property
    def container(self) -> StepFolder:
        """The run."""
        return StepFolder(self.settings.out, self.plan, self.settings, replaced=False)

    @cached_property
    def fitter(self) -> PartFitter:
        """What fits a network."""
        from cxrtool.commands.fit.part import PartFitter

        return PartFitter(self.options, self.form, self.manifest, self.settings, self.speaks)

    def _folder(self, fold: str) -> StepFolder:
        repeat, number = next((a.repeat, a.fold) for a in self.folds if a.name == fold)
        plan = replace(self.plan, options={**self.plan.options, "repeat": repeat, "fold": number})
        return StepFolder(self.container.out / fold, plan, self.settings, marker=PART)

    def _close(self, container: StepFolder, folds: Sequence[Assignment]) -> Summary | None:
        """When every fold is complete, write the files of the run."""
        run, kind, report = container.out, self.options.KIND, self.settings.report
        names = [a.name for a in folds]
        done, rejects = finished_folds(container, names)
        rows = [row for name in done for row in read_table(run / name / TABLES[kind]).rows]
        if len(done) < len(names):
            report.say(f"{container.shown}: {len(done)} of {count_of(len(names), 'fold is', 'folds are')} complete")
            report_rejects(rejects, self.settings, f"{REJECTS} of every fold")
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
        report_rejects(rejects, self.settings)
        return header, table, f"{subset.capitalize()} images"

    def _draw_worst(self, run: Path, rows: list[Row]) -> None:
        from cxrtool.commands.fit.part import captions
        from cxrtool.commands.fit.pictures import draw_examples, predict_with
        from cxrtool.models.parts import MASKS, load_network

        kind = self.options.KIND
        first = FIGURES[kind][0]
        worst = sorted(rows, key=lambda row: float(row[first]) * (1 if kind in MASKS else -1))[:LOWEST]
        images = {row["image_id"]: row for row in self.manifest.rows}
        folds = [run / runs.fold_name(row["repeat"], row["fold"]) for row in worst]
        entries = [
            (images[row["image_id"]], captions(row, kind), predict_with(load_network(fold, kind), kind))
            for row, fold in zip(worst, folds, strict=True)
        ]
        title = f"the worst {len(worst)} of {len(rows)} images"
        draw_examples(run / WORST, entries, kind, self.options.targets(), self.form, title)


def start_fitting(
    options: PartOptions, settings: Settings, digest: str, report: Reporter, request: StopRequest
) -> Callable[[FoldJob], None]:
    """What fits folds of a call of `fit` in another process; arguments as of `start_training` of `train`.

    Raises:
        InputError: The inputs have changed.
    """
    task = Task.open(options, replace(settings, report=Silent()), report)
    check_same(task.container, digest, task.manifest.name)
    return lambda job: task.do(job, request)


def _next(kind: str, shown: Path) -> str:
    command = {
        "lungs": "segment MANIFEST --lungs",
        "opacities": "segment MANIFEST --opacities --opacity-network",
        "ribs": "enhance MANIFEST --steps suppress-ribs --ribs",
    }[kind]
    return f"cxrtool {command} {shown} -o DIR"
