"""The training of the folds of a run: decoded images, a model folder for each fold, the files of the whole run.

Several tasks may write one run at once: what is written for the whole run is locked, and the same in each task.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from cxrtool import processors
from cxrtool.data.cache import open_cache
from cxrtool.data.confinement import also_in, leading_out
from cxrtool.data.file_names import CURVES, FITTED_ON, HISTORY, PREDICTIONS, REJECTS, SPLITS
from cxrtool.data.files import atomic_write, is_stream, locked, saying_what_fails
from cxrtool.data.splitting.grouping import PATIENT, hashed
from cxrtool.data.splitting.splits import splits_content
from cxrtool.data.tables.manifest import (
    Manifest,
    Row,
    dump_table,
    order_columns,
    read_table,
    relative_rows,
    write_table,
)
from cxrtool.data.tables.predictions import GROUPING, LEARNED, Predictions, write_predictions
from cxrtool.data.tables.twins import MARK, is_twin
from cxrtool.errors import InputError, NothingReadError, OutputError, StrictError, UsageError, count_of
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Assignment, check_equal, check_pixels
from cxrtool.flow.chain import Chain, chain_of_rows, copy_parts, is_divided, radiograph_of
from cxrtool.flow.folder import Build, StepFolder, read_run_file, record, without_paths, write_run_file
from cxrtool.flow.jobs import turn, warning_of
from cxrtool.flow.replaying import decode
from cxrtool.flow.settings import Settings
from cxrtool.flow.signals import StopRequest
from cxrtool.models.description import Input, ModelDescription, Normalization
from cxrtool.training.options import FittingOptions, TrainingOptions

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.evaluation.metrics.confusion import FloatArray
    from cxrtool.training.fitting import Design, Fitted
    from cxrtool.training.ranks import Ranks
    from cxrtool.training.store import Store
    from cxrtool.training.tracking import Write


OF_TWINS = "a network of twins: its scores are calibrated after fusion"
IMPORTED = "imported weights: their validation images are not known"


def undecided(reason: str) -> dict[str, Any]:
    """The entries `calibration` and `thresholds` of a model without validation images of its own."""
    from cxrtool.evaluation.decisions.temperature import Temperature

    return {"calibration": Temperature(reason=reason).as_json(), "thresholds": None}


def decide_on_validation(classes: Sequence[str], labels: Sequence[str], probabilities: FloatArray) -> dict[str, Any]:
    """The entries `calibration` and `thresholds` of `model.json`.

    Args:
        classes: K names, in the order of the outputs.
        labels: Of the n validation images.
        probabilities: (n, K) of the network for them.

    Returns:
        The temperature as `Temperature.as_json`; for every class as the positive one, and for each sensitivity of
        `thresholds.USUAL`, the probability from which it is predicted. Thresholds are for uncalibrated probabilities.
    """
    import numpy as np

    from cxrtool.evaluation.decisions import temperature, thresholds

    if all(MARK in name for name in classes):
        return undecided(OF_TWINS)
    indices = {name: k for k, name in enumerate(classes)}
    truth = np.array([indices[label] for label in labels], np.intp)
    values = np.asarray(probabilities, np.float64).reshape(len(truth), len(classes))
    return {
        "calibration": temperature.fit(values, truth).as_json(),
        "thresholds": {
            name: {f"{s:.2f}": thresholds.threshold(values[truth == k, k], s).as_json() for s in thresholds.USUAL}
            for k, name in enumerate(classes)
        },
    }


DECODER = "opencv-python-headless"
"""The library on whose version the decoded pixels may depend."""


class Opener(Protocol):
    """Opens the store of the images of a training."""

    def open(self, size: int, fit: str, request: StopRequest) -> Store:
        """The images at one size."""


class Stores:
    """Opens stores when they are first used, and keeps them.

    `warn` is not needed if the step reports its rejects, and `needed` is false if it can do without a single image.
    `beside` is the number of processes that have the same images on one device.
    """

    def __init__(
        self,
        settings: Settings,
        manifest: Manifest,
        container: StepFolder,
        *,
        warn: bool = True,
        needed: bool = True,
        beside: int = 1,
    ) -> None:
        self.settings, self.manifest, self.container, self.warn = settings, manifest, container, warn
        self.needed, self.beside = needed, beside
        self._opened: dict[tuple[int, str], Store] = {}

    def open(self, size: int, fit: str, request: StopRequest) -> Store:
        """The images at one size.

        Raises:
            ChangedError: An image is not the one of its row.
            InputError: Not one image can be read.
            StoppedError: A signal arrived.
        """
        from cxrtool.flow.parallel import map_items
        from cxrtool.training.store import open_store

        if (size, fit) in self._opened:
            return self._opened[size, fit]
        settings, plan = self.settings, self.container.plan
        key: dict[str, Any] = {"size": size, "fit": fit, "decoder": plan.versions()[DECODER]}
        if settings.verify:
            # The store itself compares only size and time of the files.
            key["content"] = plan.inputs.digest
        paths = [Path(row["path"]) for row in self.manifest.rows]
        # Twins have three channels, all other images one.
        colour = any(is_twin(row) for row in self.manifest.rows)
        with settings.report.progress("decoding", len(paths)) as advance:

            def count(number: int) -> None:
                advance(number)
                request.raise_if_stopped()

            store = open_store(
                paths,
                partial(decode, chain=[], size=size, fit=fit, colour=colour),
                size=size,
                key=key,
                cache=open_cache(settings.cache),
                mapper=map_items,
                workers=settings.workers,
                colour=colour,
                made_by=shlex.join(["cxrtool", *settings.argv[1:]]),
                advance=count,
                say=settings.report.say,
            )
        check_pixels(self.manifest, store.sha256)
        if self.needed and len(store.failed) == len(store):
            first = next(((paths[index], reason) for index, reason in store.failed.items()), ("", "there are none"))
            raise NothingReadError(self.manifest.name, len(store), *first)
        if store.failed and self.warn and not self._opened:
            settings.report.warn(
                f"{len(store.failed)} of {count_of(len(store), 'image')} cannot be read and are excluded; "
                f"each with its reason in {self.container.shown / REJECTS}"
            )
        self._opened[size, fit] = replace(store, beside=self.beside)
        return self._opened[size, fit]


FITTED_COLUMNS = ("image_id", "patient_id", "sha256", "repeat", "fold", "subset")
GRID, CANDIDATES = "grid.csv", "candidates"
"""Files of a grid search in a run: its table, and the folder of its candidates."""
PROCESSES = "processes"
"""The entry of a run's options with the number of processes that shared each training, if there were several."""


def check_design(options: TrainingOptions, classes: int, settings: Settings, *, ordered: bool = False) -> None:
    """Check every option before the first image is decoded.

    Raises:
        InputError: There is no such file of weights, or ImageNet weights cannot be downloaded.
        UsageError: A name or a number is wrong, or there is no such device.
    """
    from cxrtool.models.registry import check, require_weights
    from cxrtool.training.device import choose_device, choose_precision

    options.check_numbers()
    design = make_design(options, classes, settings, 0, ordered=ordered)
    check(design.architecture, design.weights)
    device = choose_device(settings.device)
    choose_precision(settings.precision, device)
    if options.compile:
        from cxrtool.training.compiling import require_compiler

        require_compiler(device)
    require_weights(design.architecture, design.weights)
    if (ranks := processors.ranks()) > 1:
        from cxrtool.training.fitting import check_divisible

        if options.compile:
            raise UsageError(f"--compile: expected one process, found {ranks} of torchrun", "omit --compile")
        check_divisible(design, device)


def make_design(
    options: TrainingOptions, classes: int, settings: Settings, seed: int, *, ordered: bool = False
) -> Design:
    """The design that the resolved options describe; a `UsageError` if an augmentation or kernels are wrong."""
    from cxrtool.models.architecture import Architecture
    from cxrtool.models.kernels import parse as parse_kernels
    from cxrtool.training.augment import parse
    from cxrtool.training.fitting import Design

    kernels = parse_kernels(options.kernels)
    architecture = Architecture(options.model, classes, options.hidden, options.dropout, options.size, kernels, ordered)
    return Design(
        architecture,
        options.weights,
        options.fitting(),
        parse(options.augment),
        options.freeze,
        options.frozen_bn == "eval",
        options.normalize,
        seed,
        settings.threads,
        settings.device,
        settings.precision,
        options.bn_stats == "recompute",
        options.compile,
    )


@dataclass(frozen=True)
class Track:
    """A tracker of `TRACKERS`, and the folder to write to; None writes into the run."""

    tracker: str
    folder: Path | None

    @contextlib.contextmanager
    def open(self, run: Path, name: str) -> Iterator[Write]:
        """The record of one training of a run, beside the folders of its folds: it is no part of a result."""
        from cxrtool.training.tracking import TRACKERS

        folder = run / self.tracker if self.folder is None else self.folder / run.name
        with also_in(folder), TRACKERS[self.tracker].open(folder / name.replace("/", "_")) as write:
            yield write


@dataclass(frozen=True)
class Task:
    """What all trainings of one command share.

    Attributes:
        preset: Its name, for the model's description.
        manifest: The images; the label of a twin is its class.
        chain: The processing steps of the images, of all folds.
        container: The run's folder, with the plan that all folds share.
        track: Where epochs are also written.
        ranks: The processes that share each training.
        beside: Number of trainings side by side, which have the device together.
        target: What the classes are, where they are not the manifest's labels (`flow.target`).
    """

    preset: str | None
    save_every: float
    settings: Settings
    manifest: Manifest
    classes: list[str]
    chain: Chain
    container: StepFolder
    stores: Opener
    track: Track | None = None
    ranks: Ranks | None = None
    beside: int = 1
    target: str = ""

    def folder(self, assignment: Assignment) -> StepFolder:
        """The folder of one fold."""
        shared = self.container.plan
        options = {**shared.options, "repeat": assignment.repeat, "fold": assignment.fold}
        plan = replace(shared, options=options, chain=self.chain_of(assignment))
        return StepFolder(self.container.out / assignment.name, plan, self.settings, marker=PREDICTIONS)

    def chain_of(self, assignment: Assignment) -> Chain:
        """The processing steps of the images of one fold."""
        if not is_divided(self.manifest):
            return self.chain
        return chain_of_rows([self.manifest.rows[i] for indices in assignment.subsets.values() for i in indices])


class FoldTrainer:
    """Trains folds, all with the same options.

    Attributes:
        shape: The side of the decoded images and their `--fit`; `shapes` has it alone.
        index: Of the options among those of a grid search.
    """

    def __init__(self, options: TrainingOptions, task: Task, index: int = 0) -> None:
        self.options, self.task, self.classes, self.index = options, task, task.classes, index
        self.shape = options.size, options.fit
        self.shapes = {self.shape}

    def train_fold(self, assignment: Assignment, request: StopRequest) -> None:
        """Train one fold, unless it is complete, and write its folder."""
        folder = self.task.folder(assignment)
        if not folder.needs_work():
            return
        store, assignment = self.open(assignment, request)
        with folder.build() as build:
            fitted = self.fit(assignment, store, ("validation", "test"), build.path / "state", request)
            self.write(build, assignment, store, fitted)
            shutil.rmtree(build.path / "state", ignore_errors=True)
            self.close(build, assignment, store, fitted)

    def finish(self, folds: Sequence[str], *, whole: bool) -> list[Row]:
        """Remove the grid search of an earlier command once all folds are complete."""
        if whole:
            run = self.task.container.out
            shutil.rmtree(run / CANDIDATES, ignore_errors=True)
            (run / GRID).unlink(missing_ok=True)
        return []

    def open(self, assignment: Assignment, request: StopRequest) -> tuple[Store, Assignment]:
        """The images, and the assignment without unreadable ones; an `InputError` if a class has none for training."""
        store = self.task.stores.open(*self.shape, request)
        usable = {name: [i for i in indices if i not in store.failed] for name, indices in assignment.subsets.items()}
        usable_only = replace(assignment, subsets=usable)
        check_equal(self.task.manifest, store.sha256, usable_only, self.task.settings)
        present = {self.task.manifest.rows[i]["label"] for i in usable["train"]}
        absent = [name for name in self.classes if name not in present]
        if absent:
            raise InputError(
                f"fold {assignment.name}: no training image of class '{absent[0]}' can be read",
                f"`cxrtool info {self.task.manifest.name}` shows what is wrong with its images",
            )
        return store, usable_only

    def design(self, assignment: Assignment) -> Design:
        """The design of a fold, which has its own seed, so that it can be trained alone."""
        settings, ordered = self.task.settings, ":" in self.task.target
        return make_design(self.options, len(self.classes), settings, assignment.seed(settings.seed), ordered=ordered)

    def labels(self) -> np.ndarray:
        """The class index of every image of the manifest, -1 if it has no class (N,)."""
        import numpy as np

        known = {label: index for index, label in enumerate(self.classes)}
        return np.array([known.get(row["label"], -1) for row in self.task.manifest.rows])

    def fit(
        self,
        assignment: Assignment,
        store: Store,
        to_predict: Sequence[str],
        state: Path,
        request: StopRequest,
        name: str = "",
    ) -> Fitted:
        """Train one fold.

        A test subset that is not among `to_predict` is never used. `name` is that of the training in messages. All
        ranks of a task with several call this at once: rank 0 asks the others to.
        """
        import numpy as np

        from cxrtool.training.fitting import fit_fold

        task, subsets = self.task, assignment.subsets
        report, design = task.settings.report, self.design(assignment)
        watching = self.options.watch == "test" and "test" in to_predict
        name = name or assignment.name
        # Rank 0 has the turn of all ranks.
        follows = bool(task.ranks and task.ranks.rank)
        turns = contextlib.nullcontext() if follows else turn(task.settings, task.beside, request)
        record = task.track.open(task.container.out, name) if task.track else contextlib.nullcontext()
        with turns, record as write, report.progress(name, design.recipe.epochs) as advance:
            if task.ranks and not task.ranks.rank:
                task.ranks.tell((assignment.name, self.index))

            def resumed(rows: Sequence[dict[str, float | None]]) -> None:
                advance(len(rows))
                if write:
                    write(rows)

            def epoch_done(row: dict[str, float | None]) -> None:
                resumed([row])
                report.note(f"{name}  {describe_epoch(row)}")

            fitted = fit_fold(
                design,
                store,
                [radiograph_of(row) for row in task.manifest.rows],
                self.labels(),
                np.array(subsets["train"], np.int64),
                np.array(subsets["validation"], np.int64),
                np.array([i for subset in to_predict for i in subsets[subset]], np.int64),
                state,
                watched=np.array(subsets["test"], np.int64) if watching else None,
                save_every=task.save_every,
                resumed=resumed,
                epoch_done=epoch_done,
                stop=request.error,
                warn=warning_of(name, task.beside, report),
                ranks=task.ranks,
            )
        # What is left to do has no state of its own.
        request.raise_if_stopped()
        return fitted

    def describe(self, assignment: Assignment, fitted: Fitted) -> ModelDescription:
        """The description of a trained network, for `model.json`."""
        from cxrtool.models.registry import input_form

        options, validation = self.options, assignment.subsets["validation"]
        labels = [self.task.manifest.rows[i]["label"] for i in validation]
        return ModelDescription(
            self.classes,
            self.design(assignment).architecture.to_json(),
            without_paths(self.task.chain_of(assignment)),
            Input(options.size, options.fit),
            Normalization(**input_form(options.model, options.normalize)),
            # The validation images come first in `probabilities`.
            **decide_on_validation(self.classes, labels, fitted.probabilities[: len(labels)]),
            trained={
                "preset": self.task.preset,
                "weights": fitted.weights_from,
                "epoch": fitted.history.kept,
                **({"target": self.task.target} if self.task.target else {}),
            },
        )

    def write(self, build: Build, assignment: Assignment, store: Store, fitted: Fitted) -> None:
        """Write a model folder with its predictions for the validation and test images."""
        from cxrtool.imaging import properties
        from cxrtool.training.checkpoint import save_model
        from cxrtool.training.curves import draw_history, write_history

        path = build.path
        seen = [(i, name) for name in ("train", "validation") for i in assignment.subsets[name]]
        train = assignment.subsets["train"]
        usual = properties.fit((store.images[i], self.task.manifest.rows[i]) for i in train)
        save_model(path, fitted.network, replace(self.describe(assignment, fitted), usual=usual))
        copy_parts(self.task.chain_of(assignment), path)
        # All twins of a radiograph are one row.
        fitted_on = {row["image_id"]: row for row in (self._seen_row(i, s, assignment, store) for i, s in seen)}
        write_table(path / FITTED_ON, FITTED_COLUMNS, fitted_on.values())
        write_history(path / HISTORY, fitted.history.rows)
        draw_history(path / CURVES, fitted.history, f"{self.options.model}, {assignment.name}")
        write_predictions(path / PREDICTIONS, self._predictions(assignment, store, fitted, usual))

    def close(
        self,
        build: Build,
        assignment: Assignment,
        store: Store,
        fitted: Fitted,
        extra: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Finish the folder of a fold, and report its test accuracy."""
        task = self.task
        for i, reason in store.failed.items():
            build.reject(task.manifest.rows[i]["path"], reason)
        counts = {name: len(indices) for name, indices in assignment.subsets.items()}
        notes = {"run_digest": task.container.digest, "training": fitted.notes, **extra}
        # Rejects are reported once for the run, and `--strict` must not stop at the first fold.
        build.close(counts=counts, extra=notes, wanted=True)
        test, first = assignment.subsets["test"], len(assignment.subsets["validation"])
        answers = fitted.probabilities[first:].argmax(1)
        correct = sum(
            self.classes[k] == task.manifest.rows[i]["label"] for i, k in zip(test, answers.tolist(), strict=True)
        )
        share = f", test accuracy {correct / len(test):.3f} of {count_of(len(test), 'image')}" if test else ""
        task.settings.report.say(f"{assignment.name}: kept epoch {fitted.history.kept}{share}")

    def _seen_row(self, index: int, subset: str, assignment: Assignment, store: Store) -> Row:
        row = self.task.manifest.rows[index]
        name = row["parent_id"] if is_twin(row) else radiograph_of(row)
        patient, digest = hashed(row.get(PATIENT, "")), row.get("sha256") or store.sha256[index]
        cells = (name, patient, digest, assignment.repeat, assignment.fold, subset)
        return dict(zip(FITTED_COLUMNS, cells, strict=True))

    def _predictions(self, assignment: Assignment, store: Store, fitted: Fitted, usual: dict[str, Any]) -> Predictions:
        from cxrtool.imaging import plausibility

        rows, manifest = [], self.task.manifest
        learned = {LEARNED: self.task.target} if self.task.target else {}
        predicted = [(i, name) for name in ("validation", "test") for i in assignment.subsets[name]]
        present = [name for name in GROUPING if name in manifest.columns]
        for (index, subset), probabilities in zip(predicted, fitted.probabilities, strict=True):
            source = manifest.rows[index]
            doubt = plausibility.warn(store.images[index], usual)
            rows.append(
                {
                    "image_id": radiograph_of(source),
                    "path": source["path"],
                    "repeat": assignment.repeat,
                    "fold": assignment.fold,
                    "subset": subset,
                    "label": source["label"],
                    "predicted": self.classes[int(probabilities.argmax())],
                    "warning": "; ".join(text for text in (source.get("warning", ""), doubt) if text),
                    **{name: source[name] for name in present},
                    **learned,
                }
            )
        return Predictions(self.classes, rows, fitted.probabilities, assignment.name)


def describe_epoch(row: dict[str, float | None]) -> str:
    """One line of text for a row of the history."""
    parts = [f"epoch {row['epoch']:g}"]
    parts += [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in row.items()
        if name not in ("epoch", "lr") and value is not None
    ]
    return "  ".join(parts)


def create_run_folder(container: StepFolder, splits: Path, shown: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Write the run's own files. Splits from a stream are named by the copy in the run, which can be read again.

    A new run is first created under another name: a second task must never find it without `run.json`, and refuse it
    as a foreign folder.
    """
    run, settings = container.out, container.settings
    if link := leading_out(run):
        raise OutputError(
            f"{link}: expected a file or folder of the run, found a link to {link.resolve()}, outside of the run",
            "move what it leads to into the run in place of the link, or choose another -o",
        )
    if is_stream(splits):
        shown = {**shown, "splits": str(container.shown / SPLITS)}
    with saying_what_fails(run), locked(run.parent / f".{run.name}.lock"):
        made = read_run_file(run)
        _check_replaced(container, made, shown)
        fresh = run.parent / f".{run.name}.new"
        target = run if made else fresh
        if made is None:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
        if made is None or made.get("run_digest") != container.digest or settings.force:
            (target / container.marker).unlink(missing_ok=True)
            identity = {"digest": container.digest, "run_digest": container.digest, **extra}
            write_run_file(target, replace(container.plan, options=shown), settings, time.time(), {}, identity)
        table = splits_content(splits)
        record(target, {SPLITS: table})
        atomic_write(target / SPLITS, table)
        if target is fresh:
            fresh.replace(run)


def _check_replaced(container: StepFolder, made: Mapping[str, Any] | None, shown: Mapping[str, Any]) -> None:
    """Refuse to replace finished folds of other options or data, unless it is asked for.

    Raises:
        OutputError: It is refused; the message has what differs.
    """
    settings, run = container.settings, container.out
    if made is None or made.get("run_digest") == container.digest or settings.force or settings.replace:
        return
    finished = [entry.name for entry in run.iterdir() if runs.is_fold(entry) and (entry / PREDICTIONS).is_file()]
    if not finished:
        return
    before = {name: entry.get("value") for name, entry in made.get("options", {}).items()}
    before |= {name: made[name] for name in ("seed", "threads") if name in made}
    now = json.loads(json.dumps({**shown, "seed": settings.seed, "threads": settings.threads}, default=str))
    changed = [
        f"{name.replace('_', '-')} {before[name]} instead of {value}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
    other = "of other images, splits or versions" + ", or made without --verify" * settings.verify
    found = f"with {', '.join(changed[:3])}" if changed else other
    raise OutputError(
        f"-o {container.shown}: expected a new folder or a run of the same options and data, found {len(finished)} "
        f"finished folds {found}",
        "choose another -o; --replace trains what has changed in its place, --force everything",
    )


def finished_folds(container: StepFolder, names: Sequence[str]) -> tuple[list[str], list[Row]]:
    """The complete folds of this run, and all of their rejects, each once."""
    run = container.out
    done = [name for name in names if (read_run_file(run / name) or {}).get("run_digest") == container.digest]
    rejects = {tuple(row.items()): row for name in done for row in read_table(run / name / REJECTS).rows}
    return done, list(rejects.values())


def complete_run(container: StepFolder, names: Sequence[str], rejects: Sequence[Row], manifest: Manifest) -> None:
    """Write the files of the whole run, and remove folds of earlier splits."""
    run = container.out
    for folder in list(run.iterdir()):
        if runs.is_fold(folder) and folder.name not in names:
            shutil.rmtree(folder)
    tables = {
        REJECTS: dump_table(["path", "reason"], rejects),
        # The marker is the last.
        container.marker: dump_table(order_columns(manifest.columns), relative_rows(manifest.rows, run)),
    }
    record(run, tables)
    for name, text in tables.items():
        atomic_write(run / name, text)


Summary = tuple[list[str], list[list[str]], str]
"""Header, rows and title of a table of results."""


FEW_TO_CHOOSE_BY = 20
"""Validation images below which the best epoch is mostly chance: one of them is 5 % of the accuracy or more."""


def warn_without_validation(folds: Sequence[Assignment], options: FittingOptions, settings: Settings) -> None:
    """Warn if an option chooses on validation images and a fold has none, or too few."""
    without = [a.name for a in folds if not a.subsets["validation"]]
    idle = [f"--checkpoint {options.checkpoint}"] if options.checkpoint != "last" else []
    idle += ["--patience"] if options.patience else []
    idle += ["--sched plateau"] if options.sched == "plateau" else []
    if without and idle:
        settings.report.warn(
            f"{len(without)} of {count_of(len(folds), 'fold')} have "
            f"no validation images, such as {without[0]}: in these "
            f"{', '.join(idle)} cannot be used, and the last epoch is kept"
        )
    small = [a for a in folds if 0 < len(a.subsets["validation"]) < FEW_TO_CHOOSE_BY]
    if small and idle:
        least = min(len(a.subsets["validation"]) for a in small)
        settings.report.warn(
            f"{len(small)} of {count_of(len(folds), 'fold')} have "
            f"fewer than {FEW_TO_CHOOSE_BY} validation images, such as "
            f"{small[0].name}: {', '.join(idle)} then follows chance (one of {least} images is {100 / least:.0f} % of "
            "the accuracy); give more with `cxrtool split --validation`, or keep the last epoch with --checkpoint last"
        )


def report_rejects(rejects: Sequence[Row], settings: Settings, where: str = REJECTS) -> None:
    """Report rejected files once everything is done.

    Raises:
        StrictError: There are some, and `--strict` was given.
    """
    if rejects and settings.cluster:
        # Where the images are decoded here, it was said before.
        settings.report.warn(f"{len(rejects)} cannot be read and are excluded; each with its reason in {where}")
    if rejects and settings.strict:
        raise StrictError(f"{len(rejects)} rejected, each with its reason in {where}")
