"""The header of a TIFF file, read far enough to know that its pixels will come out right.

OpenCV hands every TIFF to libtiff and differs by bit depth: 1 and 8 bits go through an RGBA conversion (which inverts
min-is-white, converts CMYK and multiplies colours by their opacity), 16 bits and quantities do not, 10 to 14 packed
bits are moved to the upper end of 16, and of several pages the first is taken without a word. What would come out
wrong is refused here. Several pages are refused and not numbered off: which of the radiographs of a study has the label
that a table gives to the file, nobody has said. Reference: TIFF 6.0 (Adobe, 1992), sections 2, 8, 10, 15, 16, 18, 19.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cxrtool.data.reading.headers import INKS, Header
from cxrtool.errors import ImageError

ORIENTATION = 274
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_MAX_PAGES = 32
_PHOTOMETRIC = {0: "min-is-white", 1: "min-is-black", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}
_GREY = (0, 1)
_COMPRESSION = {1, 5, 7, 8, 32773, 32946}
_FAX = {2, 3, 4}
"""Compressions that only pictures of one bit have."""

_SAMPLE_FORMATS = {4: "undefined", 5: "complex", 6: "complex"}
_DEPTHS = {
    "u": {1: 8, 8: 8, 10: 16, 12: 16, 14: 16, 16: 16, 32: 32},
    "i": {8: 8, 16: 16, 32: 32},
    "f": {32: 32, 64: 64},
}
"""By kind of sample: the bits that are read, and the bits that they are decoded to."""

_ALPHA = {0: "none", 1: "applied", 2: ""}
"""By the tag ExtraSamples, which says of what kind a fourth sample is."""


@dataclass(frozen=True)
class _Layout:
    order: str
    big: bool


Tags = dict[int, tuple[int, ...]]


def read_tiff(data: bytes) -> Header:
    """Read the only page's header; check that the file is whole, and of a kind whose pixels come out right.

    Raises:
        ImageError: It is truncated, has several pages, or is of a variant whose pixels would come out wrong.
    """
    # Thumbnails and masks of transparency are no pages of their own.
    pages = [tags for tags in _pages(data) if not tags.get(254, (0,))[0] & 5 and tags.get(255, (1,))[0] != 2]
    if len(pages) != 1:
        raise ImageError(f"expected a TIFF of one page, found {len(pages)}")
    tags = pages[0]
    width, height = tags.get(256, (0,))[0], tags.get(257, (0,))[0]
    bits = tags.get(258, (1,))
    samples = tags.get(277, (1,))[0]
    photometric = tags.get(262, (-1,))[0]
    if photometric not in _PHOTOMETRIC:
        raise ImageError(f"expected a grey, palette, RGB or CMYK TIFF, found photometric interpretation {photometric}")
    form = {1: "u", 2: "i", 3: "f"}.get(tags.get(339, (1,))[0])
    if form is None:
        kind = _SAMPLE_FORMATS.get(tags[339][0], "unknown")
        raise ImageError(f"a TIFF of {kind} samples is not supported; convert it to 16-bit grey")
    depths = _DEPTHS[form]
    if len(set(bits)) != 1 or bits[0] not in depths:
        known, found = ", ".join(map(str, depths)), "/".join(map(str, bits))
        raise ImageError(f"expected a TIFF of {known} bits a sample, found {found}")
    if photometric not in _GREY and (form != "u" or bits[0] not in ((8, 16) if photometric == 2 else (8,))):
        raise ImageError(f"a {_PHOTOMETRIC[photometric]} TIFF of {bits[0]} bits is not supported; convert it to PNG")
    alpha = _alpha(tags, photometric, samples, bits[0])
    if samples > 1 and tags.get(284, (1,))[0] != 1 and (bits[0], samples, photometric) != (8, 3, 2):
        raise ImageError("a TIFF with separate planes is only supported as RGB of 8 bits; convert it to PNG")
    compression = tags.get(259, (1,))[0]
    if compression not in _COMPRESSION and not (compression in _FAX and bits[0] == 1):
        raise ImageError(f"a TIFF with compression {compression} is not supported; convert it to PNG")
    if tags.get(322, (0,))[0] * tags.get(323, (0,))[0] > 4 * max(width * height, 1 << 24):
        raise ImageError("malformed TIFF: its tiles are larger than the picture")
    _check_whole(tags, len(data))
    orientation = tags.get(ORIENTATION, (1,))[0]
    return Header(
        "TIFF",
        width,
        height,
        bits=depths[bits[0]],
        form=form,
        stored=bits[0] if 8 < bits[0] < 16 else 0,
        alpha=alpha,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        inverted=photometric == 0 and not (form == "u" and bits[0] <= 8),
        note=INKS if photometric == 5 else "",
    )


def _alpha(tags: Tags, photometric: int, samples: int, bits: int) -> str:
    """What a fourth sample means; of 8 bits the decoder has applied it.

    Raises:
        ImageError: There are more samples than a picture of this kind has.
    """
    extra = tags.get(338, ())
    if photometric == 5:
        if samples != 4 or extra or tags.get(332, (1,))[0] != 1:
            raise ImageError(f"expected a CMYK TIFF of four inks, found {samples} samples a pixel")
        return "none"
    colours = 3 if photometric in (2, 6) else 1
    if samples == colours and not extra:
        return ""
    # Of grey with opacity the decoder hands out the grey alone, and of more than one extra sample nothing is known.
    if colours != 3 or photometric != 2 or samples != 4:
        raise ImageError(f"expected a TIFF without transparency, found {samples} samples a pixel; flatten it")
    alpha = _ALPHA.get(extra[0] if extra else 0, "none")
    return "applied" if bits == 8 and not alpha else alpha


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
