"""Fit class-inherent transformations (FuCiTNet): a generator for each class, in every fold of a split.

Generators use labels, so they are fitted only on the training images of a fold: their output for an image that they
were fitted on reveals its class. Writes a run for `transform` and `train --transform`, with the predictions of FuCiTNet
alone.

Example: cxrtool fit generators cropped --splits splits.csv -o generators
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cxrtool.commands.fit.generators.effects import COLUMNS, EFFECTS, SUMMARY, summarise
from cxrtool.commands.fit.generators.fold import GeneratorsTrainer, check_design
from cxrtool.commands.fit.generators.options import GeneratorOptions
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
    raise_if_strict,
    warn_without_validation,
)
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.settings import Settings
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
    options = resolve(options)
    splits = splits_file(options.splits or Path())
    manifest = read_manifest(options.manifest, root=settings.root)
    if any(is_twin(row) for row in manifest.rows):
        raise InputError(f"{manifest.name}: expected radiographs, found twins that a generator made")
    assignments = read_assignments(splits, manifest, settings)
    wanted = runs.select_folds([(a.repeat, a.fold) for a in assignments], options.only)
    files = [Path(name) for name in (options.weights, options.perceptual) if name not in NO_FILES]
    # Only the content of the splits counts, as in `train`.
    inputs = Inputs.of(manifest, files=files, verify=settings.verify).after(splits)
    identity = {**options.identity(), "splits": splits_digest(splits), "precision": settings.precision}
    chain = chain_of_manifest(manifest)
    plan = Plan("fit", identity, inputs, chain, LIBRARIES, seeded=True, threaded=True)
    container = StepFolder(settings.out, plan, settings, replaced=False)
    if not container.needs_work():
        return None
    mine = [a for a in assignments if (a.repeat, a.fold) in wanted]
    _check_choice(options, mine)
    check_design(options, manifest.classes(), settings)
    warn_without_validation(mine, options, settings)
    _warn_of_deviations(options, manifest, settings)
    shown = {**options.identity(), "manifest": str(options.manifest), "splits": str(options.splits)}
    create_run_folder(container, splits, {**shown, "precision": settings.precision}, {})
    stores = Stores(settings, manifest, container)
    task = Task(
        preset=None,
        save_every=options.save_every,
        settings=settings,
        manifest=manifest,
        classes=manifest.classes(),
        chain=chain,
        container=container,
        stores=stores,
    )
    trainer = GeneratorsTrainer(options, task)
    with StopRequest() as request:
        for assignment in mine:
            request.raise_if_stopped()
            trainer.train_fold(assignment, request)
    return _close(container, assignments, manifest, settings)


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
    raise_if_strict(rejects, settings)
    return header, table, f"Effect of each generator on the {subset} images of its class:"
