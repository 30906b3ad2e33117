"""What `prepare` does to one image: read it with its mask and its rib-free twin, bring them to size, write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrtool.errors import ImageError

KINDS = ("images", "masks", "ribless")
"""The folders of what is written."""


@dataclass(frozen=True)
class Task:
    """One image to read: its id, its file, and the files of its mask, header and rib-free twin, or nothing."""

    image_id: str
    path: str
    mask: str
    header: str = ""
    mask_parts: tuple[str, ...] = ()
    ribless: str = ""


def read_one(
    task: Task, *, target: Path, size: int | str, fit: str, max_pixels: int, root: Path | None
) -> dict[str, Any]:
    """Read one image and its mask, bring them to size and write them below `target`; run in a worker process.

    Returns:
        What the manifest says of it, and how many bytes were written, by which a resumed run knows the files as whole.

    Raises:
        ImageError: The image cannot be read.
    """
    from cxrtool.data.images import read_image, write_png
    from cxrtool.imaging.hashing import dhash, pixel_sha256
    from cxrtool.imaging.resize import prepare_pixels

    _confine(task.path, root)
    header = Path(task.header) if task.header else None
    if header:
        _confine(task.header, root)
    radiograph = read_image(task.path, max_pixels=max_pixels, overhear=True, header=header)
    pixels = radiograph.pixels
    record = {
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "sha256": pixel_sha256(pixels),
        "dhash": dhash(pixels),
        "tags": radiograph.tags,
        "warnings": radiograph.warnings,
        "bytes": write_png(place_of(target, "images", task.image_id), prepare_pixels(pixels, size, fit)),
    }
    if task.mask:
        try:
            for file in (task.mask, *task.mask_parts):
                _confine(file, root)
            record["mask_bytes"] = _read_mask(task, record, target, size, fit, max_pixels)
        except ImageError as error:
            radiograph.warnings.append(f"mask left out: {error.message}")
    if task.ribless:
        try:
            _confine(task.ribless, root)
            record["ribless_bytes"] = _read_ribless(task, record, target, size, fit, max_pixels)
        except ImageError as error:
            radiograph.warnings.append(f"rib-free picture left out: {error.message}")
    return record


def _read_mask(task: Task, record: Mapping[str, Any], target: Path, size: int | str, fit: str, max_pixels: int) -> int:
    from cxrtool.data.images import write_png
    from cxrtool.data.mask_files import read_mask
    from cxrtool.imaging.pair import check_proportions
    from cxrtool.imaging.resize import prepare_mask

    mask = read_mask([task.mask, *task.mask_parts], max_pixels=max_pixels)
    height, width = record["height"], record["width"]
    # The masks of one-pixel rounding are resampled; a mask of other proportions belongs to another picture.
    check_proportions(mask, (height, width), "it")
    return write_png(place_of(target, "masks", task.image_id), prepare_mask(mask, height, width, size, fit), mask=True)


def _read_ribless(
    task: Task, record: Mapping[str, Any], target: Path, size: int | str, fit: str, max_pixels: int
) -> int:  # fmt: skip
    """Bring the picture without ribs to the size of its image, and with it through the same geometry."""
    from cxrtool.data.images import read_image, write_png
    from cxrtool.imaging.pair import check_proportions
    from cxrtool.imaging.resize import prepare_pixels, resample

    pixels = read_image(task.ribless, max_pixels=max_pixels, overhear=True).pixels
    height, width = record["height"], record["width"]
    check_proportions(pixels, (height, width), "it")
    shown = prepare_pixels(resample(pixels, height, width), size, fit)
    return write_png(place_of(target, "ribless", task.image_id), shown)


def _confine(path: str, root: Path | None) -> None:
    if root is not None and not Path(path).resolve().is_relative_to(root.resolve()):
        raise ImageError(f"it lies outside --root {root}")


def place_of(target: Path, folder: str, image_id: str) -> Path:
    """Where a picture of an image is written: below `target`, in one of `KINDS`."""
    return target / folder / f"{image_id}.png"
