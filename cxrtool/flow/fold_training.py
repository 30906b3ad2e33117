"""The training of one fold: from a manifest and an assignment to a model folder with its predictions."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cxrtool.data.file_names import CURVES, FITTED_ON, HISTORY, PREDICTIONS
from cxrtool.data.tables.manifest import Manifest, Row, write_table
from cxrtool.data.tables.predictions import GROUPING, Predictions, write_predictions
from cxrtool.data.tables.twins import is_twin
from cxrtool.errors import InputError
from cxrtool.flow.assignment import Assignment
from cxrtool.flow.calibration import decide_on_validation
from cxrtool.flow.chain import Chain
from cxrtool.flow.fold_chains import chain_of_rows, is_divided, radiograph_of
from cxrtool.flow.folder import Build, StepFolder
from cxrtool.flow.parts import copy_parts, without_paths
from cxrtool.flow.settings import Settings
from cxrtool.flow.signals import StopRequest
from cxrtool.flow.stores import Opener
from cxrtool.models.description import Input, ModelDescription, Normalization
from cxrtool.training.options import TrainingOptions

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.training.fitting import Design, Fitted
    from cxrtool.training.store import Store

FITTED_COLUMNS = ("image_id", "patient_id", "sha256", "repeat", "fold", "subset")
GRID, CANDIDATES = "grid.csv", "candidates"
"""Files of a grid search in a run: its table, and the folder of its candidates."""


def check_design(options: TrainingOptions, classes: int, settings: Settings) -> None:
    """Check every option before the first image is decoded.

    Raises:
        InputError: There is no such file of weights.
        UsageError: A name or a number is wrong, or there is no such device.
    """
    from cxrtool.models.registry import check
    from cxrtool.training.device import choose_device, choose_precision

    options.check_numbers()
    design = make_design(options, classes, settings, 0)
    check(design.architecture, design.weights)
    choose_precision(settings.precision, choose_device(settings.device))


def make_design(options: TrainingOptions, classes: int, settings: Settings, seed: int) -> Design:
    """The design that the resolved options describe.

    Raises:
        UsageError: An augmentation or kernels are wrong.
    """
    from cxrtool.models.architecture import Architecture
    from cxrtool.models.kernels import parse as parse_kernels
    from cxrtool.training.augment import parse
    from cxrtool.training.fitting import Design

    architecture = Architecture(
        options.model, classes, options.hidden, options.dropout, options.size, parse_kernels(options.kernels)
    )
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
    )


@dataclass(frozen=True)
class Task:
    """What all trainings of one command share.

    Attributes:
        preset: Its name, for the model's description.
        save_every: Seconds between two states to resume from.
        manifest: The images; the label of a twin is its class.
        classes: Names, in the order of the outputs.
        chain: The processing steps of the images, of all folds.
        container: The run's folder, with the plan that all folds share.
        stores: The decoded images.
    """

    preset: str | None
    save_every: float
    settings: Settings
    manifest: Manifest
    classes: list[str]
    chain: Chain
    container: StepFolder
    stores: Opener

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
        classes: Names, in the order of the outputs.
        shape: Side of the decoded images in pixels, and how they become square.
    """

    def __init__(self, options: TrainingOptions, task: Task) -> None:
        self.options, self.task, self.classes = options, task, task.classes
        self.shape = options.size, options.fit

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
        """The images, and the assignment without those that cannot be read.

        Raises:
            InputError: No training image of a class can be read.
        """
        store = self.task.stores.open(*self.shape, request)
        usable = {name: [i for i in indices if i not in store.failed] for name, indices in assignment.subsets.items()}
        present = {self.task.manifest.rows[i]["label"] for i in usable["train"]}
        absent = [name for name in self.classes if name not in present]
        if absent:
            raise InputError(
                f"fold {assignment.name}: no training image of class '{absent[0]}' can be read",
                f"`cxrtool info {self.task.manifest.name}` shows what is wrong with its images",
            )
        return store, replace(assignment, subsets=usable)

    def design(self, assignment: Assignment) -> Design:
        """The design of a fold, which has its own seed, so that it can be trained alone."""
        settings = self.task.settings
        return make_design(self.options, len(self.classes), settings, assignment.seed(settings.seed))

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

        Args:
            assignment: Which image is in which subset.
            store: The decoded images.
            to_predict: The subsets to predict; a test subset that is not among them is never used.
            state: Folder for states to resume from.
            request: Checked between batches.
            name: Of the training in messages; the default is the name of the fold.
        """
        import numpy as np

        from cxrtool.training.device import choose_device, take_turns
        from cxrtool.training.fitting import fit_fold

        task, subsets = self.task, assignment.subsets
        report, design = task.settings.report, self.design(assignment)
        name = name or assignment.name
        turns = take_turns(choose_device(design.device), report.say, request.raise_if_stopped)
        with turns, report.progress(name, design.recipe.epochs) as advance:

            def epoch_done(row: dict[str, float | None]) -> None:
                advance(1)
                report.note(f"{name}  {describe_epoch(row)}")

            return fit_fold(
                design,
                store,
                [radiograph_of(row) for row in task.manifest.rows],
                self.labels(),
                np.array(subsets["train"], np.int64),
                np.array(subsets["validation"], np.int64),
                np.array([i for subset in to_predict for i in subsets[subset]], np.int64),
                state,
                save_every=task.save_every,
                epoch_done=epoch_done,
                stop=request.error,
                warn=report.warn,
            )

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
            trained={"preset": self.task.preset, "weights": fitted.weights_from, "epoch": fitted.history.kept},
        )

    def write(self, build: Build, assignment: Assignment, store: Store, fitted: Fitted) -> None:
        """Write a model folder with its predictions for the validation and test images."""
        import numpy as np

        from cxrtool.imaging import plausibility
        from cxrtool.training.checkpoint import save_model
        from cxrtool.training.curves import draw_history, write_history

        path = build.path
        seen = [(i, name) for name in ("train", "validation") for i in assignment.subsets[name]]
        thumbnails = np.stack([plausibility.thumbnail(store.images[i]) for i, name in seen if name == "train"])
        usual = plausibility.fit(thumbnails)
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
        predicted = [(i, name) for name in ("validation", "test") for i in assignment.subsets[name]]
        test = [k for k, (_, name) in enumerate(predicted) if name == "test"]
        classes = {k: self.classes[int(fitted.probabilities[k].argmax())] for k in test}
        correct = sum(classes[k] == task.manifest.rows[predicted[k][0]]["label"] for k in test)
        share = f", test accuracy {correct / len(test):.3f} of {len(test)} images" if test else ""
        task.settings.report.say(f"{assignment.name}: kept epoch {fitted.history.kept}{share}")

    def _seen_row(self, index: int, subset: str, assignment: Assignment, store: Store) -> Row:
        row = self.task.manifest.rows[index]
        return {
            "image_id": row["parent_id"] if is_twin(row) else radiograph_of(row),
            "patient_id": row.get("patient_id", ""),
            "sha256": row.get("sha256") or store.sha256[index],
            "repeat": assignment.repeat,
            "fold": assignment.fold,
            "subset": subset,
        }

    def _predictions(self, assignment: Assignment, store: Store, fitted: Fitted, usual: dict[str, Any]) -> Predictions:
        from cxrtool.imaging import plausibility

        rows, manifest = [], self.task.manifest
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
