"""The header of an image file: its format, size and orientation, and whether the file is complete.

Nothing is decoded here. The size decides whether the image is decoded at all. Decoders return half an image without an
error, so that the end of a file has to be checked separately.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cxrtool.errors import ImageError

FORMATS = "PNG, JPEG, TIFF, BMP or DICOM"

_KNOWN_BUT_REFUSED = (
    (b"GIF8", "a GIF"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"8BPS", "a Photoshop file"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file outside DICOM"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file outside DICOM"),
    (b"\x93NUMPY", "a numpy array"),
    (b"<!DOCTYPE", "a web page"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the image"),
    (b"\x00\x05\x16\x07", "macOS metadata"),
)

INKS = "printing inks (CMYK), reduced to grey without their colour profile"

# In entropy-coded data 0xff is followed by 0 (stuffing) or by a restart marker; anything else starts a new segment.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_CUT = "truncated JPEG: the file ends before its end marker"
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_JPEG_PROGRESSIVE = (0xC2, 0xCA)
_JPEG_OTHER_FRAMES = {0xC3: "lossless", 0xCB: "lossless"} | dict.fromkeys(
    (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"
)

# (bits a pixel, compression): everything but the run-length encoded and those that wrap another format.
_BMP_LAYOUTS = {(1, 0), (4, 0), (8, 0), (16, 0), (24, 0), (32, 0), (32, 3)}


@dataclass(frozen=True)
class Header:
    """What is known of an image before decoding it.

    Attributes:
        kind: `PNG`, `JPEG`, `TIFF` or `BMP`.
        width: Columns, as stored.
        height: Rows, as stored.
        bits: Bits a sample after decoding: 8 or 16, or 32 or 64 for quantities.
        form: Type of a sample: `u` unsigned, `i` signed, `f` floating-point. All but unsigned samples of at most 16
            bits are quantities, which have to be stretched to grey.
        stored: Used upper bits of a decoded sample; 0 means all.
        alpha: Meaning of a fourth sample: empty for opacity that is not yet applied, `applied` where the decoder or the
            writer has applied it, `none` where it is not opacity.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        inverted: 0 is white after decoding.
        scans: Passes over a JPEG whose components are not all in the first one.
        note: A warning, or empty.
        packed: Several samples share a byte, as OpenCV does not decode them.
    """

    kind: str
    width: int
    height: int
    bits: int = 8
    form: str = "u"
    stored: int = 0
    alpha: str = ""
    orientation: int = 1
    inverted: bool = False
    scans: int = 1
    note: str = ""
    packed: bool = False


def sniff(head: bytes) -> str:
    """The format by content: `PNG`, `JPEG`, `TIFF`, `BMP` or `DICOM`.

    Args:
        head: The first 1024 bytes of the file, or all bytes of a shorter one.

    Raises:
        ImageError: It is none of these; the message names the format where it is known.
    """
    # The first 128 bytes of a DICOM file may be the header of a TIFF, or anything else.
    if head[128:132] == b"DICM" or _is_dicom_without_preamble(head):
        return "DICOM"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head.startswith(b"BM") and len(head) >= 30:
        return "BMP"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        raise ImageError(f"expected {FORMATS}, found a WebP image")
    if head[4:8] == b"ftyp":
        raise ImageError(f"expected {FORMATS}, found a HEIF, AVIF or video file")
    stripped = head.lstrip()
    for start, name in _KNOWN_BUT_REFUSED:
        if stripped.startswith(start) or head.startswith(start):
            raise ImageError(f"expected {FORMATS}, found {name}")
    if not head.strip(b"\0"):
        raise ImageError(f"expected {FORMATS}, found only zeros: an interrupted copy or download?")
    if head.isascii() and b"\0" not in head:
        raise ImageError(f"expected {FORMATS}, found text")
    raise ImageError(f"expected {FORMATS}, found an unknown format (it starts with {head[:8].hex(' ')})")


def _is_dicom_without_preamble(head: bytes) -> bool:
    # Some archives strip the 128-byte preamble: the file then starts with group 2 or 8, with or without explicit types.
    if head[:2] not in (b"\x02\x00", b"\x08\x00") or len(head) < 16 or head[3] != 0:
        return False
    explicit = head[4:6] in (b"UL", b"OB", b"UI", b"CS", b"SH", b"DA", b"TM", b"LO")
    return explicit or int.from_bytes(head[4:8], "little") <= 256


def read_jpeg(data: bytes) -> Header:
    """Read a JPEG's frame header and EXIF orientation, and walk its segments to the end marker.

    Four components are CMYK or YCCK; the decoder assumes inverted inks, which is how Adobe's programs store them.
    """
    frame: tuple[int, int] | None = None
    orientation, scans, whole = 1, 0, 0
    inks = adobe = False
    for code, start, length in _jpeg_segments(data, 2):
        if code == 0xDA:
            scans += 1
            if data[start] == whole:
                # All components are in this scan, so it is the only one. Entropy-coded data contain no end marker by
                # chance.
                if data.rfind(b"\xff\xd9", start + length) < 0:
                    raise ImageError(_JPEG_CUT)
                break
        elif code in _JPEG_OTHER_FRAMES:
            raise ImageError(f"{_JPEG_OTHER_FRAMES[code]} JPEG is not supported; convert it to PNG")
        elif code in _JPEG_FRAMES and frame is None:
            precision, height, width, components = struct.unpack_from(">BHHB", data, start)
            if precision != 8:
                raise ImageError(f"a JPEG of {precision} bits is not supported outside DICOM; convert it to PNG")
            if components not in (1, 3, 4):
                raise ImageError(f"expected a grey, RGB or CMYK JPEG, found one of {components} components")
            frame, inks = (width, height), components == 4
            whole = 0 if code in _JPEG_PROGRESSIVE else components
        elif code == 0xEE and data[start : start + 5] == b"Adobe":
            adobe = True
        elif code == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            orientation = exif_orientation(data[start + 6 : start + length])
    if frame is None or not scans:
        raise ImageError("malformed JPEG: it has no image")
    if inks and not adobe:
        # Adobe stores inks inverted and marks such files; for other writers this is not documented.
        raise ImageError("a CMYK JPEG without Adobe's marker: whether its inks are stored inverted is not known")
    return Header("JPEG", *frame, orientation=orientation, scans=scans, note=INKS if inks else "")


def _jpeg_segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start of content, length of content) up to the end marker.

    Raises:
        ImageError: The file ends before it.
    """
    while match := _MARKER.search(data, position):
        position, code = match.end(), data[match.end() - 1]
        if code == 0xD9:
            return
        if code in (0x01, 0xD8):
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            break
        yield code, position + 2, length - 2
        position += length
    raise ImageError(_JPEG_CUT)


def jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and bits in the header of a JPEG stream of any variant; None without a header."""
    if data[:2] != b"\xff\xd8":
        return None
    try:
        for code, start, _ in _jpeg_segments(data, 2):
            if code in _JPEG_FRAMES or code in _JPEG_OTHER_FRAMES or code == 0xF7:  # 0xF7 is JPEG-LS
                bits, height, width = struct.unpack_from(">BHH", data, start)
                return width, height, bits
    except (ImageError, struct.error):
        pass
    return None


def jpeg_scans(data: bytes) -> int:
    """The passes of a JPEG stream of any variant, up to its end or to where it is damaged."""
    scans = 0
    with contextlib.suppress(ImageError):
        for code, _, _ in _jpeg_segments(data, 2):
            scans += code == 0xDA
    return scans


def exif_orientation(block: bytes) -> int:
    """The orientation tag (0x0112) of an EXIF block; 1 where it is missing or the block is damaged."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", block, entry)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def read_bmp(data: bytes) -> Header:
    """Read a BMP's header and check that all rows are in the file."""
    offset, header_size = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression, step = 0, 3
    elif header_size in (40, 52, 56, 64, 108, 124):
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
        step = 4
    else:
        raise ImageError(f"malformed BMP: an unknown header of {header_size} bytes")
    if (depth, compression) not in _BMP_LAYOUTS:
        raise ImageError(f"a BMP of {depth} bits with compression {compression} is not supported; convert it to PNG")
    row = (width * depth + 31) // 32 * 4
    # A negative height means that the top row comes first.
    if offset + row * abs(height) > len(data) or offset < 14 + header_size + (step if depth <= 8 else 0):
        raise ImageError("truncated BMP: the file ends before its last row")
    return Header("BMP", width, abs(height))
