"""The images of `explain` one by one: what a worker process reads and draws, and what goes together on a sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.errors import ImageError
from cxrtool.steps.chain import REPLAY, Chain

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.explaining.overlay import Exhibit

SHEETS = {
    "true_positive": "true positives: {positive} called {positive}",
    "false_negative": "false negatives: {positive} called something else",
    "false_positive": "false positives: called {positive} without being it",
    "true_negative": "true negatives: neither {positive} nor called so",
    "correct": "correct answers",
    "wrong": "wrong answers",
    "unlabelled": "images without a label of the model's",
}
"""The contact sheets, and what stands above each."""


@dataclass(frozen=True)
class Task:
    """An image to be read: its file, and the file of its mask or nothing."""

    path: str
    mask: str


@dataclass
class View:
    """An image as a network sees it, and as it lies on the disk.

    Attributes:
        pixels: (S, S), the network's input, uint8 or uint16.
        height: Of the image as prepared, in pixels.
        width: Of the image as prepared.
        mask: (h, w), 0 or 255, at the size at which a map is kept; None where there is none.
        sha256: Of the pixels as they were read.
        warning: What is odd about the image.
        trouble: Why its mask was left out.
    """

    pixels: np.ndarray
    height: int
    width: int
    mask: np.ndarray | None
    sha256: str
    warning: str
    trouble: str


@dataclass(frozen=True)
class Drawing:
    """An overlay to be drawn.

    Attributes:
        task: The image.
        values: The file of its map.
        overlay: The file to write.
        highest: The raw value that becomes the last colour; None takes the map's own largest.
        peak: x and y in pixels of the image; None draws none.
        caption: Above the overlay.
        sheet_caption: Below a tile of a contact sheet; empty where it is on none.
    """

    task: Task
    values: Path
    overlay: Path
    highest: float | None
    peak: tuple[int, int] | None
    caption: tuple[str, ...]
    sheet_caption: tuple[str, ...] = ()


def view_one(task: Task, *, chain: Chain, size: int, fit: str, max_pixels: int | None) -> View:
    """Read an image and its mask, do the steps in `chain`, and fit it to a network's input; run in a worker process.

    Raises:
        ImageError: The image cannot be read. A mask that cannot is left out with a warning.
    """
    from cxrtool.explaining.maps import kept_size
    from cxrtool.imaging.resize import prepare_pixels, resample

    pixels, raw_shape, digest, odd = _prepared(task.path, chain, max_pixels)
    height, width = pixels.shape
    mask, trouble = None, ""
    if task.mask:
        try:
            mask = resample(_mask_of(task.mask, raw_shape, chain, max_pixels), *kept_size(height, width), mask=True)
        except ImageError as error:
            trouble = f"mask left out: {error.message}"
    return View(prepare_pixels(pixels, size, fit), height, width, mask, digest, odd, trouble)


def draw_one(drawing: Drawing, *, chain: Chain, max_pixels: int | None) -> Exhibit | None:
    """Draw and write the overlay of an image; run in a worker process.

    Returns:
        What a contact sheet shows of it, where it is on one.

    Raises:
        ImageError: The image cannot be read any more.
    """
    import numpy as np

    from cxrtool.explaining import maps, overlay
    from cxrtool.imaging.resize import resample

    pixels, raw_shape, _, _ = _prepared(drawing.task.path, chain, max_pixels)
    height, width = pixels.shape
    size = maps.kept_size(height, width)
    mask = None
    if drawing.task.mask:
        mask = resample(_mask_of(drawing.task.mask, raw_shape, chain, max_pixels), *size, mask=True)
    values = np.load(drawing.values)
    peak = None
    if drawing.peak is not None:
        peak = (drawing.peak[0] + 0.5) / width, (drawing.peak[1] + 0.5) / height
    shown = maps.rescale(values, drawing.highest)
    exhibit = overlay.Exhibit(resample(pixels, *size), shown, mask, peak, drawing.caption)
    highest = float(values.max()) if drawing.highest is None else drawing.highest
    overlay.write_picture(drawing.overlay, overlay.draw_overlay(exhibit, highest))
    if not drawing.sheet_caption:
        return None
    exhibit.caption = drawing.sheet_caption
    return exhibit


def _prepared(path: str, chain: Chain, max_pixels: int | None) -> tuple[np.ndarray, tuple[int, int], str, str]:
    """An image after the steps in `chain`, its shape before them, the digest of its pixels, and what is odd."""
    from cxrtool.data.images import MAX_PIXELS, read_image
    from cxrtool.imaging.hashing import pixel_sha256

    radiograph = read_image(path, max_pixels=max_pixels or MAX_PIXELS, overhear=True)
    pixels = radiograph.pixels
    shape, digest = (pixels.shape[0], pixels.shape[1]), pixel_sha256(pixels)
    for entry in chain:
        pixels = REPLAY[entry["step"]](pixels, entry)
    return pixels, shape, digest, "; ".join(radiograph.warnings)


def _mask_of(path: str, shape: tuple[int, int], chain: Chain, max_pixels: int | None) -> np.ndarray:
    """A mask, 0 and 255, through the geometry that its image has been through.

    Raises:
        ImageError: It cannot be read, has other proportions than its image, or a step moves pixels in a way that is
            not known for masks.
    """
    from cxrtool.data.images import MAX_PIXELS, read_image
    from cxrtool.imaging.resize import NATIVE, prepare_mask

    mask = read_image(path, max_pixels=max_pixels or MAX_PIXELS, overhear=True).pixels
    height, width = shape
    if abs(mask.shape[0] * width - mask.shape[1] * height) > 2 * max(height, width, *mask.shape):
        raise ImageError(f"it is {mask.shape[1]} x {mask.shape[0]}, its image {width} x {height}")
    mask = prepare_mask(mask, height, width, NATIVE, "squash")
    for entry in chain:
        if entry["step"] != "prepare":
            raise ImageError(f"it cannot follow its image through '{entry['step']}'")
        mask = prepare_mask(mask, mask.shape[0], mask.shape[1], entry["size"], entry["fit"])
    return mask


def sheet_of(row: Mapping[str, str], classes: Sequence[str], positive: str | None) -> str:
    """The contact sheet that an answer belongs to.

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
    """Draw at most `count` images for each sheet by chance, so that it shows what is usual and not what is best.

    Args:
        ids: The images of each sheet.
        count: At most so many.
        seed: Each sheet has a generator of its own.
    """
    import random

    chosen = {}
    for name, members in ids.items():
        drawn = random.Random(f"{seed} {name}").sample(list(members), min(count, len(members)))
        chosen[name] = [identity for identity in members if identity in set(drawn)]
    return chosen


def captions(row: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The captions of an overlay and of its tile on a sheet."""
    called = f"called {row['predicted']} {float(row['probability']):.2f}"
    label = row.get("label") or "no label"
    about = f"map of {row['target']} ({float(row['target_probability']):.2f})"
    inside = f", {float(row['energy_inside']):.0%} of its energy inside the mask" if row["energy_inside"] else ""
    last = (str(row["warning"]),) if row["warning"] else ()
    first = f"{row['image_id']}: {label}, {called}"
    short = "empty map" if row["warning"] and "empty map" in row["warning"] else about
    return (first, about + inside, *last), (str(row["image_id"]), f"{label}, {called}", short)
