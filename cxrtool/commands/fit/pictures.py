"""Example images of fitted networks: outlines of masks, or rib-free images beside their targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.commands.fit.pairs import Targets
from cxrtool.data.tables.manifest import Row
from cxrtool.errors import ImageError
from cxrtool.models.parts import MASKS

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from cxrtool.imaging.fits import Form

Predict = Callable[["np.ndarray"], "np.ndarray"]
"""From an image (S, S) of values in [0, 1] to one of the same shape."""

TITLES = {
    **dict.fromkeys(MASKS, "green: the given mask; red: the prediction"),
    "ribs": "each: the image; without ribs, predicted; without ribs, given",
}
COLUMNS = {**dict.fromkeys(MASKS, 5), "ribs": 2}
SHOWN = 15


def predict_with(module: nn.Module, kind: str) -> Predict:
    """A function that runs a network on an image (S, S): `cxrtool.models.parts.answer_of` it."""
    import torch

    from cxrtool.models.parts import answer_of

    def predict(values: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            answer: np.ndarray = answer_of(module(torch.from_numpy(values)[None, None]), kind)[0].numpy()
        return answer

    return predict


def draw_examples(
    target: Path,
    entries: Sequence[tuple[Row, Sequence[str], Predict]],
    kind: str,
    targets: Targets,
    form: Form,
    title: str,
) -> None:
    """Write a contact sheet.

    Args:
        target: The file.
        entries: A row of the manifest, the lines of text below its image, and the network.
        kind: `lungs`, `opacities` or `ribs`.
        targets: Where they are.
        form: The network's input form.
        title: Of the sheet.
    """
    import cv2

    from cxrtool.data.files import atomic_write
    from cxrtool.imaging.sheet import draw_sheet

    tiles = []
    for row, caption, predict in entries:
        try:
            if kind in MASKS:
                tile = _draw_masks(row, targets, form, predict, kind)
            else:
                tile = _draw_ribs(row, targets, form, predict)
        except ImageError as error:
            caption, tile = [*caption[:1], error.message], _blank()
        tiles.append((tile, caption))
    if tiles:
        sheet = draw_sheet(tiles, f"{title}; {TITLES[kind]}", COLUMNS[kind])
        atomic_write(target, cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())


def _draw_masks(row: Row, targets: Targets, form: Form, predict: Predict, kind: str) -> np.ndarray:
    from cxrtool.commands.fit.measure import found_and_true
    from cxrtool.imaging.sheet import FOUND, TRUE, grey_tile, outline

    pixels, found, truth, _ = found_and_true(targets.pair(row), lambda placed: predict(placed.values), form, kind)
    tile = grey_tile(pixels)
    outline(tile, truth, TRUE)
    outline(tile, found, FOUND)
    return tile


def _draw_ribs(row: Row, targets: Targets, form: Form, predict: Predict) -> np.ndarray:
    import numpy as np

    from cxrtool.data.reading.images import read_image
    from cxrtool.imaging.sheet import grey_tile
    from cxrtool.imaging.view import see

    pixels = read_image(row["path"]).pixels
    values = see(pixels, form).values
    pictures = [1 - shown if form.invert else shown for shown in (values, predict(values))]
    tiles = [grey_tile(np.rint(shown * 255).astype(np.uint8)) for shown in pictures]
    truth = see(read_image(row[targets.column]).pixels, form).values
    tiles.append(grey_tile(np.rint((1 - truth if form.invert else truth) * 255).astype(np.uint8)))
    return np.concatenate(tiles, 1)


def _blank() -> np.ndarray:
    import numpy as np

    return np.full((60, 240, 3), 230, np.uint8)
