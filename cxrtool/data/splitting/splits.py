"""`splits.csv`: which image is for training, for validation and for test, in every repeat and fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.splitting.grouping import PATIENT, group_images
from cxrtool.data.tables.manifest import Manifest, Row, Table, read_table
from cxrtool.errors import InputError

SUBSETS = ("train", "validation", "test")
COLUMNS = ("image_id", "repeat", "fold", "subset")
FILE_NAME = "splits.csv"

SYNONYMS = {
    "train": "train", "training": "train", "fit": "train", "learn": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "tune": "validation",
    "test": "test", "testing": "test", "eval": "test", "holdout": "test",
}  # fmt: skip
"""What data sets call the three subsets."""

Run = tuple[str, str]
"""Repeat and fold, as they stand in the file."""


@dataclass
class Splits:
    """A read `splits.csv`.

    Attributes:
        runs: For every repeat and fold, in numeric order, the subset of each image id.
        name: What to call it in a message.
    """

    runs: dict[Run, dict[str, str]]
    name: str = FILE_NAME

    def ids(self) -> set[str]:
        """All image ids that it names."""
        return {identity for subsets in self.runs.values() for identity in subsets}


def known_as(row: Row, subsets: Mapping[str, str]) -> str:
    """The id by which a division knows an image: its own, else that of the one it is derived from; empty if neither.

    >>> known_as({"image_id": "a_r0f1", "parent_id": "a"}, {"a": "test"})
    'a'
    """
    return next((name for name in (row["image_id"], row.get("parent_id", "")) if name and name in subsets), "")


def valid_in(row: Row, run: Run) -> bool:
    """Whether an image may be used in a repeat and fold: what was made for one fold is valid in that one alone.

    >>> valid_in({"repeat": "0", "fold": "1"}, ("0", "2")), valid_in({}, ("0", "2"))
    (False, True)
    """
    return row.get("repeat", "") in ("", run[0]) and row.get("fold", "") in ("", run[1])


def read_splits(argument: Path | str) -> Splits:
    """Read a splits file, or the one in a folder, such as a run.

    Raises:
        InputError: It is missing, lacks a column, names an unknown subset, or places an image twice in one fold.
    """
    path = Path(argument)
    if path.is_dir():
        path = path / FILE_NAME
    table = read_table("-" if str(argument) == "-" else path)
    table.require("image_id", "subset")
    return Splits(_runs(table), table.name)


def _runs(table: Table) -> dict[Run, dict[str, str]]:
    # By hand: a training that is up to date has read its splits to know so, and does without pandas.
    runs: dict[Run, dict[str, str]] = {}
    for index, row in enumerate(table.rows):
        subset = SYNONYMS.get(row["subset"].strip().casefold())
        if subset is None:
            raise InputError(
                f"{table.place(index)}: expected the subset train, validation or test, found '{row['subset']}'"
            )
        run = (row.get("repeat") or "0", row.get("fold") or "0")
        if runs.setdefault(run, {}).setdefault(row["image_id"], subset) != subset:
            raise InputError(
                f"{table.place(index)}: '{row['image_id']}' stands in two subsets of repeat {run[0]}, fold {run[1]}"
            )
    if not runs:
        raise InputError(f"{table.name}: expected rows of {', '.join(COLUMNS)}, found none")
    return {run: runs[run] for run in sorted(runs, key=run_order)}


def run_order(run: Run) -> list[tuple[bool, str]]:
    """Sorts runs by repeat and fold as numbers.

    >>> sorted([("0", "10"), ("0", "9")], key=run_order)
    [('0', '9'), ('0', '10')]
    """
    return [(not part.isdigit(), part.zfill(9)) for part in run]


def overlaps(rows: Sequence[Row], subsets: Mapping[str, str], column: str = PATIENT) -> list[list[Row]]:
    """The groups of images that stand in more than one subset; none, unless somebody else made the split."""
    placed: dict[int, list[Row]] = {}
    for row, group in zip(rows, group_images(rows, column), strict=True):
        if known_as(row, subsets):
            placed.setdefault(group, []).append(row)
    return [group for group in placed.values() if len({subsets[known_as(row, subsets)] for row in group}) > 1]


def from_column(rows: Sequence[Row], column: str, place: Callable[[int], str]) -> dict[str, str]:
    """The subset that a column names; images whose cell is empty are in none.

    Args:
        rows: Rows of a manifest.
        column: The column.
        place: Names file and line of a row, for the message.

    Raises:
        InputError: A value is no known name of a subset.
    """
    subsets = {}
    for index, row in enumerate(rows):
        value = row.get(column, "").strip()
        if value and value.casefold() not in SYNONYMS:
            raise InputError(
                f"{place(index)}: expected a subset in '{column}', found '{value}'",
                f"known names: {', '.join(SYNONYMS)}",
            )
        if value:
            subsets[row["image_id"]] = SYNONYMS[value.casefold()]
    return subsets


def split_rows(runs: Mapping[Run, Mapping[str, str]]) -> list[Row]:
    """Rows of a splits file, sorted so that equal divisions are equal bytes."""
    return [
        {"image_id": identity, "repeat": repeat, "fold": fold, "subset": subsets[identity]}
        for (repeat, fold), subsets in runs.items()
        for identity in sorted(subsets)
    ]


SHOWN_RUNS = 6
"""With more repeats and folds than this a table shows ranges over them."""


def tabulate(
    manifest: Manifest,
    runs: Mapping[Run, Mapping[str, str]],
    group: str = PATIENT,
    names: Mapping[Run, str] | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Images, patients and classes of every subset, as a header and rows of text.

    Args:
        manifest: The images; ids that it lacks do not count.
        runs: The subset of each image id, for every repeat and fold.
        group: The column that names the patient.
        names: What to say of a fold beside its number.
    """
    import pandas as pd

    classes, names = manifest.classes(), names or {}
    columns = ["fold", "subset", "images", "patients", *classes]
    images = list(zip(manifest.rows, group_images(manifest.rows, group), manifest.column("label"), strict=True))
    placed = pd.DataFrame(
        [
            (number, SUBSETS.index(subsets[name]), patient, label)
            for number, (run, subsets) in enumerate(runs.items())
            for row, patient, label in images
            if valid_in(row, run) and (name := known_as(row, subsets))
        ],
        columns=["run", "subset", "patient", "label"],
    )
    if placed.empty:
        return columns, []
    parts = placed.groupby(["run", "subset"])
    labels = pd.crosstab([placed["run"], placed["subset"]], placed["label"]).reindex(columns=classes, fill_value=0)
    figures = pd.concat([parts.size(), parts["patient"].nunique(), labels], axis="columns")
    if len(runs) <= SHOWN_RUNS:
        told = [" ".join(filter(None, (f"r{run[0]}f{run[1]}", names.get(run)))) for run in runs]
        return columns, [
            [told[number], SUBSETS[subset], *map(str, cells)]
            for (number, subset), *cells in figures.itertuples(name=None)
        ]
    by_subset = figures.groupby("subset")
    spans = zip(*(found.itertuples(name=None) for found in (by_subset.min(), by_subset.max())), strict=True)
    return columns, [
        [f"all {len(runs)}", SUBSETS[subset], *map(_range, lows, highs)] for (subset, *lows), (_, *highs) in spans
    ]


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
