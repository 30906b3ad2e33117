"""Groups of images by a column, and the trend of accuracy over ordered strata."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.tables.missing import missing_words
from cxrtool.data.tables.people import sex_of, years
from cxrtool.data.tables.severity import ESTIMATED, SEVERITIES, SEVERITY
from cxrtool.errors import InputError, UsageError, count_of
from cxrtool.evaluation.metrics.confusion import divide
from cxrtool.evaluation.resampling.influence import ENOUGH_PATIENTS
from cxrtool.evaluation.resampling.intervals import DIGITS
from cxrtool.evaluation.scores import Scores
from cxrtool.options import did_you_mean

NONE = "(none)"
ESTIMATE = f"{ESTIMATED}: read from the pixels of these images, by a fit that saw none of them; nobody rated them."

PERMUTATIONS = 10_000


@dataclass(frozen=True)
class Grouping:
    """A column to group by.

    Attributes:
        column: Name.
        edges: For numbers: the lower ends of the bins; the last bin is open.
        order: For words: their order, from least to most.
    """

    column: str
    edges: tuple[float, ...] = ()
    order: tuple[str, ...] = ()


def parse_groupings(text: str, option: str = "--by") -> list[Grouping]:
    """Read `--by`: columns separated by commas; numbers after a colon are bins, words with slashes an order.

    `option` is the one with the text, for messages.

    Raises:
        UsageError: A column is listed twice, or edges do not rise.

    >>> [g.column for g in parse_groupings("severity,age:0,40,65,view")]
    ['severity', 'age', 'view']
    >>> parse_groupings("age:0,40,65")[0].edges
    (0.0, 40.0, 65.0)
    >>> parse_groupings("grade:low/mid/high")[0].order
    ('low', 'mid', 'high')
    """
    found: list[tuple[str, list[str]]] = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        column, colon, rest = part.partition(":")
        if colon:
            found.append((column.strip(), [rest.strip()]))
        elif found and found[-1][1] and _number(part) is not None:
            found[-1][1].append(part)
        else:
            found.append((part, []))
    result: list[Grouping] = []
    for column, parts in found:
        if not column or column in (grouping.column for grouping in result):
            found_instead = f"'{column}' twice" if column else "a colon without a column before it"
            raise UsageError(f"{option}: expected each column once, found {found_instead}")
        numbers = [_number(part) for part in parts]
        edges = tuple(number for number in numbers if number is not None)
        if parts and len(edges) == len(parts):
            if any(later <= earlier for earlier, later in pairwise(edges)):
                raise UsageError(f"{option} {column}: expected rising numbers, found {', '.join(parts)}")
            result.append(Grouping(column, edges))
        else:
            order = tuple(word.strip() for word in "/".join(parts).split("/") if word.strip())
            result.append(Grouping(column, (), order))
    return result


def split_by(scores: Scores, grouping: Grouping) -> list[tuple[str, NDArray[np.bool_]]]:
    """Name and rows of every group that has images, in order; images without a value are last, as `(none)`.

    Raises:
        InputError: No row has the column.
    """
    column = grouping.column
    columns = scores.rows.cells
    if column not in columns:
        known = ", ".join(sorted(columns))
        raise InputError(
            f"--by {column}: expected a column of the predictions, found only {known}{did_you_mean(column, columns)}",
            "add the column to the manifest: `train` and `predict` copy it to the predictions",
        )
    # Each different cell is read once.
    known_cells, index = _different(columns[column])
    cells, names = read_strata(known_cells, grouping)
    masks = [(name, np.array([(cell or NONE) == name for cell in cells], np.bool_)[index]) for name in [*names, NONE]]
    return [(name, mask) for name, mask in masks if mask.any()]


def read_strata(cells: Sequence[str], grouping: Grouping) -> tuple[list[str], list[str]]:
    """The stratum of each cell of a column, empty where it has no value; and the names of all strata, in order.

    >>> read_strata(["41", "", "39", "n/a"], Grouping("age", (40.0,)))
    (['40 and over', '', 'under 40', ''], ['under 40', '40 and over'])
    """
    if grouping.column.lower() == "sex":
        cells = [sex_of(cell) or cell for cell in cells]
    missing = missing_words(cells)
    found = ["" if cell.casefold() in missing else cell for cell in cells]
    if grouping.edges:
        return [_bin(cell, grouping.edges) for cell in found], strata_of(grouping)
    return found, _ordered(set(found) - {""}, grouping)


def strata_of(grouping: Grouping) -> list[str]:
    """The strata that a grouping names, from least to most; none where it is only a column.

    >>> strata_of(Grouping("grade", order=("low", "high"))), strata_of(Grouping("source"))
    (['low', 'high'], [])
    """
    return _bin_names(grouping.edges) if grouping.edges else list(grouping.order)


def available(scores: Scores, grouping: Grouping) -> Grouping:
    """The grouping itself; by estimated severities where it is by severity and no image was rated.

    So rated and estimated severities are never in one table, and the name of the column tells them apart.
    """
    cells = scores.rows.cells
    if grouping.column != SEVERITY or grouping.edges or _has_values(cells.get(SEVERITY, ())):
        return grouping
    return replace(grouping, column=ESTIMATED) if _has_values(cells.get(ESTIMATED, ())) else grouping


def _has_values(cells: Sequence[str]) -> bool:
    different = set(cells) - {""}
    return bool({cell.casefold() for cell in different} - missing_words(different))


def unread(scores: Scores, grouping: Grouping) -> list[str]:
    """Notes on cells that are no numbers where numbers are grouped, and on severities that nobody rated."""
    if grouping.column == ESTIMATED:
        return [ESTIMATE]
    if not grouping.edges:
        return []
    cells = [cell.strip() for cell in scores.rows.cells.get(grouping.column, ())]
    missing = missing_words(set(cells))
    found = [cell for cell in cells if cell and cell.casefold() not in missing and number_of(cell) is None]
    if not found:
        return []
    return [
        f"{count_of(len(found), 'cell')} of '{grouping.column}' without "
        f"a number, such as '{found[0]}': these images are in the "
        f"group {NONE}."
    ]


def is_ordered(names: Sequence[str], grouping: Grouping) -> bool:
    """Whether strata have an order in which a trend can be tested: severities, numbers, or a given order."""
    if grouping.order:
        return set(names) <= set(grouping.order)
    if grouping.column not in (SEVERITY, ESTIMATED):
        return False
    return all(name.lower() in SEVERITIES for name in names) or all(_number(name) is not None for name in names)


def trend(
    scores: Scores, strata: Sequence[tuple[str, NDArray[np.bool_]]], *, seed: int = 0, permutations: int = PERMUTATIONS
) -> dict[str, Any]:
    """Permutation test of a trend of accuracy over ordered strata, whose units are patients.

    Each patient has a mean rank of strata and a mean accuracy over images and repeats. The statistic is their
    covariance; the ranks are permuted among the patients. `strata` has the name and the rows, from least to most.

    Returns:
        `slope` (change of accuracy per step), two-sided `p`, `patients`, `permutations` (None: p is from the normal
        distribution that they have with many patients), `strata`, `reason`.
    """
    result: dict[str, Any] = {"strata": [name for name, _ in strata], "slope": None, "p": None, "patients": 0}
    result |= {"permutations": permutations, "reason": None}
    if len(strata) < 2:
        return result | {"reason": "fewer than two strata"}
    inside = np.any([mask for _, mask in strata], axis=0)
    part = scores.where(inside)
    rank = np.select([mask[inside] for _, mask in strata], [float(i) for i in range(len(strata))])
    right = (part.truth == part.predicted).astype(np.float64)
    rows = np.bincount(part.patient).astype(np.float64)
    x = divide(np.bincount(part.patient, rank).astype(np.float64), rows)
    y = divide(np.bincount(part.patient, right).astype(np.float64), rows)
    x, y = x - x.mean(), y - y.mean()
    result["patients"] = len(x)
    if np.ptp(x) < 1e-12 or np.ptp(y) < 1e-12:
        return result | {"reason": "every patient has the same " + ("stratum" if np.ptp(x) < 1e-12 else "accuracy")}
    observed = float(x @ y)
    slope = round(observed / float(x @ x), DIGITS)
    if scores.many and len(x) >= ENOUGH_PATIENTS:
        # The normal distribution that the permutations have with many patients (Hoeffding 1951).
        z = abs(observed) / math.sqrt(float(x @ x) * float(y @ y) / (len(x) - 1))
        return result | {"permutations": None, "slope": slope, "p": round(math.erfc(z / math.sqrt(2)), DIGITS)}
    rng = np.random.default_rng(seed)
    extreme, chunk = 0, max(1, 1_000_000 // len(x))
    for begin in range(0, permutations, chunk):
        count = min(chunk, permutations - begin)
        permuted = rng.permuted(np.tile(x, (count, 1)), axis=1) @ y
        extreme += int((np.abs(permuted) >= abs(observed) - 1e-12).sum())
    return result | {"slope": slope, "p": round((1 + extreme) / (1 + permutations), DIGITS)}


def number_of(text: str) -> float | None:
    """A number, also with a decimal comma or as an age with its unit; None for all else.

    >>> number_of("40,5"), number_of("045Y"), number_of("-3"), number_of("50+")
    (40.5, 45.0, -3.0, None)
    """
    plain = text.strip().replace(",", ".")
    number = _number(plain)
    return number if number is not None else years(plain)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)", text.strip()) else None


def _different(cells: Sequence[str]) -> tuple[list[str], NDArray[np.intp]]:
    """The different cells, without outer blanks, and the index (n,) among them of every cell."""
    codes: dict[str, int] = {}
    index = np.fromiter((codes.setdefault(cell, len(codes)) for cell in cells), np.intp, len(cells))
    return [cell.strip() for cell in codes], index


def _ordered(names: set[str], grouping: Grouping) -> list[str]:
    order = grouping.order or (SEVERITIES if grouping.column in (SEVERITY, ESTIMATED) else ())

    def key(name: str) -> tuple[int, float, str]:
        known = name if grouping.order else name.lower()
        number = _number(name)
        return (order.index(known) if known in order else len(order), number if number is not None else 1e300, name)

    return sorted(names, key=key)


def _bin(cell: str, edges: tuple[float, ...]) -> str:
    value = number_of(cell)
    if value is None:
        return ""
    return _bin_names(edges)[int(np.searchsorted(edges, value, side="right"))]


def _bin_names(edges: tuple[float, ...]) -> list[str]:
    shown = [f"{edge:g}" for edge in edges]
    inner = [f"{low} to under {high}" for low, high in pairwise(shown)]
    return [f"under {shown[0]}", *inner, f"{shown[-1]} and over"]
