"""Predictions of images without labels, with what is known of their model and of its training images."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.report.options import ReportOptions
from cxrtool.commands.report.study import Study
from cxrtool.data.file_names import MODEL, PREDICTIONS
from cxrtool.data.tables.foreign import is_own
from cxrtool.data.tables.manifest import Row, read_table
from cxrtool.data.tables.predictions import PREFIX, Predictions, predictions_of, probability_columns
from cxrtool.data.tables.twins import MARK
from cxrtool.data.tables.workbook import is_workbook
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.predicted import Beside
from cxrtool.flow.run import is_run
from cxrtool.flow.settings import Settings
from cxrtool.models.description import ModelDescription
from cxrtool.options import declared, flag_of, one_of

if TYPE_CHECKING:
    import numpy as np

USED = ("positive", "audit")
"""The options of the command that such a page uses; the others are about labelled predictions."""


def find_unlabelled(sources: Mapping[str, Sequence[Path]]) -> Path | None:
    """The one table of predictions whose images have no label that is a class; None where there are labels.

    Raises:
        UsageError: There are several such tables.
        InputError: It has predictions of twins.
    """
    tables = [
        path / PREDICTIONS if path.is_dir() and not is_run(path) else path
        for paths in sources.values()
        for path in paths
    ]
    without = [table for table in tables if table.is_file() and _is_unlabelled(table)]
    if not without or len(without) < len(tables):
        return None
    if len(without) > 1:
        raise UsageError(
            f"expected one table of predictions without labels, found {len(without)}",
            f"one page each: cxrtool report {shlex.quote(str(without[0]))} -o report.html",
        )
    return without[0]


def _is_unlabelled(path: Path) -> bool:
    if is_workbook(path):
        return False
    table = read_table(path)
    if not table.rows or not is_own(table):
        return False
    classes = [name.removeprefix(PREFIX) for name in probability_columns(table.columns)]
    if {row.get("label", "") for row in table.rows} & set(classes):
        return False
    if all(MARK in name for name in classes):
        raise InputError(
            f"{path}: expected predictions of images, found those of their twins",
            f"first `cxrtool fuse twins {shlex.quote(str(path))} -o answers.csv`, then report answers.csv",
        )
    return True


def count_unlabelled(tables: Sequence[Path]) -> tuple[int, int]:
    """The number of images without a label among tables of predictions by cxrtool, and the number of all."""
    found = [read_table(path).rows for path in tables if path.is_file() and not is_workbook(path)]
    rows = [row for some in found for row in some if row.get("subset") in ("", "test") and "image_id" in row]
    named = {row["image_id"]: bool(row.get("label")) for row in rows}
    return sum(not labelled for labelled in named.values()), len(named)


@dataclass
class Batch:
    """Predictions without labels, one for each image, and what is known of their model.

    Attributes:
        table: The table of predictions.
        classes: K names.
        rows: The text of each image.
        probabilities: (n, K), the mean over the rows of an image.
        agreeing: (n,) the share of the models that predict the same class; None where the table has only their mean.
        ignored: Labels that are no class of the model, such as the names of subfolders.
        beside: The files beside the table.
        study: The run; None where it is not known.
        model: Its `model.json`; None where it is not known.
    """

    table: Path
    classes: list[str]
    rows: list[Row]
    probabilities: np.ndarray
    agreeing: np.ndarray | None
    ignored: list[str]
    beside: Beside
    study: Study | None
    model: ModelDescription | None

    @classmethod
    def read(cls, table: Path, options: ReportOptions, settings: Settings) -> Batch:
        """Read the predictions, the files beside them, and the run.

        Raises:
            UsageError: An option needs labels, or `--positive` is no class.
            InputError: The table cannot be read.
        """
        refused = [name for name, origin in settings.origins.items() if origin == "flag" and _needs_labels(name)]
        if refused:
            raise UsageError(
                f"{flag_of(refused[0])}: expected labelled predictions, found no label in {table}",
                f"leave it out, or evaluate with labels: {evaluation_command(None)}",
            )
        predictions = predictions_of(read_table(table), str(table))
        if options.positive is not None:
            one_of("--positive", options.positive, predictions.classes)
        rows, probabilities, agreeing = _by_image(predictions)
        ignored = sorted({row["label"] for row in rows if row.get("label")})
        beside = Beside.read(table)
        study = _study(beside, options.audit)
        model = ModelDescription.read(beside.folders[0]) if beside.folders else None
        return cls(table, predictions.classes, rows, probabilities, agreeing, ignored, beside, study, model)

    @property
    def remark(self) -> str:
        """What the column of labels has instead of classes; empty where it has nothing."""
        if not self.ignored:
            return ""
        few = ", ".join(self.ignored[:3]) + (", …" if len(self.ignored) > 3 else "")
        return (
            f"The column label has no class of the model ({', '.join(self.classes)}), but {few}: it is not used. If "
            "these are classes under other names: `cxrtool evaluate RUN IMAGES --relabel OLD=NEW`."
        )

    @property
    def files(self) -> list[Path]:
        """The files on which the page depends."""
        pictures = [Path(row["path"]) for row in self.rows if row.get("path")]
        own = [folder / MODEL for folder in self.beside.folders]
        return [self.table, *self.beside.files, *own, *(self.study.files if self.study else []), *pictures]

    @property
    def training(self) -> Mapping[str, Any] | None:
        """The summary of the training images; None where it is not known."""
        training: Mapping[str, Any] | None = self.beside.made.get("training_images")
        return training

    def unlike(self, row: Row) -> str:
        """In what an image is unlike the training images; empty where it is not, or where this is not known."""
        return self.beside.images.get(row["image_id"], {}).get("unlike", "")

    def predicted(self, k: int) -> int:
        """The index of the predicted class of an image."""
        return int(self.probabilities[k].argmax())

    def caption(self, k: int) -> str:
        """The caption of an image."""
        from cxrtool.imaging.properties import kinds_of

        row, best = self.rows[k], self.predicted(k)
        kinds = kinds_of(self.unlike(row))
        odd = f" Unlike the training images: {', '.join(kinds)}." if kinds else ""
        return f"{row['image_id']}: predicted {self.classes[best]}, probability {self.probabilities[k, best]:.3f}.{odd}"


def _needs_labels(name: str) -> bool:
    declaration = declared(ReportOptions).get(name)
    return declaration is not None and not declaration[1].argument and name not in USED


def _by_image(predictions: Predictions) -> tuple[list[Row], np.ndarray, np.ndarray | None]:
    import numpy as np

    index: dict[str, int] = {}
    rows: list[Row] = []
    of = []
    for row in predictions.rows:
        name = row["image_id"]
        if name not in index:
            index[name] = len(rows)
            rows.append(dict(row))
        of.append(index[name])
    image = np.array(of, np.intp)
    total = np.zeros((len(rows), len(predictions.classes)))
    np.add.at(total, image, predictions.probabilities)
    counts = np.bincount(image)
    mean = total / counts[:, None]
    if (counts == 1).all():
        return rows, mean, None
    same = predictions.probabilities.argmax(1) == mean.argmax(1)[image]
    return rows, mean, np.bincount(image, same) / counts


def _study(beside: Beside, audit: Path | None) -> Study | None:
    if beside.model is None:
        return None
    try:
        study = Study.read({"": [beside.model]}, partial=True, manifest=None, audit=audit)
    except InputError:
        # Imported weights have no predictions of their own.
        return None
    return study if study.tested else None


def evaluation_command(model: Path | None) -> str:
    """The command that evaluates a model once there are labels."""
    return f"cxrtool evaluate {shlex.quote(str(model)) if model else 'RUN'} TABLE"
