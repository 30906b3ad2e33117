"""Table 1 of a study: who is in each group, what is missing, and how far the groups differ.

Age and sex are a patient's, the rest an image's. The last column is the largest standardised difference between two of
the groups (Austin 2009, Statistics in Medicine 28:3083): for a mean (m1 - m2) / sqrt((s1² + s2²) / 2), for a share
(p1 - p2) / sqrt((p1 q1 + p2 q2) / 2); empty where the denominator is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import sqrt
from statistics import fmean, stdev

from cxrtool.data.splitting.grouping import PATIENT, group_images
from cxrtool.data.splitting.splits import SUBSETS, Splits
from cxrtool.data.tables.manifest import Manifest, Row

CATEGORIES = ("label", "severity", "view", "source")
LEVELS = 12
"""Of a column with more values than this only the number of values is told."""


def table_one(
    rows: Sequence[Row],
    group_of: Mapping[str, str],
    columns: Sequence[str],
    categories: Sequence[str] = CATEGORIES,
    column: str = PATIENT,
) -> tuple[list[str], list[list[str]]]:
    """Compare groups of images.

    Args:
        rows: Rows of a manifest.
        group_of: The group of each image id, such as its subset; images that it lacks are left out.
        columns: The groups, in the order of the table's columns.
        categories: The columns of the manifest of which every value is counted.
        column: The column that names the patient.

    Returns:
        The header, and rows of text.
    """
    patients = dict(zip((row["image_id"] for row in rows), group_images(rows, column), strict=True))
    groups = [[row for row in rows if group_of.get(row["image_id"]) == name] for name in columns]
    groups.append([row for group in groups for row in group])
    people = [_people(group, patients) for group in groups]
    table = [
        ["images", *(str(len(group)) for group in groups), ""],
        ["patients", *(str(len(group)) for group in people), ""],
        *_numeric("age", people),
        *_categorical("sex", people),
    ]
    for name in categories:
        table += _categorical(name, [[row.get(name, "") for row in group] for group in groups])
    return ["", *columns, "all", "SMD"], table


def parse_age(cell: str) -> float | None:
    """An age in years, from a number or from DICOM's notation.

    >>> parse_age("65.0"), parse_age("045Y"), parse_age("18M"), parse_age("adult")
    (65.0, 45.0, 1.5, None)
    """
    cell = cell.strip().upper()
    unit = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}.get(cell[-1:])
    try:
        value = float(cell[:-1]) * unit if unit else float(cell)
    except ValueError:
        return None
    return value if 0 <= value < 150 else None


def _people(rows: Sequence[Row], patients: Mapping[str, int]) -> list[Row]:
    # One row a patient; of several images the first that tells.
    result: dict[int, Row] = {}
    for row in rows:
        known = result.setdefault(patients[row["image_id"]], {"age": "", "sex": ""})
        for name in known:
            known[name] = known[name] or row.get(name, "").strip()
    return list(result.values())


def _numeric(name: str, people: Sequence[Sequence[Row]]) -> list[list[str]]:
    values = [[age for row in group if (age := parse_age(row[name])) is not None] for group in people]
    if not any(values):
        return []
    cells = [f"{fmean(v):.1f} ± {stdev(v):.1f}" if len(v) > 1 else f"{v[0]:.1f}" if v else "" for v in values]
    ranges = [f"{min(v):g} to {max(v):g}" if v else "" for v in values]
    missing = [_share(len(group) - len(v), len(group)) for group, v in zip(people, values, strict=True)]
    moments = [(fmean(v), stdev(v) ** 2) for v in values[:-1] if len(v) > 1]
    absent = [[parse_age(row[name]) is None for row in group] for group in people[:-1]]
    return [
        [f"{name}, mean ± SD", *cells, _largest(moments)],
        [f"{name}, range", *ranges, ""],
        [f"{name} missing", *missing, _largest([_moments(group) for group in absent if group])],
    ]


def _categorical(name: str, groups: Sequence[Sequence[Row] | Sequence[str]]) -> list[list[str]]:
    values = [[cell if isinstance(cell, str) else cell[name] for cell in group] for group in groups]
    levels = sorted({value for value in values[-1] if value})
    if not levels:
        return []
    if len(levels) > LEVELS:
        return [[f"{name}, values", *(str(len(set(group) - {""})) for group in values), ""]]
    return [
        [
            f"{name} {level or 'missing'}",
            *(_share(group.count(level), len(group)) for group in values),
            _largest([_moments([value == level for value in group]) for group in values[:-1] if group]),
        ]
        for level in (*levels, "")
        if level or "" in values[-1]
    ]


def _share(count: int, whole: int) -> str:
    return f"{count} ({100 * count / whole:.1f} %)" if whole else "0"


def _moments(flags: Sequence[bool]) -> tuple[float, float]:
    share = sum(flags) / len(flags)
    return share, share * (1 - share)


def _largest(moments: Sequence[tuple[float, float]]) -> str:
    found = [
        abs(mean - other) / sqrt((variance + spread) / 2)
        for (mean, variance), (other, spread) in combinations(moments, 2)
        if variance + spread > 0
    ]
    return f"{max(found):.2f}" if found else ""


def table_of_study(manifest: Manifest, splits: Splits | None) -> tuple[tuple[list[str], list[list[str]]], list[str]]:
    """Table 1 by subset where the splits divide once, else by class; and what the reader should know of the choice."""
    run = next(iter(splits.runs)) if splits and len(splits.runs) == 1 else None
    if splits and run:
        subsets = splits.runs[run]
        return table_one(manifest.rows, subsets, [name for name in SUBSETS if name in subsets.values()]), []
    warnings = [f"{splits.name} divides {len(splits.runs)} times; Table 1 is by class"] if splits else []
    labels = {row["image_id"]: row.get("label", "") or "unlabelled" for row in manifest.rows}
    others = [name for name in CATEGORIES if name != "label"]
    return table_one(manifest.rows, labels, sorted(set(labels.values())), others), warnings
