"""Reading and drawing of single images in worker processes, captions, and the choice of images on contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.errors import ImageError
from cxrtool.flow.chain import Chain
from cxrtool.flow.heatmaps.reference import Origin, Outline
from cxrtool.flow.replaying import MOVES, STEPS, Picture, replay

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.explaining.overlay import Exhibit
    from cxrtool.imaging.placing import Move

SHEETS = {
    "true_positive": "true positives: {positive} predicted {positive}",
    "false_negative": "false negatives: {positive} predicted as another class",
    "false_positive": "false positives: another class predicted {positive}",
    "true_negative": "true negatives: neither {positive} nor predicted {positive}",
    "correct": "correct predictions",
    "wrong": "wrong predictions",
    "unlabelled": "images without a label that the model knows",
}
"""The contact sheets, with their titles."""

OPPOSITE = "opposite"
"""The target for the most probable class other than the predicted one."""

INPUT, ORIGINAL = "input", "original"
OVERS = {INPUT: "the image as the model received it", ORIGINAL: "the original image"}
"""The image under a map: after its preprocessing, or the original."""


@dataclass(frozen=True)
class Task:
    """An image to be read: its file, the file of its mask or an empty string, and its reference by structure."""

    path: str
    mask: str
    references: Mapping[str, Outline] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)


@dataclass
class View:
    """An image as input of a network, and as background of its map.

    Attributes:
        pixels: (S, S), the network input, uint8 or uint16.
        moves: The steps from the image under the map to the network input.
        mask: (h, w), 0 or 255, at the size of a saved map: that of the image, otherwise the lungs segmented by the
            preprocessing of the model; None where there is neither.
        trouble: Why its mask was excluded.
        references: (h, w), 0 or 255, like `mask`, by structure.
        lost: The structures of which the preprocessing left nothing.
        refused: Why a reference cannot be used, by structure.
    """

    pixels: np.ndarray
    height: int
    width: int
    moves: list[Move]
    mask: np.ndarray | None
    sha256: str
    warning: str
    trouble: str
    references: Mapping[str, np.ndarray]
    lost: Sequence[str]
    refused: Mapping[str, str]


Shown = tuple[Path, tuple[int, int] | None]
"""The file of a map, and its peak, x and y in pixels of the image, or None."""


@dataclass(frozen=True)
class Drawing:
    """An overlay to be drawn.

    Attributes:
        highest: The raw value of the last colour; None takes the maximum of the map.
        caption: Above the overlay.
        sheet_caption: Below a tile of a contact sheet; empty where it is on none.
        titles: Above each map, where there are several.
    """

    task: Task
    maps: tuple[Shown, ...]
    overlay: Path
    highest: float | None
    caption: tuple[str, ...]
    sheet_caption: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()


def view_one(
    task: Task,
    *,
    chain: Chain,
    size: int,
    fit: str,
    max_pixels: int | None,
    over: str = INPUT,
    colour: bool = False,
) -> View:
    """Read an image and its mask, run the steps in `chain`, and fit it to the network input; in a worker process."""
    from cxrtool.imaging.fits import fit_geometry
    from cxrtool.imaging.placing import Move
    from cxrtool.imaging.resize import prepare_pixels

    made = _prepare(task, chain, max_pixels, over, colour)
    picture, (height, width) = made.picture, made.shown.shape
    before = picture.pixels.shape
    fitting = Move.of(fit_geometry(before[0], before[1], size, fit))
    moves = [*picture.moves, fitting] if over == ORIGINAL else [fitting]
    pixels, warning = prepare_pixels(picture.pixels, size, fit), "; ".join(picture.warnings)
    return View(
        pixels,
        height,
        width,
        moves,
        made.mask,
        made.sha256,
        warning,
        made.trouble,
        made.references,
        made.lost,
        made.refused,
    )


def draw_one(drawing: Drawing, *, chain: Chain, max_pixels: int | None, over: str = INPUT) -> Exhibit | None:
    """Draw and write an overlay, in a worker process; returns the tile of a contact sheet, where it is on one."""
    import numpy as np

    from cxrtool.explaining import maps, overlay
    from cxrtool.imaging.resize import resample

    if over == ORIGINAL and (drawing.task.mask or not any(entry["step"] == "segment" for entry in chain)):
        # The preprocessed image is not shown, and no lungs have to be segmented.
        chain = []
    made = _prepare(drawing.task, chain, max_pixels, over)
    height, width = made.shown.shape
    shown, maxima = [], []
    for path, peak in drawing.maps:
        values = np.load(path)
        maxima.append(float(values.max()))
        share = None if peak is None else ((peak[0] + 0.5) / width, (peak[1] + 0.5) / height)
        shown.append(overlay.Layer(maps.rescale(values, drawing.highest), share))
    pixels = resample(made.shown, *maps.kept_size(height, width))
    exhibit = overlay.Exhibit(
        pixels,
        shown[0].values,
        made.mask,
        shown[0].peak,
        drawing.caption,
        shown[1:],
        drawing.titles,
        list(made.references.values()),
    )
    # Maps with a scale each have no common values to write at the colour scale.
    highest = drawing.highest if drawing.highest is not None else maxima[0] if len(maxima) == 1 else None
    overlay.write_picture(drawing.overlay, overlay.draw_overlay(exhibit, highest))
    if not drawing.sheet_caption:
        return None
    exhibit.caption = drawing.sheet_caption
    return exhibit


@dataclass
class _Prepared:
    """An image after the chain, the grey values under its map, and what else a `View` has of it."""

    picture: Picture
    shown: np.ndarray
    mask: np.ndarray | None
    sha256: str
    trouble: str
    references: Mapping[str, np.ndarray]
    lost: Sequence[str]
    refused: Mapping[str, str]


def _marked(mask: np.ndarray) -> np.ndarray:
    """A mask (height, width) that may be one of lungs: something is marked in it, and not all around them."""
    if not mask.any():
        raise ImageError("nothing is marked in it")
    if mask[[0, 0, -1, -1], [0, -1, 0, -1]].all() and not mask.all():
        raise ImageError("all four corners are marked in it, as where lungs are 0 and the rest is not")
    return mask


def _prepare(task: Task, chain: Chain, max_pixels: int | None, over: str, colour: bool = False) -> _Prepared:
    """Read an image with its mask and references, and run the chain."""
    from cxrtool.data.reading.images import MAX_PIXELS, read_image
    from cxrtool.explaining.maps import kept_size
    from cxrtool.flow.replaying import read_mask
    from cxrtool.imaging.channels import as_grey
    from cxrtool.imaging.hashing import pixel_sha256
    from cxrtool.imaging.placing import lay_back
    from cxrtool.imaging.resize import resample

    limit = max_pixels or MAX_PIXELS
    radiograph = read_image(task.path, max_pixels=limit, capture_decoder_errors=True, colour=colour)
    picture = Picture(radiograph.pixels, warnings=radiograph.warnings)
    given, digest, trouble = as_grey(picture.pixels), pixel_sha256(picture.pixels), ""
    refused: dict[str, str] = {}
    other = [entry["step"] for entry in chain if entry["step"] not in (*MOVES, *STEPS)]
    unlike = f"it cannot be transformed like its image by '{other[0]}'" if other else ""
    if task.mask:
        try:
            if unlike:
                raise ImageError(unlike)
            picture.mask = _marked(read_mask(task.mask, given.shape, max_pixels))
        except ImageError as error:
            trouble = f"mask excluded: {error.message}"
    for structure, outline in task.references.items():
        try:
            if unlike and over == INPUT:
                raise ImageError(unlike)
            picture.references[structure] = task.origin.read(outline, given.shape, max_pixels)
        except ImageError as error:
            refused[structure] = error.message
    own, drawn = picture.mask, dict(picture.references)
    replay(picture, chain)
    shown = as_grey(picture.pixels) if over == INPUT else given
    size = kept_size(*shown.shape)
    mask = picture.mask if over == INPUT else own
    if mask is not None:
        mask = resample(mask, *size, mask=True)
    elif picture.lungs is not None and picture.lungs.any():
        if over == INPUT:
            mask = resample(picture.lungs, *size, mask=True)
        else:
            share = picture.lungs.astype("float32")
            mask = ((lay_back(share, picture.moves, given.shape, size) > 127) * 255).astype("uint8")
    seen = picture.references if over == INPUT else drawn
    references = {name: resample(found, *size, mask=True) for name, found in seen.items()}
    lost = [name for name, found in references.items() if drawn[name].any() and not found.any()]
    return _Prepared(picture, shown, mask, digest, trouble, references, lost, refused)


def sheet_of(row: Mapping[str, str], classes: Sequence[str], positive: str | None) -> str:
    """The contact sheet of a prediction.

    >>> sheet_of({"label": "covid", "predicted": "normal"}, ["covid", "normal"], "covid")
    'false_negative'
    >>> sheet_of({"label": "covid", "predicted": "normal"}, ["covid", "normal"], None)
    'wrong'
    """
    label, predicted = row.get("label", ""), row["predicted"]
    if label not in classes:
        return "unlabelled"
    if positive is None:
        return "correct" if label == predicted else "wrong"
    if label == positive:
        return "true_positive" if predicted == positive else "false_negative"
    return "false_positive" if predicted == positive else "true_negative"


def choose(ids: Mapping[str, Sequence[str]], count: int, seed: int) -> dict[str, list[str]]:
    """Draw at most `count` images at random for each sheet, so that it shows typical images, not the best."""
    import random

    chosen = {}
    for name, members in ids.items():
        drawn = random.Random(f"{seed} {name}").sample(list(members), min(count, len(members)))
        chosen[name] = [identity for identity in members if identity in set(drawn)]
    return chosen


def captions(row: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The captions of an overlay and of its tile on a sheet."""
    predicted = f"predicted {row['predicted']} {float(row['probability']):.2f}"
    label = row.get("label") or "no label"
    last = (str(row["warning"]),) if row["warning"] else ()
    first = f"{row['image_id']}: {label}, {predicted}"
    if row.get("twin"):
        targets = titles(row)
        sources = [_source(row, prefix) for prefix in ("", f"{OPPOSITE}_")[: len(targets)]]
        tile = str(row["image_id"]), f"{label}, {predicted}", "; ".join(targets)
        return (first, *(f"{title}: {source}" for title, source in zip(targets, sources, strict=True)), *last), tile
    target = f"map of {row['target']} ({float(row['target_probability']):.2f})"
    short = "empty map" if row["warning"] and "empty map" in row["warning"] else target
    return (first, target + _inside(row["energy_inside"]), *last), (
        str(row["image_id"]),
        f"{label}, {predicted}",
        short,
    )


def titles(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The titles of the maps of twins; empty for a model without twins.

    >>> titles({"twin": "N", "target": "P", "target_probability": "0.8", "peak_x": "3"})
    ('map of P 0.80',)
    """
    if not row.get("twin"):
        return ()
    parts = [("target", "target_probability", "peak_x"), (OPPOSITE, f"{OPPOSITE}_probability", f"{OPPOSITE}_peak_x")]
    return tuple(
        f"map of {row[name]} {float(row[probability]):.2f}" + ("" if row[peak] else " (empty map)")
        for name, probability, peak in parts
        if row.get(name)
    )


def map_of(row: Mapping[str, Any]) -> str:
    """The title of a map: its target with the probability.

    >>> map_of({"target": "P", "target_probability": "0.8"})
    'map of P 0.80'
    """
    return f"map of {row['target']} {float(row['target_probability']):.2f}"


def _source(row: Mapping[str, Any], prefix: str) -> str:
    output = f"output {row[f'{prefix}output']} for the twin by the generator of {row[f'{prefix}twin']}"
    return output + _inside(row[f"{prefix}energy_inside"])


def _inside(share: str) -> str:
    return f", {float(share):.0%} of its energy inside the mask" if share else ""
