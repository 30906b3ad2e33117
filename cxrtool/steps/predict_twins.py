"""Radiographs on their way to a model of twins: each becomes as many pictures as there are generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.manifest import Row
from cxrtool.data.twins import is_twin, radiograph_id, twin_class, twin_id, twin_rows
from cxrtool.flow.parts import AT

if TYPE_CHECKING:
    import numpy as np
    import torch

    from cxrtool.training.twin_maker import TwinMaker


class TwinInput:
    """The end of a model's chain, where a `transform` stands there.

    Args:
        entry: The chain's entry, located.
        form: The model's `input`: size and fit.
        device: Where to compute.

    Raises:
        InputError: The generators' folder is gone or damaged.
    """

    def __init__(self, entry: Mapping[str, Any], form: Mapping[str, Any], device: torch.device) -> None:
        from cxrtool.training.twin_maker import TwinMaker

        self.maker: TwinMaker = TwinMaker(Path(entry[AT]), device)
        self.size, self.fit = form["size"], form["fit"]

    @property
    def names(self) -> list[str]:
        """The generators, in order."""
        return self.maker.names

    @property
    def form(self) -> dict[str, Any]:
        """What a radiograph is brought to before its twins are made: size and fit."""
        return {"size": self.maker.form.size, "fit": self.maker.form.fit}

    def make(self, pictures: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """For each radiograph (S, S) at `form` its twins at the model's input, in the order of the generators."""
        from cxrtool.imaging.resize import prepare_pixels

        return [[prepare_pixels(twin, self.size, self.fit) for twin in twins] for twins in self.maker.make(pictures)]

    def expand(self, rows: Sequence[Row], pictures: Sequence[np.ndarray]) -> tuple[list[Row], list[np.ndarray]]:
        """Rows and pictures of radiographs to those of their twins, of no one fold."""
        twins = [row for given in rows for row in twin_rows(given, "", "", self.names)]
        return twins, [picture for made in self.make(pictures) for picture in made]


def answered_as(row: Row, repeat: str, fold: str) -> dict[str, str]:
    """Id and label under which an answer about a picture stands.

    Args:
        row: Of the picture.
        repeat: Of the one fold that answers; empty where several, or a model of no fold, do.
        fold: Likewise.

    >>> answered_as({"image_id": "a_P", "parent_id": "a", "generator": "P", "label": "N"}, "0", "1")
    {'image_id': 'a_r0f1_P', 'label': 'N@P'}
    >>> answered_as({"image_id": "a", "label": "N"}, "0", "1")
    {'image_id': 'a', 'label': 'N'}
    """
    label = row.get("label", "")
    if not is_twin(row):
        return {"image_id": row["image_id"], "label": label}
    # What `transform` wrote is of one fold already, and is called so.
    own = row["image_id"] if row.get("repeat") else twin_id(row["parent_id"], repeat, fold, row["generator"])
    return {"image_id": own, "label": twin_class(label, row["generator"])}


def radiographs(rows: Sequence[Row]) -> list[Row]:
    """What rows are about: of the twins of a radiograph one row, under its id.

    >>> [row["image_id"] for row in radiographs(twin_rows({"image_id": "a"}, "", "", ["P", "N"]))]
    ['a']
    """
    return list({radiograph_id(row): {**row, "image_id": radiograph_id(row)} for row in rows}.values())
