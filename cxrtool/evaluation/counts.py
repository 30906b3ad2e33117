"""Confusion matrices as input of an evaluation, as papers print them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from cxrtool.errors import InputError
from cxrtool.evaluation.metrics.confusion import FloatArray

_HINT = "the first column has the true classes, the header the predicted classes: `true,normal,covid`"


def read_counts(path: Path) -> tuple[list[str], FloatArray]:
    """Read a confusion matrix: first column the true class, header the predicted classes, rows in any order.

    Returns:
        Classes in the order of the header, and (K, K) counts with rows = true.

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
        wrong = next((cell for cell in cells[1:] if not (cell.isascii() and cell.isdigit())), None)
        if wrong is not None:
            raise InputError(f"{line}: expected counts (0, 1, 2, …), found '{wrong}'", _HINT)
        rows[name] = [int(cell) for cell in cells[1:]]
    missing = [name for name in classes if name not in rows]
    if missing:
        raise InputError(f"{path}: expected one row for each class, found none for {', '.join(missing)}", _HINT)
    counts = np.array([rows[name] for name in classes], np.float64)
    if counts.sum() == 0:
        raise InputError(f"{path}: expected counts, found only zeros")
    return classes, counts


def draw_counts(counts: FloatArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Resample images within their true class: (B, K, K) with the same row sums, from (K, K) with rows = true."""
    drawn = []
    for row in counts:
        total = row.sum()
        share = row / total if total else np.full(len(row), 1 / len(row))
        drawn.append(rng.multinomial(int(total), share, size=resamples))
    return np.stack(drawn, axis=1).astype(np.float64)
