"""The folder of a fitted grader: `grade.json`, and `fitted_on.csv` with the fold that left each image out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.digests import check
from cxrtool.data.file_names import FITTED_ON
from cxrtool.data.files import atomic_write
from cxrtool.data.splitting.grouping import PATIENT, hashed
from cxrtool.data.structured import load_json
from cxrtool.data.tables.manifest import Row, read_table, write_table
from cxrtool.data.tables.views import RowView
from cxrtool.errors import InputError
from cxrtool.models.parts import SHIPPED

if TYPE_CHECKING:
    from cxrtool.evaluation.grading import Grader

GRADE = "grade.json"
NETWORKS = "networks"
"""Its key for the names of the opacity networks whose shares it was fitted to."""

SCHEMA = 1
COLUMNS = ("image_id", "patient_id", "sha256", "fold")


@dataclass(frozen=True)
class FittedGrader:
    """A grader, and the images it was fitted on.

    Attributes:
        images: The fold that left it out, by the digest of an image.
        patients: Likewise by the hash of a patient.
        names: Likewise by the id of an image of which neither is known.
        content: The whole `grade.json`.
    """

    grader: Grader
    images: Mapping[str, int]
    patients: Mapping[str, int]
    names: Mapping[str, int]
    content: Mapping[str, Any]

    def fold_of(self, row: RowView) -> int | None:
        """The fold whose fit did not see this image or its patient; None where no fit saw it."""
        known = (
            self.images.get(row.get("sha256", "").lower()),
            self.patients.get(hashed(row.get(PATIENT, ""))),
            self.names.get(row["image_id"]),
        )
        return next((fold for fold in known if fold is not None), None)


def default_grader(scale: str) -> Path:
    """The folder of the grader that comes with cxrtool."""
    return SHIPPED / f"grade-{scale}"


def write_grader(folder: Path, grader: Grader, rows: Sequence[RowView], described: Mapping[str, Any]) -> None:
    """Write a grader that was fitted on these rows, which are in the order of its errors."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"schema": SCHEMA, "kind": "grade", **grader.as_json(), **described}
    atomic_write(folder / GRADE, json.dumps(content, indent=1) + "\n")
    seen: list[Row] = [
        {
            "image_id": row["image_id"],
            "patient_id": hashed(row.get(PATIENT, "")),
            "sha256": row.get("sha256", ""),
            "fold": str(fold),
        }
        for row, fold in zip(rows, grader.fold_of, strict=True)
    ]
    write_table(folder / FITTED_ON, COLUMNS, seen)


def read_grader(folder: Path) -> FittedGrader:
    """Read a grader.

    Raises:
        InputError: There is none, or it is damaged.
    """
    from cxrtool.evaluation.grading import Grader

    path = folder / GRADE
    for file in (path, folder / FITTED_ON):
        check(file)
        if not file.is_file():
            raise InputError(
                f"{folder}: expected a folder with {GRADE} and {FITTED_ON}, as `cxrtool grade --fit` writes, found none"
            )
    try:
        content = load_json(path)
        if not isinstance(content, dict) or content.get("kind") != "grade" or content.get("schema") != SCHEMA:
            raise ValueError("another kind or schema")
        grader = Grader.of_json(content)
    except ValueError as error:
        raise InputError(f"{path}: not the description of a grader: {error}", "fit it again") from error
    table = read_table(folder / FITTED_ON)
    table.require(*COLUMNS)
    images: dict[str, int] = {}
    patients: dict[str, int] = {}
    names: dict[str, int] = {}
    for index, row in enumerate(table.rows):
        if not row["fold"].isdecimal() or int(row["fold"]) >= len(grader.folds):
            raise InputError(f"{table.place(index)}: expected the number of a fold, found '{row['fold']}'")
        image, patient, fold = row["sha256"].lower(), hashed(row["patient_id"]), int(row["fold"])
        images[image] = patients[patient] = fold
        if not image and not patient:
            names[row["image_id"]] = fold
    images.pop("", None)
    patients.pop("", None)
    return FittedGrader(grader, images, patients, names, content)
