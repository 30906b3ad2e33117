"""The header of a PNG, and the check that its compressed data are those of its pixels, no more and no less.

libpng inflates whatever is there: gigabytes behind a picture of 64 x 64 pixels, and every compressed text or profile.
So the decoder gets only the chunks that pixels depend on, with data that were inflated here, piece by piece, up to the
size in the header. Reference: PNG, third edition (W3C, 2025), sections 5, 7.2, 8 and 10.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from cxrtool.data.reading.headers import Header, exif_orientation
from cxrtool.data.reading.radiograph import Grey
from cxrtool.errors import ImageError

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples a pixel, by colour type."""

_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}

_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IEND")
"""The chunks that pixels depend on, besides their data."""

_UP = 2
"""The filter of a row that has the differences to the row above."""

_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column, first row and distances of Adam7's passes."""

_PIECE, _BLOCK = 1 << 16, (1 << 16) - 1
"""Bytes that are inflated at once; the largest block that is stored."""

_SURPLUS = 1 << 16
"""Bytes behind the last row that are ignored, as libpng does; some writers pad their data."""

_CORRUPT = "damaged PNG: its compressed pixels are corrupt"


def read_png(data: bytes) -> Header:
    """Read a PNG's header and walk its chunks to the end."""
    if data[12:16] != b"IHDR":
        raise ImageError("malformed PNG: it does not start with its header")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if depth not in _DEPTHS.get(colour, ()):
        raise ImageError(f"malformed PNG: its header has colour type {colour} with {depth} bits, which does not exist")
    orientation, note = 1, ""
    for name, start, end in _chunks(data):
        if name == b"acTL":
            raise ImageError("expected one image, found an animated PNG")
        if name == b"eXIf":
            orientation = exif_orientation(data[start:end])
        elif name == b"tRNS" and colour != 3:
            note = "its transparent colour was read as an ordinary grey value"
    return Header("PNG", width, height, bits=16 if depth == 16 else 8, orientation=orientation, note=note)


def inflate(data: bytes) -> bytearray:
    """The rows of the image, each after the byte that names its filter.

    Raises:
        ImageError: The data inflate to more than the size in the header, to less, or are damaged.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    expected = _inflated(width, height, depth * _SAMPLES[colour], interlaced=bool(interlaced))
    rows, inflater = bytearray(), zlib.decompressobj()
    for name, start, end in _chunks(data):
        if name != b"IDAT":
            continue
        if zlib.crc32(data[start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ImageError(_CORRUPT)
        for at in range(start, end, _PIECE):
            piece = data[at : min(at + _PIECE, end)]
            while piece and len(rows) <= expected + _SURPLUS:
                try:
                    rows += inflater.decompress(piece, _BLOCK)
                except zlib.error as error:
                    raise ImageError(_CORRUPT) from error
                piece = inflater.unconsumed_tail
    if len(rows) > expected + _SURPLUS:
        raise ImageError(f"malformed PNG: its data inflate to more than the {width} x {height} pixels of its header")
    if len(rows) < expected:
        raise ImageError(f"truncated PNG: its data hold {len(rows):,} of the {expected:,} bytes of its pixels")
    del rows[expected:]
    return rows


def sums_of(data: bytes, rows: bytearray) -> Grey | None:
    """The pixels (H, W), uint8 or uint16, where all rows are differences to the row above, as `write_png` makes them.

    That is a cumulative sum. For any other PNG, the answer is None, and a decoder needs `uncompressed`.
    """
    height, depth, colour, _, _, interlaced = struct.unpack_from(">IBBBBB", data, 20)
    if colour or interlaced or depth < 8:
        return None
    filtered = np.frombuffer(rows, np.uint8).reshape(height, -1)
    if (filtered[:, 0] != _UP).any():
        return None
    # Section 9.2: modulo 256, byte by byte. A loop, because `np.add.accumulate` takes ten times as long.
    pixels: Grey = np.empty((height, filtered.shape[1] - 1), np.uint8)
    above = np.zeros_like(pixels[0])
    for differences, row in zip(filtered[:, 1:], pixels, strict=True):
        above = np.add(differences, above, out=row)
    return pixels if depth == 8 else pixels.view(">u2").astype(np.uint16)


def uncompressed(data: bytes, rows: bytearray) -> bytearray:
    """The same image without compression, and without the chunks that its pixels do not depend on.

    So its data are inflated once, and the decoder copies them. Each piece becomes a block that is stored as it is
    (RFC 1951, section 3.2.4), in a chunk of its own.
    """
    made = bytearray(data[:8])
    for name, start, end in _chunks(data):
        if name == b"IEND":
            view = memoryview(rows)
            _append(made, [b"\x78\x01"])
            for at in range(0, len(rows), _BLOCK):
                block = view[at : at + _BLOCK]
                _append(made, [struct.pack("<BHH", 0, len(block), len(block) ^ _BLOCK), block])
            _append(made, [struct.pack("<BHH", 1, 0, _BLOCK), struct.pack(">I", zlib.adler32(rows))])
        if name in _NEEDED:
            made += data[start - 8 : end + 4]
    return made


def _append(made: bytearray, parts: list[bytes | memoryview]) -> None:
    """Append a chunk of compressed data."""
    made += struct.pack(">I", sum(map(len, parts))) + b"IDAT"
    checksum = zlib.crc32(b"IDAT")
    for part in parts:
        made += part
        checksum = zlib.crc32(part, checksum)
    made += struct.pack(">I", checksum)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, start and end of the content of every chunk, with the end chunk as last."""
    position = 8
    while True:
        if position + 12 > len(data):
            raise ImageError("truncated PNG: the file ends before its end chunk")
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        name = data[position + 4 : position + 8]
        yield name, position + 8, end
        if name == b"IEND":
            return
        position = end + 4


def _inflated(width: int, height: int, bits: int, *, interlaced: bool) -> int:
    """Bytes of all rows, each with the byte of its filter.

    >>> _inflated(64, 64, 8, interlaced=False), _inflated(3, 2, 1, interlaced=True)
    (4160, 8)
    """
    total = 0
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total
