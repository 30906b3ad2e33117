"""`train`: one network for every fold of a split; each fold a model folder with its test predictions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxrtool.data.files import atomic_write, locked, sha256_file
from cxrtool.data.manifest import Manifest, order_columns, read_manifest, read_table, write_manifest, write_table
from cxrtool.data.splits import FILE_NAME as SPLITS
from cxrtool.errors import UsageError
from cxrtool.steps import run as runs
from cxrtool.steps.assignment import Assignment, read_assignments
from cxrtool.steps.chain import chain_of
from cxrtool.steps.fold import FoldTrainer
from cxrtool.steps.folder import REJECTS, Inputs, Plan, StepFolder, read_run_file, write_run_file
from cxrtool.steps.settings import Settings
from cxrtool.steps.signals import StopRequest

LIBRARIES = ("numpy", "opencv-python-headless", "torch", "timm")


@dataclass(frozen=True)
class TrainOptions:
    """The options of `train`; None takes the preset's value, else the default (`cxrtool.training.presets`)."""

    manifest: Path
    splits: Path
    preset: str | None = None
    model: str | None = None
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
    only: str | None = None
    save_every: float = 30.0


def train(options: TrainOptions, settings: Settings) -> None:
    """Train every fold that is not there yet.

    Raises:
        UsageError: An option is wrong.
        InputError: Manifest and splits do not fit each other.
        LeakageError: A patient or a picture is on two sides of a split.
    """
    values, settings = resolve(options, settings)
    manifest = read_manifest(options.manifest, root=settings.root)
    assignments = read_assignments(options.splits, manifest, settings)
    chain = chain_of(Path(row["path"]) for row in manifest.rows)
    weights = [Path(values["weights"])] if values["weights"] not in ("imagenet", "none") else []
    identity = {**values, "splits": sha256_file(options.splits), "only": None}
    plan = Plan(
        "train", identity, Inputs.of(manifest, files=weights, verify=settings.verify), chain, LIBRARIES,
        seeded=True, threaded=True,
    )  # fmt: skip
    container = StepFolder(settings.out, plan, settings)
    whole = container.needs_work()
    wanted = runs.select_folds([(a.repeat, a.fold) for a in assignments], options.only)
    if not whole or settings.dry_run:
        return
    _open_container(container, options, values, settings)
    trainer = FoldTrainer(values, options.preset, options.save_every, settings, manifest, chain, container)
    with StopRequest() as request:
        for assignment in assignments:
            if (assignment.repeat, assignment.fold) in wanted:
                trainer.train_fold(assignment, request)
    _close_container(container, assignments, manifest, settings)


def resolve(options: TrainOptions, settings: Settings) -> tuple[dict[str, Any], Settings]:
    """The value of every option that bears on the result, and where each came from.

    Raises:
        UsageError: No such preset or network, or values that exclude one another.
    """
    from cxrtool.models.registry import OWN, check_name, native_size
    from cxrtool.training.presets import DEFAULTS, PRESETS

    if options.preset is not None and options.preset not in PRESETS:
        raise UsageError(f"--preset: expected one of {', '.join(PRESETS)}, found '{options.preset}'")
    preset = PRESETS[options.preset] if options.preset else {}
    values: dict[str, Any] = {}
    origins = dict(settings.origins)
    for name, default in DEFAULTS.items():
        given = getattr(options, name)
        values[name] = given if given is not None else preset.get(name, default)
        if given is None:
            origins[name] = "preset" if name in preset else "default"
    if values["model"] is None:
        raise UsageError("train needs --model NAME, or a --preset that names one", "for instance --model resnet18")
    check_name(values["model"])
    own = values["model"] in OWN
    values["weights"] = values["weights"] or ("none" if own else "imagenet")
    values["size"] = values["size"] or native_size(values["model"])
    if values["weights"] == "none" and values["freeze"]:
        if options.freeze:
            raise UsageError(
                "--freeze with --weights none would train a head on a body of random numbers", "leave --freeze out"
            )
        # The features of an untrained, frozen body rank initialisations, not networks.
        settings.report.warn("--weights none: the whole network is trained, since a random body must not be frozen")
        values["freeze"] = False
    for name, known in (("fit", ("squash", "pad", "crop")), ("normalize", ("native", "div255")),
                        ("frozen_bn", ("eval", "batch"))):  # fmt: skip
        if values[name] not in known:
            raise UsageError(f"--{name.replace('_', '-')}: expected one of {', '.join(known)}, found '{values[name]}'")
    return values, replace(settings, origins=origins)


def _open_container(container: StepFolder, options: TrainOptions, values: dict[str, Any], settings: Settings) -> None:
    """Lay the run's own files; many tasks may do so at once, and all write the same."""
    run = container.out
    run.mkdir(parents=True, exist_ok=True)
    with locked(run / ".lock"):
        made = read_run_file(run)
        if made is None or made.get("run_digest") != container.digest or settings.force:
            (run / container.marker).unlink(missing_ok=True)
            shown = {
                **values,
                "manifest": str(options.manifest),
                "splits": str(options.splits),
                "preset": options.preset,
            }
            plan = replace(container.plan, options=shown)
            identity = {"digest": container.digest, "run_digest": container.digest}
            write_run_file(run, plan, settings, time.time(), {}, identity)
        atomic_write(run / SPLITS, options.splits.read_bytes())


def _close_container(
    container: StepFolder, assignments: Sequence[Assignment], manifest: Manifest, settings: Settings
) -> None:
    """When every fold is there, write what they have in common; the last of several tasks does it."""
    run, report = container.out, settings.report
    with locked(run / ".lock"):
        names = [a.name for a in assignments]
        done = [n for n in names if (read_run_file(run / n) or {}).get("run_digest") == container.digest]
        if len(done) < len(names):
            report.say(f"{container.shown}: {len(done)} of {len(names)} folds are there")
            return
        rejects = {tuple(row.items()): row for n in names for row in read_table(run / n / REJECTS).rows}
        write_table(run / REJECTS, ["path", "reason"], list(rejects.values()))
        write_manifest(run / container.marker, order_columns(manifest.columns), manifest.rows)
    report.say(f"{container.shown}: all {len(names)} folds are there; next: cxrtool evaluate {container.shown}")
