"""The header of a TIFF file, read far enough to check that its pixels will be decoded correctly.

OpenCV uses libtiff, with differences by bit depth: 1 and 8 bits go through an RGBA conversion (which inverts
min-is-white, converts CMYK and multiplies colours by their opacity), 16 bits and quantities do not, 10 to 14 packed
bits are moved to the upper end of 16, and only the first of several pages is decoded. Variants that would be decoded
wrongly are refused here. Several pages are refused because it is not known which page the label of the file belongs to.
Reference: TIFF 6.0 (Adobe, 1992), sections 2, 8, 10, 15, 16, 18, 19.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from cxrtool.data.reading.headers import INKS, Header, jpeg_scans
from cxrtool.errors import ImageError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffTags

_CUT = "truncated TIFF: the file ends inside its header"
_MAX_PAGES = 32
_GREY = (0, 1)
_RGB, _CMYK, _YCBCR = 2, 5, 6
_COLOURS = {_RGB: "RGB", 3: "palette", _CMYK: "CMYK", _YCBCR: "YCbCr"}
_COMPRESSION = {1, 5, 7, 8, 32773, 32946}
_JPEG = 7
_FAX = {2, 3, 4}
"""Compressions of images of one bit."""

_FORMS = {1: "u", 2: "i", 3: "f"}
_OTHER_FORMS = {4: "undefined", 5: "complex", 6: "complex"}
_DEPTHS = {
    "u": {1: 8, 2: 8, 4: 8, 8: 8, 10: 16, 12: 16, 14: 16, 16: 16, 32: 32},
    "i": {8: 8, 16: 16, 32: 32},
    "f": {32: 32, 64: 64},
}
"""For each type of sample: the bits that are read, and the bits after decoding."""

_ALPHA = {0: "none", 1: "applied", 2: ""}
"""By the tag ExtraSamples, the type of a fourth sample."""


def read_tiff(data: bytes) -> Header:
    """Read the header of the only page; check that the file is complete and that its variant is decoded correctly.

    Raises:
        ImageError: It is truncated, has several pages, or is of a variant that would be decoded wrongly.
    """
    try:
        with _opened(io.BytesIO(data)) as file:
            tags = _only_page(file, data)
            header = _header(tags)
            strips = _strips(tags, len(data))
            if _values(tags, "Compression", 1)[0] == _JPEG:
                header = replace(header, scans=max(jpeg_scans(data[start:end]) for start, end in strips))
            return header
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # On damaged files tifffile raises anything from its own error to TypeError.
        raise ImageError(_CUT) from error


def upright(data: bytes) -> bytes:
    """The same file with its orientation tag set to 1, so that the decoder does not turn the image."""
    stream = io.BytesIO(data)
    with _opened(stream) as file:
        file.pages.first.tags["Orientation"].overwrite(1)
    return stream.getvalue()


def _opened(stream: io.BytesIO) -> TiffFile:
    import tifffile

    # It logs what it repairs; users get our own messages.
    tifffile.logger().disabled = True
    # The private tags of microscopes are not read.
    return tifffile.TiffFile(stream, is_lsm=False, is_scanimage=False)


def _only_page(file: TiffFile, data: bytes) -> TiffTags:
    pages = [page.aspage() for page in itertools.islice(file.pages, _MAX_PAGES)]
    if len(pages) < _MAX_PAGES:
        # tifffile silently skips a page beyond the end of the file.
        offset, size = file.pages.next_page_offset or 0, file.tiff.offsetsize
        if data[offset : offset + size] != bytes(size):
            raise ImageError(_CUT)
    # Thumbnails and transparency masks do not count as pages, and a chain of pages may be circular.
    whole = {page.offset: page for page in pages if not page.subfiletype & 5}
    if len(whole) != 1:
        raise ImageError(f"expected a TIFF of one page, found {len(whole)}")
    return whole.popitem()[1].tags


def _values(tags: TiffTags, name: str, *default: int) -> tuple[int, ...]:
    value = tags.valueof(name)
    if value is None:
        return default
    return tuple(map(int, value)) if isinstance(value, Iterable) else (int(value),)


def _header(tags: TiffTags) -> Header:
    width, height = _values(tags, "ImageWidth", 0)[0], _values(tags, "ImageLength", 0)[0]
    bits = _values(tags, "BitsPerSample", 1)
    samples = _values(tags, "SamplesPerPixel", 1)[0]
    if (depth := _values(tags, "ImageDepth", 1)[0]) != 1:
        raise ImageError(f"expected one image, found a TIFF volume of {depth} slices")
    photometric = _values(tags, "PhotometricInterpretation", -1)[0]
    if photometric not in _GREY and photometric not in _COLOURS:
        raise ImageError(f"expected a grey, palette, RGB or CMYK TIFF, found photometric interpretation {photometric}")
    if photometric in _COLOURS and "BitsPerSample" not in tags:
        raise ImageError(_CUT)
    sample_format = _values(tags, "SampleFormat", 1)[0]
    form = _FORMS.get(sample_format)
    if form is None:
        kind = _OTHER_FORMS.get(sample_format, "unknown")
        raise ImageError(f"a TIFF of {kind} samples is not supported; convert it to 16-bit grey")
    depths = _DEPTHS[form]
    if len(set(bits)) != 1 or bits[0] not in depths:
        known, found = ", ".join(map(str, depths)), "/".join(map(str, bits))
        raise ImageError(f"expected a TIFF of {known} bits a sample, found {found}")
    if photometric not in _GREY and (form != "u" or bits[0] not in ((8, 16) if photometric == _RGB else (8,))):
        raise ImageError(f"a {_COLOURS[photometric]} TIFF of {bits[0]} bits is not supported; convert it to PNG")
    alpha = _alpha(tags, photometric, samples, bits[0])
    separate = _values(tags, "PlanarConfiguration", 1)[0] != 1
    if samples > 1 and separate and (bits[0], samples, photometric) != (8, 3, _RGB):
        raise ImageError("a TIFF with separate planes is only supported as RGB of 8 bits; convert it to PNG")
    compression = _values(tags, "Compression", 1)[0]
    if compression not in _COMPRESSION and not (compression in _FAX and bits[0] == 1):
        raise ImageError(f"a TIFF with compression {compression} is not supported; convert it to PNG")
    tile = _values(tags, "TileWidth", 0)[0] * _values(tags, "TileLength", 0)[0]
    if tile > 4 * max(width * height, 1 << 24):
        raise ImageError("malformed TIFF: its tiles are larger than the image")
    orientation = _values(tags, "Orientation", 1)[0]
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
        note=INKS if photometric == _CMYK else "",
        packed=1 < bits[0] < 8,
    )


def _alpha(tags: TiffTags, photometric: int, samples: int, bits: int) -> str:
    """The meaning of a fourth sample; with 8 bits the decoder has applied it.

    Raises:
        ImageError: There are more samples than an image of this type has.
    """
    extra = _values(tags, "ExtraSamples")
    if photometric == _CMYK:
        if samples != 4 or extra or _values(tags, "InkSet", 1)[0] != 1:
            raise ImageError(f"expected a CMYK TIFF of four inks, found {samples} samples a pixel")
        return "none"
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    if samples == colours and not extra:
        return ""
    # For grey with opacity the decoder returns the grey alone, and the meaning of further samples is not known.
    if photometric != _RGB or samples != 4:
        raise ImageError(f"expected a TIFF without transparency, found {samples} samples a pixel; flatten it")
    alpha = _ALPHA.get(extra[0] if extra else 0, "none")
    return "applied" if bits == 8 and not alpha else alpha


def _strips(tags: TiffTags, size: int) -> list[tuple[int, int]]:
    """Start and end of the strips or tiles; an `ImageError` where one is not in the file."""
    offsets = _values(tags, "TileOffsets") or _values(tags, "StripOffsets")
    counts = _values(tags, "TileByteCounts") or _values(tags, "StripByteCounts")
    if not offsets or len(offsets) != len(counts):
        raise ImageError("malformed TIFF: the positions of its pixels are missing")
    if any(offset + count > size for offset, count in zip(offsets, counts, strict=True)):
        raise ImageError("truncated TIFF: the file ends before its last pixels")
    return [(offset, offset + count) for offset, count in zip(offsets, counts, strict=True)]
