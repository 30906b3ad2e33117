"""What `transform` does beside the twins themselves: masks that follow, and a picture for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxrtool.imaging.view import Form


@dataclass(frozen=True)
class MaskTask:
    """A mask that shall follow its picture: both files, and the one to write, relative to the folder."""

    path: str
    mask: str
    target: str


def resize_mask(task: MaskTask, *, target: Path, size: int, fit: str) -> int:
    """Bring a mask to the size of the twins and write it; returns its bytes. Run in a worker process.

    Raises:
        ImageError: It or its picture cannot be read, or they do not fit each other.
    """
    from cxrtool.data.images import read_image, write_png
    from cxrtool.flow.lungs import read_mask
    from cxrtool.imaging.resize import prepare_mask

    height, width = read_image(task.path, overhear=True).pixels.shape
    mask = read_mask(task.mask, (height, width), None)
    return write_png(target / task.target, prepare_mask(mask, height, width, size, fit), mask=True)


def draw_twins(
    target: Path, cases: Sequence[tuple[str, str, Sequence[str]]], generators: Sequence[str], form: Form
) -> None:
    """Draw radiographs beside their twins.

    Args:
        target: The file to write.
        cases: For each row a caption, the file of the radiograph, and those of its twins.
        generators: Their names, in order.
        form: In which the radiograph is shown to them.
    """
    from cxrtool.data.images import read_image, write_png
    from cxrtool.imaging.resize import prepare_pixels
    from cxrtool.imaging.sheet import grey_tile
    from cxrtool.imaging.strips import SIDE, draw_strips

    rows = []
    for caption, path, twins in cases:
        shown = prepare_pixels(read_image(path, overhear=True).pixels, form.size, form.fit)
        pictures = [shown, *(read_image(twin).pixels for twin in twins)]
        rows.append((caption, [grey_tile(picture, SIDE)[..., 0] for picture in pictures]))
    write_png(target, draw_strips(["as it was", *(f"by the generator of {name}" for name in generators)], rows))
