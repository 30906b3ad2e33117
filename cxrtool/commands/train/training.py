"""A call of `train` that has read its tables, and its jobs, which any process can do."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.train.combinations import Combination
from cxrtool.commands.train.grid import GridTrainer, check_validation
from cxrtool.commands.train.implied import check_ways
from cxrtool.commands.train.options import TrainOptions
from cxrtool.commands.train.resolving import check_designs, combine
from cxrtool.commands.train.twins import TwinTraining, find_generators
from cxrtool.data.splitting.splits import splits_digest
from cxrtool.data.tables.manifest import Manifest, read_manifest
from cxrtool.errors import UsageError
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Assignment, read_assignments, splits_file
from cxrtool.flow.chain import chain_of_manifest
from cxrtool.flow.fold_training import PROCESSES, FoldTrainer, Stores, Task, Track
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.jobs import FoldJob, apart, check_processes, check_same
from cxrtool.flow.settings import Reporter, Settings, Silent
from cxrtool.flow.signals import StopRequest
from cxrtool.flow.target import LABEL, Learned, learned
from cxrtool.flow.twins import GeneratorRun
from cxrtool.training.tracking import require

if TYPE_CHECKING:
    from cxrtool.training.ranks import Ranks

LIBRARIES = ("numpy", "opencv-python-headless", "torch", "timm")


@dataclass(frozen=True)
class TrainJob(FoldJob):
    """One fold, or one combination of `--grid` on it, by its index."""

    combination: int | None = None

    def __str__(self) -> str:
        return super().__str__() + ("" if self.combination is None else f", {self.combination + 1}.")


@dataclass(frozen=True)
class Training:
    """What all trainings of a call of `train` share.

    Attributes:
        settings: With the origins of the options of a grid.
        report: Of the trainings.
        manifest: As it was read.
        learned: The same with the labels of its classes, and these.
        assignments: All folds.
        mine: Those of `--only`.
        ranks: The processes that share each training.
    """

    options: TrainOptions
    settings: Settings
    report: Reporter
    splits: Path
    combinations: Sequence[Combination]
    manifest: Manifest
    learned: Learned
    generators: GeneratorRun | None
    assignments: Sequence[Assignment]
    mine: Sequence[Assignment]
    container: StepFolder
    ranks: Ranks | None

    @classmethod
    def open(
        cls, options: TrainOptions, settings: Settings, ranks: Ranks | None = None, report: Reporter | None = None
    ) -> Training:
        """Read the tables that the options name; without a `report` of their own, trainings have that of the settings.

        Raises:
            UsageError: An option is wrong.
            InputError: Manifest and splits do not match.
            LeakageError: A patient or an image is in more than one subset of a fold.
        """
        check_ways(options)
        if options.track:
            require(options.track)
        elif options.track_to:
            raise UsageError("--track-to: expected --track, which says what to write there, found none", "add --track")
        if options.splits is None:
            raise UsageError("expected the splits of --folds or --holdout, found none", "give --splits to `train`")
        splits = splits_file(options.splits)
        check_processes(settings, options.jobs, {"the manifest": options.manifest, "--splits": splits})
        combinations, settings = combine(options, settings)
        manifest = read_manifest(options.manifest, root=settings.root)
        _check_target(options)
        target = learned(manifest, options.target)
        generators = find_generators(options.transform, manifest) if options.transform else None
        assignments = read_assignments(
            splits, target.manifest, settings, divided=manifest if target.target else None, column=target.column
        )
        wanted = runs.select_folds([(a.repeat, a.fold) for a in assignments], options.only)
        files = {c.options.weights: None for c in combinations if c.options.weights not in ("imagenet", "none")}
        # Only the content of the splits counts: the same splits written again are no reason to train again.
        inputs = Inputs.of(manifest, files=map(Path, files), verify=settings.verify).after(splits)
        shared: dict[str, Any] = {"splits": splits_digest(splits), "precision": settings.precision}
        if generators:
            shared["transform"] = generators.identity()
        if ranks:
            shared[PROCESSES] = ranks.count
        searched = [combination.options.identity() for combination in combinations]
        identity = {"combinations": searched, **shared} if options.grid else {**searched[0], **shared}
        plan = Plan("train", identity, inputs, chain_of_manifest(manifest), LIBRARIES, seeded=True, threaded=True)
        report = report or settings.report
        return cls(
            options,
            settings,
            report,
            splits,
            combinations,
            manifest,
            target,
            generators,
            assignments,
            [assignment for assignment in assignments if (assignment.repeat, assignment.fold) in wanted],
            StepFolder(settings.out, plan, replace(settings, report=report), replaced=False),
            ranks,
        )

    @cached_property
    def twins(self) -> TwinTraining | None:
        """What makes twins of the radiographs, with `--transform`."""
        return TwinTraining(self.generators, self.mine, self.manifest, self.settings) if self.generators else None

    @cached_property
    def stores(self) -> Stores:
        """The decoded radiographs; of all processes that open them, one tells of rejects."""
        speaks = self.report is self.settings.report and (self.ranks is None or not self.ranks.rank)
        return Stores(self.container.settings, self.manifest, self.container, warn=speaks, beside=self.options.jobs)

    @cached_property
    def task(self) -> Task:
        """What its trainings share."""
        options, leads = self.options, self.ranks is None or not self.ranks.rank
        return Task(
            preset=options.preset,
            save_every=options.save_every,
            settings=self.container.settings,
            manifest=self.learned.manifest,
            classes=self.twins.classes if self.twins else self.learned.classes,
            target=self.learned.target,
            chain=chain_of_manifest(self.manifest),
            container=self.container,
            stores=self.stores,
            track=Track(options.track, options.track_to) if options.track and leads else None,
            ranks=self.ranks,
            beside=options.jobs,
        )

    def check(self) -> None:
        """Check every option before the first image is decoded.

        Raises:
            InputError: A grid search, and a fold has no validation images.
            UsageError: An option is wrong.
        """
        if self.options.grid:
            check_validation(self.mine)
        check_designs(self.combinations, len(self.task.classes), self.settings, ordered=self.learned.ordered)

    def check_same(self, digest: str) -> None:
        """Raise an `InputError` unless this is what another process with that digest has opened."""
        check_same(self.container, digest, self.manifest.name)

    def trainer(self, task: Task) -> FoldTrainer | GridTrainer:
        """What trains the folds of a task."""
        if self.options.grid:
            return GridTrainer(self.combinations, task, tried=self._tries_first)
        return FoldTrainer(self.combinations[0].options, task)

    @property
    def _tries_first(self) -> bool:
        # Twins of a fold are made once, for all combinations.
        return bool(self.options.grid) and apart(self.settings, self.options.jobs) and self.generators is None

    def rounds(self) -> list[list[TrainJob]]:
        """The jobs that are left to do; those of one round do not need one another, but those of the round before."""
        folds = [assignment.name for assignment in self.mine if self.task.folder(assignment).needs_work()]
        found = [[TrainJob(fold, index) for fold in folds for index in range(len(self.combinations))]]
        return [*(found if self._tries_first else []), [TrainJob(fold) for fold in folds]] if folds else []

    def decode(self, request: StopRequest) -> None:
        """Decode the radiographs, and tell what cannot be read."""
        shapes = {self.twins.shape} if self.twins else self.trainer(self.task).shapes
        for size, fit in sorted(shapes):
            self.stores.open(size, fit, request)

    def do(self, job: TrainJob, request: StopRequest) -> None:
        """Do one job, unless it is done."""
        trainer, assignment = self._place(job.fold)
        if job.combination is not None and isinstance(trainer, GridTrainer):
            trainer.train_candidate(job.combination, assignment, request)
        else:
            trainer.train_fold(assignment, request)

    def share(self, fold: str, combination: int, request: StopRequest) -> None:
        """Take this rank's share of a training that rank 0 does."""
        trainer, assignment = self._place(fold)
        own = trainer.trainers[combination] if isinstance(trainer, GridTrainer) else trainer
        store, usable = own.open(assignment, request)
        own.fit(usable, store, (), Path(os.devnull), request)

    def _place(self, fold: str) -> tuple[FoldTrainer | GridTrainer, Assignment]:
        task, assignment = self.task, next(a for a in self.mine if a.name == fold)
        if self.twins:
            task, assignment = self.twins.prepare(task, self.stores, assignment)
        return self.trainer(task), assignment


def _check_target(options: TrainOptions) -> None:
    if options.transform and options.target != LABEL:
        raise UsageError(
            f"--target: expected {LABEL} with --transform, whose twins have a generator for each label, found "
            f"{options.target}",
            "omit --transform",
        )


def start_training(
    options: TrainOptions, settings: Settings, digest: str, report: Reporter, request: StopRequest
) -> Callable[[TrainJob], None]:
    """What does jobs of a call of `train` in another process.

    Args:
        options: With `--splits`.
        settings: Those of the call, made `portable`.
        digest: Of the folder of the run, as the call has it.
        report: Gets messages and progress of the trainings.
        request: Looked at while a job is done.

    Raises:
        InputError: The inputs have changed.
    """
    training = Training.open(options, replace(settings, report=Silent()), report=report)
    training.check_same(digest)
    return lambda job: training.do(job, request)
