"""The first sheet of an Excel workbook (ECMA-376, part 1, SpreadsheetML) as text, for tables that come as no CSV.

Read with what Python has: a workbook is a ZIP archive of XML. Numbers come as they are stored; formulas by the value
that was kept with them. What would inflate beyond a bound, or declares entities, is refused.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from cxrtool.errors import InputError

LARGEST = 1 << 27
"""Bytes that one part of the archive may inflate to: a table of a million cells has some forty million."""

_SHEET = re.compile(r"xl/worksheets/sheet(\d+)\.xml")


def read_sheet(path: Path) -> list[dict[str, str]]:
    """One dictionary a row, by the cells of the first row; empty rows are left out.

    Raises:
        InputError: It is no workbook, damaged, or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sheets = sorted((int(match[1]), name) for name in archive.namelist() if (match := _SHEET.fullmatch(name)))
            if not sheets:
                raise InputError(f"{path}: expected an Excel workbook, found a ZIP archive without a sheet")
            shared: list[str] = []
            if "xl/sharedStrings.xml" in archive.namelist():
                shared = [_text(item) for item in _parse(archive, "xl/sharedStrings.xml", path)]
            rows = list(_rows(_parse(archive, sheets[0][1], path), shared))
    except (zipfile.BadZipFile, ElementTree.ParseError, OSError, ValueError, IndexError, NotImplementedError) as error:
        raise InputError(f"{path}: expected an Excel workbook (.xlsx), cannot read it: {error}") from error
    if not rows:
        return []
    names = {column: name.strip() for column, name in rows[0].items() if name.strip()}
    return [{name: row.get(column, "") for column, name in names.items()} for row in rows[1:] if any(row.values())]


def _parse(archive: zipfile.ZipFile, name: str, path: Path) -> ElementTree.Element:
    with archive.open(name) as part:
        data = part.read(LARGEST + 1)
    if len(data) > LARGEST or b"<!DOCTYPE" in data[:4096]:
        raise InputError(f"{path}: {name} in it is larger than any table, or declares entities")
    return ElementTree.fromstring(data)


def _rows(sheet: ElementTree.Element, shared: list[str]) -> Iterator[dict[str, str]]:
    for row in sheet.iter(_tag(sheet, "row")):
        cells: dict[str, str] = {}
        for position, cell in enumerate(row.iter(_tag(sheet, "c"))):
            column = re.sub(r"\d+", "", cell.get("r", "")) or str(position)
            kind, value = cell.get("t", "n"), cell.find(_tag(sheet, "v"))
            if kind == "inlineStr":
                cells[column] = _text(cell)
            elif value is not None and value.text is not None:
                cells[column] = shared[int(value.text)] if kind == "s" else value.text
        yield cells


def _text(element: ElementTree.Element) -> str:
    # Phonetic readings (rPh) repeat the text and are none of it.
    texts = (part for child in element if not child.tag.endswith("}rPh") for part in child.iter(_tag(element, "t")))
    return "".join(part.text or "" for part in texts)


def _tag(element: ElementTree.Element, name: str) -> str:
    namespace = element.tag.partition("}")[0] + "}" if element.tag.startswith("{") else ""
    return namespace + name
