"""`splits.csv`: which image is for training, for validation and for test, in every repeat and fold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxrtool.data.file_names import SPLITS
from cxrtool.data.files import encoded, read_bytes, sha256_file
from cxrtool.data.splitting.grouping import PATIENT, group_images, normalised
from cxrtool.data.tables.manifest import ROW, Manifest, Table, dump_table, read_table
from cxrtool.data.tables.parquet import is_parquet
from cxrtool.data.tables.views import Columns, RowView, cells_of, columns_of
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


def known_as(row: RowView, subsets: Mapping[str, str]) -> str:
    """The id under which a split lists an image: its own, else that of its original; empty if neither is listed.

    >>> known_as({"image_id": "a_r0f1", "parent_id": "a"}, {"a": "test"})
    'a'
    """
    return next((name for name in (row["image_id"], row.get("parent_id", "")) if name and name in subsets), "")


def valid_in(row: RowView, run: Run) -> bool:
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
    recorded = zip(table.column("image_id"), table.column(ROW_DIGEST), strict=True)
    digests = {name: cell for name, cell in recorded if cell}
    return Splits(_runs(table), table.name, list(made_by), digests)


def row_digest(row: RowView) -> str:
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
    cells = (table.column(name) for name in COLUMNS)
    for index, (identity, repeat, fold, name) in enumerate(zip(*cells, strict=True)):
        subset = SYNONYMS.get(name) or SYNONYMS.get(name.strip().casefold())
        if subset is None:
            raise InputError(f"{table.place(index)}: expected the subset train, validation or test, found '{name}'")
        run = (repeat or "0", fold or "0")
        if runs.setdefault(run, {}).setdefault(identity, subset) != subset:
            raise InputError(
                f"{table.place(index)}: '{identity}' is listed in two subsets of repeat {run[0]}, fold {run[1]}"
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


def overlaps(rows: Sequence[RowView], subsets: Mapping[str, str], column: str = PATIENT) -> list[list[RowView]]:
    """The groups of images that are in more than one subset; a split by `cxrtool split` has none."""
    groups: dict[int, list[int]] = {}
    sides = sides_of(rows, subsets)
    for index, (side, group) in enumerate(zip(sides, group_images(rows, column), strict=True)):
        if side:
            groups.setdefault(group, []).append(index)
    return [[rows[i] for i in group] for group in groups.values() if len({sides[i] for i in group}) > 1]


def sides_of(rows: Sequence[RowView], subsets: Mapping[str, str], run: Run | None = None) -> list[str]:
    """The subset of each row, as `known_as` finds it; empty where none has it, or it is not `valid_in` the run."""
    sides = [subsets.get(name, "") for name in cells_of(rows, "image_id")]
    parents = cells_of(rows, "parent_id")
    if any(parents):
        sides = [side or (parent and subsets.get(parent, "")) for side, parent in zip(sides, parents, strict=True)]
    if run is not None:
        for name, own in zip(("repeat", "fold"), run, strict=True):
            cells = cells_of(rows, name)
            if any(cells):
                sides = [side if cell in ("", own) else "" for side, cell in zip(sides, cells, strict=True)]
    return sides


def from_column(rows: Sequence[RowView], column: str, place: Callable[[int], str]) -> dict[str, str]:
    """The subset of each image by a column; images whose cell is empty are in none.

    Args:
        rows: Rows of a manifest.
        column: The column of subsets.
        place: Gives file and line of a row, for messages.

    Raises:
        InputError: A value is not a known name of a subset.
    """
    subsets = {}
    for index, (identity, cell) in enumerate(zip(cells_of(rows, "image_id"), cells_of(rows, column), strict=True)):
        value = cell.strip()
        if value and value.casefold() not in SYNONYMS:
            raise InputError(
                f"{place(index)}: expected a subset in '{column}', found '{value}'",
                f"known names: {', '.join(SYNONYMS)}",
            )
        if value:
            subsets[identity] = SYNONYMS[value.casefold()]
    return subsets


def split_rows(runs: Mapping[Run, Mapping[str, str]]) -> Columns:
    """Rows of a splits file, sorted so that equal divisions give equal bytes."""
    columns: dict[str, list[str]] = {name: [] for name in COLUMNS}
    for (repeat, fold), subsets in runs.items():
        ids = sorted(subsets)
        columns["image_id"] += ids
        columns["repeat"] += [repeat] * len(ids)
        columns["fold"] += [fold] * len(ids)
        columns["subset"] += [subsets[name] for name in ids]
    return Columns(columns, len(columns["image_id"]))


def with_records(rows: Sequence[RowView], made_by: Sequence[str], images: Sequence[RowView] = ()) -> Columns:
    """The rows of a splits file; `made_by` is in its first rows, the digest of each of these images in its first."""
    columns = columns_of(rows, COLUMNS)
    cells = {name: columns.cells[name] for name in COLUMNS}
    cells[MADE_BY] = [*made_by, *[""] * (len(rows) - len(made_by))][: len(rows)]
    if images:
        names = (cells_of(images, name) for name in ("image_id", "label", PATIENT))
        known: dict[tuple[str, str], str] = {}
        digests = {}
        for identity, label, patient in zip(*names, strict=True):
            if (label, patient) not in known:
                known[label, patient] = row_digest({"label": label, PATIENT: patient})
            digests[identity] = known[label, patient]
        cells[ROW_DIGEST] = [digests.pop(name, "") for name in cells["image_id"]]
    return Columns(cells, len(rows))


def dump_splits(rows: Sequence[RowView], made_by: Sequence[str], images: Sequence[RowView] = ()) -> str:
    """The content of a splits file, with its records."""
    columns = with_records(rows, made_by, images)
    return dump_table(list(columns.cells), columns)


def splits_digest(path: Path) -> str:
    """The digest of a splits file without its records, as steps compare it: only the assignment affects a result."""
    table = read_table(path)
    if not set(RECORDS) & set(table.columns) and table.unit != ROW:
        return sha256_file(path)
    columns = [name for name in table.columns if name not in RECORDS]
    return hashlib.sha256(encoded(dump_table(columns, table.records))).hexdigest()


def splits_content(path: Path) -> bytes:
    """The bytes of a splits file for its copy in a run: as they are, or of Parquet the same table as CSV."""
    data = read_bytes(path)
    if not is_parquet(path, data):
        return data
    table = read_table(path)
    return encoded(dump_table(table.columns, table.records))


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
    import numpy as np

    classes, names = manifest.classes(), names or {}
    columns = ["fold", "subset", "images", "patients", *classes]
    rows = manifest.records
    patients = np.array(group_images(rows, group), np.intp)
    numbers = {name: number for number, name in enumerate(("", *classes))}
    labels = np.array([numbers[cell] for cell in manifest.column("label")], np.intp)
    codes = {name: number for number, name in enumerate(SUBSETS)}
    figures: dict[tuple[Run, str], list[int]] = {}
    for run, subsets in runs.items():
        sides = np.array([codes.get(side, -1) for side in sides_of(rows, subsets, run)], np.int8)
        for name in SUBSETS:
            inside = sides == codes[name]
            if inside.any():
                counts = np.bincount(labels[inside], minlength=len(numbers))[1:]
                figures[run, name] = [int(inside.sum()), len(np.unique(patients[inside])), *counts.tolist()]
    if not figures:
        return columns, []
    if len(runs) <= SHOWN_RUNS:
        titles = {run: " ".join(filter(None, (f"r{run[0]}f{run[1]}", names.get(run)))) for run in runs}
        return columns, [[titles[run], name, *map(str, cells)] for (run, name), cells in figures.items()]
    spans = {name: [cells for (_, other), cells in figures.items() if other == name] for name in SUBSETS}
    return columns, [
        [f"all {len(runs)}", name, *(_range(min(cells), max(cells)) for cells in zip(*found, strict=True))]
        for name, found in spans.items()
        if found
    ]


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
