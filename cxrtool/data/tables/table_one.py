"""Table 1 of a study: characteristics of each group, missing values, and how much the groups differ.

Age and sex are counted by patient, the rest by image. The last column is the largest standardised mean difference
between two groups (Austin 2009, Statistics in Medicine 28:3083): for a mean (m1 - m2) / sqrt((s1² + s2²) / 2), for a
share (p1 - p2) / sqrt((p1 q1 + p2 q2) / 2); empty where the denominator is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import sqrt
from typing import TYPE_CHECKING

from cxrtool.data.splitting.grouping import PATIENT, group_images
from cxrtool.data.splitting.splits import SUBSETS, Splits
from cxrtool.data.tables.manifest import Manifest, Table
from cxrtool.data.tables.people import sex_of, years
from cxrtool.data.tables.severity import SEVERITIES, SEVERITY
from cxrtool.errors import count_of

if TYPE_CHECKING:
    import pandas as pd

CATEGORIES = ("label", "severity", "view", "source")
LEVELS = 12
"""Of a column with more values than this, only the number of values is shown."""

_SIDE = "side"


def table_one(
    images: Table,
    group_of: Mapping[str, str],
    columns: Sequence[str],
    categories: Sequence[str] = CATEGORIES,
    column: str = PATIENT,
) -> tuple[list[str], list[list[str]]]:
    """Compare groups of images.

    Args:
        images: Rows of a manifest.
        group_of: The group of each image id, such as its subset; images without a group are excluded.
        columns: The groups, in the order of the table's columns.
        categories: The columns of the manifest whose values are counted.
        column: The column of patients.

    Returns:
        The header, and rows of text.
    """
    import pandas as pd

    patients = pd.Series(group_images(images.records, column))
    indices = {name: index for index, name in enumerate(columns)}
    sides = images.frame["image_id"].map(group_of).map(indices).dropna().astype(int).sort_values(kind="stable")
    # Every image is counted in its group, and once more in the last group, which is that of all images.
    sides = pd.concat([sides, pd.Series(len(columns), sides.index)])
    cells = images.frame.reindex(columns=["age", "sex", *categories], fill_value="").loc[sides.index]
    cells.index = pd.MultiIndex.from_arrays([sides, patients[sides.index]], names=[_SIDE, PATIENT])
    # One row a patient; of several images, the first with a value.
    people = cells[["age", "sex"]].map(str.strip)
    people = people.where(people != "").groupby(level=[_SIDE, PATIENT], sort=False).first().fillna("")
    table = [
        [name, *map(str, found.groupby(level=_SIDE).size().reindex(range(len(columns) + 1), fill_value=0)), ""]
        for name, found in (("images", cells), ("patients", people))
    ]
    table += _numeric("age", people["age"], len(columns)) + _categorical("sex", people["sex"], len(columns))
    for name in categories:
        table += _categorical(name, cells[name], len(columns))
    return ["", *columns, "all", "SMD"], table


def _numeric(name: str, cells: pd.Series, groups: int) -> list[list[str]]:
    known = {cell: years(cell) for cell in set(cells)}
    values = cells.map(known.__getitem__).astype(float)
    if values.isna().all():
        return []
    summary = values.groupby(level=_SIDE).agg(["size", "count", "mean", "std", "min", "max"])
    summary = summary.reindex(range(groups + 1))
    sizes, counts = (summary[name].fillna(0).astype(int) for name in ("size", "count"))
    found = list(zip(counts, summary["mean"], summary["std"], summary["min"], summary["max"], strict=True))
    means = [f"{mean:.1f} ± {sd:.1f}" if n > 1 else f"{mean:.1f}" if n else "" for n, mean, sd, _, _ in found]
    ranges = [f"{low:g} to {high:g}" if n else "" for n, _, _, low, high in found]
    moments = [(mean, sd**2) for n, mean, sd, _, _ in found[:groups] if n > 1]
    missing = sizes - counts
    return [
        [f"{name}, mean ± SD", *means, _largest(moments)],
        [f"{name}, range", *ranges, ""],
        [f"{name} missing", *_shares(missing, sizes)],
    ]


def _categorical(name: str, cells: pd.Series, groups: int) -> list[list[str]]:
    counts = cells.groupby(level=_SIDE).value_counts().unstack(_SIDE, fill_value=0)
    counts = counts.reindex(columns=range(groups + 1), fill_value=0)
    # A patient with different values in two groups is counted among all with the value of the first group.
    order = {level: place for place, level in enumerate(SEVERITIES)} if name == SEVERITY else {}
    shown = counts[counts[groups] > 0].sort_index(
        key=lambda levels: [len(order) + 1 if not level else order.get(level, len(order)) for level in levels],
        kind="stable",
    )
    levels = sum(shown.index != "")
    if not levels:
        return []
    if levels > LEVELS:
        return [[f"{name}, values", *map(str, (counts.drop("", errors="ignore") > 0).sum()), ""]]
    return [[f"{name} {level or 'missing'}", *_shares(found, counts.sum())] for level, found in shown.iterrows()]


def _shares(counts: pd.Series, wholes: pd.Series) -> list[str]:
    """Count and share of each group and of all, and the largest difference between groups."""
    pairs = list(zip(counts, wholes, strict=True))
    shares = [count / whole for count, whole in pairs[:-1] if whole]
    cells = [f"{count} ({100 * count / whole:.1f} %)" if whole else "0" for count, whole in pairs]
    return [*cells, _largest([(share, share * (1 - share)) for share in shares])]


def _largest(moments: Sequence[tuple[float, float]]) -> str:
    found = [
        abs(mean - other) / sqrt((variance + spread) / 2)
        for (mean, variance), (other, spread) in combinations(moments, 2)
        if variance + spread > 0
    ]
    return f"{max(found):.2f}" if found else ""


def table_of_study(manifest: Manifest, splits: Splits | None) -> tuple[tuple[list[str], list[list[str]]], list[str]]:
    """Table 1 by subset where there is a single split, else by class; and warnings."""
    run = next(iter(splits.runs)) if splits and len(splits.runs) == 1 else None
    if splits and run:
        subsets = splits.runs[run]
        return table_one(manifest, subsets, [name for name in SUBSETS if name in subsets.values()]), []
    warnings = [f"{splits.name} has {len(splits.runs)} repeats and folds; Table 1 is by class"] if splits else []
    ids, cells = manifest.column("image_id"), manifest.column("label")
    labels = {name: label or "unlabelled" for name, label in zip(ids, cells, strict=True)}
    others = [name for name in CATEGORIES if name != "label"]
    return table_one(manifest, labels, sorted(set(labels.values())), others), warnings


def of_two_sexes(manifest: Manifest) -> list[str]:
    """A warning of patients with images of different sex: two people under one id, or a slip in the table."""
    if "sex" not in manifest.columns:
        return []
    sexes: dict[int, set[str]] = {}
    for patient, cell in zip(group_images(manifest.records), manifest.column("sex"), strict=True):
        if cell.strip():
            sexes.setdefault(patient, set()).add(sex_of(cell) or cell.strip().casefold())
    twice = sum(len(found) > 1 for found in sexes.values())
    return [f"{count_of(twice, 'patient')} with images of different sex; counted once, by the first"] if twice else []
