"""Fit class-inherent transformations (FuCiTNet): a generator for each class, in every fold of a split.

Generators use labels, so they are fitted only on the training images of a fold: their output for an image that they
were fitted on reveals its class. Writes a run for `transform` and `train --transform`, with the predictions of FuCiTNet
alone.

Example: cxrtool fit generators cropped --splits splits.csv -o generators
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from cxrtool.commands.fit.generators.effects import COLUMNS, EFFECTS, SUMMARY, summarise
from cxrtool.commands.fit.generators.fold import GeneratorsTrainer, check_design
from cxrtool.commands.fit.generators.options import GeneratorOptions
from cxrtool.data.file_names import REJECTS
from cxrtool.data.files import locked, saying_what_fails
from cxrtool.data.splitting.splits import splits_digest
from cxrtool.data.tables.manifest import Manifest, read_manifest, read_table, write_table
from cxrtool.data.tables.twins import is_twin
from cxrtool.errors import InputError, UsageError, count_of
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Assignment, read_assignments, splits_file
from cxrtool.flow.chain import chain_of_manifest
from cxrtool.flow.fold_training import (
    Stores,
    Summary,
    Task,
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
from cxrtool.training.presets import SWEEP

LIBRARIES = ("numpy", "opencv-python-headless", "torch", "timm")

NO_FILES = ("imagenet", "none")
"""Values of the options of weights that are not a file."""


def run(options: GeneratorOptions, settings: Settings) -> None:
    """Fit, and print the effect of each generator on the images of its class."""
    if found := fit_generators(options, settings):
        settings.output.table(*found)


def fit_generators(options: GeneratorOptions, settings: Settings) -> Summary | None:
    """Fit the generators of every fold that is not complete yet.

    Returns:
        The table of effects on the test images, once every fold is complete; None if there was nothing to do.

    Raises:
        UsageError: An option is wrong, or there are no splits.
        InputError: Manifest and splits do not match, or weights cannot be loaded.
        LeakageError: A patient or an image is in more than one subset of a fold.
        StoppedError: A signal arrived.
        StrictError: `--strict`, and an image could not be read; the run is complete nevertheless.
    """
    fitting = Fitting.open(options, settings)
    options, container, manifest = fitting.options, fitting.container, fitting.manifest
    if not container.needs_work(assignment.name for assignment in fitting.mine):
        return None
    _check_choice(options, fitting.mine)
    check_design(options, manifest.classes(), settings)
    warn_without_validation(fitting.mine, options, settings)
    _warn_of_deviations(options, manifest, settings)
    shown = {**options.identity(), "manifest": str(options.manifest), "splits": str(options.splits)}
    create_run_folder(container, fitting.splits, {**shown, "precision": settings.precision}, {})
    with StopRequest() as request:
        if apart(settings, options.jobs):
            start = partial(start_fitting, options, settings.portable(), container.digest)
            do_apart(start, [fitting.jobs()], options.jobs, settings, request, fitting.decode)
        else:
            for assignment in fitting.mine:
                request.raise_if_stopped()
                fitting.do(FoldJob(assignment.name), request)
    return _close(container, fitting.assignments, manifest, settings)


@dataclass(frozen=True)
class Fitting:
    """A call of `fit generators` that has read its tables, and its jobs, which any process can do.

    Attributes:
        options: Resolved.
        splits: The splits file.
        assignments: All folds.
        mine: Those of `--only`.
        container: The run; its settings have the report of the jobs.
        speaks: Whether rejects are reported here.
    """

    options: GeneratorOptions
    splits: Path
    manifest: Manifest
    assignments: Sequence[Assignment]
    mine: Sequence[Assignment]
    container: StepFolder
    speaks: bool

    @classmethod
    def open(cls, options: GeneratorOptions, settings: Settings, report: Reporter | None = None) -> Fitting:
        """Read the tables that the options name; without a `report` of their own, jobs have that of the settings.

        Raises:
            UsageError: An option is wrong, or there are no splits.
            InputError: Manifest and splits do not match.
            LeakageError: A patient or an image is in more than one subset of a fold.
        """
        options = resolve(options)
        splits = splits_file(options.splits or Path())
        check_processes(settings, options.jobs, {"the manifest": options.manifest, "--splits": splits})
        manifest = read_manifest(options.manifest, root=settings.root)
        if any(is_twin(row) for row in manifest.rows):
            raise InputError(f"{manifest.name}: expected radiographs, found twins that a generator made")
        assignments = read_assignments(splits, manifest, settings)
        wanted = runs.select_folds([(a.repeat, a.fold) for a in assignments], options.only)
        mine = [a for a in assignments if (a.repeat, a.fold) in wanted]
        files = [Path(name) for name in (options.weights, options.perceptual) if name not in NO_FILES]
        # Only the content of the splits counts, as in `train`.
        inputs = Inputs.of(manifest, files=files, verify=settings.verify).after(splits)
        identity = {**options.identity(), "splits": splits_digest(splits), "precision": settings.precision}
        plan = Plan("fit", identity, inputs, chain_of_manifest(manifest), LIBRARIES, seeded=True, threaded=True)
        container = StepFolder(settings.out, plan, replace(settings, report=report or settings.report), replaced=False)
        return cls(options, splits, manifest, assignments, mine, container, report is None)

    @cached_property
    def trainer(self) -> GeneratorsTrainer:
        """What fits the generators of a fold."""
        options, manifest, container = self.options, self.manifest, self.container
        task = Task(
            preset=None,
            save_every=options.save_every,
            settings=container.settings,
            manifest=manifest,
            classes=manifest.classes(),
            chain=chain_of_manifest(manifest),
            container=container,
            stores=Stores(container.settings, manifest, container, warn=self.speaks, beside=options.jobs),
            beside=options.jobs,
        )
        return GeneratorsTrainer(options, task)

    def jobs(self) -> list[FoldJob]:
        """The folds that are left to do."""
        return [FoldJob(a.name) for a in self.mine if self.trainer.task.folder(a).needs_work()]

    def decode(self, request: StopRequest) -> None:
        """Decode the radiographs, and report what cannot be read."""
        self.trainer.task.stores.open(*self.trainer.shape, request)

    def do(self, job: FoldJob, request: StopRequest) -> None:
        """Fit the generators of a fold, unless it is complete."""
        self.trainer.train_fold(next(a for a in self.mine if a.name == job.fold), request)


def start_fitting(
    options: GeneratorOptions, settings: Settings, digest: str, report: Reporter, request: StopRequest
) -> Callable[[FoldJob], None]:
    """What fits folds of a call of `fit generators` in another process; arguments as of `start_training` of `train`.

    Raises:
        InputError: The inputs have changed.
    """
    fitting = Fitting.open(options, replace(settings, report=Silent()), report)
    check_same(fitting.container, digest, fitting.manifest.name)
    return lambda job: fitting.do(job, request)


def resolve(options: GeneratorOptions) -> GeneratorOptions:
    """The options, checked, with the weights of the class term in normal form.

    Raises:
        UsageError: An option is wrong.
    """
    if options.splits is None:
        raise UsageError(
            "fit generators needs --splits: the output of generators for an image that they were fitted on reveals its "
            "label, so they are fitted in each fold",
            "`cxrtool split MANIFEST --folds 5 -o splits.csv` divides the images",
        )
    options.check_numbers()
    if not options.classifier_lr > 0 or not math.isfinite(options.classifier_lr):
        raise UsageError(f"--classifier-lr: expected a number above 0, found {options.classifier_lr}")
    return replace(options, class_loss_weight=",".join(map(repr, parse_weights(options.class_loss_weight))))


def parse_weights(text: str) -> tuple[float, ...]:
    """Read `--class-loss-weight`: numbers separated by commas, or `sweep`.

    >>> parse_weights("0.1,0.05")
    (0.1, 0.05)

    Raises:
        UsageError: A value is not a number of at least 0, or is listed twice.
    """
    if text.strip() == "sweep":
        return SWEEP
    weights = []
    for part in text.split(","):
        try:
            weight = float(part)
        except ValueError:
            weight = math.nan
        if not 0.0 <= weight < math.inf or weight in weights:
            raise UsageError(
                f"--class-loss-weight: expected different numbers from 0 up, such as 0.1,0.05, or sweep, found '{text}'"
            )
        weights.append(weight)
    return tuple(weights)


def _check_choice(options: GeneratorOptions, folds: Sequence[Assignment]) -> None:
    """Check that there are validation images if a weight has to be chosen.

    Raises:
        InputError: A fold has none.
    """
    without = [a.name for a in folds if not a.subsets["validation"]]
    if without and len(parse_weights(options.class_loss_weight)) > 1:
        raise InputError(
            f"--class-loss-weight: {len(without)} of {count_of(len(folds), 'fold')} "
            f"have no validation images, which choose "
            f"one of several weights, such as {without[0]}",
            "split again with some: `cxrtool split MANIFEST --folds 5 --validation 0.1`; or give one weight",
        )


def _warn_of_deviations(options: GeneratorOptions, manifest: Manifest, settings: Settings) -> None:
    warn = settings.report.warn
    if options.perceptual == "none":
        warn("--perceptual none: the loss has no perceptual term, which the generators of the paper were fitted with")
    if options.weights == "none":
        warn("--weights none: the whole classifier is trained, since layers with random weights must not be frozen")
    views = sorted({row.get("view", "").strip().upper() for row in manifest.rows} - {""})
    if len(views) > 1:
        warn(f"{manifest.name}: several views ({', '.join(views)}); the paper warns against mixing PA and AP")


def _close(
    container: StepFolder, assignments: Sequence[Assignment], manifest: Manifest, settings: Settings
) -> Summary | None:
    """When every fold is complete, write the files of the run; the last of several tasks does it."""
    run, report = container.out, settings.report
    names = [a.name for a in assignments]
    with saying_what_fails(run), locked(run.parent / f".{run.name}.lock"):
        done, rejects = finished_folds(container, names)
        if len(done) < len(names):
            report.say(f"{container.shown}: {len(done)} of {count_of(len(names), 'fold is', 'folds are')} complete")
            report_rejects(rejects, settings, f"{REJECTS} of every fold")
            return None
        rows = [row for name in names for row in read_table(run / name / EFFECTS).rows]
        subset = "test" if any(row["subset"] == "test" for row in rows) else "validation"
        write_table(run / EFFECTS, COLUMNS, rows)
        header, table = summarise(rows, manifest.classes(), subset, settings.seed)
        write_table(run / SUMMARY, header, [dict(zip(header, cells, strict=True)) for cells in table])
        complete_run(container, names, rejects, manifest)
    report.say(
        f"{container.shown}: {runs.all_folds(len(names))} complete; next: cxrtool transform MANIFEST --generators "
        f"{container.shown} -o DIR, or cxrtool evaluate {container.shown} for FuCiTNet alone"
    )
    report_rejects(rejects, settings)
    return header, table, f"Effect of each generator on the {subset} images of its class:"
