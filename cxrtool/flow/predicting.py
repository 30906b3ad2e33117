"""Run models on images: missing preprocessing is replayed, leakage is refused, then every model predicts.

For a model of twins, every radiograph becomes one image per generator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cxrtool.data.tables.manifest import Manifest, Row
from cxrtool.data.tables.predictions import Predictions
from cxrtool.data.tables.twins import is_twin, radiograph_id, twin_class, twin_id, twin_rows
from cxrtool.errors import CxrtoolError, InputError
from cxrtool.flow import common_options
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Seen, changed_pixels
from cxrtool.flow.chain import Chain, before_twins, chain_of, ends_with_twins, locate, missing_steps
from cxrtool.flow.folder import AT
from cxrtool.flow.replaying import look, modules_of
from cxrtool.flow.settings import Settings
from cxrtool.models.description import Input, ModelDescription
from cxrtool.options import Options, argument, option

if TYPE_CHECKING:
    import numpy as np
    import torch

    from cxrtool.training.inference import Ensemble, Member
    from cxrtool.training.twin_maker import TwinMaker


class TwinInput:
    """The `transform` at the end of a model's chain."""

    def __init__(self, entry: Mapping[str, Any], form: Input, device: torch.device) -> None:
        from cxrtool.flow.twins import VERSION
        from cxrtool.training.twin_maker import TwinMaker

        if entry["version"] != VERSION:
            raise InputError(
                f"{entry[AT]}: expected twins of three channels, found a model of grey ones, by an older cxrtool",
                "train it again: `cxrtool train MANIFEST --splits SPLITS --transform RUN`",
            )

        self.maker: TwinMaker = TwinMaker(Path(entry[AT]), device)
        self.size, self.fit = form.size, form.fit

    @property
    def names(self) -> list[str]:
        """The generators, in order."""
        return self.maker.names

    @property
    def form(self) -> Input:
        """The size and fit of a radiograph before its twins are made."""
        return Input(self.maker.form.size, self.maker.form.fit)

    def make(self, pictures: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """For each radiograph (S, S) at `form` its twins (s, s, 3) at the model's input size, one a generator."""
        from cxrtool.imaging.resize import prepare_pixels

        return [[prepare_pixels(twin, self.size, self.fit) for twin in twins] for twins in self.maker.make(pictures)]

    def expand(self, rows: Sequence[Row], pictures: Sequence[np.ndarray]) -> tuple[list[Row], list[np.ndarray]]:
        """The rows and images of the twins of radiographs, without repeat and fold."""
        twins = [row for given in rows for row in twin_rows(given, "", "", self.names)]
        return twins, [picture for made in self.make(pictures) for picture in made]


def answered_as(row: Row, repeat: str, fold: str) -> dict[str, str]:
    """The id and label of an image in a table of predictions.

    Repeat and fold are those of the fold that predicts; empty for several folds, or for a model without a fold.

    >>> answered_as({"image_id": "a_P", "parent_id": "a", "generator": "P", "label": "N"}, "0", "1")
    {'image_id': 'a_r0f1_P', 'label': 'N@P'}
    >>> answered_as({"image_id": "a", "label": "N"}, "0", "1")
    {'image_id': 'a', 'label': 'N'}
    """
    label = row.get("label", "")
    if not is_twin(row):
        return {"image_id": row["image_id"], "label": label}
    # The ids of images from `transform` already have the fold.
    name = row["image_id"] if row.get("repeat") else twin_id(row["parent_id"], repeat, fold, row["generator"])
    return {"image_id": name, "label": twin_class(label, row["generator"])}


def radiographs(rows: Sequence[Row]) -> list[Row]:
    """The rows of radiographs: the twins of a radiograph become one row with its id.

    >>> [row["image_id"] for row in radiographs(twin_rows({"image_id": "a"}, "", "", ["P", "N"]))]
    ['a']
    """
    return list({radiograph_id(row): {**row, "image_id": radiograph_id(row)} for row in rows}.values())


@dataclass(frozen=True)
class Question(Options):
    """How models are run on images."""

    model: Path = argument("A model folder, or a run, whose folds are averaged.")
    sources: tuple[str, ...] = common_options.images()
    tta: bool = option("Average with the prediction for the mirrored image.", False)
    batch_size: int = option("Images per batch.", 32, minimum=1, effect=False)
    max_pixels: int | None = common_options.max_pixels()


class Answer(NamedTuple):
    """The answer of the models for an image, or for one of its twins.

    Attributes:
        row: The image.
        probabilities: (members, K).
        properties: The image as the first model sees it, and in what it is unlike the training images: the columns of
            `properties.COLUMNS`.
    """

    row: Row
    probabilities: Any
    properties: Row


def answer(
    options: Question, settings: Settings, folders: Sequence[Path], manifest: Manifest
) -> tuple[list[Member], list[Answer], list[Row]]:
    """Run models on the images of a manifest, after the preprocessing that these still lack.

    Returns:
        The models; the answer for each image that could be read; the rejects.

    Raises:
        InputError: No image can be read, or their preprocessing differs from that of the models.
        LeakageError: A model was trained on an image.
    """
    import numpy as np

    from cxrtool.training.device import choose_device, choose_precision, local_randomness

    with local_randomness(settings.seed, settings.threads):
        device = choose_device(settings.device)
        # Predictions are few and should be exact, so bf16 is used only on request.
        precision = "fp32" if settings.precision == "auto" else choose_precision(settings.precision, device)
        ensembles = group_models(folders, device, precision)
        done = chain_of(Path(row["path"]) for row in manifest.rows)
        chains = []
        for ensemble in ensembles:
            folder = ensemble.members[0].folder
            name = str(options.model if len(ensembles) == 1 else folder)
            chains.append(missing_steps(locate(ensemble.description.chain, folder), done, name, manifest.name))
        seen = Seen.of(folders)
        if not settings.allow_leakage:
            seen.refuse(manifest.rows, settings)
        pairs = zip(ensembles, chains, strict=True)
        (answers, rejects), *others = [
            ask(options, settings, ensemble, manifest, chain, colour=ends_with_twins(done)) for ensemble, chain in pairs
        ]
        for more, _ in others:
            joined = {one.row["image_id"]: one.probabilities for one in more}
            answers = [
                one._replace(probabilities=np.concatenate((one.probabilities, joined[one.row["image_id"]])))
                for one in answers
            ]
    if not answers:
        raise InputError(
            f"{manifest.name}: expected an image that can be read, found none among {len(rejects)}, such as "
            f"{rejects[0]['path']}: {rejects[0]['reason']}"
        )
    # Again, now that images without a digest in the table have one.
    seen.refuse(radiographs([one.row for one in answers]), settings)
    return [member for ensemble in ensembles for member in ensemble.members], answers, rejects


def group_models(folders: Sequence[Path], device: torch.device, precision: str) -> list[Ensemble]:
    """Group models by their preprocessing; an `InputError` if one is no model, or has other classes or input."""
    from cxrtool.training.inference import Ensemble

    groups: dict[str, list[Path]] = {}
    first = ModelDescription.read(folders[0])
    for folder in folders:
        description = ModelDescription.read(folder)
        for name in ("classes", "input"):
            if getattr(description, name) != getattr(first, name):
                raise InputError(
                    f"{folder}: expected the same {name} as in {folders[0]}, found {getattr(description, name)} "
                    f"instead of {getattr(first, name)}",
                    "run them one by one",
                )
        groups.setdefault(json.dumps(description.chain, sort_keys=True), []).append(folder)
    return [Ensemble(group, device, precision) for group in groups.values()]


def ask(
    options: Question,
    settings: Settings,
    ensemble: Ensemble,
    manifest: Manifest,
    chain: Chain,
    *,
    colour: bool = False,
) -> tuple[list[Answer], list[Row]]:
    """Decode, replay the chain, and predict; images are read while the network computes, and none is kept.

    Where the chain ends with generators, the model is run on all twins of each image. With `colour` the images are
    twins already, and keep their three channels.

    Returns:
        The answer for each image that could be read, or each of its twins; the rejects.
    """
    from cxrtool.flow.parallel import map_items
    from cxrtool.imaging import plausibility, properties

    form, usual = ensemble.description.input, ensemble.description.usual
    training = properties.of_models(member.description.usual for member in ensemble.members)
    before, entry = before_twins(chain)
    twins = TwinInput(entry, form, ensemble.device) if entry else None
    shown = twins.form if twins else form
    limit = options.max_pixels
    work = partial(look, chain=before, size=shown.size, fit=shown.fit, max_pixels=limit, colour=colour)
    paths = [Path(row["path"]) for row in manifest.rows]
    results = map_items(work, paths, workers=settings.workers, preload=modules_of(before))
    answers: list[Answer] = []
    rejects: list[Row] = []
    at_once = max(1, options.batch_size // len(twins.names)) if twins else options.batch_size
    with settings.report.progress("predicting", len(paths)) as advance:
        read = zip(manifest.rows, results, strict=True)
        while batch := list(islice(read, at_once)):
            rows, pictures, looked = [], [], []
            for row, (_, result) in batch:
                changed = None if isinstance(result, CxrtoolError) else changed_pixels(row, result.sha256)
                if isinstance(result := changed or result, CxrtoolError):
                    rejects.append({"path": row["path"], "reason": result.message.removeprefix(f"{row['path']}: ")})
                    continue
                # A manifest already has the warnings of the reader.
                warning = row.get("warning", "") or result.warning
                rows.append({**row, "sha256": row.get("sha256") or result.sha256, "warning": warning})
                pictures.append(result.pixels)
                looked.append(result)
            if pictures:
                if twins:
                    rows, pictures = twins.expand(rows, pictures)
                    looked = [one for one in looked for _ in twins.names]
                found = []
                for row, pixels, one in zip(rows, pictures, looked, strict=True):
                    area = {} if one.lung_area is None else {"mask_area": f"{one.lung_area:.4f}"}
                    known = {**row, "height": str(one.height), "width": str(one.width), **area}
                    found.append(properties.describe(pixels, known, usual, training))
                    doubt = plausibility.warn(pixels, usual)
                    row["warning"] = "; ".join(text for text in (row["warning"], doubt) if text)
                probabilities = ensemble.predict(pictures, mirrored=options.tta)
                answers += [Answer(row, probabilities[:, k], found[k]) for k, row in enumerate(rows)]
            advance(len(batch))
    return answers, rejects


MASKS = ("mask", "mask_reference")
"""Columns that predictions do not have, because their paths are relative to the manifest."""


def to_table(
    members: Sequence[Member], answers: Sequence[Answer], columns: Sequence[str], name: str, *, by_member: bool = False
) -> Predictions:
    """The answers as predictions: the mean of the members, or one row per member."""
    import numpy as np

    classes = list(members[0].description.classes)
    rows: list[Row] = []
    values = []
    for row, probabilities, _ in answers:
        pairs = list(zip(members, probabilities, strict=True)) if by_member else [(None, probabilities.mean(0))]
        for member, chosen in pairs:
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
    return Predictions(classes, rows, array, name, [name for name in columns if name not in MASKS])
