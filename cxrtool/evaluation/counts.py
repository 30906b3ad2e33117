"""Confusion matrices as input of an evaluation, as papers print them."""

from __future__ import annotations

import csv
import re
from itertools import zip_longest
from pathlib import Path

import numpy as np

from cxrtool.errors import InputError
from cxrtool.evaluation.metrics.confusion import FloatArray

_PREDICTED = re.compile(r"pred\w*|y_pred|ŷ|output|classified|test result", re.IGNORECASE)
_TRUE = re.compile(r"true|truth|actual\w*|reference|observed|gold|target|label|y_true|y|class", re.IGNORECASE)
_TOTALS = {"all", "total", "totals", "sum", "sums", "row total", "column total", "n", "σ", "summe", "gesamt", "somme"}

_HINT = "the first column has the true classes, the header the predicted classes: `true,normal,covid`"


def read_counts(path: Path) -> tuple[list[str], FloatArray, list[str]]:
    """Read a confusion matrix: first column the true class, header the predicted classes, rows in any order.

    A table whose first cell says that its rows are the predictions, as caret and yardstick print it, is turned; a row
    or column of totals is left out. Both are told.

    Returns:
        Classes in the order of the header, (K, K) counts with rows = true, and what was turned or left out, in words.

    Raises:
        InputError: Not such a table; the message has the line number.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected a CSV table as text, found binary data", _HINT) from error
    delimiter = max((",", ";", "\t"), key=text.split("\n", 1)[0].count)
    lines = [
        (number, [cell.strip() for cell in cells])
        for number, cells in enumerate(csv.reader(text.splitlines(), delimiter=delimiter), 1)
        if any(cell.strip() for cell in cells)
    ]
    if not lines:
        raise InputError(f"{path}: expected a confusion matrix, found an empty file", _HINT)
    turned = _rows_are_predictions(lines[0][1][0], path)
    notes = ["The first cell says that rows are predicted and columns true classes: the table was turned."] * turned
    lines = _without_totals(lines, path, notes)
    classes = lines[0][1][1:]
    if len(classes) < 2 or len(set(classes)) < len(classes) or not all(classes):
        raise InputError(f"{path}, line 1: expected two or more different classes, found {', '.join(classes)}", _HINT)
    rows: dict[str, list[int]] = {}
    for number, cells in lines[1:]:
        line, name = f"{path}, line {number}", cells[0]
        if name not in classes or name in rows:
            problem = f"'{name}' a second time" if name in rows else f"'{name}'"
            raise InputError(f"{line}: expected one row for each of {', '.join(classes)}, found {problem}", _HINT)
        if len(cells) != len(classes) + 1:
            raise InputError(f"{line}: expected {len(classes)} counts, found {len(cells) - 1}", _HINT)
        wrong = next((cell for cell in cells[1:] if _count(cell) is None), None)
        if wrong is not None:
            raise InputError(f"{line}: expected counts (0, 1, 2, …), found '{wrong}'", _HINT)
        rows[name] = [_count(cell) or 0 for cell in cells[1:]]
    missing = [name for name in classes if name not in rows]
    if missing:
        raise InputError(f"{path}: expected one row for each class, found none for {', '.join(missing)}", _HINT)
    counts = np.array([rows[name] for name in classes], np.float64)
    if counts.sum() == 0:
        raise InputError(f"{path}: expected counts, found only zeros")
    return classes, counts.T if turned else counts, notes


def _count(cell: str) -> int | None:
    """A whole number that is not negative, also as pandas writes it with a fraction of zero."""
    found = re.fullmatch(r"(\d+)(\.0+)?", cell, re.ASCII)
    return int(found[1]) if found else None


def _rows_are_predictions(corner: str, path: Path) -> bool:
    """Whether the first cell says that rows are predictions.

    Raises:
        InputError: It names the predictions, but not clearly as rows or columns.
    """
    parts = [part.strip() for part in re.split(r"[\\/|,;:>()]+|\bvs\.?\b", corner) if part.strip()]
    kinds = ["p" if _PREDICTED.search(part) else "t" if _TRUE.search(part) else "" for part in parts]
    if "p" not in kinds:
        return False
    # In two names the first is of the rows, as in `predicted \\ true`; a single one names its own column.
    if kinds in (["p"], ["p", "t"]):
        return True
    if kinds == ["t", "p"]:
        return False
    raise InputError(f"{path}, line 1: expected true classes in the rows, found '{corner}'", _HINT)


Line = tuple[int, list[str]]


def _without_totals(lines: list[Line], path: Path, notes: list[str]) -> list[Line]:
    """The table without a row or column that holds the sums of the others.

    Raises:
        InputError: A row or column is called a total, and its numbers are not the sums of the others.
    """
    named = set(_TOTALS)
    for what in ("column", "row"):
        tables = [cells for _, cells in lines]
        grid = tables if what == "row" else [list(cells) for cells in zip_longest(*tables, fillvalue="")]
        place = next((k for k in range(1, len(grid)) if grid[k][0].casefold() in named), None)
        names = [cells[0] for cells in grid[1:]]
        both = {cells[0] for cells in tables[1:]} & set(tables[0][1:])
        if place is None and len(grid) > 3 and _sums(grid, len(grid) - 1) and names[-1] in both:
            # Also under another name, where the last row and the last column both are sums.
            other = [list(cells) for cells in zip_longest(*grid, fillvalue="")]
            place = len(grid) - 1 if _sums(other, len(other) - 1) else None
        if place is None:
            continue
        if not _sums(grid, place):
            raise InputError(
                f"{path}: expected the {what} '{grid[place][0]}' to hold the sums of the others, found other numbers",
                "leave it out, or rename it if it is a class",
            )
        # A row is then called what its column is called.
        named.add(grid[place][0].casefold())
        notes.append(f"The {what} '{grid[place][0]}' holds the sums of the others and was left out.")
        del grid[place]
        kept = grid if what == "row" else [list(cells) for cells in zip_longest(*grid, fillvalue="")]
        numbers = [number for number, _ in lines]
        if what == "row":
            del numbers[place]
        lines = list(zip(numbers, kept, strict=True))
    return lines


def _sums(grid: list[list[str]], place: int) -> bool:
    """Whether a row holds the sum of all other rows, in every column."""
    found = []
    for column in range(1, len(grid[0])):
        cells = [_count(row[column]) if column < len(row) else None for row in grid[1:]]
        total = cells.pop(place - 1)
        numbers = [cell for cell in cells if cell is not None]
        if total is None or len(numbers) < len(cells):
            return False
        found.append(total == sum(numbers))
    return bool(found) and all(found)


def draw_counts(counts: FloatArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Resample images within their true class: (B, K, K) with the same row sums, from (K, K) with rows = true."""
    drawn = []
    for row in counts:
        total = row.sum()
        share = row / total if total else np.full(len(row), 1 / len(row))
        drawn.append(rng.multinomial(int(total), share, size=resamples))
    return np.stack(drawn, axis=1).astype(np.float64)
