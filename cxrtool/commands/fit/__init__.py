"""`fit`: a lung network from masks, a rib network from rib-free pictures; one part, or one for every fold.

Generators, which have labels and folds instead of targets, are fitted by `fit_generators`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.fit.measure import FIGURES, TABLES, summarise
from cxrtool.commands.fit.options import FitOptions
from cxrtool.commands.fit.pairs import TARGETS, divide, join, read_folds, read_pairs
from cxrtool.data.files import locked, saying_what_fails, sha256_file
from cxrtool.data.tables.manifest import Manifest, Row, read_table, write_table
from cxrtool.errors import UsageError
from cxrtool.flow import container as containers
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Assignment, splits_file
from cxrtool.flow.container import Summary, heed_strict, tell_of_validation
from cxrtool.flow.folder import REJECTS, Inputs, Plan, StepFolder
from cxrtool.flow.settings import Settings
from cxrtool.flow.signals import StopRequest
from cxrtool.training.image_to_image_presets import DEFAULTS, PRESETS

if TYPE_CHECKING:
    from cxrtool.commands.fit.part import PartFitter
    from cxrtool.imaging.view import Form

LIBRARIES = ("numpy", "opencv-python-headless", "torch")
MARKER = "part.json"
SUMMARY = "summary.csv"
WORST = "worst.png"
LOWEST = 20


GENERATORS = "generators"
ALIEN = ("class_loss", "class_loss_weight", "perceptual", "weights", "classifier_lr")
"""The options of generators alone."""


def fit(options: FitOptions, settings: Settings) -> Summary | None:
    """Fit a network, or one for each fold of a split, unless it is there.

    Returns:
        The table of figures on the validation images, or on the test images of the folds; None where there was nothing
        to do or to measure.

    Raises:
        UsageError: An option is wrong.
        InputError: No image has a target, or manifest and splits do not fit each other.
        LeakageError: A patient or a picture is on two sides of a split.
        StoppedError: A signal arrived.
        StrictError: `--strict`, and an image could not be read; the result is complete all the same.
    """
    if options.kind == GENERATORS:
        from cxrtool.commands.fit.generators import fit_generators

        return fit_generators(options, settings)
    values, form, settings = resolve(options, settings)
    column = options.target_column or TARGETS[options.kind]
    manifest = read_pairs(options.manifest, options.kind, column, settings)
    own = len(manifest)
    if options.also:
        manifest = join(manifest, read_pairs(options.also, options.kind, column, settings), column)
    if options.balance:
        manifest.require(options.balance)
    inputs = Inputs.of(manifest, files=[Path(row[column]) for row in manifest.rows], verify=settings.verify)
    shared = {**values, "size": form.size, "form": form.to_json(), "target_column": column, "balance": options.balance}
    shared |= {"own": own, "precision": settings.precision}
    identity = {**shared, "splits": sha256_file(splits_file(options.splits))} if options.splits else {
        **shared, "validation": options.validation}  # fmt: skip
    plan = Plan("fit", identity, inputs, (), LIBRARIES, seeded=True, threaded=True)
    shown = {**_shown(options, values, form), "precision": settings.precision}
    task = Task(options, values, form, manifest, own, column, plan, shown, settings)
    return task.fit_folds() if options.splits else task.fit_one()


def resolve(options: FitOptions, settings: Settings) -> tuple[dict[str, Any], Form, Settings]:
    """The value of every option that bears on the result, what the network is shown, and where each option came from.

    Raises:
        UsageError: No such kind, network, loss or exposure, or a number out of range.
    """
    if options.kind not in TARGETS:
        raise UsageError(f"KIND: expected one of {', '.join([*TARGETS, GENERATORS])}, found '{options.kind}'")
    for name in ALIEN:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: goes with generators, found {options.kind}")
    from cxrtool.models.parts import networks

    known = networks(options.kind)
    network = options.network or next(iter(known))
    if network not in known:
        raise UsageError(f"--network: expected one of {', '.join(known)}, found '{network}'")
    preset: Mapping[str, Any] = PRESETS.get(network, {})
    values: dict[str, Any] = {"kind": options.kind, "network": network}
    origins = dict(settings.origins)
    for name, default in DEFAULTS.items():
        given = getattr(options, name)
        values[name] = given if given is not None else preset.get(name, default)
        if given is None:
            origins[name] = "preset" if name in preset else "default"
    _check(values, options)
    form = known[network].form
    return (
        values,
        form if options.size is None else replace(form, size=options.size),
        replace(settings, origins=origins),
    )


def _check(values: dict[str, Any], options: FitOptions) -> None:
    losses = {"lungs": ("bce+dice", "bce", "dice"), "ribs": ("ms-ssim+mse", "mse")}[values["kind"]]
    values["loss"] = values["loss"] or losses[0]
    choices = {"loss": losses, "exposure": ("none", "strong"), "checkpoint": ("best-loss", "last")}
    for name, known in choices.items():
        if values[name] not in known:
            raise UsageError(f"--{name}: expected one of {', '.join(known)}, found '{values[name]}'")
    if not 0.0 <= values["average"] < 1.0:
        raise UsageError(f"--average: expected a number from 0 to below 1, found {values['average']}")
    if not 0.0 <= options.validation < 1.0:
        raise UsageError(f"--validation: expected a share from 0 to below 1, found {options.validation}")
    if not 1 <= values["copies"] < 1000 or not 0 <= values["dilate"] < 256:
        raise UsageError("--copies: expected a number from 1 to 999; --dilate: from 0 to 255")
    if options.only and not options.splits:
        raise UsageError("--only names folds, and there are none without --splits")


def _shown(options: FitOptions, values: dict[str, Any], form: Form) -> dict[str, Any]:
    """The options as `run.json` tells them, and as `--config run.json` takes them again."""
    told = {name: None if path is None else str(path) for name, path in
            (("manifest", options.manifest), ("splits", options.splits), ("also", options.also))}  # fmt: skip
    names = ("target_column", "validation", "balance")
    return {**values, **told, **{name: getattr(options, name) for name in names}, "size": form.size}


@dataclass(frozen=True)
class Task:
    """One call of `fit`."""

    options: FitOptions
    values: dict[str, Any]
    form: Form
    manifest: Manifest
    own: int
    column: str
    plan: Plan
    shown: dict[str, Any]
    settings: Settings

    def fit_one(self) -> Summary | None:
        """One part, a share of the patients held back."""
        folder = StepFolder(self.settings.out, self.plan, self.settings, marker=MARKER)
        if not folder.needs_work():
            return None
        validation = self.options.validation
        assignment = divide(self.manifest, self.own, validation, self.options.balance, self.settings)
        fitter = self._fitter()
        with StopRequest() as request:
            fitter.fit(folder, assignment, request, {})
        rows = read_table(folder.out / TABLES[self.options.kind]).rows
        self.settings.report.say(f"next: {_next(self.options.kind, folder.shown)}")
        heed_strict(read_table(folder.out / REJECTS).rows, self.settings)
        return (
            (*summarise(rows, self.options.kind, "validation", self.settings.seed), "Validation images")
            if rows
            else None
        )

    def fit_folds(self) -> Summary | None:
        """One part for each fold, in a run."""
        splits = splits_file(self.options.splits or Path())
        folds = read_folds(splits, self.manifest, self.own, self.settings)
        wanted = runs.select_folds([(a.repeat, a.fold) for a in folds], self.options.only)
        container = StepFolder(self.settings.out, self.plan, self.settings)
        if not container.needs_work():
            return None
        tell_of_validation([a for a in folds if (a.repeat, a.fold) in wanted], self.values, self.settings)
        fitter = self._fitter()
        containers.lay(container, splits, self.shown, {})
        with StopRequest() as request:
            for assignment in folds:
                if (assignment.repeat, assignment.fold) in wanted:
                    request.heed()
                    self._fit_fold(container, fitter, assignment, request)
        return self._close(container, folds)

    def _fit_fold(
        self, container: StepFolder, fitter: PartFitter, assignment: Assignment, request: StopRequest
    ) -> None:
        options = {**self.plan.options, "repeat": assignment.repeat, "fold": assignment.fold}
        place = container.out / assignment.name
        folder = StepFolder(place, replace(self.plan, options=options), self.settings, marker=MARKER)
        if folder.needs_work():
            fitter.fit(folder, assignment, request, {"run_digest": container.digest})

    def _fitter(self) -> PartFitter:
        from cxrtool.commands.fit.part import PartFitter, check_design

        check_design(self.values, self.form, self.settings)
        return PartFitter(
            self.values, self.form, self.manifest, self.column, self.options.balance, self.options.save_every,
            self.settings,
        )  # fmt: skip

    def _close(self, container: StepFolder, folds: list[Assignment]) -> Summary | None:
        """When every fold is there, write what they have in common."""
        run, kind, report = container.out, self.options.kind, self.settings.report
        names = [a.name for a in folds]
        done, rejects = containers.finished(container, names)
        rows = [row for name in done for row in read_table(run / name / TABLES[kind]).rows]
        if len(done) < len(names):
            report.say(f"{container.shown}: {len(done)} of {len(names)} folds are there")
            return None
        with saying_what_fails(run), locked(run.parent / f".{run.name}.lock"):
            subset = "test" if any(row["subset"] == "test" for row in rows) else "validation"
            columns = ["image_id", "patient_id", "repeat", "fold", "subset", *FIGURES[kind]]
            write_table(run / TABLES[kind], columns, rows)
            header, table = summarise(rows, kind, subset, self.settings.seed)
            write_table(run / SUMMARY, header, [dict(zip(header, cells, strict=True)) for cells in table])
            self._draw_worst(run, [row for row in rows if row["subset"] == subset])
            containers.complete(container, names, rejects, self.manifest)
        report.say(f"{container.shown}: all {len(names)} folds are there; the worst are in {container.shown / WORST}")
        heed_strict(rejects, self.settings)
        return header, table, f"{subset.capitalize()} images"

    def _draw_worst(self, run: Path, rows: list[Row]) -> None:
        from cxrtool.commands.fit.part import captions
        from cxrtool.commands.fit.pictures import ask_with, draw_examples
        from cxrtool.models.parts import load_network

        kind = self.options.kind
        first = FIGURES[kind][0]
        worst = sorted(rows, key=lambda row: float(row[first]) * (1 if kind == "lungs" else -1))[:LOWEST]
        images = {row["image_id"]: row for row in self.manifest.rows}
        folds = [run / runs.fold_name(row["repeat"], row["fold"]) for row in worst]
        entries = [
            (images[row["image_id"]], captions(row, kind), ask_with(load_network(fold, kind), kind))
            for row, fold in zip(worst, folds, strict=True)
        ]
        title = f"the worst {len(worst)} of {len(rows)}"
        draw_examples(run / WORST, entries, kind, self.column, self.form, title)


def _next(kind: str, shown: Path) -> str:
    command = {"lungs": "segment MANIFEST --lungs", "ribs": "enhance MANIFEST --steps suppress-ribs --ribs"}[kind]
    return f"cxrtool {command} {shown} -o DIR"
