"""Find the lungs of an image, and crop to them, mask them or erase them: in `segment` and when a chain is replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.errors import ImageError
from cxrtool.flow.parts import AT

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.imaging.placing import Move
    from cxrtool.training.lung_finder import LungFinder

VERSION = 1
"""Raised when the same options would give other masks or other images."""

CROP, APPLY, ERASE = "crop", "apply", "erase"
"""The uses of a mask; an entry's `use` joins them with a plus."""

LEFT_WHOLE = "the image is unchanged"


@dataclass
class Picture:
    """An image during the replay of a chain.

    Attributes:
        pixels: (H, W), uint8 or uint16.
        mask: (H, W), 0 and 255: an existing mask of the image, which is changed with it; None where it has none.
        lungs: (H, W), 0 and 255: the mask that the chain found; None before.
        warnings: Warnings about the image.
        moves: How its pixels were moved, in order, so that this can be undone.
    """

    pixels: np.ndarray
    mask: np.ndarray | None = None
    lungs: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)


def use_lungs(picture: Picture, entry: Mapping[str, Any]) -> None:
    """Replay an entry of `segment` on a picture and its masks: find the lungs, and crop, keep or erase them, in place.

    Args:
        picture: It is changed in place.
        entry: Located, as `parts.locate` returns it.

    Raises:
        InputError: The network's folder is missing or damaged.
    """
    picture.lungs, remark = find_lungs(picture.pixels, entry)
    if remark:
        picture.warnings.append(remark)
    change(picture, entry)


def find_lungs(pixels: np.ndarray, entry: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """The lung mask of an image (H, W), 0 and 255, and why it is implausible, or an empty text."""
    from cxrtool.imaging import masks, view
    from cxrtool.models.parts import read_part

    folder = Path(entry[AT])
    finder = _finder(folder, entry.get("precision", "fp32"), bool(entry.get("tta")))
    part = read_part(folder, "lungs")
    form = part.form
    placed = view.see(pixels, form)
    answer = finder(placed.values[None])[0]
    threshold = entry["threshold"]
    lungs = masks.clean(view.lay_back(answer, placed, form), threshold)
    odd = unlike(placed.values, part.description.get("usual"))
    return lungs, masks.doubt(lungs, masks.sureness(answer, threshold), odd)


def unlike(values: np.ndarray, usual: Mapping[str, Any] | None) -> str:
    """How a network's input differs from the images that it was fitted on, or an empty text."""
    from cxrtool.imaging import plausibility

    return plausibility.unlike(values, usual, "an image unlike those that the network was fitted on")


@cache
def _finder(folder: Path, precision: str, mirrored: bool) -> LungFinder:
    import multiprocessing

    import torch

    from cxrtool.training.lung_finder import LungFinder

    if multiprocessing.parent_process() is not None:
        # In a worker process; parallelism is over images.
        torch.set_num_threads(1)
    return LungFinder(folder, precision=precision, mirrored=mirrored)


def change(picture: Picture, entry: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Crop to, keep or erase the lungs of a picture whose lungs are known, in place; without lungs nothing changes.

    Returns:
        The remaining part: top, left, height, width, in pixels of the image before.
    """
    from cxrtool.imaging import crop
    from cxrtool.imaging.placing import Move

    height, width = picture.pixels.shape
    box = (0, 0, height, width)
    lungs = picture.lungs
    if lungs is None or not lungs.any():
        return box
    uses = entry["use"].split("+")
    if APPLY in uses:
        picture.pixels = crop.keep_inside(picture.pixels, lungs)
    if ERASE in uses:
        picture.pixels = crop.erase_inside(picture.pixels, lungs)
    if CROP in uses:
        box = crop.lung_box(lungs, entry["margin"], entry["margin_of"])
        picture.pixels, picture.lungs = crop.cut(picture.pixels, box), crop.cut(lungs, box)
        picture.moves.append(Move.cut(box))
        if picture.mask is not None:
            picture.mask = crop.cut(picture.mask, box)
    return box


def read_mask(path: str, shape: tuple[int, ...], max_pixels: int | None) -> np.ndarray:
    """A mask, 0 and 255, at the shape (H, W) of its image.

    Raises:
        ImageError: It cannot be read, or has other proportions than its image.
    """
    from cxrtool.data.reading import mask_files
    from cxrtool.data.reading.images import MAX_PIXELS
    from cxrtool.imaging.fits import NATIVE
    from cxrtool.imaging.resize import prepare_mask

    height, width = shape
    mask = mask_files.read_mask([path], max_pixels=max_pixels or MAX_PIXELS)
    # A side may differ by one pixel from rounding; a mask of other proportions belongs to another image.
    if abs(mask.shape[0] * width - mask.shape[1] * height) > 2 * max(height, width, *mask.shape):
        raise ImageError(f"it is {mask.shape[1]} x {mask.shape[0]}, its image {width} x {height}")
    return prepare_mask(mask, height, width, NATIVE, "squash")
