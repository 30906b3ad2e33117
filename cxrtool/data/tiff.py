"""The header of a TIFF file, read far enough to know that its pixels will come out right.

OpenCV hands every TIFF to libtiff and differs by bit depth: 8 bits go through an RGBA conversion (which inverts
min-is-white and premultiplies alpha), 16 bits do not, and of several pages the first is taken without a word. What
would come out wrong is refused here. Reference: TIFF 6.0 (Adobe, 1992), sections 2, 8 and 15.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cxrtool.data.headers import Header
from cxrtool.errors import ImageError

ORIENTATION = 274
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_MAX_PAGES = 32
_PHOTOMETRIC = {0: "min-is-white", 1: "min-is-black", 2: "RGB", 3: "palette", 6: "YCbCr"}
_COMPRESSION = {1, 5, 7, 8, 32773, 32946}
_SAMPLE_FORMATS = {2: "signed", 3: "floating-point", 4: "undefined", 5: "complex", 6: "complex"}


@dataclass(frozen=True)
class _Layout:
    order: str
    big: bool


Tags = dict[int, tuple[int, ...]]


def read_tiff(data: bytes) -> Header:
    """Read the first page's header; check that the file is whole, has one page, and is grey, palette or RGB.

    Raises:
        ImageError: It is truncated, has several pages, or is of a variant whose pixels would come out wrong.
    """
    pages = [tags for tags in _pages(data) if not tags.get(254, (0,))[0] & 1]
    if len(pages) != 1:
        raise ImageError(f"expected a TIFF of one page, found {len(pages)}")
    tags = pages[0]
    width, height = tags.get(256, (0,))[0], tags.get(257, (0,))[0]
    bits = tags.get(258, (1,))
    samples = tags.get(277, (1,))[0]
    photometric = tags.get(262, (-1,))[0]
    if photometric not in _PHOTOMETRIC:
        raise ImageError(f"expected a grey, palette or RGB TIFF, found photometric interpretation {photometric}")
    sample_format = tags.get(339, (1,))[0]
    if sample_format != 1:
        kind = _SAMPLE_FORMATS.get(sample_format, "unknown")
        raise ImageError(f"expected a TIFF of unsigned integers, found {kind} samples; convert it to 16-bit grey")
    if len(set(bits)) != 1 or bits[0] not in (8, 16):
        raise ImageError(f"expected a TIFF of 8 or 16 bits a sample, found {'/'.join(map(str, bits))}")
    if tags.get(338) or samples not in (1, 3):
        raise ImageError(f"expected a TIFF without transparency, found {samples} samples a pixel; flatten it")
    if samples > 1 and tags.get(284, (1,))[0] != 1:
        raise ImageError("a TIFF with separate colour planes is not supported; convert it to PNG")
    if bits[0] == 16 and photometric in (3, 6):
        raise ImageError(f"a 16-bit {_PHOTOMETRIC[photometric]} TIFF is not supported; convert it to PNG")
    compression = tags.get(259, (1,))[0]
    if compression not in _COMPRESSION:
        raise ImageError(f"a TIFF with compression {compression} is not supported; convert it to PNG")
    if tags.get(322, (0,))[0] * tags.get(323, (0,))[0] > 4 * max(width * height, 1 << 24):
        raise ImageError("malformed TIFF: its tiles are larger than the picture")
    _check_whole(tags, len(data))
    orientation = tags.get(ORIENTATION, (1,))[0]
    return Header(
        "TIFF",
        width,
        height,
        bits=bits[0],
        orientation=orientation if 1 <= orientation <= 8 else 1,
        inverted=photometric == 0 and bits[0] == 16,
    )


def upright(data: bytes) -> bytes:
    """The same file with its orientation tag set to 1, so that the decoder leaves the turning to us."""
    layout, offset = _start(data)
    for tag, _, _, place in _entries(data, layout, offset)[0]:
        if tag == ORIENTATION:
            return data[:place] + struct.pack(layout.order + "H", 1) + data[place + 2 :]
    return data


def _check_whole(tags: Tags, size: int) -> None:
    offsets = tags.get(324) or tags.get(273) or ()
    counts = tags.get(325) or tags.get(279) or ()
    if not offsets or len(offsets) != len(counts):
        raise ImageError("malformed TIFF: it does not say where its pixels lie")
    if any(offset + count > size for offset, count in zip(offsets, counts, strict=True)):
        raise ImageError("truncated TIFF: the file ends before its last pixels")


def _pages(data: bytes) -> list[Tags]:
    layout, offset = _start(data)
    pages: list[Tags] = []
    seen: set[int] = set()
    while offset and offset not in seen and len(pages) < _MAX_PAGES:
        seen.add(offset)
        entries, following = _entries(data, layout, offset)
        pages.append({tag: _values(data, layout, kind, count, place) for tag, kind, count, place in entries})
        offset = following
    return pages


def _start(data: bytes) -> tuple[_Layout, int]:
    order = "<" if data[:2] == b"II" else ">"
    (magic,) = struct.unpack_from(order + "H", data, 2)
    big = magic == 43
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    return _Layout(order, big), offset


def _entries(data: bytes, layout: _Layout, offset: int) -> tuple[list[tuple[int, int, int, int]], int]:
    """The directory's (tag, type, count, place of the values) and the offset of the next directory."""
    number, word, step = ("Q", "Q", 20) if layout.big else ("H", "I", 12)
    (count,) = struct.unpack_from(layout.order + number, data, offset)
    start = offset + struct.calcsize("<" + number)
    if count > 4096:
        raise ImageError(f"malformed TIFF: a directory of {count} entries")
    inline = struct.calcsize("<" + word)
    entries = []
    for position in range(start, start + step * count, step):
        tag, kind, length = struct.unpack_from(f"{layout.order}HH{word}", data, position)
        place = position + step - inline
        if length * _SIZES.get(kind, 1) > inline:
            (place,) = struct.unpack_from(layout.order + word, data, place)
        entries.append((tag, kind, length, place))
    (following,) = struct.unpack_from(layout.order + word, data, start + step * count)
    return entries, following


def _values(data: bytes, layout: _Layout, kind: int, count: int, place: int) -> tuple[int, ...]:
    code = _CODES.get(kind)
    if code is None or count > 1 << 20:
        return ()
    return struct.unpack_from(f"{layout.order}{count}{code}", data, place)
