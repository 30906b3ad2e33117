"""Read the tensors of a TensorFlow checkpoint without TensorFlow.

A checkpoint of version 2 is a "tensor bundle": `NAME.index`, a sorted string table as LevelDB writes it, whose keys are
the names of the tensors and whose values are protocol buffers (`BundleEntryProto`: type, shape, offset, CRC-32C); and
`NAME.data-00000-of-00001` with the values. The formats are those of tensorflow/core/util/tensor_bundle and of
google/leveldb's doc/table_format.md. What a published network needs is supported: one shard, little-endian,
uncompressed, 32-bit floats. No code is run, and every length is checked.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.errors import InputError

INDEX, DATA = ".index", ".data-00000-of-00001"

_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
_FOOTER, _TRAILER = 48, 5
_FLOAT, _LARGEST = 1, 1 << 30
_MASK = 0xA282EAD8


@dataclass(frozen=True)
class Entry:
    """A tensor in the data file: type (a `DataType` of TensorFlow), shape, offset and size in bytes, masked CRC-32C."""

    kind: int
    shape: tuple[int, ...]
    offset: int
    size: int
    crc: int


def checkpoint_stem(path: Path) -> Path | None:
    """The common name of both files of a checkpoint, from either of them, from that name, or from their folder.

    Returns:
        None if there is no such checkpoint, or more than one in the folder.
    """
    if path.is_dir():
        found = sorted(path.glob(f"*{INDEX}"))
        return found[0].with_suffix("") if len(found) == 1 else None
    stem = re.sub(r"\.index$|\.data-\d{5}-of-\d{5}$", "", path.name)
    whole = path.with_name(stem)
    return whole if whole.with_name(stem + INDEX).is_file() else None


def read_tensors(stem: Path) -> dict[str, NDArray[np.float32]]:
    """The 32-bit floats of a checkpoint by name, in TensorFlow's axis order.

    Args:
        stem: As `checkpoint_stem` gives it.

    Raises:
        InputError: A file is missing, damaged, of another byte order or compressed, or in several shards.
    """
    index, data = stem.with_name(stem.name + INDEX), stem.with_name(stem.name + DATA)
    try:
        table, values = index.read_bytes(), data.read_bytes()
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be read: {error.strerror}",
            f"a TensorFlow checkpoint is two files, {index.name} and {data.name}; both are needed",
        ) from error
    try:
        entries = _entries(table)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{index}: expected the index of a TensorFlow checkpoint, found a damaged one") from error
    except ValueError as error:
        raise InputError(f"{index}: {error}") from error
    return {name: _tensor(values, name, entry, data) for name, entry in entries.items() if entry.kind == _FLOAT}


def _tensor(values: bytes, name: str, entry: Entry, data: Path) -> NDArray[np.float32]:
    needed = int(np.prod(entry.shape, dtype=np.int64)) * 4
    if entry.size != needed:
        raise InputError(f"{data}: expected {needed} bytes for '{name}' of shape {entry.shape}, found {entry.size}")
    part = values[entry.offset : entry.offset + entry.size]
    if len(part) != entry.size:
        raise InputError(
            f"{data}: expected at least {entry.offset + entry.size:,} bytes, found {len(values):,}: it is truncated",
            "download it again",
        )
    crc = crc32c(part)
    if (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF != entry.crc:
        raise InputError(f"{data}: damaged: the checksum of '{name}' does not match", "download it again")
    return np.frombuffer(part, "<f4").reshape(entry.shape).astype(np.float32)


def _entries(table: bytes) -> dict[str, Entry]:
    """The tensors that an index lists.

    Raises:
        ValueError: It cannot be read; the text is the reason.
    """
    if len(table) < _FOOTER or table[-8:] != _MAGIC:
        raise ValueError("expected the index of a TensorFlow checkpoint, found another kind of file")
    footer = table[-_FOOTER:]
    _, position = _varint(footer, 0)
    _, position = _varint(footer, position)
    offset, position = _varint(footer, position)
    size, _ = _varint(footer, position)
    entries: dict[str, Entry] = {}
    seen = 0
    for _, handle in _pairs(_block(table, offset, size)):
        start, position = _varint(handle, 0)
        length, _ = _varint(handle, position)
        # A thousand handles of one block would take as long as a thousand blocks.
        seen += length
        if seen > len(table):
            raise ValueError("expected the index of a TensorFlow checkpoint, found blocks that overlap")
        for key, value in _pairs(_block(table, start, length)):
            fields = dict(_fields(value))
            if not key:
                if fields.get(2, 0) or fields.get(1, 1) != 1:
                    raise ValueError("expected one little-endian file of values, found several, or big-endian ones")
                continue
            if fields.get(7) is not None or fields.get(3, 0):
                # A slice of a tensor that was distributed over machines; no single network is saved so.
                raise ValueError(f"expected whole tensors, found '{key.decode()}' in slices or in another file")
            entries[key.decode()] = Entry(
                _number(fields.get(1, 0)),
                _shape(fields.get(2, b"")),
                _number(fields.get(4, 0)),
                _number(fields.get(5, 0)),
                _number(fields.get(6, 0)),
            )
    return entries


def _block(table: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER > len(table):
        raise IndexError("a block after the end")
    if table[end]:
        raise ValueError("expected an uncompressed index, as TensorFlow writes it, found a compressed one")
    return table[offset:end]


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; each key shares a prefix with the key before."""
    restarts = struct.unpack("<I", block[-4:])[0]
    end, position, key = len(block) - 4 * (restarts + 1), 0, b""
    while position < end:
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + own]
        position += own
        yield key, block[position : position + length]
        position += length
        if position > end:
            raise IndexError("an entry after the end")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
        elif kind == 2:
            length, position = _varint(message, position)
            yield tag >> 3, message[position : position + length]
            position += length
        elif kind == 5:
            yield tag >> 3, struct.unpack("<I", message[position : position + 4])[0]
            position += 4
        else:
            raise ValueError("expected the index of a TensorFlow checkpoint, found an unknown kind of field in it")


def _shape(message: int | bytes) -> tuple[int, ...]:
    if isinstance(message, int):
        raise ValueError("expected the shape of a tensor, found a number")
    sides = [_number(dict(_fields(content)).get(1, 0)) for _, content in _fields(message) if isinstance(content, bytes)]
    return tuple(sides)


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes) or value > _LARGEST << 2:
        raise ValueError("expected an offset or a size, found another value")
    return value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
        if shift > 63:
            raise IndexError("a number without an end")


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """The CRC with Castagnoli's polynomial (RFC 3720, B.4).

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    table, value = _crc_table(), 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF
