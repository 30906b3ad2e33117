"""`splits.csv`: which image is for training, for validation and for test, in every repeat and fold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path

from cxrtool.data.file_names import SPLITS
from cxrtool.data.files import sha256_file
from cxrtool.data.splitting.grouping import PATIENT, group_images, normalised
from cxrtool.data.tables.manifest import Manifest, Row, Table, dump_table, read_table
from cxrtool.errors import InputError

SUBSETS = ("train", "validation", "test")
COLUMNS = ("image_id", "repeat", "fold", "subset")
MADE_BY = "made_by"
"""The column with the command line that made the splits, in the first row; without it a table is complete, too."""

ROW_DIGEST = "row_digest"
"""The column with `row_digest` of each image, in its first row; without it a table is complete, too."""

RECORDS = (MADE_BY, ROW_DIGEST)
"""The columns that do not assign images."""

SYNONYMS = {
    "train": "train",
    "training": "train",
    "fit": "train",
    "learn": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "tune": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "holdout": "test",
}
"""The names of the three subsets in data sets."""

Run = tuple[str, str]
"""Repeat and fold, as written in the file."""


@dataclass
class Splits:
    """A read `splits.csv`.

    Attributes:
        runs: For every repeat and fold, in numeric order, the subset of each image id.
        name: For messages.
        made_by: The distinct command lines that made them (`data.splitting.made_by`): none for a table made by hand,
            several for joined tables.
        row_digests: By image id, where the table has them.
    """

    runs: dict[Run, dict[str, str]]
    name: str = SPLITS
    made_by: list[str] = field(default_factory=list)
    row_digests: dict[str, str] = field(default_factory=dict)

    def ids(self) -> set[str]:
        """The ids of all listed images."""
        return {identity for subsets in self.runs.values() for identity in subsets}


def known_as(row: Row, subsets: Mapping[str, str]) -> str:
    """The id under which a split lists an image: its own, else that of its original; empty if neither is listed.

    >>> known_as({"image_id": "a_r0f1", "parent_id": "a"}, {"a": "test"})
    'a'
    """
    return next((name for name in (row["image_id"], row.get("parent_id", "")) if name and name in subsets), "")


def valid_in(row: Row, run: Run) -> bool:
    """Whether an image may be used in a repeat and fold: one that was made for a fold is valid in that fold alone.

    >>> valid_in({"repeat": "0", "fold": "1"}, ("0", "2")), valid_in({}, ("0", "2"))
    (False, True)
    """
    return row.get("repeat", "") in ("", run[0]) and row.get("fold", "") in ("", run[1])


def read_splits(argument: Path | str) -> Splits:
    """Read a splits file, or the one in a folder, such as a run.

    Raises:
        InputError: It is missing, lacks a column, has an unknown subset, or lists an image in two subsets of one fold.
    """
    path = Path(argument)
    if path.is_dir():
        path = path / SPLITS
    table = read_table(path)
    table.require("image_id", "subset")
    table.check_texts()
    made_by = dict.fromkeys(line for cell in table.column(MADE_BY) if (line := cell.strip()))
    digests = {row["image_id"]: cell for row in table.rows if (cell := row.get(ROW_DIGEST, ""))}
    return Splits(_runs(table), table.name, list(made_by), digests)


def row_digest(row: Row) -> str:
    """Three hexadecimal digits of an image's label and patient, by which a later change is noticed.

    So few that no patient can be found out by trying all numbers; one change in 4,096 is missed.

    >>> row_digest({"label": "covid", "patient_id": "P1"}) == row_digest({"label": "covid", "patient_id": " p1"})
    True
    """
    text = "\0".join((row.get("label", ""), normalised(row.get(PATIENT, ""))))
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:3]


def _runs(table: Table) -> dict[Run, dict[str, str]]:
    # Without pandas, whose import is slow: a step reads its splits only to find that it is up to date.
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
                f"{table.place(index)}: '{row['image_id']}' is listed in two subsets of repeat {run[0]}, fold {run[1]}"
            )
    if not runs:
        raise InputError(f"{table.name}: expected rows of {', '.join(COLUMNS)}, found none")
    return {run: runs[run] for run in sorted(runs, key=run_order)}


def run_order(run: Run) -> list[tuple[bool, str]]:
    """Sort key of runs: repeat and fold as numbers.

    >>> sorted([("0", "10"), ("0", "9")], key=run_order)
    [('0', '9'), ('0', '10')]
    """
    return [(not part.isdigit(), part.zfill(9)) for part in run]


def overlaps(rows: Sequence[Row], subsets: Mapping[str, str], column: str = PATIENT) -> list[list[Row]]:
    """The groups of images that are in more than one subset; a split by `cxrtool split` has none."""
    groups: dict[int, list[Row]] = {}
    for row, group in zip(rows, group_images(rows, column), strict=True):
        if known_as(row, subsets):
            groups.setdefault(group, []).append(row)
    return [group for group in groups.values() if len({subsets[known_as(row, subsets)] for row in group}) > 1]


def from_column(rows: Sequence[Row], column: str, place: Callable[[int], str]) -> dict[str, str]:
    """The subset of each image by a column; images whose cell is empty are in none.

    Args:
        rows: Rows of a manifest.
        column: The column of subsets.
        place: Gives file and line of a row, for messages.

    Raises:
        InputError: A value is not a known name of a subset.
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
    """Rows of a splits file, sorted so that equal divisions give equal bytes."""
    return [
        {"image_id": identity, "repeat": repeat, "fold": fold, "subset": subsets[identity]}
        for (repeat, fold), subsets in runs.items()
        for identity in sorted(subsets)
    ]


def dump_splits(rows: Sequence[Row], made_by: Sequence[str], images: Sequence[Row] = ()) -> str:
    """The content of a splits file; `made_by` is in its first rows, the digest of each of these images in its first."""
    digests = {image["image_id"]: row_digest(image) for image in images}
    marked = [{**row, MADE_BY: line} for row, line in zip(rows, chain(made_by, repeat("")), strict=False)]
    if not images:
        return dump_table((*COLUMNS, MADE_BY), marked)
    for row in marked:
        row[ROW_DIGEST] = digests.pop(row["image_id"], "")
    return dump_table((*COLUMNS, *RECORDS), marked)


def splits_digest(path: Path) -> str:
    """The digest of a splits file without its records, as steps compare it: only the assignment affects a result."""
    table = read_table(path)
    if not set(RECORDS) & set(table.columns):
        return sha256_file(path)
    columns = [name for name in table.columns if name not in RECORDS]
    return hashlib.sha256(dump_table(columns, table.rows).encode(errors="backslashreplace")).hexdigest()


SHOWN_RUNS = 6
"""With more repeats and folds than this, a table shows ranges over them."""


def tabulate(
    manifest: Manifest,
    runs: Mapping[Run, Mapping[str, str]],
    group: str = PATIENT,
    names: Mapping[Run, str] | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Images, patients and classes of every subset, as a header and rows of text.

    Args:
        manifest: The images; ids that it lacks are ignored.
        runs: The subset of each image id, for every repeat and fold.
        group: The column of patients.
        names: A text for each fold, shown after its number.
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
        titles = [" ".join(filter(None, (f"r{run[0]}f{run[1]}", names.get(run)))) for run in runs]
        return columns, [
            [titles[number], SUBSETS[subset], *map(str, cells)]
            for (number, subset), *cells in figures.itertuples(name=None)
        ]
    by_subset = figures.groupby("subset")
    spans = zip(*(found.itertuples(name=None) for found in (by_subset.min(), by_subset.max())), strict=True)
    return columns, [
        [f"all {len(runs)}", SUBSETS[subset], *map(_range, lows, highs)] for (subset, *lows), (_, *highs) in spans
    ]


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
