"""The training of one fold: from a manifest and an assignment to a model folder with its predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.manifest import Manifest, Row, write_table
from cxrtool.data.predictions import GROUPING, Predictions, write_predictions
from cxrtool.errors import InputError
from cxrtool.steps import run as runs
from cxrtool.steps.assignment import Assignment
from cxrtool.steps.chain import Chain, decode
from cxrtool.steps.folder import REJECTS, Build, StepFolder
from cxrtool.steps.settings import Settings
from cxrtool.steps.signals import StopRequest

if TYPE_CHECKING:
    from cxrtool.training.fitting import Design, Fitted
    from cxrtool.training.store import Store

FITTED_COLUMNS = ("image_id", "patient_id", "sha256", "repeat", "fold", "subset")
FITTED = "fitted_on.csv"
DECODER = "opencv-python-headless"
"""The library whose version the decoded pixels may depend on."""


def check_design(values: dict[str, Any], classes: int, settings: Settings) -> None:
    """Check every option before the first image is decoded.

    Raises:
        InputError: There is no such file of weights.
        UsageError: A name or a number is wrong, or there is no such device.
    """
    from cxrtool.models.registry import check
    from cxrtool.training.device import choose_device, choose_precision

    design = make_design(values, classes, settings, 0)
    check(design.architecture, design.weights)
    choose_precision(settings.precision, choose_device(settings.device))


def make_design(values: dict[str, Any], classes: int, settings: Settings, seed: int) -> Design:
    """Turn resolved options into what the training room takes.

    Raises:
        UsageError: A name or a number is wrong.
    """
    from dataclasses import fields

    from cxrtool.models.registry import Architecture
    from cxrtool.training.augment import parse
    from cxrtool.training.fitting import Design
    from cxrtool.training.optimization import Recipe, check

    recipe = Recipe(**{entry.name: values[entry.name] for entry in fields(Recipe)})
    check(recipe)
    architecture = Architecture(values["model"], classes, values["hidden"], values["dropout"], values["size"])
    return Design(
        architecture, values["weights"], recipe, parse(values["augment"]), values["freeze"],
        values["frozen_bn"] == "eval", values["normalize"], seed, settings.threads, settings.device, settings.precision,
    )  # fmt: skip


class FoldTrainer:
    """What the folds of one command share: options, images, the store.

    Args:
        values: Every option that bears on the result, resolved.
        preset: The preset's name, for the model's description.
        save_every: Seconds between two states to resume from.
        settings: The shared options.
        manifest: The images.
        chain: What they have been through.
        container: The run's folder, with the plan that all folds share.
    """

    def __init__(
        self, values: dict[str, Any], preset: str | None, save_every: float, settings: Settings,
        manifest: Manifest, chain: Chain, container: StepFolder,
    ) -> None:  # fmt: skip
        self.values, self.preset, self.save_every, self.settings = values, preset, save_every, settings
        self.manifest, self.chain, self.container = manifest, chain, container
        self.classes = manifest.classes()
        self._store: Store | None = None

    def store(self, request: StopRequest) -> Store:
        """The decoded images of the whole manifest, opened once."""
        from functools import partial

        from cxrtool.steps.parallel import map_items
        from cxrtool.training.store import default_cache, open_store

        if self._store is None:
            size, fit, plan = self.values["size"], self.values["fit"], self.container.plan
            key = {"size": size, "fit": fit, "decoder": plan.versions()[DECODER]}
            if self.settings.verify:
                # The store itself goes by size and time of the files, which are not to be trusted then.
                key["content"] = plan.inputs.digest
            paths = [Path(row["path"]) for row in self.manifest.rows]
            with self.settings.report.progress("decoding", len(paths)) as advance:

                def count(number: int) -> None:
                    advance(number)
                    request.heed()

                self._store = open_store(
                    paths, partial(decode, chain=[], size=size, fit=fit), size=size, key=key,
                    cache=self.settings.cache or default_cache(), mapper=map_items, workers=self.settings.workers,
                    advance=count, say=self.settings.report.say,
                )  # fmt: skip
            if len(self._store.failed) == len(paths):
                raise InputError(
                    f"{self.manifest.name}: none of the {len(paths)} images can be read, the first: "
                    f"{next(iter(self._store.failed.values()), 'there are none')}"
                )
            if self._store.failed:
                self.settings.report.warn(
                    f"{len(self._store.failed)} of {len(paths)} images cannot be read and are left out; "
                    f"each with its reason in {self.container.shown / REJECTS}"
                )
        return self._store

    def train_fold(self, assignment: Assignment, request: StopRequest) -> None:
        """Train one fold unless it is there, and write its folder."""
        pair = {"repeat": assignment.repeat, "fold": assignment.fold}
        shared = self.container.plan
        plan = replace(shared, options={**shared.options, **pair})
        folder = StepFolder(self.container.out / assignment.name, plan, self.settings, marker=runs.PREDICTIONS)
        if not folder.needs_work():
            return
        store = self.store(request)
        usable = {name: [i for i in places if i not in store.failed] for name, places in assignment.subsets.items()}
        assignment = replace(assignment, subsets=usable)
        self._check_classes(assignment)
        with folder.build() as build:
            for i, reason in store.failed.items():
                build.reject(self.manifest.rows[i]["path"], reason)
            fitted, asked = self._fit(assignment, store, build, request)
            self._write(assignment, store, build, fitted, asked)

    def _check_classes(self, assignment: Assignment) -> None:
        present = {self.manifest.rows[i]["label"] for i in assignment.subsets["train"]}
        absent = [name for name in self.classes if name not in present]
        if absent:
            raise InputError(
                f"fold {assignment.name}: of class '{absent[0]}' no training image can be read",
                f"`cxrtool info {self.manifest.name}` says what is wrong with its images",
            )

    def _fit(
        self, assignment: Assignment, store: Store, build: Build, request: StopRequest
    ) -> tuple[Fitted, list[tuple[int, str]]]:
        import numpy as np

        from cxrtool.training.fitting import fit_fold

        report, places = self.settings.report, assignment.subsets
        # Each fold has its own seed, so that folds are independent and any one of them can be trained alone.
        digest = hashlib.blake2b(f"{self.settings.seed} {assignment.name}".encode(), digest_size=7).digest()
        seed = int.from_bytes(digest, "big")
        design = make_design(self.values, len(self.classes), self.settings, seed)
        known = {name: index for index, name in enumerate(self.classes)}
        labels = np.array([known.get(row["label"], -1) for row in self.manifest.rows])
        asked = [(i, name) for name in ("validation", "test") for i in places[name]]
        with report.progress(assignment.name, design.recipe.epochs) as advance:

            def epoch_done(row: dict[str, float | None]) -> None:
                advance(1)
                report.note(f"{assignment.name}  {describe_epoch(row)}")

            fitted = fit_fold(
                design, store, self.manifest.column("image_id"), labels,
                np.array(places["train"], np.int64), np.array(places["validation"], np.int64),
                np.array([i for i, _ in asked], np.int64), build.path / "state",
                save_every=self.save_every, epoch_done=epoch_done, stop=request.error, warn=report.warn,
            )  # fmt: skip
        return fitted, asked

    def _write(
        self, assignment: Assignment, store: Store, build: Build, fitted: Fitted, asked: Sequence[tuple[int, str]]
    ) -> None:
        import shutil

        import numpy as np

        from cxrtool.imaging import plausibility
        from cxrtool.models.registry import input_form
        from cxrtool.training.checkpoint import save_model
        from cxrtool.training.curves import draw_history, write_history

        values, path = self.values, build.path
        seen = [(i, name) for name in ("train", "validation") for i in assignment.subsets[name]]
        thumbnails = np.stack([plausibility.thumbnail(store.images[i]) for i, name in seen if name == "train"])
        usual = plausibility.fit(thumbnails)
        architecture = make_design(values, len(self.classes), self.settings, 0).architecture
        description = {
            "classes": self.classes,
            "architecture": architecture.to_json(),
            "chain": self.chain,
            "input": {"size": values["size"], "fit": values["fit"]},
            "normalization": input_form(values["model"], values["normalize"]),
            "usual": usual,
            "calibration": None,
            "thresholds": None,
            "trained": {"preset": self.preset, "weights": fitted.weights_from, "epoch": fitted.history.kept},
        }
        save_model(path, fitted.network, description)
        rows = self.manifest.rows
        fitted_on = [self._seen_row(i, name, assignment, store) for i, name in seen]
        write_table(path / FITTED, FITTED_COLUMNS, fitted_on)
        write_history(path / "history.csv", fitted.history.rows)
        draw_history(path / "curves.png", fitted.history, f"{values['model']}, {assignment.name}")
        predictions = self._predictions(assignment, store, fitted, asked, usual)
        write_predictions(path / runs.PREDICTIONS, predictions)
        shutil.rmtree(path / "state", ignore_errors=True)
        test = [k for k, (_, name) in enumerate(asked) if name == "test"]
        right = sum(predictions.rows[k]["predicted"] == rows[asked[k][0]]["label"] for k in test)
        counts = {name: len(indices) for name, indices in assignment.subsets.items()}
        # What was rejected is told once for the run, and so is `--strict`, which must not stop at the first fold.
        build.close(
            counts=counts, extra={"run_digest": self.container.digest, "training": fitted.notes}, wanted=True
        )  # fmt: skip
        share = f", test accuracy {right / len(test):.3f} of {len(test)} images" if test else ""
        self.settings.report.say(f"{assignment.name}: kept epoch {fitted.history.kept}{share}")

    def _seen_row(self, index: int, subset: str, assignment: Assignment, store: Store) -> Row:
        row = self.manifest.rows[index]
        return {
            "image_id": row["image_id"],
            "patient_id": row.get("patient_id", ""),
            "sha256": row.get("sha256") or store.sha256[index],
            "repeat": assignment.repeat,
            "fold": assignment.fold,
            "subset": subset,
        }

    def _predictions(
        self,
        assignment: Assignment,
        store: Store,
        fitted: Fitted,
        asked: Sequence[tuple[int, str]],
        usual: dict[str, Any],
    ) -> Predictions:
        from cxrtool.imaging import plausibility

        rows = []
        present = [name for name in GROUPING if name in self.manifest.columns]
        for (index, subset), probabilities in zip(asked, fitted.probabilities, strict=True):
            source = self.manifest.rows[index]
            doubt = plausibility.warn(store.images[index], usual)
            rows.append(
                {
                    "image_id": source["image_id"],
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
    """One line of an epoch's row."""
    parts = [f"epoch {row['epoch']:g}"]
    parts += [f"{name.replace('_', ' ')} {value:.4f}" for name, value in row.items()
              if name not in ("epoch", "lr") and value is not None]  # fmt: skip
    return "  ".join(parts)
