"""One image of `enhance`, in a worker process: read, measure, change, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cxrtool.data.files import is_whole_png
from cxrtool.data.tables.views import RowView
from cxrtool.flow.assignment import check_read
from cxrtool.flow.chain import Chain
from cxrtool.flow.replaying import STEPS

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.imaging.histogram import Counts


def modules_of(chain: Chain) -> tuple[str, ...]:
    """The modules that workers need to measure images and to do a chain's steps."""
    of_steps = (name for entry in chain for name in STEPS[entry["step"]].modules)
    return ("cxrtool.data.reading.images", "cxrtool.imaging.histogram", *of_steps)


class Kept(NamedTuple):
    """A file of this command with its size in bytes, relative to the folder."""

    name: str
    size: int


@dataclass(frozen=True)
class Task:
    """An image to enhance.

    Attributes:
        key: Its key in the journal.
        path: The file to read.
        outputs: Pairs of a chain's index among the ways and the files to write for it, relative to the folder.
        row: That of the manifest, whose digest its pixels must have.
        kept: A file with the image after the steps that all ways share, which is read instead while it is there.
    """

    key: str
    path: str
    outputs: tuple[tuple[int, tuple[str, ...]], ...]
    row: RowView | None = None
    kept: Kept | None = None


def enhance_one(task: Task, *, target: Path, before: Chain, ways: Sequence[Chain]) -> dict[str, Any]:
    """Read an image, do the steps that all ways share, then the steps of each way, and write the results.

    Returns:
        `files`: the size of each written file in bytes, by which a later run recognises it as complete.

    Raises:
        ImageError: It cannot be read.
    """
    from cxrtool.data.reading.images import write_png

    start = _start(task, target, before)
    written = {}
    for way, names in task.outputs:
        pixels = apply(start, ways[way])
        for name in names:
            written[name] = write_png(target / name, pixels)
    return {"files": written}


def measure_one(task: Task, *, target: Path, before: Chain, keep: bool) -> dict[str, Any]:
    """The histogram of an image after the steps before the match.

    Args:
        task: The image, with one file to write.
        target: The folder to write into.
        before: The steps.
        keep: Write the image after these steps.

    Returns:
        `cells`, the pixels in each of 256 bins as text; and `bytes`, the size of the file where there is one.

    Raises:
        ImageError: It cannot be read.
    """
    from cxrtool.data.reading.images import write_png
    from cxrtool.imaging.histogram import cells_of, count_levels, pack

    pixels = apply(_read(task.path, task.row), before)
    found: dict[str, Any] = {"cells": pack(cells_of(count_levels(pixels)))}
    if keep:
        found["bytes"] = write_png(target / task.outputs[0][1][0], pixels)
    return found


def count_one(task: Task, *, target: Path, before: Chain) -> Counts:
    """The whole histogram of an image after some steps."""
    from cxrtool.imaging.histogram import count_levels

    return count_levels(_start(task, target, before))


def _start(task: Task, target: Path, before: Chain) -> np.ndarray:
    """An image after the steps that all ways share."""
    if task.kept and is_whole_png(target / task.kept.name, task.kept.size):
        return _read(str(target / task.kept.name))
    return apply(_read(task.path, task.row), before)


def look_at_stages(path: str, *, chain: Chain, side: int) -> list[np.ndarray]:
    """An image before and after each step, as 8 bits with a longer side of `side` pixels."""
    from cxrtool.imaging.sheet import grey_tile

    pixels = _read(path)
    stages = [pixels]
    for entry in chain:
        pixels = apply(pixels, [entry])
        stages.append(pixels)
    return [grey_tile(stage, side)[..., 0] for stage in stages]


def apply(pixels: np.ndarray, chain: Chain) -> np.ndarray:
    """Apply a chain of this command's steps to an image (H, W), uint8 or uint16."""
    for entry in chain:
        pixels = STEPS[entry["step"]].replay(pixels, entry)
    return pixels


def _read(path: str, row: RowView | None = None) -> np.ndarray:
    from cxrtool.data.reading.images import read_image

    pixels = read_image(path, capture_decoder_errors=True).pixels
    check_read(row or {}, pixels)
    return pixels
