"""`predict`: what a model, or the folds of a run together, say of an image, a folder or a manifest."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.manifest import Manifest, Row, read_manifest, write_table
from cxrtool.data.predictions import Predictions, dump_predictions, write_predictions
from cxrtool.errors import CxrtoolError, InputError, StrictError
from cxrtool.flow import run as runs
from cxrtool.flow.chain import Chain, before_twins, chain_of, look, missing_steps, modules_of
from cxrtool.flow.folder import REJECTS
from cxrtool.flow.parts import locate
from cxrtool.flow.seen import Seen
from cxrtool.flow.settings import Settings
from cxrtool.steps.predict_calibrated import tell, temperature_of
from cxrtool.steps.predict_twins import TwinInput, answered_as, radiographs

if TYPE_CHECKING:
    import torch

    from cxrtool.training.inference import Ensemble, Member

SHOWN_REJECTS = 5
MASKS = ("mask", "mask_reference")
"""Columns that stay out of predictions: their paths are relative to the manifest."""


@dataclass(frozen=True)
class PredictOptions:
    """The options of `predict`.

    Attributes:
        model: A model folder, or a run, whose folds then answer together.
        source: An image, a folder of images, a manifest, a step's folder, or `-`.
        members: One row for each fold of a run instead of their mean.
        calibrated: Bring each model's answers to the temperature of its validation images, before their mean.
        tta: Average with the answer for the mirror image.
        partial: Take a run of which some folds are missing.
        batch_size: Images at once.
        max_pixels: Refuse larger pictures before they are decoded.
    """

    model: Path
    source: str
    members: bool = False
    calibrated: bool = False
    tta: bool = False
    partial: bool = False
    batch_size: int = 32
    max_pixels: int | None = None


def predict(options: PredictOptions, settings: Settings) -> None:
    """Predict and write a table, to `settings.out` or to standard output.

    Raises:
        InputError: Model or source is not there, no image can be read, or they have been through another preprocessing.
        LeakageError: An image was among what the model was trained on.
        StrictError: `--strict`, and an image could not be read.
    """
    folders = model_folders(options.model, partial=options.partial)
    manifest = read_source(options.source, settings)
    if settings.dry_run:
        settings.report.say(f"would ask {len(folders)} models about {len(manifest)} images")
        return
    if not manifest.rows:
        raise InputError(f"{manifest.name}: expected images, found none")
    members, answers, rejects = answer(options, settings, folders, manifest)
    if options.calibrated:
        answers = calibrate(members, answers, settings)
    predictions = to_table(options, members, answers, manifest.columns)
    if settings.out is None:
        sys.stdout.write(dump_predictions(predictions))
    else:
        write_predictions(settings.out, predictions)
        if settings.out.is_file():
            write_table(settings.out.with_suffix(f".{REJECTS}"), ["path", "reason"], rejects)
    _tell(settings, [row for row, _ in answers], rejects)


def model_folders(argument: Path, *, partial: bool) -> list[Path]:
    """The model folders that a model or a run consists of.

    Raises:
        InputError: It is neither.
        IncompleteError: A run lacks folds and `partial` is false.
    """
    if runs.is_model(argument):
        return [argument]
    if runs.is_run(argument):
        return [argument / runs.fold_name(*pair) for pair in runs.check_whole(argument, partial=partial)]
    raise InputError(
        f"{argument}: expected a model folder or a run, found {'another folder' if argument.is_dir() else 'neither'}",
        "`cxrtool train -o RUN` makes a run; each RUN/rRfF in it is a model folder",
    )


def read_source(argument: str, settings: Settings) -> Manifest:
    """Read what is asked about as a manifest; raw images get an id, and the name of a folder within as their label.

    Raises:
        InputError: There is no such file or folder, no image in it, or one outside `--root`.
    """
    from cxrtool.data.datasets.listing import list_images
    from cxrtool.data.datasets.record import Request
    from cxrtool.data.manifest import FILE_NAME

    path = Path(argument)
    if argument == "-" or path.suffix.lower() in (".csv", ".tsv") or (path / FILE_NAME).is_file():
        return read_manifest(argument, root=settings.root)
    if not path.exists():
        raise InputError(f"{argument}: no such image, folder or manifest")
    listing = list_images([path], None, Request(), None)
    for row in listing.rows:
        if settings.root and not Path(row["path"]).resolve().is_relative_to(settings.root.resolve()):
            raise InputError(f"{row['path']} lies outside --root {settings.root}")
    if listing.skipped:
        settings.report.say(f"{len(listing.skipped)} files were not tried: by their names they are no images")
    columns = ["image_id", "path", "label"]
    return Manifest(columns, [{name: row.get(name, "") for name in columns} for row in listing.rows], path)


Answer = tuple[Row, Any]


def answer(
    options: PredictOptions, settings: Settings, folders: Sequence[Path], manifest: Manifest
) -> tuple[list[Member], list[Answer], list[Row]]:
    """Ask models about the images of a manifest, after whatever preprocessing these still lack.

    Returns:
        The models; for each image that could be read its row and probabilities (members, K); the rejects.

    Raises:
        InputError: No image can be read, or they have been through another preprocessing than the models' own.
        LeakageError: An image was among what a model was trained on.
    """
    from cxrtool.training.device import choose_device, choose_precision, own_randomness

    with own_randomness(settings.seed, settings.threads):
        device = choose_device(settings.device)
        # Answers are few and should be exact; only who asks for bf16 gets it.
        precision = "fp32" if settings.precision == "auto" else choose_precision(settings.precision, device)
        ensembles = group_models(folders, device, precision)
        chains = chains_for(options, ensembles, manifest)
        seen = Seen.of(folders)
        if not settings.allow_leakage:
            seen.refuse(manifest.rows, settings)
        answers, rejects = ask_all(options, settings, ensembles, chains, manifest)
    if not answers:
        raise InputError(
            f"{manifest.name}: none of the {len(rejects)} images can be read, the first: {rejects[0]['reason']}"
        )
    # Once more, now that the pixels of images without a digest in the table are known.
    seen.refuse(radiographs([row for row, _ in answers]), settings)
    return [member for ensemble in ensembles for member in ensemble.members], answers, rejects


def group_models(folders: Sequence[Path], device: torch.device, precision: str) -> list[Ensemble]:
    """The models, those together whose images are processed alike: each fold of a run may have its own reference image.

    Raises:
        InputError: A folder is no model, or the models differ in classes or input.
    """
    from cxrtool.training.checkpoint import read_description
    from cxrtool.training.inference import Ensemble

    groups: dict[str, list[Path]] = {}
    first = read_description(folders[0])
    for folder in folders:
        description = read_description(folder)
        for name in ("classes", "input"):
            if description[name] != first[name]:
                raise InputError(
                    f"{folder}: expected the same {name} as in {folders[0]}, found {description[name]} instead of "
                    f"{first[name]}",
                    "ask them one by one",
                )
        groups.setdefault(json.dumps(description["chain"], sort_keys=True), []).append(folder)
    return [Ensemble(group, device, precision) for group in groups.values()]


def chains_for(options: PredictOptions, ensembles: Sequence[Ensemble], manifest: Manifest) -> list[Chain]:
    """What the images have yet to go through before each group of models is asked.

    Raises:
        InputError: They have been through another preprocessing than the models' own.
    """
    done = chain_of(Path(row["path"]) for row in manifest.rows)
    chains = []
    for ensemble in ensembles:
        folder = ensemble.members[0].folder
        name = str(options.model if len(ensembles) == 1 else folder)
        chains.append(missing_steps(locate(ensemble.description["chain"], folder), done, name, options.source))
    return chains


def ask_all(
    options: PredictOptions,
    settings: Settings,
    ensembles: Sequence[Ensemble],
    chains: Sequence[Chain],
    manifest: Manifest,
) -> tuple[list[Answer], list[Row]]:
    """Ask groups of models one after the other, and put together what they say of an image; as `ask` returns it."""
    import numpy as np

    found = [
        ask(options, settings, ensemble, manifest, chain) for ensemble, chain in zip(ensembles, chains, strict=True)
    ]
    answers, rejects = found[0]
    for others, _ in found[1:]:
        joined = {row["image_id"]: probabilities for row, probabilities in others}
        answers = [(row, np.concatenate((own, joined[row["image_id"]]))) for row, own in answers]
    return answers, rejects


def ask(
    options: PredictOptions, settings: Settings, ensemble: Ensemble, manifest: Manifest, chain: Chain
) -> tuple[list[Answer], list[Row]]:
    """Decode, replay the chain, and ask; images are read while the network computes, and none is kept.

    Where the chain ends with generators, the model is asked about all twins of each image.

    Returns:
        For each image that could be read, or each of its twins, its row and probabilities (members, K); the rejects.
    """
    from cxrtool.flow.parallel import map_items
    from cxrtool.imaging import plausibility

    form, usual = ensemble.description["input"], ensemble.description.get("usual")
    before, entry = before_twins(chain)
    twins = TwinInput(entry, form, ensemble.device) if entry else None
    shown = twins.form if twins else form
    work = partial(look, chain=before, size=shown["size"], fit=shown["fit"], max_pixels=options.max_pixels)
    paths = [Path(row["path"]) for row in manifest.rows]
    results = map_items(work, paths, workers=settings.workers, preload=modules_of(before))
    answers: list[Answer] = []
    rejects: list[Row] = []
    at_once = max(1, options.batch_size // len(twins.names)) if twins else options.batch_size
    with settings.report.progress("predicting", len(paths)) as advance:
        for batch in _batches(zip(manifest.rows, results, strict=True), at_once):
            rows, pictures = [], []
            for row, (_, result) in batch:
                if isinstance(result, CxrtoolError):
                    rejects.append({"path": row["path"], "reason": result.message})
                    continue
                pixels, digest, odd = result
                # A manifest tells already what the reader found odd.
                told = row.get("warning", "") or odd
                rows.append({**row, "sha256": row.get("sha256") or digest, "warning": told})
                pictures.append(pixels)
            if pictures:
                if twins:
                    rows, pictures = twins.expand(rows, pictures)
                for row, pixels in zip(rows, pictures, strict=True):
                    doubt = plausibility.warn(pixels, usual)
                    row["warning"] = "; ".join(text for text in (row["warning"], doubt) if text)
                probabilities = ensemble.ask(pictures, mirrored=options.tta)
                answers += [(row, probabilities[:, k]) for k, row in enumerate(rows)]
            advance(len(batch))
    return answers, rejects


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    from itertools import islice

    while batch := list(islice(items, size)):
        yield batch


def calibrate(members: Sequence[Member], answers: Sequence[Answer], settings: Settings) -> list[Answer]:
    """Bring the answers of each model to its own temperature, and say which those are."""
    import numpy as np

    from cxrtool.evaluation.temperature import apply

    found = [temperature_of(member.folder, member.description) for member in members]
    tell([member.folder for member in members], found, settings)
    return [
        (row, np.stack([apply(own, entry.value) for own, entry in zip(probabilities, found, strict=True)]))
        for row, probabilities in answers
    ]


def to_table(
    options: PredictOptions, members: Sequence[Member], answers: Sequence[Answer], columns: Sequence[str]
) -> Predictions:
    """Lay the answers out as predictions: the members' mean, or a row a member."""
    import numpy as np

    classes = list(members[0].description["classes"])
    rows: list[Row] = []
    values = []
    for row, probabilities in answers:
        answers_of_row = list(zip(members, probabilities, strict=True)) if options.members else [
            (None, probabilities.mean(0))
        ]  # fmt: skip
        for member, chosen in answers_of_row:
            repeat, fold = runs.parse_fold(member.folder.name) if member and len(members) > 1 else ("", "")
            rows.append(
                {
                    **{name: cell for name, cell in row.items() if name not in MASKS},
                    **answered_as(row, repeat, fold),
                    "repeat": repeat,
                    "fold": fold,
                    "subset": "test",
                    "predicted": classes[int(chosen.argmax())],
                }
            )
            values.append(chosen)
    array = np.array(values, np.float64).reshape(-1, len(classes))
    return Predictions(classes, rows, array, str(options.source), [name for name in columns if name not in MASKS])


def _tell(settings: Settings, answered: Sequence[Row], rejects: Sequence[Row]) -> None:
    for row in rejects[:SHOWN_REJECTS]:
        settings.report.warn(f"{row['path']}: {row['reason']}")
    images = len(radiographs(answered))
    text = f"{images} images answered, {len(rejects)} rejected"
    if rejects and settings.strict:
        raise StrictError(text)
    settings.report.say(text)
    if images < len(answered) and settings.out is not None:
        settings.report.say(
            f"a row for each of {len(answered)} twins; next: cxrtool fuse twins {settings.out} gives one an image"
        )
