"""Run a model on images, folders, a manifest or a list of paths.

Prints a table with the probability of every class, or writes it with -o. Raw images are preprocessed as the model's
training images were. A warning in a row means that the image is unlike those; with -o, a table beside it says in what.

Several images: cxrtool predict run first.png second.dcm ward/*.jpg -o answers.csv

A list of paths: find new -name '*.png' | cxrtool predict run - -o answers.csv

Example: cxrtool predict run new-images -o answers.csv
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cxrtool.data.file_names import PREDICTIONS
from cxrtool.data.tables.manifest import Manifest, Row
from cxrtool.data.tables.predictions import dump_predictions, write_predictions
from cxrtool.data.tables.twins import MARK, is_twin, radiograph_id
from cxrtool.data.tables.views import columns_of
from cxrtool.errors import InputError, StrictError, UsageError, count_of
from cxrtool.flow import common_options
from cxrtool.flow.fold_training import OF_TWINS
from cxrtool.flow.images import read_images
from cxrtool.flow.predicted import IMAGES, beside, earlier_answers, own_beside, write_beside
from cxrtool.flow.predicting import Answers, Question, answer, to_table
from cxrtool.flow.replacing import check_file, is_predictions
from cxrtool.flow.run import model_folders
from cxrtool.flow.settings import COMPUTING, SCALING, Settings
from cxrtool.flow.share import Share
from cxrtool.flow.target import as_learned
from cxrtool.models.description import ModelDescription
from cxrtool.options import option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cxrtool.evaluation.decisions.temperature import Temperature
    from cxrtool.training.inference import Member


UNKNOWN = "the model has no stored temperature, and no validation predictions are in its folder"


def temperature_of(folder: Path, description: ModelDescription) -> Temperature:
    """The temperature of a model: the stored one, else fitted on the validation rows in its folder."""
    from cxrtool.evaluation.decisions.temperature import Temperature

    if all(MARK in name for name in description.classes):
        return Temperature(reason=OF_TWINS)
    if description.calibration:
        return Temperature.from_json(description.calibration)
    if (folder / PREDICTIONS).is_file():
        return _fitted_beside(folder / PREDICTIONS, description.classes)
    return Temperature(reason=UNKNOWN)


def _fitted_beside(path: Path, classes: Sequence[str]) -> Temperature:
    import numpy as np

    from cxrtool.data.tables.predictions import read_predictions
    from cxrtool.evaluation.decisions.temperature import Temperature, fit

    predictions = read_predictions(path)
    kept = [
        i
        for i, row in enumerate(predictions.rows)
        if row.get("subset") == "validation" and row.get("label") in predictions.classes
    ]
    if not kept or sorted(predictions.classes) != sorted(classes):
        return Temperature(reason=UNKNOWN)
    truth = np.array([predictions.classes.index(predictions.rows[i]["label"]) for i in kept], np.intp)
    return fit(predictions.probabilities[kept], truth)


def report_temperatures(folders: Sequence[Path], found: Sequence[Temperature], settings: Settings) -> None:
    """Report the temperatures, and warn of the models whose temperature stays 1, with the reason."""
    fitted = [entry.value for entry in found if entry.reason is None]
    if fitted:
        spread = f"{fitted[0]:.3g}" if len(fitted) == 1 else f"{min(fitted):.3g} to {max(fitted):.3g}"
        of = f", of {len(fitted)} of {len(found)} models" if len(found) > 1 else ""
        settings.report.say(f"calibrated: temperature {spread}{of}")
    by_reason: dict[str, list[str]] = {}
    for folder, entry in zip(folders, found, strict=True):
        if entry.reason is not None:
            by_reason.setdefault(entry.reason, []).append(folder.name)
    for reason, names in by_reason.items():
        few = f"{len(names)} of {count_of(len(found), 'model')} (such as {names[0]}) stay"
        who = "the model stays" if len(found) == 1 else few
        settings.report.warn(f"--calibrated: {who} at temperature 1: {reason}")


SHOWN_REJECTS = 5


@dataclass(frozen=True)
class PredictOptions(Question):
    """The options of `predict`."""

    WRITES_FILE: ClassVar[bool] = True
    SHARED: ClassVar[tuple[str, ...]] = (
        "out",
        *COMPUTING,
        *SCALING,
        "precision",
        "allow_leakage",
        "root",
        "strict",
        "force",
        "dry_run",
        "quiet",
        "config",
    )

    members: bool = option("A row for each fold of a run, instead of their mean.", False)
    calibrated: bool = option("Apply temperature scaling, fitted on each model's validation images.", False)
    partial: bool = common_options.partial()


def run(options: PredictOptions, settings: Settings) -> None:
    """Predict."""
    predict(options, settings)


def predict(options: PredictOptions, settings: Settings) -> None:
    """Predict and write a table, to `settings.out` or to standard output.

    Raises:
        InputError: Model or source is missing, no image can be read, or the images had another preprocessing.
        LeakageError: The model was trained on an image.
        StrictError: `--strict`, and an image could not be read.
    """
    folders = model_folders(options.model, partial=options.partial, images=options.sources)
    manifest = as_learned(read_images(options.sources, settings), ModelDescription.read(folders[0]))
    if settings.dry_run:
        settings.report.say(f"would run {count_of(len(folders), 'model')} on {count_of(len(manifest), 'image')}")
        return
    inputs: list[Path | Manifest | None] = [manifest, options.model, *folders]
    check_file(settings.out, is_predictions, inputs, settings, own_beside(settings.out) if settings.out else None)
    if not len(manifest):
        raise InputError(f"{manifest.name}: expected images, found none")
    share = Share.of(settings)
    if share:
        if settings.out is None or (settings.out.exists() and not settings.out.is_file()):
            raise UsageError("--part puts its answers beside a table: expected -o FILE")
        mine = share.select({name: index for index, name in enumerate(manifest.column("image_id"))})
        columns = columns_of(manifest.records, manifest.columns).take(list(mine.values()))
        manifest = Manifest.of_columns(columns, manifest, [])
    started = time.time()
    with earlier_answers(settings.out, options, settings) as earlier:
        members, answers, rejects = answer(options, settings, folders, manifest, earlier)
        if share and settings.out:
            settings.report.say(share.summary(len(manifest) - len(rejects), len(rejects), settings.out))
            return
        if earlier and earlier.taken:
            number = count_of(len(manifest), "image")
            settings.report.say(f"{settings.out}: {len(earlier.taken)} of {number} taken over unchanged")
        if options.calibrated:
            answers = calibrate(members, answers, settings)
        predictions = to_table(members, answers, manifest.columns, manifest.name, by_member=options.members)
        if settings.out is None:
            settings.output.write(dump_predictions(predictions))
        else:
            write_predictions(settings.out, predictions)
        names, unlike = Counter[str](), 0
        for one in answers:
            names[radiograph_id(one.row)] += 1
            unlike += bool(one.properties["unlike"]) and not is_twin(one.row)
        if settings.out and earlier:
            counts = {"images": names.total(), "rejects": len(rejects)}
            write_beside(
                settings.out, options.model, options, settings, members, answers, rejects, started, earlier, counts
            )
            if unlike:
                where = f"column unlike of {beside(settings.out, IMAGES)}"
                settings.report.warn(
                    f"{unlike} of {count_of(names.total(), 'image')} are unlike the training images: {where}"
                )
    _summarise(settings, len(names), names.total(), rejects)


def calibrate(members: Sequence[Member], answers: Answers, settings: Settings) -> Answers:
    """Scale the answers of each model with its temperature, and report the temperatures."""
    found = [temperature_of(member.folder, member.description) for member in members]
    report_temperatures([member.folder for member in members], found, settings)

    def scale(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        import numpy as np

        from cxrtool.evaluation.decisions.temperature import apply

        return np.stack([apply(own, entry.value) for own, entry in zip(probabilities, found, strict=True)])

    return replace(answers, change=scale)


def _summarise(settings: Settings, images: int, answered: int, rejects: Sequence[Row]) -> None:
    for row in rejects[:SHOWN_REJECTS]:
        settings.report.warn(f"{row['path']}: {row['reason']}")
    text = f"{count_of(images, 'image')} predicted, {len(rejects)} rejected"
    if rejects and settings.strict:
        raise StrictError(text)
    settings.report.say(text)
    if images < answered and settings.out is not None:
        settings.report.say(
            f"one row for each of {count_of(answered, 'twin')}; next: "
            f"`cxrtool fuse twins {settings.out}` makes one per image"
        )
