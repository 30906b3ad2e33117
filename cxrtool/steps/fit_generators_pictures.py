"""Pictures of what generators do: images, what each generator makes of them, and where it changes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

PER_CLASS = 4
"""Images of each class."""

SIDE = 1.45
"""Inches a picture."""


@dataclass(frozen=True)
class Example:
    """One image.

    Attributes:
        name: Its id.
        label: Its class.
        original: Grey values (S, S) in [0, 1].
        versions: What each generator makes of it (K, S, S).
        before: The classifier's probability of each generator's class on the image (K,).
        after: The same on what that generator made (K,).
    """

    name: str
    label: str
    original: np.ndarray
    versions: np.ndarray
    before: np.ndarray
    after: np.ndarray


def choose(places: Sequence[int], labels: Sequence[str], classes: Sequence[str]) -> list[int]:
    """A few places of each class, evenly from all.

    >>> choose([3, 5, 7, 9, 11, 13], ["a", "b", "a", "a", "a", "a"], ["a", "b"])
    [3, 7, 9, 11, 5]
    """
    chosen = []
    for name in classes:
        mine = [place for place, label in zip(places, labels, strict=True) if label == name]
        count = min(PER_CLASS, len(mine))
        chosen += [mine[k * len(mine) // count] for k in range(count)]
    return chosen


def draw_transformations(path: Path, examples: Sequence[Example], classes: Sequence[str], title: str) -> None:
    """Draw a row an image: as it is, each generator's picture, and each difference in grey levels of 256.

    One scale holds for all differences: it ends where a thousandth of the pixels lie beyond.
    """
    import numpy as np

    from cxrtool.evaluation.canvas import picture, shorten

    columns = 1 + 2 * len(classes)
    rows = max(1, len(examples))
    with picture(path, SIDE * columns + 1.1, (SIDE + 0.22) * rows + 0.9) as figure:
        figure.suptitle(title, fontsize=10)
        if not examples:
            figure.text(0.5, 0.5, "no image to show", ha="center")
            return
        changes = [255 * (example.versions - example.original) for example in examples]
        reach = max(1.0, float(np.quantile(np.abs(np.stack(changes)), 0.999)))
        cells = figure.subplots(rows, columns, squeeze=False)
        heads = ["as it is", *(f"made by {shorten(name, 16)}" for name in classes),
                 *(f"change by {shorten(name, 14)}" for name in classes)]  # fmt: skip
        for row, (axes, example, change) in enumerate(zip(cells, examples, changes, strict=True)):
            for column, cell in enumerate(axes):
                cell.set(xticks=[], yticks=[])
                cell.spines[:].set_visible(False)
                if not row:
                    cell.set_title(heads[column], fontsize=8, loc="center")
            axes[0].imshow(example.original, cmap="gray", vmin=0, vmax=1)
            axes[0].set_xlabel(shorten(example.name, 22), fontsize=7)
            axes[0].set_ylabel(shorten(example.label, 18), fontsize=8)
            for k, name in enumerate(classes):
                axes[1 + k].imshow(example.versions[k], cmap="gray", vmin=0, vmax=1)
                told = f"P({shorten(name, 10)}) {example.before[k]:.2f} → {example.after[k]:.2f}"
                axes[1 + k].set_xlabel(told, fontsize=7)
                place = axes[1 + len(classes) + k]
                drawn = place.imshow(change[k], cmap="RdBu_r", vmin=-reach, vmax=reach)
                place.set_xlabel(f"mean {change[k].mean():+.1f}", fontsize=7)
        bar = figure.colorbar(drawn, ax=cells, shrink=min(1.0, 3 / rows), pad=0.01, aspect=30)
        bar.set_label("grey levels of 256: red is brighter than before", fontsize=8)
        bar.ax.tick_params(labelsize=7)
