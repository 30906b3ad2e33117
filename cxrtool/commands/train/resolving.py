"""What the options of `train` stand for: combinations, each with the values that depend on its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

from cxrtool.commands.train.combinations import Combination, draw, parse_grid, with_kernels
from cxrtool.commands.train.options import TrainOptions
from cxrtool.errors import UsageError
from cxrtool.flow.fold_training import check_design
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.settings import Settings, Silent
from cxrtool.flow.versions import version_of
from cxrtool.options import declared
from cxrtool.training.options import TrainingOptions

UNFROZEN = "--weights none: the whole network is trained, since a backbone with random weights must not be frozen"


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


def check_designs(
    combinations: Sequence[Combination], classes: int, settings: Settings, *, ordered: bool = False
) -> None:
    """Check every option before the first image is decoded; a `UsageError` names the combination."""
    for combination in combinations:
        try:
            check_design(combination.options, classes, settings, ordered=ordered)
        except UsageError as error:
            where = f"--grid {combination.name}: " if combination.changes else ""
            raise UsageError(where + error.message, error.hint) from error


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
    same = made.get("versions", {}).get("timm") == version_of("timm")
    size = made.get("native_sizes", {}).get(model)
    return int(size) if same and size is not None else 0
