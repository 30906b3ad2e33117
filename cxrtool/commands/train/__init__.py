"""`train`: one network for every fold of a split; each fold a model folder with its test predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from cxrtool.commands.train.combinations import Combination, draw, parse_grid, with_kernels
from cxrtool.commands.train.grid import GridTrainer, check_validation
from cxrtool.commands.train.twins import TwinTraining, find_generators
from cxrtool.data.files import locked, saying_what_fails, sha256_file
from cxrtool.data.tables.manifest import Manifest, Row, read_manifest
from cxrtool.errors import StrictError, UsageError
from cxrtool.flow import container as containers
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Assignment, read_assignments, splits_file
from cxrtool.flow.fold_chains import chain_of_manifest
from cxrtool.flow.fold_training import FoldTrainer, Task, check_design
from cxrtool.flow.folder import REJECTS, Inputs, Plan, StepFolder, read_run_file
from cxrtool.flow.settings import Settings, Silent
from cxrtool.flow.signals import StopRequest
from cxrtool.flow.stores import Stores
from cxrtool.flow.twins import as_classes
from cxrtool.training.presets import DEFAULTS, PRESETS

LIBRARIES = ("numpy", "opencv-python-headless", "torch", "timm")
UNFROZEN = "--weights none: the whole network is trained, since a random body must not be frozen"


@dataclass(frozen=True)
class TrainOptions:
    """The options of `train`; None takes the preset's value, else the default (`cxrtool.training.presets`)."""

    manifest: Path
    splits: Path
    preset: str | None = None
    model: str | None = None
    kernels: str | None = None
    weights: str | None = None
    size: int | None = None
    fit: str | None = None
    normalize: str | None = None
    freeze: bool | None = None
    frozen_bn: str | None = None
    hidden: int | None = None
    dropout: float | None = None
    augment: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    opt: str | None = None
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    opt_eps: float | None = None
    opt_rho: float | None = None
    sched: str | None = None
    decay_epochs: int | None = None
    decay_rate: float | None = None
    warmup_epochs: int | None = None
    min_lr: float | None = None
    patience: int | None = None
    checkpoint: str | None = None
    class_weights: str | None = None
    transform: Path | None = None
    only: str | None = None
    save_every: float = 30.0
    grid: tuple[str, ...] = ()
    budget: int | None = None


def train(options: TrainOptions, settings: Settings) -> list[Row]:
    """Train every fold that is not there yet.

    Returns:
        The rows of `grid.csv`, where there was a grid and something to do.

    Raises:
        UsageError: An option is wrong.
        InputError: Manifest and splits do not fit each other.
        LeakageError: A patient or a picture is on two sides of a split.
        StoppedError: A signal arrived.
        StrictError: `--strict`, and an image could not be read; the run is complete all the same.
    """
    if str(options.splits) == "-":
        raise UsageError("--splits: expected a file or a run, found standard input")
    splits = splits_file(options.splits)
    combinations, settings = combine(options, settings)
    manifest = read_manifest(options.manifest, root=settings.root)
    learnt, classes = as_classes(manifest)
    generators = find_generators(options.transform, manifest) if options.transform else None
    assignments = read_assignments(splits, learnt, settings)
    wanted = runs.select_folds([(a.repeat, a.fold) for a in assignments], options.only)
    chain = chain_of_manifest(manifest)
    files = {c.values["weights"]: None for c in combinations if c.values["weights"] not in ("imagenet", "none")}
    inputs = Inputs.of(manifest, files=map(Path, files), verify=settings.verify)
    # The splits count by content alone: the same division written again is no reason to train again.
    inputs = replace(inputs, newest=max(inputs.newest, splits.stat().st_mtime))
    shared: dict[str, Any] = {"splits": sha256_file(splits), "precision": settings.precision}
    if generators:
        shared["transform"] = generators.identity()
    searched = [combination.values for combination in combinations]
    identity = {"combinations": searched, **shared} if options.grid else {**searched[0], **shared}
    plan = Plan("train", identity, inputs, chain, LIBRARIES, seeded=True, threaded=True)
    container = StepFolder(settings.out, plan, settings)
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
    containers.lay(container, splits, shown, {"native_sizes": _native_sizes(options, combinations)})
    _tell_of_validation(mine, combinations, settings)
    stores = Stores(settings, manifest, container)
    task = Task(options.preset, options.save_every, settings, learnt, classes, chain, container, stores)
    trainer = _trainer(options, combinations, task)
    with StopRequest() as request:
        for assignment in mine:
            request.heed()
            if twins:
                own, placed = twins.prepare(task, stores, assignment)
                _trainer(options, combinations, own).train_fold(placed, request)
            else:
                trainer.train_fold(assignment, request)
    return _close_container(container, assignments, manifest, settings, trainer)


def _trainer(options: TrainOptions, combinations: Sequence[Combination], task: Task) -> FoldTrainer | GridTrainer:
    return GridTrainer(combinations, task) if options.grid else FoldTrainer(combinations[0].values, task)


def combine(options: TrainOptions, settings: Settings) -> tuple[list[Combination], Settings]:
    """What shall be trained: one combination of options, or all that `--grid` and `--budget` ask for.

    Raises:
        UsageError: An option or a value of the grid is wrong.
    """
    if not options.grid:
        if options.budget is not None:
            raise UsageError("--budget draws from the combinations of --grid, and there is none", "add --grid KEY=A,B")
        values, settings = resolve(options, settings)
        return [Combination(values)], settings
    kinds = {name: kind for name, kind in get_type_hints(TrainOptions).items() if name in DEFAULTS}
    grid = parse_grid(options.grid, kinds)
    quiet = replace(settings, report=Silent())
    # Without --model there may be nothing that the other options say on their own.
    known = options.model or (options.preset in PRESETS and _preset(options).get("model"))
    own = resolve(options, quiet)[0] if known else {}
    grid = with_kernels(grid, own.get("size") or options.size)
    found = []
    for changes in draw(grid, options.budget, settings.seed, own):
        combination = Combination({}, changes)
        try:
            values, told = resolve(replace(options, **changes), quiet)
        except UsageError as error:
            raise UsageError(f"--grid {combination.name}: {error.message}", error.hint) from error
        found.append(replace(combination, values=values))
    if any(c.values["freeze"] is False and "freeze" not in c.changes for c in found) and _preset(options).get("freeze"):
        settings.report.warn(UNFROZEN)
    origins = {**told.origins, **dict.fromkeys(grid, "grid")}
    return found, replace(settings, origins=origins)


def _preset(options: TrainOptions) -> Mapping[str, Any]:
    return PRESETS[options.preset] if options.preset else {}


def _check_designs(combinations: Sequence[Combination], classes: int, settings: Settings) -> None:
    for combination in combinations:
        try:
            check_design(combination.values, classes, settings)
        except UsageError as error:
            where = f"--grid {combination.name}: " if combination.changes else ""
            raise UsageError(where + error.message, error.hint) from error


def _shown(options: TrainOptions, combinations: Sequence[Combination]) -> dict[str, Any]:
    """The options as `run.json` tells them, and as `--config run.json` takes them again."""
    first = combinations[0].values
    shown = {name: first[name] for name in first}
    for name in shown:
        if any(combination.values[name] != first[name] for combination in combinations):
            shown[name] = getattr(options, name)
    search: dict[str, Any] = {"grid": list(options.grid), "budget": options.budget} if options.grid else {}
    if options.transform:
        search["transform"] = str(options.transform)
    return {**shown, **search, "manifest": str(options.manifest), "preset": options.preset}


def _native_sizes(options: TrainOptions, combinations: Sequence[Combination]) -> dict[str, int]:
    """The size of every network for which the user named none: asking timm for it again would take seconds."""
    if options.size is not None or "size" in _preset(options) or "size" in combinations[0].changes:
        return {}
    return {combination.values["model"]: combination.values["size"] for combination in combinations}


def resolve(options: TrainOptions, settings: Settings) -> tuple[dict[str, Any], Settings]:
    """The value of every option that bears on the result, and where each came from.

    Raises:
        UsageError: No such preset or network, or values that exclude one another.
    """
    from cxrtool.models.registry import OWN, check_name, native_size, own_kernels

    if options.preset is not None and options.preset not in PRESETS:
        raise UsageError(f"--preset: expected one of {', '.join(PRESETS)}, found '{options.preset}'")
    preset = _preset(options)
    values: dict[str, Any] = {}
    origins = dict(settings.origins)
    for name, default in DEFAULTS.items():
        given = getattr(options, name)
        values[name] = given if given is not None else preset.get(name, default)
        if given is None:
            origins[name] = "preset" if name in preset else "default"
    if values["model"] is None:
        raise UsageError("train needs --model NAME, or a --preset that names one", "for instance --model resnet18")
    own = values["model"] in OWN
    values["kernels"] = own_kernels(values["model"], values["kernels"])
    values["weights"] = values["weights"] or ("none" if own else "imagenet")
    if values["size"] is None:
        values["size"] = _size_in(settings.out, values["model"])
    if values["size"] is None:
        check_name(values["model"])
        values["size"] = native_size(values["model"])
    if values["weights"] == "none" and values["freeze"]:
        if options.freeze:
            raise UsageError(
                "--freeze with --weights none would train a head on a body of random numbers", "leave --freeze out"
            )
        # The features of an untrained, frozen body rank initialisations, not networks.
        settings.report.warn(UNFROZEN)
        values["freeze"] = False
    for name, known in (("fit", ("squash", "pad", "crop")), ("normalize", ("native", "div255")),
                        ("frozen_bn", ("eval", "batch"))):  # fmt: skip
        if values[name] not in known:
            raise UsageError(f"--{name.replace('_', '-')}: expected one of {', '.join(known)}, found '{values[name]}'")
    return values, replace(settings, origins=origins)


def _tell_of_validation(
    assignments: Sequence[Assignment], combinations: Sequence[Combination], settings: Settings
) -> None:
    """Say where an option that looks at validation images has none to look at."""
    bare = [a.name for a in assignments if not a.subsets["validation"]]
    # A grid search has refused such folds already.
    values = combinations[0].values
    idle = [f"--checkpoint {values['checkpoint']}"] if values["checkpoint"] != "last" else []
    idle += ["--patience"] if values["patience"] else []
    idle += ["--sched plateau"] if values["sched"] == "plateau" else []
    if bare and idle:
        settings.report.warn(
            f"{len(bare)} of {len(assignments)} folds have no validation images, such as {bare[0]}: there "
            f"{', '.join(idle)} has nothing to go by, and the last epoch is kept"
        )


def _size_in(out: Path | None, model: str) -> int | None:
    """The network's own size as the run that is there already tells it."""
    made = (read_run_file(out) if out else None) or {}
    same = made.get("versions", {}).get("timm") == _timm_version()
    size = made.get("native_sizes", {}).get(model)
    return int(size) if same and size is not None else None


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
    """When every fold is there, write what they have in common; the last of several tasks does it.

    Raises:
        StrictError: `--strict`, and an image could not be read.
    """
    run, report = container.out, settings.report
    names = [a.name for a in assignments]
    with saying_what_fails(run), locked(run.parent / f".{run.name}.lock"):
        done, rejects = containers.finished(container, names)
        table = trainer.finish(done, whole=len(done) == len(names))
        if len(done) == len(names):
            containers.complete(container, names, rejects, manifest)
    if len(done) < len(names):
        report.say(f"{container.shown}: {len(done)} of {len(names)} folds are there")
    else:
        report.say(f"{container.shown}: all {len(names)} folds are there; next: cxrtool evaluate {container.shown}")
    if rejects and settings.strict:
        raise StrictError(f"{len(rejects)} rejected, each with its reason in {REJECTS} of every fold")
    return table
