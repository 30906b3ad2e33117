"""`csv`: any table with one row an image, with columns for its file and, where known, its class and patient."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from cxrtool.data.datasets.finding import Finder, listed
from cxrtool.data.datasets.record import BESIDE, Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.files import is_stream
from cxrtool.data.tables.ids import stem_of
from cxrtool.data.tables.manifest import COLUMNS, Row, Table, read_header, read_table
from cxrtool.data.tables.missing import ALWAYS, SOMETIMES, missing_words
from cxrtool.data.tables.people import sex_of, years_of
from cxrtool.data.tables.workbook import is_workbook, read_workbook
from cxrtool.errors import InputError, UsageError, count_of
from cxrtool.options import did_you_mean, one_of

AMBIGUOUS = "several files have this name"

_COMPUTED = ("width", "height", "sha256", "dhash", "warning", "parent_id", "generator", "repeat", "fold")
STANDARD = tuple(name for name in COLUMNS if name not in (*_COMPUTED, "mask_reference", "opacities_reference"))
"""The columns of a manifest that a table can give."""

PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "imagename", "img")
LABELS = ("label", "class", "target", "finding", "diagnosis")
_NUMBERS = ("age", "width", "height", "patient_id", "offset", "year")
"""Columns of numbers or ids, in which a word such as `None` shows what the table means by it."""

PATIENTS = ("patient_id", "patientid", "patient", "subject_id", "subject")


_SAMPLE = 20
"""Cells of a column that are tried as names of images."""


def parse_columns(text: str | None) -> dict[str, str]:
    """Read `--columns`: the name of the manifest, and the column of the table.

    A comma in the name of a column needs no escape.

    Raises:
        UsageError: A pair without `=`, a name that the manifest does not have, or one that is given twice.

    >>> parse_columns("path=Bild,label=Befund, gesichert")
    {'path': 'Bild', 'label': 'Befund, gesichert'}
    """
    found: dict[str, str] = {}
    for pair in re.split(r",(?=[^,=]*=)", text) if text and text.strip() else []:
        name, sign, column = (part.strip() for part in pair.partition("="))
        if not sign or not name or not column:
            raise UsageError(
                f"--columns: expected NAME=COLUMN with commas between, such as path=Bild,label=Befund, found '{pair}'"
            )
        one_of("--columns", name, STANDARD)
        if name in found:
            raise UsageError(f"--columns: expected one column for {name}, found {found[name]} and {column}")
        found[name] = column
    return found


@adapter("csv")
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield one record a row of a CSV table or of the first sheet of an Excel workbook.

    Relative paths are taken from the folder of `--images` or one below it, else from the table's folder or from
    `images/` beside it. A name needs no extension.

    Columns that the manifest knows are found whatever their case; all others pass through untouched. Age and sex get
    one spelling; words that stand for a missing id or label become empty, and ids that a program has turned into `7.0`
    whole numbers again. What was changed, and what could not be read, is told.

    Raises:
        InputError: No column of files was found, or a column of `--columns` is missing.
    """
    table = _read(source, request)
    folder = Path.cwd() if is_stream(source) else source.absolute().parent
    images = request.images.absolute() if request.images is not None else None
    finder = Finder([images] if images else [folder, folder / "images"], images, request.exclude)
    chosen = {role: _column(table, role, column) for role, column in request.columns.items()}
    path_column = chosen.get("path") or _find(table, PATHS)
    if path_column is None:
        raise _no_paths(table, finder, request)
    label_column = chosen.get("label") or _find(table, LABELS)
    patient_column = chosen.get("patient_id") or _find(table, PATIENTS)
    names = _names(table, chosen)
    cells = {
        "label": _labels(table, label_column, patient_column, request),
        "patient_id": _patients(table, patient_column, request),
        "age": _people(table, _one(names, "age"), "years", years_of, request),
        "sex": _people(table, _one(names, "sex"), "a sex", sex_of, request),
    }
    originals = {"label": label_column, "patient_id": patient_column}
    copied = {role: column for role, column in chosen.items() if role not in ("path", *originals)}
    for index, row in enumerate(table.rows):
        columns: Row = {names[column]: cell for column, cell in row.items() if column != path_column}
        columns |= {role: row[column].strip() for role, column in copied.items()}
        for role, column_of_role in cells.items():
            if column_of_role is not None:
                original = originals.get(role)
                if original and original not in copied.values():
                    columns.pop(names[original], None)
                columns[role] = column_of_role[index]
        named = {name: columns[name] for name in ("mask", *BESIDE) if columns.get(name)}
        files = {name: _beside(folder, images, cell) for name, cell in named.items()}
        masks = (files.pop("mask"),) if "mask" in files else ()
        record = Record(Path(table.place(index)), columns, "", masks=masks, beside=files)
        name = row[path_column].strip()
        if name:
            path, candidates = finder.find(name)
            doubt = f"{AMBIGUOUS}: {listed(candidates)}" if candidates else ""
            # Of real folders: an absolute path in a cell may go through other links than the table's own.
            relative = Path(os.path.relpath(_real(path), _real_folder(images or folder))).as_posix()
            record = replace(record, path=path, relative=relative, doubt=doubt)
        yield record


def describes_images(source: Path) -> bool:
    """Whether a table has a column of classes and one of files, of which the first all exist."""
    known = {name.lower() for name in read_header(source)}
    if known.isdisjoint(PATHS) or known.isdisjoint(LABELS):
        return False
    table = read_table(source)
    folder = source.absolute().parent
    finder = Finder([folder, folder / "images"])
    column = _find(table, PATHS) or ""
    names = [cell for cell in map(str.strip, table.column(column)[:_SAMPLE]) if cell]
    return bool(names) and all(finder.find(name)[0].is_file() for name in names)


def _real(path: Path) -> str:
    """The path with the real folder, where the file itself may be a link."""
    folder, name = os.path.split(os.path.normpath(path))
    return os.path.join(_real_folder(folder), name)  # noqa: PTH118


@lru_cache(4096)
def _real_folder(folder: Path | str) -> str:
    return os.path.realpath(folder)


def _read(source: Path, request: Request) -> Table:
    if not is_workbook(source):
        return read_table(source)
    table, others = read_workbook(source)
    if others:
        request.warnings.append(
            f"{source}: only the first sheet is read; not read: {', '.join(others)} (save a sheet as a file of its own)"
        )
    return table


def _column(table: Table, role: str, wanted: str) -> str:
    """The column of the table that `--columns` names for a role; spaces and upper or lower case do not matter."""
    if wanted in table.columns:
        return wanted
    alike = [column for column in table.columns if _plain_name(column) == _plain_name(wanted)]
    if len(alike) == 1:
        return alike[0]
    found, meant = ", ".join(table.columns), did_you_mean(wanted, table.columns)
    raise InputError(f"{table.name}: --columns {role}={wanted}: expected this column, found: {found}{meant}")


def _plain_name(column: str) -> str:
    return " ".join(unicodedata.normalize("NFC", column).casefold().split())


def _find(table: Table, known: Sequence[str]) -> str | None:
    lowered = {column.lower(): column for column in reversed(table.columns)}
    return next((lowered[name] for name in known if name in lowered), None)


def _no_paths(table: Table, finder: Finder, request: Request) -> InputError:
    """The error for a table without a known column of files, with the option for the column that looks like it."""
    found = ", ".join(table.columns)
    given = "".join(f",{role}={column}" for role, column in request.columns.items())
    guess = next((column for column in table.columns if _names_images(table.column(column), finder)), "COLUMN")
    return InputError(
        f"{table.name}: expected a column of image files, such as path or file, found: {found}",
        f"name it with --columns {shlex.quote(f'path={guess}{given}')}",
    )


def _names_images(cells: Sequence[str], finder: Finder) -> bool:
    names = [cell.strip() for cell in cells if cell.strip()][:_SAMPLE]
    found = [name for name in names if stem_of(name) != name or _exists(finder.find(name))]
    return len(found) > len(names) / 2


def _exists(found: tuple[Path, list[str]]) -> bool:
    path, candidates = found
    return bool(candidates) or path.is_file()


def _names(table: Table, chosen: Mapping[str, str]) -> dict[str, str]:
    """What each column is called in the manifest.

    A column that has the name of the manifest, but is not the one that `--columns` chose for it, keeps its cells under
    another name.
    """
    names: dict[str, str] = {}
    for column in table.columns:
        name = _canonical(column, table.columns)
        if name in chosen and chosen[name] != column:
            name = f"{name}_of_table"
        names[column] = next((role for role, of_role in chosen.items() if of_role == column), name)
    return names


def _one(names: Mapping[str, str], role: str) -> str | None:
    return next((column for column, name in names.items() if name == role), None)


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
        request.remarks.append(f"{name} is {words} in {count_of(found.total(), 'row')}: these {meaning}")
    return ["" if cell in found else cell for cell in cells]


def _people(
    table: Table, column: str | None, what: str, spelled: Callable[[str], str], request: Request
) -> list[str] | None:
    """Ages or sexes in one spelling; what cannot be read stays as it is and is counted."""
    if column is None:
        return None
    cells = [cell.strip() for cell in table.column(column)]
    missing = missing_words(cells) | SOMETIMES | ALWAYS
    cells = ["" if cell.casefold() in missing else cell for cell in cells]
    unread = [cell for cell in cells if cell and not spelled(cell)]
    if unread:
        request.remarks.append(
            f"{table.name}: '{column}' cannot be read as {what} in "
            f"{count_of(len(unread), 'row')}, such as '{unread[0]}'; "
            "these cells stay as they are"
        )
    return [cell if _plain(cell) else spelled(cell) or cell for cell in cells]


def _plain(cell: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", cell) is not None


def _beside(folder: Path, images: Path | None, name: str) -> Path:
    """The mask or rib-free image of a cell: beside the table, in `images/` there, or in the folder of `--images`.

    Subfolders are not searched, because a mask often has the name of its image.
    """
    return Finder([folder, folder / "images", *([images] if images else [])]).find(name)[0]
