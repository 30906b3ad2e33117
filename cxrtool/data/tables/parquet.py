"""A Parquet file as a table of text, and back.

Every cell becomes the text that pandas writes for it in a CSV, so that both files of a table give the same results: a
number in its shortest form, True and False, a date as 2020-03-31, nothing for a missing value. Columns of lists,
structures and bytes are refused. What is written is text, with nulls for empty cells.
"""

from __future__ import annotations

import datetime
import io
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.tables.parquet_pages import rows_and_size
from cxrtool.data.tables.views import Columns
from cxrtool.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIX = ".parquet"
MAGIC = b"PAR1"

CELLS, CELLS_A_BYTE = 1 << 24, 64
"""Most cells of a table, or of each byte of its file: a kilobyte may claim a billion equal ones."""

LARGEST, RATIO = 1 << 28, 100
"""Largest size in bytes after decompression, or as a multiple of the file."""

LONGEST = 10_000_000
"""Characters of a cell, as in a CSV."""

_FOOTER = 1 << 26
"""Most bytes and most entries in the description of the columns."""

_GROUP = 1 << 17
"""Rows that are written at once."""

_INDEX = re.compile(r"__index_level_\d+__")
_HINT = "write the column as text, or save the table as CSV UTF-8"


def is_parquet(name: Path | str, data: bytes = b"") -> bool:
    """Whether a file is Parquet, by its name or its first bytes."""
    return data[:4] == MAGIC or Path(name).suffix.lower() == SUFFIX


def parse_parquet(data: bytes, name: str) -> tuple[list[str], Columns]:
    """The header, with its blanks and columns without a name as in a CSV, and the cells of the named columns.

    Raises:
        InputError: It is no Parquet file, damaged, larger than its file can be, or has a column or a cell that is no
            text; the message names row and column. Or pyarrow is not installed.
    """
    with _Reading(name):
        file, fields = _open(data, name)
        header = ["" if _INDEX.fullmatch(field.name) else field.name.strip() for field in fields]
        cells = {}
        for column, field in zip(header, fields, strict=True):
            if column and column not in cells:
                cells[column] = list(_cells(file, field, name))
        size = file.metadata.num_rows
    for column, found in cells.items():
        if len(found) != size:
            raise InputError(f"{name}: expected {size} rows in every column, found {len(found)} in '{column}'")
        _check(found, column, name)
    return header, Columns(cells, size)


def parquet_header(path: Path) -> list[str]:
    """The names of the columns of a Parquet file; an `InputError` as in `parse_parquet`."""
    with _Reading(str(path)):
        return [field.name for field in _open(path.read_bytes(), str(path))[1]]


def dump_parquet(columns: Sequence[str], rows: Columns) -> bytes:
    """A table as a Parquet file of text.

    Raises:
        InputError: pyarrow is not installed.
    """
    pa, pq = _library("a Parquet file is written")
    schema, file = pa.schema([(name, pa.string()) for name in columns]), io.BytesIO()
    missing = [""] * len(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for begin in range(0, len(rows), _GROUP):
            parts = (rows.cells.get(name, missing)[begin : begin + _GROUP] for name in columns)
            arrays = [pa.array([_written(cell) for cell in part], pa.string()) for part in parts]
            writer.write_table(pa.table(arrays, schema))
    return file.getvalue()


def _written(cell: str) -> str | None:
    # A file name that is not UTF-8 has lone surrogates, which are written as escapes, as in a CSV.
    return (cell if cell.isascii() else cell.encode(errors="backslashreplace").decode()) or None


class _Reading:
    """Turns the errors of pyarrow, which on damaged files may be any, into one line."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, InputError):
            told = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"{self._name}: expected a Parquet table, cannot read it: {told}") from error


def _library(what: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            f"{what} with pyarrow, which is not installed",
            "install it with `pip install 'cxrtool[parquet]'`, or use CSV",
        ) from None
    return pyarrow, parquet


def _open(data: bytes, name: str) -> tuple[pq.ParquetFile, list[pa.Field]]:
    """The file, whose texts are read as numbered values, and its columns."""
    pa, pq = _library(f"{name}: a Parquet file is read")
    limits = {"thrift_string_size_limit": _FOOTER, "thrift_container_size_limit": _FOOTER >> 4}
    file = pq.ParquetFile(pa.BufferReader(data), **limits)
    fields = list(file.schema_arrow)
    _check_sizes(file.metadata.num_rows, len(fields), data, name)
    names = [field.name for field in fields]
    if repeated := sorted({found for found in names if names.count(found) > 1}):
        raise InputError(f"{name}: the column '{repeated[0]}' is listed twice in the header")
    for field in fields:
        if not _is_plain(field.type):
            raise InputError(
                f"{name}: expected text, numbers, dates or booleans in '{field.name}', found {field.type}", _HINT
            )
    texts = [field.name for field in fields if _is_text(field.type)]
    return pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts, **limits), fields


def _check_sizes(rows: int, columns: int, data: bytes, name: str) -> None:
    (found, large), size = rows_and_size(data), len(data)
    cells = rows * max(columns, 1)
    if rows != found:
        raise InputError(f"{name}: expected a Parquet table, found {rows:,} rows in all and {found:,} in its groups")
    if cells > max(CELLS, CELLS_A_BYTE * size) or large > max(LARGEST, RATIO * size):
        raise InputError(
            f"{name}: the table is too large for its file of {size:,} bytes: {cells:,} cells, {large:,} bytes",
            "save it as CSV UTF-8 if it is right",
        )


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_plain(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    known = ("null", "boolean", "integer", "floating", "decimal", "date", "timestamp", "time")
    return _is_text(kind) or any(getattr(pa.types, f"is_{found}")(kind) for found in known)


def _cells(file: pq.ParquetFile, field: pa.Field, name: str) -> Iterator[str]:
    import pyarrow as pa

    column = file.read(columns=[field.name], use_threads=False).column(field.name)
    for chunk in column.chunks:
        if not pa.types.is_dictionary(chunk.type):
            yield from _texts(chunk)
            continue
        # Equal cells are one text; the last is that of a missing one.
        values = [*_texts(chunk.dictionary), ""]
        yield from map(values.__getitem__, chunk.indices.fill_null(-1).to_pylist())


def _texts(values: pa.Array) -> list[str]:
    import pyarrow as pa

    kind = values.type
    if pa.types.is_timestamp(kind):
        moments = values.cast(pa.timestamp("us", kind.tz), safe=False).to_pylist()
        days = kind.tz is None and all(moment.time() == datetime.time() for moment in moments if moment is not None)
        return ["" if moment is None else str(moment.date() if days else moment) for moment in moments]
    if pa.types.is_floating(kind):
        # A number of 32 bits has fewer digits than the same number of 64.
        numbers = values.fill_null(float("nan")).to_numpy(zero_copy_only=False)
        return ["" if number != number else str(number) for number in numbers]
    return ["" if value is None else _text(value) for value in values.to_pylist()]


def _text(value: Any) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _check(cells: Sequence[str], column: str, name: str) -> None:
    """What no cell of a CSV can be: with a zero byte, or without end."""
    for index, cell in enumerate(cells, 1):
        if "\0" in cell or len(cell) > LONGEST:
            found = "a zero byte" if "\0" in cell else f"{len(cell):,} characters"
            raise InputError(f"{name}, row {index}: expected text in '{column}', found {found}", _HINT)
