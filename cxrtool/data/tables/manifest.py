"""The manifest: the table that steps exchange, one row an image, all cells text.

Everything stays text, because a reader that guesses types turns the id `001` into 1 and the label `None` into nothing.
In memory `path` and masks are absolute; in a file they are relative to that file's folder.

Files are read without pandas, whose import is slow: a step that is up to date reads its tables and does no more.
"""

from __future__ import annotations

import csv
import io
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cxrtool.data.confinement import is_inside
from cxrtool.data.digests import check
from cxrtool.data.file_names import MANIFEST
from cxrtool.data.files import STDIN, atomic_write, is_stream, no_such, read_stream
from cxrtool.data.tables.ids import BLANK, fault_of_name, fault_of_text, one_file, shown
from cxrtool.data.tables.views import ROWS, FrameOfText, RowsField, rows_of
from cxrtool.errors import InputError
from cxrtool.options import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, str]

COLUMNS = (
    "image_id",
    "path",
    "label",
    "patient_id",
    "severity",
    "source",
    "view",
    "age",
    "sex",
    "mask",
    "mask_reference",
    "ribless",
    "width",
    "height",
    "sha256",
    "dhash",
    "warning",
    "parent_id",
    "generator",
    "repeat",
    "fold",
)
"""The columns that cxrtool knows, in the order in which it writes them; other columns pass through after them."""

TEXTS = ("image_id", "label", "patient_id", "severity", "source", "view", "parent_id", "generator")
"""The columns of ids, classes and groups, each of which is one line of text in every table."""

NEVER_BLANK = ("image_id", "label", "patient_id")
"""Of these, the columns in which blanks alone would be an image, a class or a patient of its own."""

RUN_NUMBERS = ("repeat", "fold")
"""The columns of whole numbers that name a run's folders, as in `r0f3`."""

PATH_COLUMNS = ("path", "mask", "mask_reference", "ribless")
_CELL_LIMIT = 10_000_000
STANDARD_INPUT = "standard input"


@dataclass
class Table:
    """A CSV file as text.

    Attributes:
        columns: The header, in order.
        rows: One dictionary a row; every column is present, empty where the file was.
        frame: The rows as a pandas frame.
        origin: The file, or None for a stream.
        lines: The line in the file at which each row ends, for messages.
        stream: The name of the stream.
    """

    columns: list[str]
    rows: RowsField = ROWS
    origin: Path | None = None
    lines: list[int] = field(default_factory=list)
    stream: str = STANDARD_INPUT
    frame = FrameOfText()

    @classmethod
    def of_frame(cls, frame: pd.DataFrame, origin: Path | None = None) -> Self:
        """A table with the cells of a frame."""
        table = cls([], [], origin)
        table.frame = frame
        return table

    @property
    def name(self) -> str:
        """The table's name in messages."""
        return str(self.origin) if self.origin else self.stream

    def __len__(self) -> int:
        return len(rows_of(self))

    def column(self, name: str) -> list[str]:
        """The cells of a column; all empty where the table lacks it."""
        return [row.get(name, "") for row in rows_of(self)]

    def require(self, *columns: str) -> None:
        """Check that the table has these columns.

        Raises:
            InputError: A column is missing; the message names the file, the column and those that were found.
        """
        for name in columns:
            if name not in self.columns:
                found = ", ".join(self.columns) or "none"
                raise InputError(
                    f"{self.name}: expected a column '{name}', found the columns: {found}"
                    f"{did_you_mean(name, self.columns)}",
                    "`cxrtool prepare` writes a manifest with all columns; or rename the column",
                )

    def place(self, index: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.name}, line {self.lines[index]}" if index < len(self.lines) else self.name

    def check_texts(self, *, numbers: bool = True) -> None:
        """Check that ids, classes and groups are one line each and, with `numbers`, repeats and folds whole numbers.

        Raises:
            InputError: One is not; the message names file, line and column.
        """
        names = [name for name in TEXTS if name in self.columns]
        of_runs = [name for name in RUN_NUMBERS if numbers and name in self.columns]
        for index, row in enumerate(rows_of(self)):
            for name in names:
                if row[name] and not row[name].isalnum() and (fault := fault_of_text(row[name])):
                    if fault == BLANK and name not in NEVER_BLANK:
                        continue
                    found = f"{fault} in {shown(row[name])}"
                    raise InputError(
                        f"{self.place(index)}: expected one line of text in '{name}', found {found}",
                        "correct this cell, or let `cxrtool prepare` make the table",
                    )
            for name in of_runs:
                if row[name] and not (row[name].isdecimal() and row[name].isascii()):
                    raise InputError(
                        f"{self.place(index)}: expected a whole number from 0 in '{name}', found {shown(row[name])}",
                        "number repeats and folds from 0, as `cxrtool split` does",
                    )


@dataclass
class Manifest(Table):
    """A table of images with at least `image_id` and `path`; ids are unique."""

    def classes(self) -> list[str]:
        """The distinct labels, sorted, without the empty label."""
        return sorted({row["label"] for row in self.rows if row.get("label")})

    def check_file_names(self) -> None:
        """Check that each id can be the name of a file: for steps that write a file for each image.

        Raises:
            InputError: One cannot, or two would be the same file on some computers; the message names file and line.
        """
        first: dict[str, int] = {}
        hint = "rename it, or let `cxrtool prepare` make the ids: it reads this table, and any folder of images"
        for index, row in enumerate(self.rows):
            identity = row["image_id"]
            if fault := fault_of_name(identity):
                found = f"{fault} in {shown(identity)}"
                raise InputError(f"{self.place(index)}: expected an image_id that can name a file, found {found}", hint)
            earlier = first.setdefault(one_file(identity), index)
            if earlier != index:
                raise InputError(
                    f"{self.place(index)}: expected image_ids that name different files, found {shown(identity)} and "
                    f"{shown(self.rows[earlier]['image_id'])}, which are one file on some computers",
                    hint,
                )

    def subset(self, ids: Iterable[str]) -> Manifest:
        """The rows with these ids, in the manifest's order."""
        wanted = set(ids)
        kept = [i for i, row in enumerate(self.rows) if row["image_id"] in wanted]
        lines = [self.lines[i] for i in kept] if self.lines else []
        return Manifest(list(self.columns), [self.rows[i] for i in kept], self.origin, lines, self.stream)


def read_table(source: Path | str) -> Table:
    """Read any CSV: comma, semicolon, tab or what `sep=` says; any line ends; `-` is stdin, which is kept.

    UTF-8 with or without a BOM, UTF-16 with one, or Latin-1.

    Raises:
        InputError: No such file, no header, a repeated column, or a row with more cells than the header.
    """
    origin = None if is_stream(source) else Path(source)
    data = _read_regular(origin) if origin else read_stream(source)
    stream = STANDARD_INPUT if Path(source) == STDIN else str(source)
    name = str(origin) if origin else stream
    text = decode_text(data, name)
    if "\0" in text:
        raise InputError(f"{name}: expected a CSV table as text, found binary data")
    csv.field_size_limit(_CELL_LIMIT)
    # The first line by which Excel is told the delimiter is no row.
    told = re.match(r'"?sep=(.)"?\r?\n', text)
    delimiter = told[1] if told else _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    if told:
        next(reader)
    try:
        header = [cell.strip() for cell in next(reader)]
    except StopIteration:
        raise InputError(
            f"{name}: expected a CSV table with a header, found an empty file",
            "did the step before it fail? `cxrtool info` on its folder shows that",
        ) from None
    repeated = sorted({cell for cell in header if header.count(cell) > 1 and cell})
    if repeated:
        raise InputError(f"{name}, line 1: the column '{repeated[0]}' is listed twice in the header")
    rows, lines = [], []
    try:
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) > len(header):
                raise InputError(
                    f"{name}, line {reader.line_num}: expected {len(header)} cells, found {len(cells)}",
                    "a cell that contains the delimiter must be in double quotes",
                )
            cells += [""] * (len(header) - len(cells))
            rows.append({column: cell for column, cell in zip(header, cells, strict=True) if column})
            lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: not a readable CSV row: {error}") from error
    return Table([column for column in header if column], rows, origin, lines, stream)


def read_manifest(argument: Path | str, *, root: Path | None = None) -> Manifest:
    """Read a manifest from a file, from a step's folder, or from a stream such as standard input (`-`).

    Relative paths are taken from the file's folder; those of a stream from the working directory.

    Args:
        argument: A CSV file, a folder that holds `manifest.csv`, or a stream.
        root: When given, every image must lie below this folder.

    Raises:
        InputError: It is missing, not a table, lacks a column, repeats an id, has a path outside `root`, or an id,
            class or group that is not one line.
    """
    if is_stream(argument):
        table, base = read_table(argument), Path.cwd()
    else:
        path = Path(argument)
        if path.is_dir():
            if not (path / MANIFEST).exists():
                raise InputError(
                    f"{path}: expected a folder with {MANIFEST} in it, found none",
                    f"for a folder of images run `cxrtool prepare {path} -o prepared` first",
                )
            path = path / MANIFEST
        table, base = read_table(path), path.absolute().parent
    manifest = Manifest(table.columns, table.rows, table.origin, table.lines, table.stream)
    manifest.require("image_id", "path")
    manifest.check_texts()
    seen: dict[str, int] = {}
    for index, row in enumerate(manifest.rows):
        identity = row["image_id"]
        if not identity or not row["path"]:
            empty = "path" if identity else "image_id"
            raise InputError(f"{manifest.place(index)}: the cell '{empty}' is empty")
        if identity in seen:
            first = manifest.lines[seen[identity]]
            raise InputError(
                f"{manifest.place(index)}: the image_id '{identity}' is on line {first} too",
                "ids must be unique; `cxrtool prepare` makes them so",
            )
        seen[identity] = index
        for column in PATH_COLUMNS:
            if row.get(column):
                # normpath, not resolve: the user knows a link by its own name, not by its target.
                row[column] = os.path.normpath(base / row[column])
                if root and not is_inside(row[column], root):
                    raise InputError(f"{manifest.place(index)}: {row[column]} is outside --root {root}")
    return manifest


def order_columns(columns: Sequence[str], rows: Sequence[Row] = ()) -> list[str]:
    """Known columns first, in the order of `COLUMNS`, then all others, also those that only rows have."""
    present = dict.fromkeys(columns)
    for row in rows:
        for name in row:
            present.setdefault(name)
    known = [name for name in COLUMNS if name in present]
    return known + [name for name in present if name not in COLUMNS]


def dump_table(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A table as CSV text: comma, line feed, quotes only where they are needed."""
    lines = _Lines()
    # The writer quotes only the characters of its line terminator: with both, a cell with either one is quoted.
    writer = csv.DictWriter(lines, list(columns), restval="", extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return "".join(lines)


class _Lines(list[str]):
    def write(self, row: str) -> None:
        self.append(row.removesuffix("\r\n") + "\n")


def write_table(target: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a table as UTF-8 CSV, whole or not at all."""
    atomic_write(target, dump_table(columns, rows))


def write_manifest(target: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows with absolute paths as a manifest whose paths are relative to its own folder."""
    base = Path(target).absolute().parent
    write_table(target, columns, relative_rows(rows, base))


def relative_rows(rows: Iterable[Row], base: Path) -> list[Row]:
    """Copies of the rows with `path` and `mask` relative to `base`."""
    result = []
    for row in rows:
        copy = dict(row)
        for column in PATH_COLUMNS:
            if copy.get(column):
                copy[column] = Path(os.path.relpath(copy[column], base)).as_posix()
        result.append(copy)
    return result


def _read_regular(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            found = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
            raise InputError(f"{path}: expected a regular file, found {found}")
        data = path.read_bytes()
    except FileNotFoundError:
        check(path)
        raise InputError(no_such(path)) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    check(path, data)
    return data


def decode_text(data: bytes, name: str) -> str:
    """The text of a file: UTF-8 or UTF-16 by its mark, otherwise UTF-8 or Latin-1; `name` is for the message."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise InputError(f"{name}: expected a CSV table as text, found binary data") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _delimiter(text: str) -> str:
    first = text.split("\n", 1)[0]
    # A header of one column has no delimiter: then the first of these is taken.
    return max((",", ";", "\t"), key=first.count)
