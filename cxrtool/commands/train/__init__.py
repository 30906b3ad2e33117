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
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from cxrtool.commands.train.combinations import Combination, draw, parse_grid, with_kernels
from cxrtool.commands.train.grid import SHOWN, GridTrainer, check_validation, rule_of, tabulate
from cxrtool.commands.train.implied import IMPLIED, Implied, check_ways
from cxrtool.commands.train.options import TrainOptions
from cxrtool.commands.train.twins import TwinTraining, find_generators
from cxrtool.data.file_names import REJECTS
from cxrtool.data.files import locked, saying_what_fails
from cxrtool.data.splitting.splits import splits_digest
from cxrtool.data.tables.manifest import Manifest, Row, read_manifest
from cxrtool.errors import StrictError, UsageError, count_of
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Assignment, read_assignments, splits_file
from cxrtool.flow.chain import chain_of_manifest
from cxrtool.flow.fold_training import (
    FoldTrainer,
    Stores,
    Task,
    Track,
    check_design,
    complete_run,
    create_run_folder,
    finished_folds,
    warn_without_validation,
)
from cxrtool.flow.folder import Inputs, Plan, StepFolder, read_run_file
from cxrtool.flow.settings import Settings, Silent
from cxrtool.flow.signals import StopRequest
from cxrtool.flow.twins import as_classes
from cxrtool.options import declared, plain
from cxrtool.training.options import TrainingOptions
from cxrtool.training.tracking import require

LIBRARIES = ("numpy", "opencv-python-headless", "torch", "timm")
UNFROZEN = "--weights none: the whole network is trained, since a backbone with random weights must not be frozen"


def run(options: TrainOptions, settings: Settings) -> int | None:
    """Train, after the steps that the options imply, and print the table of a grid search.

    Returns:
        The exit code of a step before the training that failed.
    """
    steps = Implied.of(options, settings)
    if steps is not None:
        # A mistake in the options of the training is found before the images are read.
        combinations, _ = combine(steps.options, replace(settings, report=Silent()))
        if not settings.dry_run and not steps.is_done(settings):
            # Their number of classes is not known yet; it has no effect on the weights.
            _check_designs(combinations, 2, settings)
        if code := steps.run(settings):
            return code
        options = steps.options
        if settings.dry_run and options.splits is not None and not options.splits.is_file():
            return None
    rows = train(options, settings)
    if not rows:
        return None
    columns, lines = tabulate(rows)
    title = "Grid search on validation images, mean of the folds"
    settings.report.say("\n" + settings.output.aligned(columns, lines[:SHOWN], title))
    if len(lines) > SHOWN:
        settings.report.say(f"… and {len(lines) - SHOWN} more in {settings.out}/grid.csv")
    settings.report.say(f"Chosen in each fold: {rule_of(rows)}.")
    return None


def train(options: TrainOptions, settings: Settings) -> list[Row]:
    """Train every fold that is not complete yet.

    Returns:
        The rows of `grid.csv` if there was a grid and something to do.

    Raises:
        UsageError: An option is wrong.
        InputError: Manifest and splits do not match.
        LeakageError: A patient or an image is in more than one subset of a fold.
        StoppedError: A signal arrived.
        StrictError: `--strict`, and an image could not be read; the run is complete nevertheless.
    """
    check_ways(options)
    if options.track:
        require(options.track)
    elif options.track_to:
        raise UsageError("--track-to: expected --track, which says what to write there, found none", "add --track")
    if options.splits is None:
        raise UsageError("expected the splits of --folds or --holdout, found none", "give --splits to `train`")
    splits = splits_file(options.splits)
    combinations, settings = combine(options, settings)
    manifest = read_manifest(options.manifest, root=settings.root)
    labelled, classes = as_classes(manifest)
    generators = find_generators(options.transform, manifest) if options.transform else None
    assignments = read_assignments(splits, labelled, settings)
    wanted = runs.select_folds([(a.repeat, a.fold) for a in assignments], options.only)
    chain = chain_of_manifest(manifest)
    files = {c.options.weights: None for c in combinations if c.options.weights not in ("imagenet", "none")}
    # Only the content of the splits counts: the same splits written again are no reason to train again.
    inputs = Inputs.of(manifest, files=map(Path, files), verify=settings.verify).after(splits)
    shared: dict[str, Any] = {"splits": splits_digest(splits), "precision": settings.precision}
    if generators:
        shared["transform"] = generators.identity()
    searched = [combination.options.identity() for combination in combinations]
    identity = {"combinations": searched, **shared} if options.grid else {**searched[0], **shared}
    plan = Plan("train", identity, inputs, chain, LIBRARIES, seeded=True, threaded=True)
    container = StepFolder(settings.out, plan, settings, replaced=False)
    if not container.needs_work():
        return []
    mine = [assignment for assignment in assignments if (assignment.repeat, assignment.fold) in wanted]
    if options.grid:
        check_validation(mine)
    twins = None
    if generators:
        twins = TwinTraining(generators, mine, manifest, settings)
        classes = twins.classes
    _check_designs(combinations, len(classes), settings)
    shown = {**_shown(options, combinations), "splits": str(splits), "precision": settings.precision}
    extra = {"native_sizes": _native_sizes(options, combinations)}
    made = read_run_file(container.out) or {}
    create_run_folder(container, splits, shown, extra | ({IMPLIED: made[IMPLIED]} if IMPLIED in made else {}))
    warn_without_validation(mine, combinations[0].options, settings)
    stores = Stores(settings, manifest, container)
    track = Track(options.track, options.track_to) if options.track else None
    task = Task(options.preset, options.save_every, settings, labelled, classes, chain, container, stores, track)
    trainer = _trainer(options, combinations, task)
    with StopRequest() as request:
        for assignment in mine:
            request.raise_if_stopped()
            if twins:
                own, placed = twins.prepare(task, stores, assignment)
                _trainer(options, combinations, own).train_fold(placed, request)
            else:
                trainer.train_fold(assignment, request)
    return _close_container(container, assignments, manifest, settings, trainer)


def _trainer(options: TrainOptions, combinations: Sequence[Combination], task: Task) -> FoldTrainer | GridTrainer:
    return GridTrainer(combinations, task) if options.grid else FoldTrainer(combinations[0].options, task)


def combine(options: TrainOptions, settings: Settings) -> tuple[list[Combination], Settings]:
    """What to train: one combination of options, or all of `--grid` and `--budget`.

    Raises:
        UsageError: An option or a value of the grid is wrong.
    """
    if not options.grid:
        if options.budget is not None:
            raise UsageError(
                "--budget: expected --grid, from whose combinations it draws, found none", "add --grid KEY=A,B"
            )
        return [Combination(resolve(options, settings))], settings
    if options.watch != "none" and settings.origins.get("watch", "preset") != "preset":
        raise UsageError(
            f"--watch: expected none with --grid, which runs no network on test images before it is chosen, found "
            f"{options.watch}",
            "omit --watch",
        )
    options = replace(options, watch="none")
    names = {name for name, (_, declaration) in declared(TrainingOptions).items() if declaration.effect} - {"watch"}
    kinds = {name: kind for name, kind in get_type_hints(TrainingOptions).items() if name in names}
    grid = parse_grid(options.grid, kinds)
    quiet = replace(settings, report=Silent())
    # Without --model the other options may not be a combination of their own.
    own = resolve(options, quiet).identity() if options.model else {}
    grid = with_kernels(grid, own.get("size") or options.size or None)
    found = []
    for changes in draw(grid, options.budget, settings.seed, own):
        combination = Combination(options, changes)
        # Values of the grid are treated as flags.
        grid_settings = replace(quiet, origins={**settings.origins, **dict.fromkeys(changes, "flag")})
        try:
            resolved = resolve(replace(options, **changes), grid_settings)
        except UsageError as error:
            raise UsageError(f"--grid {combination.name}: {error.message}", error.hint) from error
        found.append(replace(combination, options=resolved))
    if options.freeze and any(not c.options.freeze and "freeze" not in c.changes for c in found):
        settings.report.warn(UNFROZEN)
    return found, replace(settings, origins={**settings.origins, **dict.fromkeys(grid, "grid")})


def _check_designs(combinations: Sequence[Combination], classes: int, settings: Settings) -> None:
    for combination in combinations:
        try:
            check_design(combination.options, classes, settings)
        except UsageError as error:
            where = f"--grid {combination.name}: " if combination.changes else ""
            raise UsageError(where + error.message, error.hint) from error


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


def resolve(options: TrainOptions, settings: Settings) -> TrainOptions:
    """The options with those that depend on the network: kernels, weights, size.

    Raises:
        UsageError: There is no such network, or values exclude each other.
    """
    from cxrtool.models.registry import BUILT_IN, check_name, native_size, network_kernels

    model, size, freeze = options.model, options.size, options.freeze
    if not model:
        raise UsageError(
            "train needs --model NAME, or a --preset that names a network", "for instance --model resnet18"
        )
    kernels = network_kernels(model, options.kernels)
    weights = options.weights or ("none" if model in BUILT_IN else "imagenet")
    size = size or _size_in(settings.out, model)
    if not size:
        check_name(model)
        size = native_size(model)
    if weights == "none" and freeze:
        if settings.origins.get("freeze", "flag") not in ("preset", "default"):
            raise UsageError(
                "--freeze with --weights none would train a head on a backbone with random weights", "omit --freeze"
            )
        # With an untrained, frozen backbone one would compare initialisations, not networks.
        settings.report.warn(UNFROZEN)
        freeze = False
    return replace(options, kernels=kernels, weights=weights, size=size, freeze=freeze)


def _size_in(out: Path | None, model: str) -> int:
    """The native size of the network from the `run.json` of an earlier run; 0 if there is none."""
    made = (read_run_file(out) if out else None) or {}
    same = made.get("versions", {}).get("timm") == _timm_version()
    size = made.get("native_sizes", {}).get(model)
    return int(size) if same and size is not None else 0


@cache
def _timm_version() -> str:
    from importlib.metadata import version

    return version("timm")


def _close_container(
    container: StepFolder,
    assignments: Sequence[Assignment],
    manifest: Manifest,
    settings: Settings,
    trainer: FoldTrainer | GridTrainer,
) -> list[Row]:
    """When every fold is complete, write the files of the run; the last of several tasks does it.

    Raises:
        StrictError: `--strict`, and an image could not be read.
    """
    run, report = container.out, settings.report
    names = [a.name for a in assignments]
    with saying_what_fails(run), locked(run.parent / f".{run.name}.lock"):
        done, rejects = finished_folds(container, names)
        table = trainer.finish(done, whole=len(done) == len(names))
        if len(done) == len(names):
            complete_run(container, names, rejects, manifest)
    if len(done) < len(names):
        report.say(f"{container.shown}: {len(done)} of {count_of(len(names), 'fold is', 'folds are')} complete")
    else:
        report.say(
            f"{container.shown}: {runs.all_folds(len(names))} complete; next: cxrtool evaluate {container.shown}"
        )
    if rejects and settings.strict:
        raise StrictError(f"{len(rejects)} rejected, each with its reason in {REJECTS} of every fold")
    return table
