"""Reading and writing images; all commands use these functions.

Formats are recognised by content. OpenCV decodes without any conversion, because its grey mode reduces 16 bits to 8;
the conversion to grey, the orientation and the checks that the file is complete are done here.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.data.confinement import check_inside
from cxrtool.data.digests import check
from cxrtool.data.files import saying_what_fails
from cxrtool.data.reading.headers import Header, read_bmp, read_jpeg, sniff
from cxrtool.data.reading.jsrt_raw import SIDE, is_raw, read_raw
from cxrtool.data.reading.png import inflate, read_png, sums_of, uncompressed
from cxrtool.data.reading.radiograph import (
    MAX_PIXELS,
    Grey,
    Radiograph,
    check_contrast,
    check_scans,
    check_size,
    stretch,
    to_grey,
)
from cxrtool.data.reading.tiff import read_tiff, upright
from cxrtool.errors import NO_FILE, ImageError, OutputError
from cxrtool.imaging.channels import as_grey

__all__ = ["MAX_PIXELS", "Radiograph", "read_image", "write_png"]

_HEADERS: dict[str, Callable[[bytes], Header]] = {
    "PNG": read_png,
    "JPEG": read_jpeg,
    "TIFF": read_tiff,
    "BMP": read_bmp,
}

# An uncompressed image of 16-bit RGBA, and room for metadata.
_PIXEL_BYTES, _SLACK = 8, 1 << 26

_TURNS: dict[int, Callable[[NDArray[np.generic]], NDArray[np.generic]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[:, ::-1],
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a.T[::-1],
}
"""How to turn an image upright, by EXIF orientation (Exif 2.3, section 4.6.4)."""

_DAMAGE = re.compile(rb"Corrupt JPEG data: (?!\d+ extraneous)|Premature end of JPEG|Inconsistent progression")
_TIFF_ERROR = re.compile(rb"TIFF_Error ([ -~]{1,120})")
_EXTRANEOUS = re.compile(rb"Corrupt JPEG data: (\d+) extraneous")

# Older OpenCV has no choice of filter: it uses the difference to the left pixel, and writes larger files.
_FILTER = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP] if hasattr(cv2, "IMWRITE_PNG_FILTER") else []

ENCODING = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY, *_FILTER]
"""Encoding of images: differences to the row above, Huffman coded. The differences in a radiograph rarely repeat:
searching for repetitions, as zlib does by default, takes ten times as long and saves a tenth of the bytes."""

MASK_ENCODING = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE, *_FILTER]
"""Encoding of masks: run lengths."""


def read_image(
    path: Path | str,
    *,
    max_pixels: int = MAX_PIXELS,
    capture_decoder_errors: bool = False,
    header: Path | None = None,
    colour: bool = False,
) -> Radiograph:
    """Read a radiograph from a PNG, JPEG, TIFF, BMP or DICOM file, whatever its name, or from a raw JSRT file.

    Args:
        path: A regular file.
        max_pixels: Images with more pixels are refused from their header, before anything is decoded.
        capture_decoder_errors: Also refuse a JPEG or TIFF whose decoder reports damage. This redirects the process's
            standard error during decoding, so use it only in a process with one thread.
        header: A DICOM header as JSON (PS3.18, section F.2) for an image of stored values, which are displayed as in a
            DICOM file. It is ignored for DICOM and not applied to colour images.
        colour: An RGB image keeps its channels, (height, width, 3), red first; for those that generators made.

    Raises:
        ImageError: It cannot be read completely and exactly as one grey image. The message does not repeat the path.
        ChangedError: It is in the folder of a step, and not what the step wrote.
    """
    check(Path(path), by_time=True)
    with _open_regular(Path(path), _PIXEL_BYTES * max_pixels + _SLACK) as file:
        size = os.fstat(file.fileno()).st_size
        kind = "JSRT" if is_raw(str(path), size) else sniff(file.read(1024))
        file.seek(0)
        if kind == "JSRT":
            check_size(SIDE, SIDE, 1, max_pixels)
            radiograph = read_raw(file.read())
        elif kind == "DICOM":
            from cxrtool.data.reading.dicom import read_dicom

            radiograph = read_dicom(file, max_pixels=max_pixels)
        else:
            radiograph = _decode(kind, file.read(), max_pixels, capture_decoder_errors, colour)
            if header:
                from cxrtool.data.reading.sidecar import apply_header

                radiograph = apply_header(radiograph, header)
    check_contrast(as_grey(radiograph.pixels), radiograph.warnings)
    return radiograph


def write_png(path: Path | str, pixels: Grey, *, mask: bool = False) -> int:
    """Write an image as PNG of 8 or 16 bits; return the number of bytes.

    For a step's own temporary folder: the file is not flushed to the disk.

    Args:
        path: The file.
        pixels: (height, width), or (height, width, 3) with red first; uint8 or uint16.
        mask: Use `MASK_ENCODING`.

    Raises:
        OutputError: It cannot be encoded, or it is outside of the folder that is being built.
    """
    check_inside(path)
    # OpenCV has blue first.
    ordered = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])
    done, data = cv2.imencode(".png", ordered, MASK_ENCODING if mask else ENCODING)
    if not done:
        raise OutputError(f"cannot encode {path} as PNG")
    with saying_what_fails(Path(path), needed=data.nbytes), open(path, "wb") as file:  # noqa: PTH123
        return file.write(data.data)


@contextlib.contextmanager
def _open_regular(path: Path, largest: int) -> Iterator[BinaryIO]:
    """Open a regular file of 1 to `largest` bytes; a pipe does not block, a device is not read."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ImageError(NO_FILE if isinstance(error, FileNotFoundError) else f"not readable: {reason}") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"expected a regular file, found {_kind_of(status.st_mode)}")
        if status.st_size == 0:
            raise ImageError("the file is empty")
        if status.st_size > largest:
            raise ImageError(f"a file of {status.st_size:,} bytes is larger than --max-pixels allows")
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def _kind_of(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _decode(kind: str, data: bytes, max_pixels: int, capture_decoder_errors: bool, colour: bool) -> Radiograph:
    header = _header(kind, data)
    check_size(header.width, header.height, 1, max_pixels)
    expected = np.dtype(f"{header.form}{header.bits // 8}")
    check_scans(header.width, header.height, header.scans, max_pixels)
    warnings = [header.note] if header.note else []
    pixels, content = _open_png(data, header) if kind == "PNG" else (None, data)
    if pixels is None:
        if kind == "TIFF" and header.orientation != 1:
            content = upright(data)
        pixels = _run_decoder(kind, content, header.packed, capture_decoder_errors, warnings)
    same = pixels.dtype.itemsize == expected.itemsize and (pixels.dtype.kind == "f") == (expected.kind == "f")
    if pixels.shape[:2] != (header.height, header.width) or not same:
        found = f"{pixels.shape[1]} x {pixels.shape[0]} of {pixels.dtype}"
        raise ImageError(f"expected {header.width} x {header.height} of {expected}, decoded {found}")
    # Some versions of OpenCV return unsigned samples of 32 bits as signed.
    if colour and pixels.ndim == 3 and pixels.shape[2] == 3 and expected.kind == "u" and header.orientation == 1:
        return Radiograph(np.ascontiguousarray(pixels[..., ::-1]), warnings=warnings)
    grey = _to_grey(pixels.view(expected), header, warnings)
    turn = _TURNS.get(header.orientation)
    plain = pixels.ndim == 2 and expected.kind == "u" and expected.itemsize <= 2 and not header.stored
    return Radiograph(np.ascontiguousarray(turn(grey)) if turn else grey, warnings=warnings, plain=plain)


def _open_png(data: bytes, header: Header) -> tuple[Grey | None, bytes | bytearray]:
    """The pixels of a PNG as this module writes it, or None and the file for a decoder."""
    rows = inflate(data)
    # The note is of a transparent grey value.
    pixels = None if header.note else sums_of(data, rows)
    return pixels, data if pixels is not None else uncompressed(data, rows)


def _run_decoder(
    kind: str, content: bytes | bytearray, packed: bool, capture_errors: bool, warnings: list[str]
) -> NDArray[Any]:
    captured: list[bytes] = []
    with _captured_stderr(captured) if capture_errors else contextlib.nullcontext():
        try:
            pixels: NDArray[Any] | None = (
                _unpack(bytes(content))
                if packed
                else cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            )
        except (cv2.error, OSError, ValueError, SyntaxError) as error:
            raise ImageError(f"the {kind} cannot be decoded: damaged, or a variant that is not supported") from error
    _check_decoder_messages(b"".join(captured), len(content), warnings)
    if pixels is None:
        raise ImageError(f"the {kind} cannot be decoded: damaged, or a variant that is not supported")
    return pixels


def _unpack(data: bytes) -> NDArray[np.uint8]:
    """A grey TIFF of 2 or 4 bits a sample, spread over 8 bits; 0 is black."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=["TIFF"]) as picture:
        return np.asarray(picture.convert("L"))


def _to_grey(pixels: NDArray[Any], header: Header, warnings: list[str]) -> Grey:
    """Grey of 8 or 16 bits over the full range, for any type of samples."""
    if header.form != "u" or header.bits > 16:
        return stretch(pixels, header.inverted, warnings)
    if header.alpha == "none" and pixels.ndim == 3:
        pixels = np.ascontiguousarray(pixels[..., :3])
    grey = to_grey(pixels, warnings, applied=header.alpha == "applied")
    if header.stored:
        # The unused lower bits are zero: full white would be 4095/4096 of the range.
        full = (1 << header.stored) - 1
        lookup = np.floor(np.arange(full + 1) * (65535 / full) + 0.5).astype(np.uint16)
        grey = lookup[grey >> (16 - header.stored)]
    return ~grey if header.inverted else grey


def _header(kind: str, data: bytes) -> Header:
    try:
        header = _HEADERS[kind](data)
    except (struct.error, IndexError) as error:
        raise ImageError(f"truncated {kind}: the file ends inside its header") from error
    if not (header.width > 0 and header.height > 0):
        raise ImageError(f"malformed {kind}: its header has {header.width} x {header.height} pixels")
    return header


def _check_decoder_messages(messages: bytes, size: int, warnings: list[str]) -> None:
    """Check what libjpeg, or OpenCV for libtiff, wrote to standard error: both return half an image all the same.

    Raises:
        ImageError: Part of the image is missing.
    """
    if wrong := _TIFF_ERROR.search(messages):
        raise ImageError(f"damaged TIFF: part of its pixels cannot be decoded ({wrong[1].decode().rstrip('. ')})")
    if _DAMAGE.search(messages):
        raise ImageError("damaged JPEG: its data are corrupt, part of the image is missing")
    extra = _EXTRANEOUS.search(messages)
    if extra:
        # Some writers add a few bytes before the end marker; many such bytes mean an image that ended too early.
        if int(extra[1]) * 100 > size:
            raise ImageError(f"damaged JPEG: {int(extra[1]):,} of its bytes belong to no pixel")
        warnings.append("extra bytes in the JPEG")


@contextlib.contextmanager
def _captured_stderr(captured: list[bytes]) -> Iterator[None]:
    """Append to `captured` what C libraries write to standard error."""
    try:
        saved = os.dup(2)
    except OSError:
        yield
        return
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    with _scratch() as scratch:
        os.dup2(scratch.fileno(), 2)
        # A user's OPENCV_LOG_LEVEL must not hide an error.
        logging.setLogLevel(max(level, logging.LOG_LEVEL_ERROR))
        try:
            yield
        finally:
            logging.setLogLevel(level)
            os.dup2(saved, 2)
            os.close(saved)
            scratch.seek(0)
            captured.append(scratch.read())


def _scratch() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()
