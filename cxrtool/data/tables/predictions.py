"""`predictions.csv`: what a model said of each image, one row an image and run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.data.files import atomic_write
from cxrtool.data.tables.manifest import Row, dump_table, read_table, relative_rows
from cxrtool.errors import InputError

if TYPE_CHECKING:
    import numpy as np

PREFIX = "prob_"
HEAD = ("image_id", "path", "repeat", "fold", "subset", "label", "predicted")
INCONCLUSIVE = "inconclusive"
"""What stands in `predicted` where no class was decided for."""

GROUPING = ("patient_id", "severity", "source", "view", "age", "sex", "parent_id", "generator", "sha256")
"""Manifest columns that travel with a prediction, so that it can be evaluated by group without its manifest."""


@dataclass
class Predictions:
    """Predicted probabilities with everything that is needed to evaluate them.

    Attributes:
        classes: Class names, in the model's order.
        rows: Text columns, one dictionary an image and run: `HEAD`, the grouping columns, `warning`.
        probabilities: Array (n, K) of float64 in [0, 1], rows as in `rows`.
        name: What to call them in a message or a table.
    """

    classes: list[str]
    rows: list[Row]
    probabilities: np.ndarray
    name: str = ""
    columns: list[str] = field(default_factory=list)

    def runs(self) -> list[tuple[str, str]]:
        """The distinct (repeat, fold) pairs, in order of appearance."""
        return list(dict.fromkeys((row.get("repeat", ""), row.get("fold", "")) for row in self.rows))


def read_predictions(path: Path) -> Predictions:
    """Read one `predictions.csv`; in memory its paths are absolute.

    Raises:
        InputError: A column is missing, no `prob_<class>` column is there, or a probability is not a number in [0, 1];
            the message names file and line.
    """
    import numpy as np

    table = read_table(path)
    table.require("image_id")
    classes = [name[len(PREFIX) :] for name in table.columns if name.startswith(PREFIX) and name != PREFIX]
    if not classes:
        raise InputError(
            f"{table.name}: expected columns prob_<class>, found: {', '.join(table.columns)}",
            "`cxrtool predict` and `cxrtool train` write them",
        )
    values = np.empty((len(table), len(classes)), np.float64)
    base = table.origin.absolute().parent if table.origin else Path.cwd()
    for index, row in enumerate(table.rows):
        if row.get("path"):
            row["path"] = os.path.normpath(base / row["path"])
        for position, name in enumerate(classes):
            cell = row.pop(PREFIX + name)
            try:
                value = float(cell)
            except ValueError:
                value = float("nan")
            if not 0.0 <= value <= 1.0:
                raise InputError(
                    f"{table.place(index)}: expected a probability between 0 and 1 in {PREFIX}{name}, found '{cell}'"
                )
            values[index, position] = value
    columns = [name for name in table.columns if not name.startswith(PREFIX)]
    return Predictions(classes, table.rows, values, str(path), columns)


def dump_predictions(predictions: Predictions, base: Path | None = None) -> str:
    """As CSV text; paths relative to `base` where it is given, else as they are (absolute).

    Probabilities are written with 9 significant digits, which gives a float32 back exactly.
    """
    rows = relative_rows(predictions.rows, base) if base else [dict(row) for row in predictions.rows]
    for row, values in zip(rows, predictions.probabilities, strict=True):
        for name, value in zip(predictions.classes, values, strict=True):
            row[PREFIX + name] = f"{float(value):.9g}"
    return dump_table(_columns(predictions), rows)


def write_predictions(path: Path, predictions: Predictions, base: Path | None = None) -> None:
    """Write them to a file, whole or not at all; paths are relative to `base`, or to the file's folder."""
    atomic_write(path, dump_predictions(predictions, base or Path(path).absolute().parent))


def _columns(predictions: Predictions) -> list[str]:
    seen = dict.fromkeys(predictions.columns)
    for row in predictions.rows:
        seen.update(dict.fromkeys(row))
    others = [name for name in seen if name not in HEAD and name not in GROUPING and name != "warning"]
    grouping = [name for name in GROUPING if name in seen]
    return [*HEAD, *(PREFIX + name for name in predictions.classes), "warning", *grouping, *others]


def join(parts: Sequence[Predictions], name: str) -> Predictions:
    """Put the predictions of several runs of the same classes under one another.

    Raises:
        InputError: They name different classes.
    """
    import numpy as np

    first = parts[0]
    for part in parts[1:]:
        if part.classes != first.classes:
            raise InputError(
                f"{part.name}: expected the classes {', '.join(first.classes)} as in {first.name}, "
                f"found {', '.join(part.classes)}"
            )
    rows = [row for part in parts for row in part.rows]
    columns = list(dict.fromkeys(column for part in parts for column in part.columns))
    return Predictions(first.classes, rows, np.concatenate([part.probabilities for part in parts]), name, columns)
