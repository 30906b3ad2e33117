"""Fit one network: from decoded pairs to the folder of a part, with its results and example images."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.fit.measure import FIGURES, TABLES, measure_masks, measure_pictures, score_rows
from cxrtool.commands.fit.options import PartOptions
from cxrtool.commands.fit.pairs import Decoded, open_pairs, seen_rows
from cxrtool.commands.fit.pictures import SHOWN, draw_examples, predict_with
from cxrtool.data.file_names import CURVES, FITTED_ON, HISTORY
from cxrtool.data.tables.manifest import Manifest, Row, write_table
from cxrtool.errors import count_of
from cxrtool.flow.assignment import Assignment, Seen, check_equal, fitted_on
from cxrtool.flow.folder import StepFolder
from cxrtool.flow.jobs import turn, warning_of
from cxrtool.flow.settings import Settings
from cxrtool.flow.signals import StopRequest
from cxrtool.models.parts import MASKS

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.imaging.fits import Form
    from cxrtool.training.image_to_image import FittedImageToImage, ImageToImageDesign

FITTED_COLUMNS = ("image_id", "patient_id", "sha256", "subset")
DECODER = "opencv-python-headless"


def make_design(options: PartOptions, form: Form, settings: Settings, seed: int) -> ImageToImageDesign:
    """The design that the resolved options describe.

    Raises:
        UsageError: An augmentation is wrong.
    """
    from cxrtool.training.augment import parse
    from cxrtool.training.image_to_image import ImageToImageDesign

    return ImageToImageDesign(
        options.KIND,
        options.network,
        form,
        options.fitting(),
        parse(options.augment),
        options.exposure,
        options.opacify,
        options.loss,
        options.weights,
        options.average,
        options.copies,
        seed,
        settings.threads,
        settings.device,
        settings.precision,
    )


@dataclass
class PartFitter:
    """Fits networks of one kind with the same options, on different subsets of the same pairs.

    Attributes:
        manifest: The images, each with a target.
        speaks: Whether rejects are reported here.
    """

    options: PartOptions
    form: Form
    manifest: Manifest
    settings: Settings
    speaks: bool = True
    _decoded: Decoded | None = None

    @property
    def kind(self) -> str:
        """`lungs`, `opacities` or `ribs`."""
        return self.options.KIND

    def decoded(self, folder: StepFolder, request: StopRequest) -> Decoded:
        """The pairs, decoded once."""
        if self._decoded is None:
            self._decoded = open_pairs(
                self.manifest,
                self.kind,
                self.options.targets(),
                self.form,
                self.options.dilate,
                self.settings,
                request,
                folder.plan.versions()[DECODER],
                self.options.jobs,
            )
            if self._decoded.failed and self.speaks:
                count = len(self._decoded.failed)
                text = (
                    f"{count} of {count_of(len(self.manifest), 'pair')} cannot "
                    f"be read and are excluded; each with its reason in"
                )
                self.settings.report.warn(f"{text} {folder.shown}/rejects.csv")
        return self._decoded

    def fit(self, folder: StepFolder, assignment: Assignment, request: StopRequest, extra: dict[str, Any]) -> None:
        """Fit one network and write its folder."""
        import numpy as np

        from cxrtool.training.image_to_image import fit_image_to_image

        report, name = self.settings.report, assignment.name
        decoded = self.decoded(folder, request)
        assignment = self._measurable(decoded.usable(assignment))
        check_equal(self.manifest, decoded.images.sha256, assignment, self.settings)
        self._check_start(decoded, assignment)
        indices = {subset: np.array(found, np.int64) for subset, found in assignment.subsets.items()}
        design = make_design(self.options, self.form, self.settings, assignment.seed(self.settings.seed))
        with folder.build() as build:
            turns = turn(self.settings, self.options.jobs, request)
            with turns, report.progress(name, design.recipe.epochs) as advance:

                def epoch_done(row: dict[str, float | None]) -> None:
                    advance(1)
                    report.note(f"{name}  {_describe(row)}")

                fitted = fit_image_to_image(
                    design,
                    decoded.images,
                    decoded.targets,
                    self.manifest.column("image_id"),
                    indices["train"],
                    indices["validation"],
                    self._groups(indices["train"]),
                    build.path / "state",
                    save_every=self.options.save_every,
                    epoch_done=epoch_done,
                    stop=request.error,
                    warn=warning_of(name, self.options.jobs, report),
                )
            self._fit_shares(design, fitted, decoded, indices["train"], request)
            rows = self._measure(design, fitted, decoded, assignment, request)
            request.raise_if_stopped()
            self._write(build.path, fitted, decoded, assignment, rows)
            shutil.rmtree(build.path / "state", ignore_errors=True)
            for i, reason in decoded.failed.items():
                build.reject(self.manifest.rows[i]["path"], reason)
            counts = {subset: len(found) for subset, found in assignment.subsets.items()}
            build.close(counts=counts, extra={"training": fitted.notes, **extra}, wanted=True)
        report.say(f"{name}: kept epoch {fitted.history.kept}{self._describe_scores(rows)}")

    def _fit_shares(
        self,
        design: ImageToImageDesign,
        fitted: FittedImageToImage,
        decoded: Decoded,
        training: np.ndarray,
        request: StopRequest,
    ) -> None:
        """Fit what estimates the opaque shares of regions to the known extents of the training images."""
        import numpy as np

        from cxrtool.models.opacity_unet import OpacityUNet
        from cxrtool.training.device import local_randomness
        from cxrtool.training.share_fit import LEAST, fit_shares

        if decoded.lungs is None or not isinstance(fitted.module, OpacityUNet):
            return
        targets = self.options.targets()
        known = [(i, share) for i in training if (share := targets.rated_share(self.manifest.rows[i])) is not None]
        rated = np.array([bool(self.manifest.rows[i].get(targets.extent)) for i, _ in known], bool)
        chosen, shares = np.array([i for i, _ in known], np.int64), np.array([share for _, share in known])
        with local_randomness(design.seed, design.threads):
            enough = fit_shares(fitted.module, decoded.images, decoded.lungs, chosen, shares, rated, stop=request.error)
        if not enough:
            self.settings.report.warn(
                f"{np.count_nonzero(rated)} training images with an extent are too few to fit shares to them (at least "
                f"{LEAST}): the opaque share of a region is the mean probability of the mask"
            )

    def _measurable(self, assignment: Assignment) -> Assignment:
        """The assignment without images to measure of whose target only the share is known: they are for training."""
        targets = self.options.targets()
        subsets = {
            name: [i for i in indices if name == "train" or targets.drawn(self.manifest.rows[i])]
            for name, indices in assignment.subsets.items()
        }
        return replace(assignment, subsets=subsets)

    def _check_start(self, decoded: Decoded, assignment: Assignment) -> None:
        """Refuse to measure on images, or patients, that the part to begin with was fitted on."""
        if start := self.options.start():
            held = [i for subset in ("validation", "test") for i in assignment.subsets[subset]]
            rows = [{**self.manifest.rows[i], "sha256": decoded.images.sha256[i]} for i in held]
            Seen.of([start]).refuse(rows, self.settings, "begin with another part; --allow-leakage fits nevertheless")

    def _groups(self, training: np.ndarray) -> np.ndarray | None:
        import numpy as np

        if not self.options.balance:
            return None
        cells = [self.manifest.rows[i][self.options.balance] for i in training]
        groups: np.ndarray = np.unique(cells, return_inverse=True)[1]
        return groups

    def _measure(
        self,
        design: ImageToImageDesign,
        fitted: FittedImageToImage,
        decoded: Decoded,
        assignment: Assignment,
        request: StopRequest,
    ) -> list[Row]:
        import numpy as np

        from cxrtool.training.device import local_randomness
        from cxrtool.training.image_to_image import predict

        predicted = [(i, subset) for subset in ("validation", "test") for i in assignment.subsets[subset]]
        indices = np.array([i for i, _ in predicted], np.int64)
        with local_randomness(design.seed, design.threads):
            predictions = predict(design, fitted.module, decoded.images, indices, stop=request.error)
            if self.kind in MASKS:
                measured = measure_masks(
                    self.manifest,
                    self.options.targets(),
                    indices.tolist(),
                    predictions,
                    self.form,
                    self.kind,
                    self.settings.workers,
                )
            else:
                pictures = (decoded.images.images[i] for i in indices), (decoded.targets.images[i] for i in indices)
                measured = measure_pictures(predictions, *pictures)
        return score_rows(self.manifest, assignment, predicted, measured)

    def _write(
        self, path: Path, fitted: FittedImageToImage, decoded: Decoded, assignment: Assignment, rows: list[Row]
    ) -> None:
        import numpy as np

        from cxrtool.imaging import lung_shapes, plausibility
        from cxrtool.imaging.resize import binary
        from cxrtool.models.parts import save_part
        from cxrtool.training.curves import draw_history, write_history

        options, seen = self.options, seen_rows(self.manifest, assignment, decoded.images)
        if start := options.start():
            # The network has seen these, too, so that nobody may measure it on them.
            own = {row["sha256"] for row in seen}
            seen += [row for row in fitted_on(start) or [] if row["sha256"] not in own]
        of_the_data = ("kind", "network", "size", "target_column", "validation")
        trained = {
            "trained": {
                **{name: value for name, value in options.identity().items() if name not in of_the_data},
                "seed": self.settings.seed,
                "epoch": fitted.history.kept,
                "images": len(assignment.subsets["train"]),
            },
            "figures": {subset: found for subset in ("validation", "test") if (found := self._means(rows, subset))},
        }
        # `segment` uses it to detect images that are not frontal chests, for which a network may be just as certain.
        shown = (decoded.images.images[i] for i in assignment.subsets["train"])
        trained["usual"] = plausibility.fit(np.stack([plausibility.thumbnail(picture) for picture in shown]))
        if self.kind == "lungs":
            # By these it recognises a mask that is unlike lungs.
            outlines = (binary(decoded.targets.images[i]) for i in assignment.subsets["train"])
            if shapes := lung_shapes.fit(outlines):
                trained["usual"][lung_shapes.KEY] = shapes
        save_part(path, self.kind, options.network, fitted.module, self.form, trained)
        write_table(path / FITTED_ON, FITTED_COLUMNS, seen)
        columns = ("image_id", "patient_id", "repeat", "fold", "subset", *FIGURES[self.kind])
        write_table(path / TABLES[self.kind], columns, rows)
        write_history(path / HISTORY, fitted.history.rows)
        draw_history(path / CURVES, fitted.history, f"{self.kind}, {options.network}, {assignment.name}")
        sources = {row["image_id"]: row for row in self.manifest.rows}
        chosen = [row for row in rows if row["subset"] == "validation"] or rows
        spread = [chosen[k * len(chosen) // SHOWN] for k in range(SHOWN)] if len(chosen) > SHOWN else chosen
        predict = predict_with(fitted.module, self.kind)
        entries = [(sources[row["image_id"]], captions(row, self.kind), predict) for row in spread]
        title = f"{chosen[0]['subset']} images" if chosen else ""
        draw_examples(path / "samples.png", entries, self.kind, self.options.targets(), self.form, title)

    def _means(self, rows: list[Row], subset: str) -> dict[str, float]:
        result = {}
        for name in FIGURES[self.kind]:
            known = [float(row[name]) for row in rows if row["subset"] == subset and row[name]]
            if known:
                result[name] = round(sum(known) / len(known), 6)
        return result

    def _describe_scores(self, rows: list[Row]) -> str:
        text = ""
        for subset in ("validation", "test"):
            means = self._means(rows, subset)
            count = sum(row["subset"] == subset for row in rows)
            if means:
                name = FIGURES[self.kind][0]
                text += f", {subset} {name} {means[name]:.4g} of {count_of(count, 'image')}"
        return text


def captions(row: Row, kind: str) -> list[str]:
    """The lines of text below an image: its id and its results."""
    if kind in MASKS:
        return [row["image_id"], f"Dice {float(row['dice']):.3f}"]
    return [row["image_id"], f"MSE {float(row['mse']):.2e}, before {float(row['mse_before']):.2e}"]


def _describe(row: dict[str, float | None]) -> str:
    parts = [f"epoch {row['epoch']:g}"]
    parts += [
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in row.items()
        if name not in ("epoch", "lr") and value is not None
    ]
    return "  ".join(parts)


def check_design(options: PartOptions, form: Form, settings: Settings) -> None:
    """Check every option before the first image is decoded.

    Raises:
        UsageError: A name or a number is wrong, the size does not suit the network, or there is no such device.
    """
    from cxrtool.training.device import choose_device, choose_precision
    from cxrtool.training.image_to_image import build

    build(make_design(options, form, settings, 0))
    choose_precision(settings.precision, choose_device(settings.device))
