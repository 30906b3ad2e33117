"""How much a Parquet file holds, found before it is decoded: its rows, and the size of each page by its own header.

The decoder believes the header of a page; the footer of the file may state less. pyarrow shows no header, and ends the
process where a damaged footer is asked for its columns. Both are structures in Thrift's compact protocol
(https://parquet.apache.org/docs/file-format/, `FileMetaData` and `PageHeader` in parquet.thrift).
"""

from __future__ import annotations

from typing import Any

_UNCOMPRESSED, _COMPRESSED, _DATA, _DATA_2 = 2, 3, 5, 8
"""Fields of a page header: the two sizes, and the headers of data pages of both versions."""

_GROUPS, _COLUMNS, _ROWS, _META = 4, 1, 3, 3
"""Fields of the footer, of a group of rows (two), and of a column in it."""

_SIZE, _PAGES, _DICTIONARY = 7, 9, 11
"""Fields of a column: its bytes as stored, and where its pages and its dictionary begin."""

_ENCODING = {_DATA: 2, _DATA_2: 4}
"""The field of the encoding in these headers."""

DELTA_BYTE_ARRAY = 7
"""The encoding in which each text may repeat the one before it, so that a few bytes a text may be any number."""

_DEEPEST = 8
_LONGEST_NUMBER = 10


def rows_and_size(data: bytes) -> tuple[int, int]:
    """The rows of a Parquet file, and the bytes of all its pages after decompression.

    Raises:
        ValueError: Its footer or a header is damaged, or a page has an encoding without a limit.
        KeyError: Its footer lacks a field.
    """
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    if begin < 0 or data[-4:] != b"PAR1":
        raise ValueError("a file without a footer")
    groups = _Compact(data, begin).structure()[_GROUPS]
    rows, size = [group[_ROWS] for group in groups], 0
    if min(rows, default=0) < 0:
        raise ValueError("a negative number of rows")
    parts = [column[_META] for group in groups for column in group[_COLUMNS]]
    if sum(abs(part[_SIZE]) for part in parts) > len(data):
        raise ValueError("columns that are longer than the file")
    for part in parts:
        place = min(part.get(_DICTIONARY) or part[_PAGES], part[_PAGES])
        size += size_of_pages(data, place, place + part[_SIZE])
    return sum(rows), size


def size_of_pages(data: bytes, begin: int, end: int) -> int:
    """The bytes of the pages of a column after decompression; errors as of `rows_and_size`."""
    reader, size = _Compact(data, begin), 0
    while reader.place < end:
        header = reader.structure()
        uncompressed, compressed = header.get(_UNCOMPRESSED), header.get(_COMPRESSED)
        if not isinstance(uncompressed, int) or not isinstance(compressed, int) or min(uncompressed, compressed) < 0:
            raise ValueError("a page without its size")
        for kind, field in _ENCODING.items():
            if isinstance(header.get(kind), dict) and header[kind].get(field) == DELTA_BYTE_ARRAY:
                raise ValueError("texts that are encoded as differences (DELTA_BYTE_ARRAY); write them without")
        size += uncompressed
        reader.skip(compressed)
    return size


class _Compact:
    """Reads structures, as dictionaries by field number; texts in them are skipped."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self.place = data, place

    def skip(self, size: int) -> int:
        """Go on by some bytes, all of which must be there; returns where they begin."""
        begin, self.place = self.place, self.place + size
        if size < 0 or self.place > len(self._data):
            raise ValueError("a page that ends too early")
        return begin

    def structure(self, depth: int = 0) -> dict[int, Any]:
        """The fields of a structure."""
        if depth > _DEEPEST:
            raise ValueError("a header that is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            found[number] = self._value(head & 15, depth)
        return found

    def _byte(self) -> int:
        return self._data[self.skip(1)]

    def _varint(self) -> int:
        value = 0
        for step in range(_LONGEST_NUMBER):
            byte = self._byte()
            value |= (byte & 0x7F) << 7 * step
            if byte < 0x80:
                return value
        raise ValueError("a number without an end")

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self.skip(8)
        if kind == 8:
            return self.skip(self._varint())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            if count > len(self._data) - self.place:
                raise ValueError("a list that is longer than the file")
            # A truth value in a list has a byte of its own.
            return [self._byte() if head & 15 < 3 else self._value(head & 15, depth) for _ in range(count)]
        if kind == 12:
            return self.structure(depth + 1)
        raise ValueError("a header with an unknown field")
