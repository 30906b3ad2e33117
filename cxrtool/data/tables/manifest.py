"""The manifest: the table that steps exchange, one row an image, all cells text.

Everything stays text, because a reader that guesses types turns the id `001` into 1 and the label `None` into nothing.
In memory `path` and masks are absolute; in a file they are relative to that file's folder.

Files are read without pandas, whose import is slow: a step that is up to date reads its tables and does no more.
"""

from __future__ import annotations

import csv
import os
import re
import stat
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cxrtool.data.confinement import is_inside
from cxrtool.data.digests import check
from cxrtool.data.file_names import MANIFEST
from cxrtool.data.files import STDIN, atomic_path, encoded, is_stream, no_such, read_stream
from cxrtool.data.tables.ids import BLANK, are_plain, fault_of_name, fault_of_text, one_file, shown
from cxrtool.data.tables.parquet import SUFFIX as PARQUET
from cxrtool.data.tables.parquet import dump_parquet, is_parquet, parquet_header, parse_parquet
from cxrtool.data.tables.views import (
    ROWS,
    Columns,
    FrameOfText,
    Packed,
    Readable,
    RowsField,
    RowView,
    columns_of,
    set_columns,
)
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
    "opacities",
    "opacities_reference",
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

SUFFIXES = (".csv", ".tsv", PARQUET)
"""Names of files that are read as a table with the columns of cxrtool, and never as an image."""

PATH_COLUMNS = ("path", "mask", "mask_reference", "opacities", "opacities_reference", "ribless")
_CELL_LIMIT = 10_000_000
STANDARD_INPUT = "standard input"
LINE, ROW = "line", "row"


@dataclass
class Table(Readable):
    """A table as text.

    Attributes:
        columns: The header, in order.
        rows: One dictionary a row; every column is present, empty where the file was.
        records: The rows for reading only, which take far less memory.
        frame: The rows as a pandas frame.
        origin: The file, or None for a stream.
        lines: The line in the file at which each row ends, for messages.
        stream: The name of the stream.
        unit: What `lines` count: `LINE`, or `ROW` in a format without lines.
    """

    columns: list[str]
    rows: RowsField = ROWS
    origin: Path | None = None
    lines: Sequence[int] = ()
    stream: str = STANDARD_INPUT
    unit: str = LINE
    frame = FrameOfText()

    @classmethod
    def of_columns(cls, columns: Columns, like: Table, lines: Sequence[int] | None = None) -> Self:
        """A table of columns, which are not copied, with the origin of another table, and its lines by default."""
        table = cls([], [], like.origin, like.lines if lines is None else lines, like.stream, like.unit)
        set_columns(table, columns)
        return table

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
        return len(self.records)

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
        return f"{self.name}, {self.unit} {self.lines[index]}" if index < len(self.lines) else self.name

    def check_texts(self, *, numbers: bool = True) -> None:
        """Check that ids, classes and groups are one line each and, with `numbers`, repeats and folds whole numbers.

        Raises:
            InputError: One is not; the message names file, line and column.
        """
        names = [name for name in TEXTS if name in self.columns]
        of_runs = [name for name in RUN_NUMBERS if numbers and name in self.columns]
        faults = [*map(self._first_fault_of_text, names), *map(self._first_no_number, of_runs)]
        # The first row with a fault, and of that row the first column.
        if found := min(filter(None, faults), key=lambda fault: fault[0], default=None):
            index, expected, hint = found
            raise InputError(f"{self.place(index)}: expected {expected}", hint)

    def _first_fault_of_text(self, name: str) -> tuple[int, str, str] | None:
        cells = self.column(name)
        if are_plain(cells):
            return None
        for index, cell in enumerate(cells):
            fault = fault_of_text(cell)
            if fault and (fault != BLANK or name in NEVER_BLANK):
                found = f"one line of text in '{name}', found {fault} in {shown(cell)}"
                return index, found, "correct this cell, or let `cxrtool prepare` make the table"
        return None

    def _first_no_number(self, name: str) -> tuple[int, str, str] | None:
        for index, cell in enumerate(self.column(name)):
            if cell and not (cell.isdecimal() and cell.isascii()):
                found = f"a whole number from 0 in '{name}', found {shown(cell)}"
                return index, found, "number repeats and folds from 0, as `cxrtool split` does"
        return None


@dataclass
class Manifest(Table):
    """A table of images with at least `image_id` and `path`; ids are unique."""

    def classes(self) -> list[str]:
        """The distinct labels, sorted, without the empty label."""
        return sorted(set(self.column("label")) - {""})

    def check_file_names(self) -> None:
        """Check that each id can be the name of a file: for steps that write a file for each image.

        Raises:
            InputError: One cannot, or two would be the same file on some computers; the message names file and line.
        """
        first: dict[str, int] = {}
        hint = "rename it, or let `cxrtool prepare` make the ids: it reads this table, and any folder of images"
        ids = self.column("image_id")
        for index, identity in enumerate(ids):
            if fault := fault_of_name(identity):
                found = f"{fault} in {shown(identity)}"
                raise InputError(f"{self.place(index)}: expected an image_id that can name a file, found {found}", hint)
            earlier = first.setdefault(one_file(identity), index)
            if earlier != index:
                raise InputError(
                    f"{self.place(index)}: expected image_ids that name different files, found {shown(identity)} and "
                    f"{shown(ids[earlier])}, which are one file on some computers",
                    hint,
                )

    def subset(self, ids: Iterable[str]) -> Manifest:
        """The rows with these ids, in the manifest's order."""
        wanted = set(ids)
        kept = [i for i, name in enumerate(self.column("image_id")) if name in wanted]
        lines = [self.lines[i] for i in kept] if self.lines else []
        columns = columns_of(self.records, self.columns).take(kept)
        return Manifest.of_columns(columns, self, lines)


def read_table(source: Path | str) -> Table:
    """Read any CSV: comma, semicolon, tab or what `sep=` says; any line ends; or Parquet. `-` is stdin, which is kept.

    UTF-8 with or without a BOM, UTF-16 with one, or Latin-1.

    Raises:
        InputError: No such file, no header, a repeated column, or a row with more cells than the header; of Parquet, as
            in `parse_parquet`.
    """
    origin = None if is_stream(source) else Path(source)
    stream = STANDARD_INPUT if Path(source) == STDIN else str(source)
    name = str(origin) if origin else stream
    data = _read_regular(origin) if origin else read_stream(source)
    if is_parquet(name, data):
        header, whole = parse_parquet(data, name)
        check_header(header, name)
        filled = [i for i, row in enumerate(zip(*whole.cells.values(), strict=True)) if any(row)]
        columns = whole if len(filled) == len(whole) else whole.take(filled)
        return Table.of_columns(columns, Table([], [], origin, array("q", (i + 1 for i in filled)), stream, ROW))
    columns, lines = _parse(decode_text(data, name), name)
    return Table.of_columns(columns, Table([], [], origin, lines, stream))


def is_file_of_table(out: Path) -> bool:
    """Whether an output is named as a file of a table, and not as a folder."""
    return out.suffix.lower() in (".csv", PARQUET)


def read_header(path: Path, delimiter: str | None = None) -> list[str]:
    """The names of the columns of a file, quickly, of a CSV with this delimiter or any; none where it is no table."""
    with path.open("rb") as file:
        # A picture has no line ends; what is longer than this is no header.
        start = file.readline(1 << 20)
    if not is_parquet(path, start):
        line = start.decode("utf-8-sig", "replace").replace("\0", "")
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter or _delimiter(line)), [])]
    try:
        return parquet_header(path)
    except InputError:
        return []


_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")

_BATCH = 1 << 12
"""Rows that are turned into columns at once."""


def _parse(text: str, name: str) -> tuple[Columns, Sequence[int]]:
    """The cells of a CSV text, and the line at which each row ends."""
    if "\0" in text:
        raise InputError(f"{name}: expected a CSV table as text, found binary data")
    csv.field_size_limit(_CELL_LIMIT)
    # The first line by which Excel is told the delimiter is no row.
    told = re.match(r'"?sep=(.)"?\r?\n', text)
    # A stream of text would take four bytes for each character.
    reader = csv.reader((line[0] for line in _LINE.finditer(text)), delimiter=told[1] if told else _delimiter(text))
    if told:
        next(reader)
    try:
        header = [cell.strip() for cell in next(reader)]
    except StopIteration:
        raise InputError(
            f"{name}: expected a CSV table with a header, found an empty file",
            "did the step before it fail? `cxrtool info` on its folder shows that",
        ) from None
    check_header(header, f"{name}, line 1")
    collected = Collected(header)
    batch: list[list[str]] = []
    lines = array("q")
    try:
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) != len(header):
                if len(cells) > len(header):
                    raise InputError(
                        f"{name}, line {reader.line_num}: expected {len(header)} cells, found {len(cells)}",
                        "a cell that contains the delimiter must be in double quotes",
                    )
                cells += [""] * (len(header) - len(cells))
            batch.append(cells)
            lines.append(reader.line_num)
            if len(batch) == _BATCH:
                collected.add(zip(*batch, strict=True))
                batch.clear()
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: not a readable CSV row: {error}") from error
    collected.add(zip(*batch, strict=True))
    return Columns(collected.cells, len(lines)), lines


def check_header(header: Sequence[str], place: str) -> None:
    """Raise an `InputError` where a column is listed twice."""
    repeated = sorted({cell for cell in header if header.count(cell) > 1 and cell})
    if repeated:
        raise InputError(f"{place}: the column '{repeated[0]}' is listed twice in the header")


class Collected:
    """The cells of a table that is read in batches; equal cells of a column are one text in memory.

    Attributes:
        cells: By column, without those that have no name.
    """

    def __init__(self, header: Sequence[str]) -> None:
        self._header = header
        self.cells: dict[str, list[str]] = {name: [] for name in header if name}
        self._known: dict[str, dict[str, str]] = {name: {} for name in self.cells}

    def add(self, columns: Iterable[Sequence[str]]) -> None:
        """Append the cells of some rows, given as one sequence a column of the header."""
        for name, cells in zip(self._header, columns, strict=False):
            if not name:
                continue
            found, known = self.cells[name], self._known.get(name)
            if known is None:
                found += cells
                continue
            found += map(known.setdefault, cells, cells)
            # Nearly all cells are different, as ids are.
            if len(known) > _BATCH and 2 * len(known) > len(found):
                del self._known[name]


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
    columns = columns_of(table.records, table.columns)
    manifest = Manifest.of_columns(columns, table)
    manifest.require("image_id", "path")
    manifest.check_texts()
    seen: dict[str, int] = {}
    for index, (identity, image) in enumerate(zip(columns.cells["image_id"], columns.cells["path"], strict=True)):
        if not identity or not image:
            empty = "path" if identity else "image_id"
            raise InputError(f"{manifest.place(index)}: the cell '{empty}' is empty")
        if seen.setdefault(identity, index) != index:
            first = manifest.lines[seen[identity]]
            raise InputError(
                f"{manifest.place(index)}: the image_id '{identity}' is on {manifest.unit} {first} too",
                "ids must be unique; `cxrtool prepare` makes them so",
            )
    named = [name for name in PATH_COLUMNS if name in columns.cells]
    # normpath, not resolve: the user knows a link by its own name, not by its target.
    folder = str(base)
    absolute = {
        name: [cell and os.path.normpath(os.path.join(folder, cell)) for cell in columns.cells[name]]  # noqa: PTH118
        for name in named
    }
    set_columns(manifest, Columns({**columns.cells, **absolute}, len(columns)))
    if root:
        for index, paths in enumerate(zip(*absolute.values(), strict=True)):
            for image in filter(None, paths):
                if not is_inside(image, root):
                    raise InputError(f"{manifest.place(index)}: {image} is outside --root {root}")
    return manifest


def order_columns(columns: Sequence[str], rows: Sequence[RowView] = ()) -> list[str]:
    """Known columns first, in the order of `COLUMNS`, then all others, also those that only rows have."""
    present = dict.fromkeys(columns)
    for row in [rows.cells] if isinstance(rows, Columns | Packed) else rows:
        for name in row:
            present.setdefault(name)
    known = [name for name in COLUMNS if name in present]
    return known + [name for name in present if name not in COLUMNS]


def dump_table(columns: Sequence[str], rows: Iterable[RowView]) -> str:
    """A table as CSV text: comma, line feed, quotes only where they are needed."""
    return "".join(_lines(columns, rows))


def _lines(columns: Sequence[str], rows: Iterable[RowView]) -> Iterator[str]:
    """The text of a table, some rows at a time."""
    written: list[str] = []
    # The writer quotes only the characters of its line terminator: with both, a cell with either one is quoted.
    writer = csv.writer(_Lines(written), lineterminator="\r\n")
    writer.writerow(columns)
    if isinstance(rows, Columns):
        empty = [""] * len(rows)
        cells: Iterator[Sequence[str]] = zip(*(rows.cells.get(name, empty) for name in columns), strict=True)
        cells = cells if columns else iter([()] * len(rows))
    else:
        cells = ([row.get(name, "") for name in columns] for row in rows)
    while batch := list(islice(cells, _BATCH)):
        writer.writerows(batch)
        yield "".join(written)
        written.clear()
    yield "".join(written)


class _Lines:
    def __init__(self, written: list[str]) -> None:
        self._written = written

    def write(self, row: str) -> None:
        self._written.append(row.removesuffix("\r\n") + "\n")


def write_table(target: Path, columns: Sequence[str], rows: Iterable[RowView], *, keep: bool = False) -> bool:
    """Write a table as UTF-8 CSV, or as Parquet where the file is named so, whole or not at all.

    Args:
        target: The file.
        columns: The header.
        rows: The rows; a cell that one lacks is empty.
        keep: Leave a file alone that is the same already.

    Returns:
        Whether it was written.
    """
    if not isinstance(rows, Columns) and (keep or is_parquet(target)):
        rows = list(rows)
    whole = [dump_parquet(columns, columns_of(rows))] if isinstance(rows, Sequence) and is_parquet(target) else None
    # A CSV is made twice instead of being held in memory.
    if keep and target.is_file() and _is_same(target, whole or map(encoded, _lines(columns, rows))):
        return False
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        file.writelines(whole or map(encoded, _lines(columns, rows)))
    return True


def _is_same(target: Path, content: Iterable[bytes]) -> bool:
    with target.open("rb") as file:
        return all(file.read(len(part)) == part for part in content) and not file.read(1)


def write_manifest(target: Path, columns: Sequence[str], rows: Iterable[RowView], *, keep: bool = False) -> bool:
    """Write rows with absolute paths as a manifest whose paths are relative to its own folder; see `write_table`."""
    base = Path(target).absolute().parent
    relative = relative_columns(rows, base) if isinstance(rows, Columns) else relative_rows(rows, base)
    return write_table(target, columns, relative, keep=keep)


def relative_rows(rows: Iterable[RowView], base: Path) -> Iterator[Row]:
    """Copies of the rows with `path` and masks relative to `base`."""
    relative = _Relative(base)
    return ({**row, **{name: relative(row[name]) for name in PATH_COLUMNS if row.get(name)}} for row in rows)


def relative_columns(columns: Columns, base: Path) -> Columns:
    """The columns with `path` and masks relative to `base`."""
    relative = _Relative(base)
    named = [name for name in PATH_COLUMNS if name in columns.cells]
    return Columns({**columns.cells, **{name: [*map(relative, columns.cells[name])] for name in named}}, len(columns))


class _Relative:
    """Paths relative to a folder, as `os.path.relpath` makes them, which takes long, so once for each folder."""

    def __init__(self, base: Path) -> None:
        self._base = str(base)
        self._below = {*map(str, base.absolute().parts)}
        self._known: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        folder, slash, name = path.rpartition("/")
        # A name that may be a part of the base, or no name, is left to relpath.
        if not slash or not name or name in self._below or name in (".", ".."):
            return Path(os.path.relpath(path, self._base)).as_posix() if path else ""
        found = self._known.get(folder)
        if found is None:
            found = self._known[folder] = Path(os.path.relpath(folder or "/", self._base)).as_posix()
        return name if found == "." else f"{found}/{name}"


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
