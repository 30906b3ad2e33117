"""`csv`: any table with one row an image, with columns for its file and, where known, its class and patient."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.tables.manifest import COLUMNS, Row, Table, read_table
from cxrtool.errors import InputError

PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "imagename", "img")
LABELS = ("label", "class", "target", "finding", "diagnosis")
PATIENTS = ("patient_id", "patientid", "patient", "subject_id", "subject")


@adapter("csv")
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield one record a row; relative paths are taken from the table's folder, or from `images/` beside it.

    Columns that the manifest knows are found whatever their case; all others pass through untouched.

    Raises:
        InputError: No column of files was found, or a column of the options is missing.
    """
    table = read_table(source)
    path_column = _find(table, request.path_column, PATHS, "--path-column")
    if path_column is None:
        found = ", ".join(table.columns)
        raise InputError(
            f"{table.name}: expected a column of image files, such as path or file, found: {found}",
            "choose it with --path-column",
        )
    label_column = _find(table, request.label_column, LABELS, "--label-column")
    patient_column = _find(table, request.patient_column, PATIENTS, "--patient-column")
    names = {column: _canonical(column, table.columns) for column in table.columns}
    folder = source.absolute().parent
    for index, row in enumerate(table.rows):
        columns: Row = {names[column]: cell for column, cell in row.items() if column != path_column}
        for role, column in (("label", label_column), ("patient_id", patient_column)):
            if column is not None:
                columns.pop(names[column], None)
                columns[role] = row[column].strip()
        files = {name: _locate(folder, columns[name]) for name in ("mask", "ribless") if columns.get(name)}
        masks = (files["mask"],) if "mask" in files else ()
        record = Record(Path(table.place(index)), columns, "", masks=masks, ribless=files.get("ribless"))
        name = row[path_column].strip()
        if name:
            path = _locate(folder, name)
            record = replace(record, path=path, relative=Path(os.path.relpath(path, folder)).as_posix())
        yield record


def _find(table: Table, wanted: str | None, known: Sequence[str], flag: str) -> str | None:
    if wanted is not None:
        if wanted not in table.columns:
            raise InputError(f"{table.name}: {flag}: expected a column '{wanted}', found: {', '.join(table.columns)}")
        return wanted
    lowered = {column.lower(): column for column in reversed(table.columns)}
    return next((lowered[name] for name in known if name in lowered), None)


def _canonical(column: str, columns: Sequence[str]) -> str:
    lowered = column.lower()
    return lowered if lowered in COLUMNS and lowered not in columns else column


def _locate(folder: Path, name: str) -> Path:
    path = Path(os.path.normpath(folder / name))
    if not path.exists():
        in_images = Path(os.path.normpath(folder / "images" / name))
        if in_images.exists():
            return in_images
    return path
