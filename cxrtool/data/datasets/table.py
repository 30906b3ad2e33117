"""`csv`: any table with one row an image, with columns for its file and, where known, its class and patient."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.files import existing
from cxrtool.data.tables.manifest import COLUMNS, Row, Table, read_table
from cxrtool.data.tables.missing import ALWAYS, SOMETIMES, missing_words
from cxrtool.data.tables.people import sex_of, years_of
from cxrtool.errors import InputError

PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "imagename", "img")
LABELS = ("label", "class", "target", "finding", "diagnosis")
_NUMBERS = ("age", "width", "height", "patient_id", "offset", "year")
"""Columns of numbers or ids, in which a word such as `None` shows what the table means by it."""

PATIENTS = ("patient_id", "patientid", "patient", "subject_id", "subject")


@adapter("csv")
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield one record a row; relative paths are taken from the table's folder, or from `images/` beside it.

    Columns that the manifest knows are found whatever their case; all others pass through untouched. Age and sex get
    one spelling; words that stand for a missing id or label become empty, and ids that a program has turned into `7.0`
    whole numbers again. What was changed, and what could not be read, is told.

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
    cells = {
        "label": _labels(table, label_column, patient_column, request),
        "patient_id": _patients(table, patient_column, request),
        "age": _people(table, names, "age", "years", years_of, request),
        "sex": _people(table, names, "sex", "a sex", sex_of, request),
    }
    originals = {"label": label_column, "patient_id": patient_column}
    for index, row in enumerate(table.rows):
        columns: Row = {names[column]: cell for column, cell in row.items() if column != path_column}
        for role, column_of_role in cells.items():
            if column_of_role is not None:
                original = originals.get(role)
                columns.pop(names[original] if original else role, None)
                columns[role] = column_of_role[index]
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


def _labels(table: Table, column: str | None, patients: str | None, request: Request) -> list[str] | None:
    """The classes, empty where a word stands for none.

    A class may be called `None` or `NA`: these words are missing labels only where the table uses them so in a column
    of ids or numbers.
    """
    if column is None:
        return None
    cells = [unicodedata.normalize("NFC", cell.strip()) for cell in table.column(column)]
    others = [name for name in table.columns if name != column and (name == patients or name.lower() in _NUMBERS)]
    shown = frozenset().union(*(missing_words(table.column(name)) for name in others))
    missing = ALWAYS | (SOMETIMES & shown)
    return _without(cells, missing, f"{table.name}: '{column}'", "images have no label", request)


def _patients(table: Table, column: str | None, request: Request) -> list[str] | None:
    if column is None:
        return None
    cells = [cell.strip() for cell in table.column(column)]
    name = f"{table.name}: '{column}'"
    cells = _without(cells, missing_words(cells), name, "images have no patient", request)
    filled = [cell for cell in cells if cell]
    if filled and all(re.fullmatch(r"\d+\.0+", cell) for cell in filled):
        request.remarks.append(f"{name} has ids such as {filled[0]}, as a program wrote them: read as whole numbers")
        cells = [cell.partition(".")[0] for cell in cells]
    return cells


def _without(cells: list[str], missing: frozenset[str], name: str, meaning: str, request: Request) -> list[str]:
    found = Counter(cell for cell in cells if cell.casefold() in missing)
    if found:
        words = ", ".join(f"'{word}'" for word in sorted(found))
        request.remarks.append(f"{name} is {words} in {found.total()} rows: these {meaning}")
    return ["" if cell in found else cell for cell in cells]


def _people(
    table: Table, names: Mapping[str, str], role: str, what: str, spelled: Callable[[str], str], request: Request
) -> list[str] | None:
    """Ages or sexes in one spelling; what cannot be read stays as it is and is counted."""
    column = next((column for column in table.columns if names[column] == role), None)
    if column is None:
        return None
    cells = [cell.strip() for cell in table.column(column)]
    missing = missing_words(cells) | SOMETIMES | ALWAYS
    cells = ["" if cell.casefold() in missing else cell for cell in cells]
    unread = [cell for cell in cells if cell and not spelled(cell)]
    if unread:
        request.remarks.append(
            f"{table.name}: '{column}' cannot be read as {what} in {len(unread)} rows, such as '{unread[0]}'; "
            "these cells stay as they are"
        )
    return [cell if _plain(cell) else spelled(cell) or cell for cell in cells]


def _plain(cell: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", cell) is not None


def _locate(folder: Path, name: str) -> Path:
    """The file of a cell: beside the table or in `images/` there, in either Unicode form, also by a Windows path."""
    names = [name]
    if "\\" in name:
        parts = PureWindowsPath(name)
        tail = parts.parts[1:] if parts.anchor else parts.parts
        # An absolute path of another machine: its end may exist here.
        names += ["/".join(tail[start:]) for start in range(len(tail) if parts.anchor else 1)]
    for candidate in names:
        for base in (folder, folder / "images"):
            path = existing(Path(os.path.normpath(base / candidate)))
            if path is not None:
                return path
    return Path(os.path.normpath(folder / names[-1 if len(names) == 2 else 0]))
