"""Train a network on every fold of a split.

Writes a run: a folder rRfF for each repeat R and fold F, with the model, its history and curves, and its predictions
for the validation and test images. After an interruption the same command continues and ends with the same weights.

The images are divided by a file of `split` (--splits), or by --folds or --holdout. With these the input may be raw: a
folder with a subfolder for each class, or a table. `prepare` and `split` are then run first, inside the run.

Example: cxrtool train prepared --splits splits.csv --preset covid-xnet -o run
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cxrtool import processors
from cxrtool.commands.train.combinations import Combination
from cxrtool.commands.train.grid import SHOWN, rule_of, tabulate
from cxrtool.commands.train.implied import IMPLIED, Implied
from cxrtool.commands.train.options import TrainOptions
from cxrtool.commands.train.resolving import check_designs, combine
from cxrtool.commands.train.training import Training, TrainJob, start_training
from cxrtool.data.file_names import REJECTS
from cxrtool.data.files import locked, saying_what_fails
from cxrtool.data.tables.manifest import Row
from cxrtool.errors import count_of
from cxrtool.flow import run as runs
from cxrtool.flow.fold_training import (
    complete_run,
    create_run_folder,
    finished_folds,
    report_rejects,
    warn_without_validation,
)
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.jobs import apart, do_apart
from cxrtool.flow.settings import Settings, Silent
from cxrtool.flow.signals import StopRequest
from cxrtool.options import plain

if TYPE_CHECKING:
    from cxrtool.training.ranks import Ranks


def run(options: TrainOptions, settings: Settings) -> int | None:
    """Train, after the steps that the options imply, and print the table of a grid search.

    Returns:
        The exit code of a step before the training that failed.
    """
    if processors.ranks() == 1:
        return _run(options, settings, None)
    from cxrtool.training.ranks import Ranks

    ranks = Ranks.join(settings.device)
    if ranks.rank:
        return ranks.following(lambda: follow(ranks))
    code = _run(options, replace(settings, device=ranks.device), ranks)
    ranks.tell(None)
    return code


def _run(options: TrainOptions, settings: Settings, ranks: Ranks | None) -> int | None:
    steps = Implied.of(options, settings)
    if steps is not None:
        # A mistake in the options of the training is found before the images are read.
        combinations, _ = combine(steps.options, replace(settings, report=Silent()))
        if not settings.dry_run and not steps.is_done(settings):
            # Their number of classes is not known yet; it has no effect on the weights.
            check_designs(combinations, 2, settings)
        if code := steps.run(settings):
            return code
        options = steps.options
        if settings.dry_run and options.splits is not None and not options.splits.is_file():
            return None
    rows = train(options, settings, ranks)
    if not rows:
        return None
    columns, lines = tabulate(rows)
    title = "Grid search on validation images, mean of the folds"
    settings.report.say("\n" + settings.output.aligned(columns, lines[:SHOWN], title))
    if len(lines) > SHOWN:
        settings.report.say(f"… and {len(lines) - SHOWN} more in {settings.out}/grid.csv")
    settings.report.say(f"Chosen in each fold: {rule_of(rows)}.")
    return None


def train(options: TrainOptions, settings: Settings, ranks: Ranks | None = None) -> list[Row]:
    """Train every fold that is not complete yet.

    Args:
        options: With `--splits`.
        settings: Of the call.
        ranks: The processes that share each training; only rank 0 calls this.

    Returns:
        The rows of `grid.csv` if there was a grid and something to do.

    Raises:
        UsageError: An option is wrong.
        InputError: Manifest and splits do not match.
        LeakageError: A patient or an image is in more than one subset of a fold.
        StoppedError: A signal arrived.
        StrictError: `--strict`, and an image could not be read; the run is complete nevertheless.
    """
    training = Training.open(options, settings, ranks)
    if not training.container.needs_work(assignment.name for assignment in training.mine):
        return []
    training.check()
    container = training.container
    made = read_run_file(container.out) or {}
    extra = {"native_sizes": _native_sizes(options, training.combinations)}
    shown = {**_shown(options, training.combinations), "splits": str(training.splits), "precision": settings.precision}
    extra |= {IMPLIED: made[IMPLIED]} if IMPLIED in made else {}
    create_run_folder(container, training.splits, shown, extra)
    warn_without_validation(training.mine, training.combinations[0].options, settings)
    if ranks:
        ranks.tell((options, settings.portable(), container.digest))
    with StopRequest() as request:
        if apart(settings, options.jobs):
            start = partial(start_training, options, settings.portable(), container.digest)
            do_apart(start, training.rounds(), options.jobs, settings, request, training.decode)
        else:
            for assignment in training.mine:
                request.raise_if_stopped()
                training.do(TrainJob(assignment.name), request)
    return _close_container(training)


def follow(ranks: Ranks) -> None:
    """What all ranks but the first do: compute their shares of every training, until rank 0 has finished."""
    told = ranks.tell()
    if told is None:
        return
    options, settings, digest = told
    training = Training.open(options, replace(settings, device=ranks.device), ranks)
    training.check_same(digest)
    with StopRequest() as request:
        while (order := ranks.tell()) is not None:
            fold, combination = order
            training.share(fold, combination, request)


def _shown(options: TrainOptions, combinations: Sequence[Combination]) -> dict[str, Any]:
    """The options as `run.json` lists them, and as `--config run.json` reads them."""
    tried = [combination.options.identity() for combination in combinations]
    shown = {
        name: value if all(other[name] == value for other in tried) else plain(getattr(options, name))
        for name, value in tried[0].items()
    }
    search: dict[str, Any] = {"grid": list(options.grid), "budget": options.budget} if options.grid else {}
    if options.transform:
        search["transform"] = str(options.transform)
    return {**shown, **search, "manifest": str(options.manifest), "preset": options.preset}


def _native_sizes(options: TrainOptions, combinations: Sequence[Combination]) -> dict[str, int]:
    """The native size of every network for which no size was given: a query of timm would take seconds."""
    if options.size or "size" in combinations[0].changes:
        return {}
    return {combination.options.model: combination.options.size for combination in combinations}


def _close_container(training: Training) -> list[Row]:
    """When every fold is complete, write the files of the run; the last of several tasks does it.

    Raises:
        StrictError: `--strict`, and an image could not be read.
    """
    container, report = training.container, training.settings.report
    run, names = container.out, [a.name for a in training.assignments]
    with saying_what_fails(run), locked(run.parent / f".{run.name}.lock"):
        done, rejects = finished_folds(container, names)
        table = training.trainer(training.task).finish(done, whole=len(done) == len(names))
        if len(done) == len(names):
            complete_run(container, names, rejects, training.manifest)
    if len(done) < len(names):
        report.say(f"{container.shown}: {len(done)} of {count_of(len(names), 'fold is', 'folds are')} complete")
    else:
        report.say(
            f"{container.shown}: {runs.all_folds(len(names))} complete; next: cxrtool evaluate {container.shown}"
        )
    report_rejects(rejects, training.settings, f"{REJECTS} of every fold")
    return table
