"""`covidgr`: COVIDGR-1.0 (Tabik et al. 2020): folders `P` and `N`, and a table with the severities of the positives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cxrtool.data.datasets import folder
from cxrtool.data.datasets.layout import misfit
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.tables.ids import stem_of
from cxrtool.data.tables.manifest import read_table
from cxrtool.data.tables.severity import SEVERITIES
from cxrtool.errors import InputError

LABELS = ("P", "N")
TABLE = "severity.csv"


@adapter("covidgr", mark=lambda root: (root / "P").is_dir() and (root / "N").is_dir())
def read(root: Path, request: Request) -> Iterator[Record]:
    """Yield the images of both classes; severities are in lower case, and there are no patient ids.

    A severity without an image and an image without a severity are accepted: published copies lack some of both.

    Raises:
        InputError: There is neither `P` nor `N`, or the table has a severity other than these four.
    """
    if not any((root / label).is_dir() for label in LABELS):
        raise misfit(root, "covidgr", "the folders P and N")
    severities = _severities(root / TABLE)
    for label in LABELS:
        if (root / label).is_dir():
            for record in folder.read(root / label, request):
                columns = {"label": label}
                if label == "P":
                    columns["severity"] = severities.get(_key(record.path.name), "")
                yield replace(record, columns=columns, relative=f"{label}/{record.relative}")


def _severities(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    table = read_table(path)
    names = {column.strip().lower(): column for column in table.columns}
    if "name" not in names or "severity" not in names:
        found = ", ".join(table.columns)
        raise InputError(f"{table.name}: expected the columns Name and Severity, found: {found}")
    result = {}
    for index, row in enumerate(table.rows):
        severity = row[names["severity"]].strip().lower()
        if severity and severity not in SEVERITIES:
            known = ", ".join(SEVERITIES)
            raise InputError(f"{table.place(index)}: expected a severity of {known}, found '{severity}'")
        result[_key(row[names["name"]])] = severity
    return result


def _key(name: str) -> str:
    return stem_of(name.strip()).lower()
