"""`predictions.csv`: the probabilities of a model for each image, one row an image and run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.data.tables.ids import fault_of_text, shown
from cxrtool.data.tables.manifest import Table, dump_table, read_table, relative_columns, write_table
from cxrtool.data.tables.numbers import decimal
from cxrtool.data.tables.views import (
    ROWS,
    Columns,
    FrameOfText,
    Readable,
    RowsField,
    columns_of,
    set_columns,
)
from cxrtool.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

PREFIX = "prob_"
HEAD = ("image_id", "path", "repeat", "fold", "subset", "label", "predicted")
LEARNED = "learned"
"""The column with the target of a model (`flow.target`), where that is not the column `label` of a manifest."""

INCONCLUSIVE = "inconclusive"
"""The value of `predicted` where the model abstained."""

PROBABILITIES, RANKING, DECISIONS = "probabilities", "ranking", "decisions"
"""What the scores of predictions are. Only the order of `RANKING` scores has a meaning; `DECISIONS` have no scores."""

_KINDS = {
    PROBABILITIES: "probabilities",
    RANKING: "scores that are no probabilities",
    DECISIONS: "predicted classes without scores",
}

GROUPING = (
    "patient_id",
    "severity",
    "severity_estimated",
    "source",
    "view",
    "age",
    "sex",
    "parent_id",
    "generator",
    "sha256",
)
"""Manifest columns that travel with a prediction, so that it can be evaluated by group without its manifest."""


@dataclass
class Predictions(Readable):
    """Predicted probabilities with everything that is needed to evaluate them.

    Attributes:
        classes: Class names, in the model's order.
        rows: Text columns, one dictionary an image and run: `HEAD`, the grouping columns, `warning`.
        records: The rows for reading only, which take far less memory.
        text: The rows as a pandas frame.
        probabilities: Array (n, K) of float64 in [0, 1], rows as in `rows`.
        name: For messages and tables.
        kind: `PROBABILITIES`, or, of another tool, `RANKING` or `DECISIONS`.
        notes: What the columns of another tool were taken for, in words.
    """

    classes: list[str]
    rows: RowsField = ROWS
    probabilities: np.ndarray  # type: ignore[misc]  # mypy takes the field's descriptor for a default
    name: str = ""
    columns: list[str] = field(default_factory=list)
    kind: str = PROBABILITIES
    notes: list[str] = field(default_factory=list)
    text = FrameOfText()

    @classmethod
    def of_frame(cls, frame: pd.DataFrame, name: str = "") -> Predictions:
        """Predictions with the text and the columns `prob_<class>` of a frame."""
        probable = probability_columns(frame.columns)
        values = frame[probable].to_numpy("float64")
        predictions = cls([column.removeprefix(PREFIX) for column in probable], [], values, name)
        predictions.text = frame.drop(columns=probable)
        return predictions

    @classmethod
    def of_columns(cls, columns: Columns, probabilities: np.ndarray, classes: Sequence[str], name: str) -> Predictions:
        """Predictions with these text columns, which are not copied."""
        predictions = cls(list(classes), [], probabilities, name)
        set_columns(predictions, columns)
        return predictions

    def keep(self, indices: Sequence[int]) -> None:
        """Keep only the rows with these indices, in this order."""
        set_columns(self, columns_of(self.records, self.columns).take(indices))
        self.probabilities = self.probabilities[indices]

    @property
    def frame(self) -> pd.DataFrame:
        """The text columns, followed by `prob_<class>` as float64."""
        numbers = {PREFIX + name: self.probabilities[:, index] for index, name in enumerate(self.classes)}
        frame: pd.DataFrame = self.text.assign(**numbers)
        return frame

    def runs(self) -> list[tuple[str, str]]:
        """The distinct (repeat, fold) pairs, in order of appearance."""
        return list(dict.fromkeys(zip(self.column("repeat"), self.column("fold"), strict=True)))


def probability_columns(columns: Iterable[str]) -> list[str]:
    """The columns `prob_<class>`.

    >>> probability_columns(["image_id", "prob_covid", "prob_"])
    ['prob_covid']
    """
    return [name for name in columns if name.startswith(PREFIX) and name != PREFIX]


def check_classes(classes: Iterable[str], name: str) -> None:
    """Raise an `InputError` where a class is not one line of text; `name` is what lists them, for the message."""
    for found in classes:
        if fault := fault_of_text(found):
            raise InputError(f"{name}: expected classes of one line each, found {fault} in {shown(found)}")


def read_predictions(path: Path) -> Predictions:
    """Read one `predictions.csv`; in memory its paths are absolute.

    Raises:
        InputError: A column is missing, there is no `prob_<class>` column, or a probability is not a number in [0, 1];
            the message names file and line.
    """
    return predictions_of(read_table(path), str(path))


def predictions_of(table: Table, name: str) -> Predictions:
    """The predictions of a table that has been read; an `InputError` as in `read_predictions`."""
    table.require("image_id")
    probable = probability_columns(table.columns)
    if not probable:
        raise InputError(
            f"{table.name}: expected columns prob_<class>, found: {', '.join(table.columns)}",
            "`cxrtool predict` and `cxrtool train` write them",
        )
    values = _probabilities(table, probable)
    classes = [column.removeprefix(PREFIX) for column in probable]
    check_classes(classes, table.name)
    table.check_texts(numbers=False)
    whole = columns_of(table.records, table.columns)
    cells = {column: texts for column, texts in whole.cells.items() if column not in probable}
    if "path" in cells:
        cells["path"] = _absolute(cells["path"], table.origin.absolute().parent if table.origin else Path.cwd())
    return Predictions.of_columns(Columns(cells, len(whole)), values, classes, name)


def _absolute(paths: Sequence[str], base: Path) -> list[str]:
    """Normal paths from those relative to `base`; a folder is joined and normalised once."""
    known: dict[str, str] = {}
    found = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name in ("", ".", "..") or path.startswith("//"):
            found.append(os.path.normpath(base / path) if path else "")
            continue
        folder = folder or ("/" if path[0] == "/" else ".")
        if folder not in known:
            # With a separator at its end, which the root has.
            known[folder] = os.path.join(os.path.normpath(base / folder), "")  # noqa: PTH118
        found.append(known[folder] + name)
    return found


def _probabilities(table: Table, columns: Sequence[str]) -> np.ndarray:
    """(n, columns) of float64."""
    import numpy as np

    # Not by pandas.to_numeric, which before version 3 is wrong in the last bit.
    values = np.stack([np.fromiter(map(_number, table.column(name)), np.float64, len(table)) for name in columns], 1)
    wrong = np.argwhere(~((values >= 0.0) & (values <= 1.0)))
    if len(wrong):
        index, name = wrong[0][0], columns[wrong[0][1]]
        found = table.column(name)[index]
        raise InputError(f"{table.place(index)}: expected a probability between 0 and 1 in {name}, found '{found}'")
    return values


def _number(cell: str) -> float:
    number = decimal(cell)
    return float("nan") if number is None else number


def dump_predictions(predictions: Predictions, base: Path | None = None) -> str:
    """Predictions as CSV text; paths are relative to `base`, or absolute without it.

    Probabilities are written with 9 significant digits, which gives a float32 back exactly.
    """
    return dump_table(_columns(predictions), _cells(predictions, base))


def write_predictions(path: Path, predictions: Predictions, base: Path | None = None, *, keep: bool = False) -> bool:
    """Write predictions to a file, as `write_table`; paths are relative to `base`, or to the file's folder."""
    cells = _cells(predictions, base or Path(path).absolute().parent)
    return write_table(path, _columns(predictions), cells, keep=keep)


def _cells(predictions: Predictions, base: Path | None) -> Columns:
    columns = columns_of(predictions.records, predictions.columns)
    cells = dict((relative_columns(columns, base) if base else columns).cells)
    for name, values in zip(predictions.classes, predictions.probabilities.T, strict=True):
        cells[PREFIX + name] = [f"{value:.9g}" for value in values.tolist()]
    return Columns(cells, len(columns))


def _columns(predictions: Predictions) -> list[str]:
    seen = columns_of(predictions.records, predictions.columns).cells
    others = [name for name in seen if name not in HEAD and name not in GROUPING and name != "warning"]
    grouping = [name for name in GROUPING if name in seen]
    return [*HEAD, *(PREFIX + name for name in predictions.classes), "warning", *grouping, *others]


def join(parts: Sequence[Predictions], name: str) -> Predictions:
    """Concatenate the predictions of several runs of the same classes.

    Raises:
        InputError: Their classes differ, or some have probabilities and others not.
    """
    import numpy as np

    first = parts[0]
    for part in parts[1:]:
        if part.classes != first.classes:
            raise InputError(
                f"{part.name}: expected the classes {', '.join(first.classes)} as in {first.name}, "
                f"found {', '.join(part.classes)}"
            )
        if part.kind != first.kind:
            raise InputError(
                f"{part.name}: expected {_KINDS[first.kind]} as in {first.name}, found {_KINDS[part.kind]}",
                "evaluate them side by side, as first=A.csv second=B.csv",
            )
    together = [columns_of(part.records, part.columns) for part in parts]
    names = dict.fromkeys(column for columns in together for column in columns.cells)
    cells = {
        column: [*chain.from_iterable(columns.cells.get(column, [""] * len(columns)) for columns in together)]
        for column in names
    }
    joined = Predictions.of_columns(
        Columns(cells, sum(map(len, together))),
        np.concatenate([part.probabilities for part in parts]),
        first.classes,
        name,
    )
    joined.kind, joined.notes = first.kind, list(dict.fromkeys(note for part in parts for note in part.notes))
    return joined
