"""An Excel workbook (.xlsx) as a table of text: its first sheet, with the first row as header.

A cell that is text stays as it is, so the id `001` stays `001`; a number that Excel shows with leading zeros has them,
too. A whole number has no fraction (`7`, not `7.0`), a date is written as 2020-03-31, a formula is its last value.
"""

from __future__ import annotations

import datetime
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxrtool.data.archives import check_archive
from cxrtool.data.file_names import IMPORT_HINT, WEIGHTS
from cxrtool.data.files import no_such
from cxrtool.data.tables.manifest import Row, Table
from cxrtool.errors import InputError

SUFFIXES = (".xlsx", ".xlsm")
LARGEST = 1 << 27
"""Largest uncompressed size of a workbook in bytes; a table of a million cells has about forty million."""

ELEMENTS = 1 << 24
"""Most XML tags in all of its parts; a cell has four to six."""

CELLS = 1 << 22
"""Most cells of a sheet, with the empty ones before the last of each row."""

ROWS = 1 << 20
"""Rows of an Excel sheet; a damaged file may claim more."""

_MARK = "[Content_Types].xml"
_AS_CSV = "save the table as CSV UTF-8"
_ZIP, _OLD = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"


def is_workbook(path: Path) -> bool:
    """Whether a file is an Excel workbook, by its name or by its first bytes."""
    if path.suffix.lower() in (*SUFFIXES, ".xls"):
        return True
    if not path.is_file():
        # Opening a pipe would take from it, or wait.
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) in (_ZIP, _OLD)
    except OSError:
        return False


def check_workbook(path: Path, largest: int = LARGEST, elements: int = ELEMENTS) -> None:
    """Raise an `InputError` for a workbook that is too large or declares XML entities."""
    parts = check_archive(path, largest, "a workbook")
    if not any(part.filename == _MARK for part in parts):
        weights = path.suffix.lower() in WEIGHTS
        found = "a file of weights" if weights else "a ZIP archive that is no workbook"
        raise InputError(f"{path}: expected a table, found {found}", IMPORT_HINT if weights else None)
    tags = 0
    with zipfile.ZipFile(path) as archive:
        for part in parts:
            if not part.filename.endswith((".xml", ".rels")):
                continue
            with archive.open(part) as content:
                start = True
                while data := content.read(1 << 20):
                    if start and b"<!DOCTYPE" in data[:4096]:
                        raise InputError(f"{path}: the workbook declares XML entities, as Excel never does")
                    start = False
                    tags += data.count(b"<")
            if tags > elements:
                raise InputError(f"{path}: the workbook is too large: it has more than {elements:,} XML tags", _AS_CSV)


def read_workbook(path: Path) -> tuple[Table, list[str]]:
    """The first sheet of a workbook, and the names of the others.

    Raises:
        InputError: No such file, no workbook, damaged, an older format, no header, or a repeated column.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a file, found a folder" if path.is_dir() else no_such(path))
    with path.open("rb") as file:
        if file.read(4) == _OLD:
            raise InputError(
                f"{path}: expected an Excel workbook (.xlsx), found the format of Excel before 2007, or a password",
                "save it in Excel as .xlsx without a password, or as CSV UTF-8",
            )
    try:
        import openpyxl
    except ImportError:
        raise InputError(
            f"{path}: an Excel workbook is read with openpyxl, which is not installed",
            "install it with `pip install openpyxl`, or save the table as CSV UTF-8",
        ) from None
    try:
        check_workbook(path)
        with warnings.catch_warnings():
            # It warns of styles and drop-down lists, which are not needed.
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            sheets = book.worksheets
            texts = _texts(sheets[0], path) if sheets else []
            others = [str(sheet.title) for sheet in sheets[1:]]
            book.close()
    except InputError:
        raise
    except Exception as error:
        # On damaged files openpyxl raises anything from KeyError to the error of its XML parser.
        raise InputError(f"{path}: expected an Excel workbook (.xlsx), cannot read it: {error}") from error
    return _table(path, texts, others), others


def _texts(sheet: Any, path: Path) -> list[list[str]]:
    """The cells of a sheet as text, row by row, each row up to its last cell.

    Raises:
        InputError: It has more than `CELLS`, counting the empty ones before the last of each row.
    """
    # The sheet may claim a million rows of 16,384 columns, which then are all filled up.
    sheet.reset_dimensions()
    texts, count = [], 0
    for row in sheet.iter_rows(max_row=ROWS):
        count += len(row)
        if count > CELLS:
            raise InputError(f"{path}: the workbook is too large: its sheet has more than {CELLS:,} cells", _AS_CSV)
        texts.append([_text(cell) for cell in row])
    return texts


def _table(path: Path, texts: Sequence[Sequence[str]], others: Sequence[str]) -> Table:
    first = next((index for index, row in enumerate(texts) if any(row)), None)
    if first is None:
        more = f"the others are {', '.join(others)}: move the table to the front" if others else None
        raise InputError(f"{path}: expected a table with a header in the first sheet, found an empty sheet", more)
    header = [" ".join(cell.split()) for cell in texts[first]]
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise InputError(f"{path}, row {first + 1}: the column '{repeated[0]}' is listed twice in the header")
    rows: list[Row] = []
    lines = []
    for index, row in enumerate(texts[first + 1 :], first + 2):
        if any(row):
            row = [*row, *[""] * (len(header) - len(row))]
            rows.append({name: cell for name, cell in zip(header, row, strict=False) if name})
            lines.append(index)
    return Table([name for name in header if name], rows, path, lines)


def _text(cell: Any) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float | int):
        if isinstance(value, float) and not value.is_integer():
            return repr(value)
        zeros = re.fullmatch(r"0+", str(cell.number_format or ""))
        return f"{int(value):0{len(zeros[0]) if zeros else 1}d}"
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat(*[" "] * isinstance(value, datetime.datetime))
    return str(value)
