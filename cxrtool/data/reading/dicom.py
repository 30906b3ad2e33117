"""The DICOM reader: modality transformation, window, inversion, orientation, and four tags of the header.

Order after PS3.4 section N.2: stored values, modality transformation (lookup table or rescale), window or VOI lookup
table, and last the inversion of MONOCHROME1. All of it is computed on the at most 65,536 stored values that BitsStored
allows and applied as one lookup, so that the pixels are processed once. The picture is then turned upright.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import warnings as python_warnings
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.reading.dicom_header import GREY, interpretation, make_regular, numbers, text, values_of, whole
from cxrtool.data.reading.headers import jpeg_frame, jpeg_scans
from cxrtool.data.reading.lookup_table import read_table
from cxrtool.data.reading.radiograph import Grey, Radiograph, check_scans, check_size, to_grey
from cxrtool.data.tables.people import sex_of, years_of
from cxrtool.errors import ImageError
from cxrtool.imaging.window import apply_window, quantise

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SHAPE = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelAspectRatio",
)
_DISPLAY = (
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "PatientOrientation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for part in ("Descriptor", "Data")
        for colour in ("Red", "Green", "Blue")
    ),
)
_METADATA = (
    "PatientID",
    "PatientAge",
    "PatientSex",
    "ViewPosition",
    "Modality",
    "BurnedInAnnotation",
    "PresentationIntentType",
)
_PIXELS = ("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")
TAGS = [*_SHAPE, *_DISPLAY, *_METADATA]

_DEFLATED = "1.2.840.10008.1.2.1.99"
_HEADER_ROOM = 1 << 22
"""Largest header in a deflated stream, in bytes."""

_PIXELS_ROOM = 1 << 26
"""Bytes that may follow the pixels, or that a compression may need beyond them."""

_CODECS = {
    "1.2.840.10008.1.2.4.51": ("JPEG Extended (12 bits)", "pylibjpeg-libjpeg (GPL)"),
    "1.2.840.10008.1.2.4.57": ("JPEG Lossless", "pylibjpeg-libjpeg (GPL)"),
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless", "pylibjpeg-libjpeg (GPL)"),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", "pyjpegls"),
    "1.2.840.10008.1.2.4.50": ("JPEG", "pillow"),
    "1.2.840.10008.1.2.5": ("RLE", "pylibjpeg-rle"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "pylibjpeg-openjpeg"),
}
"""Name of a compression and the package that decodes it; packages with a stricter licence than ours are optional."""

_RADIOGRAPHY = {"", "CR", "DX", "RG", "OT"}
_OTHER_MODALITIES = {"CT", "MR", "US", "MG", "NM", "PT", "XA", "RF", "PX", "IO", "SC", "SR", "KO", "PR"}


def read_dicom(file: BinaryIO, *, max_pixels: int) -> Radiograph:
    """Read one radiograph from a DICOM file that is open at its start.

    The pixels are as displayed: black is 0. They have 8 bits where at most 8 are stored, else 16, and span the window,
    or without a window the whole range that BitsStored allows.

    Args:
        file: Opened for reading; with or without the 128-byte preamble.
        max_pixels: Larger images are refused from the header.

    Raises:
        ImageError: Truncated, not an image, several frames, too large, or compressed with a codec that is not
            installed. The message never repeats a value of the header.
    """
    with python_warnings.catch_warnings():
        # pydicom warns with values from the header, which may be a patient's.
        python_warnings.simplefilter("ignore")
        return _read(file, max_pixels)


@contextlib.contextmanager
def _stage(failure: str) -> Iterator[None]:
    """Whatever fails here is one reason; pydicom raises anything from AttributeError to RecursionError."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(failure.format(error=type(error).__name__)) from error


_DAMAGED = "damaged or truncated DICOM ({error} while reading it)"
_UNDECODED = "its pixels cannot be decoded: damaged or truncated DICOM ({error} in the decoder)"
_UNCLEAR = "its header cannot be understood ({error})"


def _read(file: BinaryIO, max_pixels: int) -> Radiograph:
    import pydicom

    with _stage(_DAMAGED):
        if _transfer_syntax(file) == _DEFLATED:
            source: BinaryIO = io.BytesIO(_inflate(file, max_pixels))
        else:
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(TAGS))
            _check_shape(header, max_pixels)
            _check_rest(file, header)
            file.seek(0)
            source = file
        dataset = pydicom.dcmread(source, force=True, specific_tags=[*TAGS, *_PIXELS])
        if "PixelData" not in dataset:
            raise ImageError("truncated DICOM: the file ends before its pixels, or it has no image")
        _set_transfer_syntax(dataset)
        precision = _check_codec(dataset, max_pixels)
    radiograph = Radiograph(np.zeros((1, 1), np.uint8))
    with _stage(_UNCLEAR):
        known = make_regular(dataset, precision, radiograph.warnings)
        radiograph.tags = tags_of(dataset)
        radiograph.warnings += remarks_on(dataset)
    pixels = _pixels(dataset, known, radiograph.warnings)
    radiograph.pixels = turn_upright(pixels, dataset, radiograph.warnings)
    return radiograph


def _transfer_syntax(file: BinaryIO) -> str:
    """The transfer syntax, read first because pydicom inflates without limit; leaves the file after group 2."""
    from pydicom.filereader import read_dataset, read_preamble

    read_preamble(file, force=True)
    meta = read_dataset(
        file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _vr, _length: tag.group != 2
    )
    return str(meta.get("TransferSyntaxUID", ""))


def _inflate(file: BinaryIO, max_pixels: int) -> bytes:
    """Inflate a deflated data set, up to the size in its own header."""
    import pydicom

    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(file.read(), _HEADER_ROOM)
        header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True, specific_tags=list(TAGS))
        _check_shape(header, max_pixels)
        # At most 16-bit RGB, whatever bits and samples are in the header.
        size = 6 * (whole(header, "Rows") or 0) * (whole(header, "Columns") or 0)
        if not inflater.eof:
            data += inflater.decompress(inflater.unconsumed_tail, size + _HEADER_ROOM)
    except zlib.error as error:
        raise ImageError("damaged DICOM: its deflated part cannot be inflated") from error
    if not inflater.eof:
        reason = "is larger than in its header" if inflater.unconsumed_tail else "has no end"
        raise ImageError(f"damaged or truncated DICOM: its deflated part {reason}")
    return data


def _check_shape(header: Dataset, max_pixels: int) -> None:
    rows, columns = whole(header, "Rows"), whole(header, "Columns")
    if rows is None or columns is None:
        raise ImageError("expected a DICOM image, found none (no Rows and Columns): a report, an index, or truncated")
    frames = whole(header, "NumberOfFrames") or 1
    check_size(columns, rows, max(frames, 1), max_pixels)
    if rows < 1 or columns < 1:
        raise ImageError(f"malformed DICOM: its header has {columns} x {rows} pixels")
    if frames != 1:
        raise ImageError(f"expected a radiograph of one frame, found {frames}")


def _check_rest(file: BinaryIO, header: Dataset) -> None:
    """Raise an `ImageError` where more follows the header, at whose end the file is, than pixels can take."""
    rest = os.fstat(file.fileno()).st_size - file.tell()
    columns, rows = whole(header, "Columns") or 0, whole(header, "Rows") or 0
    if rest > 8 * columns * rows + _PIXELS_ROOM:
        raise ImageError(f"malformed DICOM: {rest:,} bytes follow its header of {columns} x {rows} pixels")


def _check_length(dataset: Dataset) -> None:
    """Raise an `ImageError` where pixels that are not compressed are fewer than in the header, or several images."""
    from pydicom.pixels.utils import get_expected_length

    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    expected, found = get_expected_length(dataset), len(dataset.PixelData)
    if found < expected:
        raise ImageError(f"truncated DICOM: it has {found:,} of the {expected:,} bytes of its pixels")
    if found >= 2 * expected:
        raise ImageError(f"malformed DICOM: it has {found:,} bytes of pixels, its header {expected:,}")


def _set_transfer_syntax(dataset: Dataset) -> None:
    """Where the file has no transfer syntax, set the one with which pydicom could read it."""
    from pydicom import uid

    if dataset.file_meta.get("TransferSyntaxUID"):
        return
    implicit, little = dataset.original_encoding
    plain = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else plain


def _check_codec(dataset: Dataset, max_pixels: int) -> int | None:
    """Check that a decoder is installed and that the pixels, or the compressed stream, have the size in the header.

    Returns:
        Bits a sample of the stream; None where the pixels are not compressed or do not tell.
    """
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    # An unknown one has its value as its name, and a value of a header is not repeated.
    known = "an unknown" if syntax.name == str(syntax) else syntax.name
    name, package = _CODECS.get(str(syntax), (known, ""))
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    frame: tuple[int, int, int] | None = None
    if available and syntax.is_encapsulated:
        stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
        frame = _jpeg2000_frame(stream) or jpeg_frame(stream)
        if frame and stream.startswith(b"\xff\xd8"):
            # Pillow accepts this transfer syntax too, but only images of 8 bits.
            available = frame[2] <= 8 or "libjpeg" not in package or find_spec("libjpeg") is not None
            check_scans(*frame[:2], jpeg_scans(stream), max_pixels)
    if not available:
        raise ImageError(
            f"{name} compression needs {package or 'a decoder'}, which is not installed",
            f"pip install {package.split()[0]}" if package else "convert the file to another transfer syntax",
        )
    columns, rows = whole(dataset, "Columns"), whole(dataset, "Rows")
    if frame and frame[:2] != (columns, rows):
        found = f"{frame[0]} x {frame[1]}"
        raise ImageError(f"its header has {columns} x {rows} pixels, its compressed stream {found}")
    if frame and not stream.startswith(b"\xff\xd8"):
        _check_tiles(stream)
    return frame[2] if frame else None


def _jpeg2000_frame(stream: bytes) -> tuple[int, int, int] | None:
    """Width, height and bits a sample of a JPEG 2000 stream."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 1024)
    if start < 0 or len(stream) < start + 43:
        return None
    right, bottom, left, top = (int.from_bytes(stream[start + at : start + at + 4], "big") for at in (8, 12, 16, 20))
    return right - left, bottom - top, (stream[start + 42] & 0x7F) + 1


def _check_tiles(stream: bytes) -> None:
    """Raise an `ImageError` where a JPEG 2000 stream lacks tiles: the decoder leaves them black, without an error."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 1024)
    sides = [int.from_bytes(stream[at : at + 4], "big") for at in range(start + 8, start + 40, 4)]
    right, bottom, _, _, across, down, left, top = sides
    expected = -(-(right - left) // max(across, 1)) * -(-(bottom - top) // max(down, 1))
    found, position = set(), stream.find(b"\xff\x90", start)
    while position >= 0 and stream[position : position + 2] == b"\xff\x90":
        length = int.from_bytes(stream[position + 6 : position + 10], "big") or len(stream) - position
        if position + length > len(stream):
            break
        found.add(stream[position + 4 : position + 6])
        position += length
    if len(found) < expected:
        raise ImageError(f"truncated DICOM: its JPEG 2000 stream has {len(found)} of {expected} tiles")


def tags_of(dataset: Dataset) -> dict[str, str]:
    """Patient, age, sex and view, where the header has a valid value."""
    tags = {
        "patient_id": "\\".join(str(value) for value in values_of(dataset, "PatientID")).strip(),
        "age": years_of(text(dataset, "PatientAge")),
        "sex": sex_of(text(dataset, "PatientSex")),
        "view": text(dataset, "ViewPosition").upper(),
    }
    if not re.fullmatch(r"[A-Z0-9 _]{1,16}", tags["view"]):
        tags["view"] = ""
    return {name: value for name, value in tags.items() if value}


def remarks_on(dataset: Dataset) -> list[str]:
    """Warnings about an image by its header."""
    remarks = []
    modality = text(dataset, "Modality").upper()
    if modality not in _RADIOGRAPHY:
        known = modality if modality in _OTHER_MODALITIES else "unknown"
        remarks.append(f"modality {known}, not a plain radiograph")
    if text(dataset, "BurnedInAnnotation").upper() == "YES":
        remarks.append("text is burned into the pixels (BurnedInAnnotation) and may identify the patient")
    if text(dataset, "PresentationIntentType").upper() == "FOR PROCESSING":
        remarks.append("raw detector data (FOR PROCESSING), not meant for display")
    ratio = [part for part in numbers(dataset, "PixelAspectRatio") if part is not None and not math.isnan(part)]
    if len(ratio) == 2 and ratio[0] != ratio[1]:
        remarks.append("its pixels are not square")
    shape, meaning = text(dataset, "PresentationLUTShape").upper(), interpretation(dataset)
    if (shape, meaning) in (("INVERSE", GREY[1]), ("IDENTITY", GREY[0])):
        remarks.append(
            f"black and white are in doubt: PresentationLUTShape {shape} contradicts {meaning}, which was followed"
        )
    return remarks


TURNED = "turned to the usual view by its PatientOrientation"
"""The warning of `turn_upright`."""


def turn_upright(pixels: Grey, dataset: Dataset, warnings: list[str]) -> Grey:
    """Turn a picture so that its rows run to the patient's left and its columns to the feet (PS3.3, C.7.6.1.1.1).

    In a lateral view the rows run to the front or back and stay as they are. An orientation that is not that of an
    upright radiograph, such as an axial one, changes nothing and is reported.
    """
    found = [str(value).strip().upper() for value in values_of(dataset, "PatientOrientation")]
    if not any(found):
        return pixels
    along, down = found if len(found) == 2 and all(found) else ("?", "?")
    axes = {"L": "side", "R": "side", "A": "depth", "P": "depth", "F": "length", "H": "length"}
    kinds = axes.get(along[0]), axes.get(down[0])
    if None in kinds or ("length" not in kinds) or kinds[0] == kinds[1]:
        warnings.append("its PatientOrientation is not that of an upright radiograph; it was left as it is stored")
        return pixels
    along, down, turned = along[0], down[0], pixels
    if kinds[0] == "length":
        # The rows become columns; a lateral view is rotated and not mirrored, because its side is not known.
        turned, along, down = turned.T, down, along
        if "depth" in kinds:
            turned = turned[:, ::-1] if down == "F" else turned[::-1]
            down = "F"
    mirrored = along == "R"
    if down == "H":
        turned = turned[::-1]
        if "depth" in kinds:
            turned = turned[:, ::-1]
    if mirrored:
        turned = turned[:, ::-1]
    if turned is pixels:
        return pixels
    warnings.append(TURNED)
    return np.ascontiguousarray(turned)


def _pixels(dataset: Dataset, known: bool, warnings: list[str]) -> Grey:
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    meaning = str(dataset.PhotometricInterpretation)
    if meaning in GREY:
        return _monochrome(dataset, meaning == GREY[0], known, warnings)
    with _stage(_UNDECODED):
        _check_length(dataset)
        array = pixel_array(dataset)
        if meaning == "PALETTE COLOR":
            array = apply_color_lut(array, dataset)
    if array.ndim != 3 or array.dtype not in (np.uint8, np.uint16):
        raise ImageError("a DICOM image of this colour model is not supported")
    if meaning != "PALETTE COLOR" and dataset.BitsStored != array.dtype.itemsize * 8:
        raise ImageError(f"a colour DICOM of {dataset.BitsStored} bits is not supported")
    return to_grey(np.ascontiguousarray(array[..., ::-1]), warnings)


def _monochrome(dataset: Dataset, inverted: bool, known: bool, warnings: list[str]) -> Grey:
    from pydicom.pixels.utils import pixel_array

    bits, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    if allocated not in (8, 16) or not 1 < bits <= allocated:
        raise ImageError(f"expected 2 to 16 bits a pixel, found {bits} stored in {allocated}")
    if int(dataset.get("HighBit", bits - 1)) != bits - 1:
        raise ImageError(f"its highest bit is {dataset.HighBit}, which does not fit {bits} stored bits")
    with _stage(_UNDECODED):
        _check_length(dataset)
        stored = pixel_array(dataset, correct_unused_bits=False)
    if stored.ndim != 2:
        raise ImageError(f"expected one grey image, found an array of {stored.ndim} axes")
    signed = int(dataset.PixelRepresentation) == 1
    raw = stored.astype(stored.dtype.newbyteorder("="), copy=False).view(f"u{stored.dtype.itemsize}")
    if not known:
        if not signed:
            bits = max(int(raw.max()).bit_length(), 8)
        warnings.append(f"BitsStored is missing in its header: {bits} bits, which hold its largest value, are assumed")
    mask = (1 << bits) - 1
    if not signed and int(raw.max()) > mask:
        warnings.append("pixels use more bits than BitsStored in its header; these bits were removed")
    lowest = -(1 << (bits - 1)) if signed else 0
    # Two's complement, shifted so that the lowest stored value becomes index 0.
    index = (raw + raw.dtype.type(-lowest)) & raw.dtype.type(mask)
    domain = np.arange(lowest, lowest + mask + 1, dtype=np.int64)
    return _show(index, domain, dataset, inverted, warnings)


def _show(index: Grey, domain: NDArray[np.int64], dataset: Dataset, inverted: bool, warnings: list[str]) -> Grey:
    """The displayed grey value of every pixel, whose stored value is `domain[index]`; padding is black."""
    with _stage(_UNCLEAR):
        brightness = _brightness(domain, dataset, warnings)
        padding = _padding(domain, dataset)
    lookup = quantise(brightness, 8 if len(domain) <= 256 else 16, inverted=inverted)
    if padding is not None and int(lookup[padding].max()) and bool(np.isin(index, padding).any()):
        lookup[padding] = 0
        warnings.append("pixels that are padding by its header are shown as black")
    return np.asarray(lookup[index])


def _padding(domain: NDArray[np.int64], dataset: Dataset) -> NDArray[np.intp] | None:
    """The indices in `domain` of padding values (PS3.3, section C.7.5.1.1.2)."""
    value, limit = numbers(dataset, "PixelPaddingValue"), numbers(dataset, "PixelPaddingRangeLimit")
    if len(value) != 1 or value[0] is None or math.isnan(value[0]):
        return None
    ends = [int(end) for end in (value[0], *limit[:1]) if end is not None and not math.isnan(end)]
    if domain[0] < 0:
        # Many writers store a negative value as unsigned.
        ends = [end - (1 << 16) if end > int(domain[-1]) else end for end in ends]
    indices = np.flatnonzero((domain >= min(ends)) & (domain <= max(ends)))
    # A padding of all possible values is a mistake.
    return indices if 0 < len(indices) < len(domain) else None


def show_stored(stored: Grey, dataset: Dataset, warnings: list[str]) -> Grey:
    """Display stored values from outside a DICOM file as the file itself would be displayed.

    The conversion has applied the rescale; the rest of the header is applied here.

    Args:
        stored: (height, width), unsigned, as they were converted.
        dataset: The header's display tags.
        warnings: Warnings are appended here.

    Raises:
        ImageError: The header is not that of a grey image, or contradicts the values.
    """
    meaning = interpretation(dataset)
    if meaning not in GREY:
        raise ImageError(f"expected the header of a grey image, found {meaning}")
    available = stored.dtype.itemsize * 8
    bits = min(max(whole(dataset, "BitsStored") or available, 2), available)
    if int(stored.max()) >= 1 << bits:
        bits = available
    domain = np.arange(1 << bits, dtype=np.int64)
    return turn_upright(_show(stored, domain, dataset, meaning == GREY[0], warnings), dataset, warnings)


def _brightness(domain: NDArray[np.int64], dataset: Dataset, warnings: list[str]) -> NDArray[np.float64]:
    """Brightness in [0, 1] of every value of `domain`."""
    values, trusted = _modality(domain, dataset, warnings)
    table = read_table(dataset, "VOILUTSequence", "VOI lookup table", warnings) if trusted else None
    if table:
        bits = table.used_bits
        if bits != table.bits:
            warnings.append(f"its VOI lookup table has {table.bits} bits by its header and uses {bits}, which counted")
        return table(values) / ((1 << bits) - 1)
    window = _window(dataset, warnings) if trusted else None
    if window:
        function = text(dataset, "VOILUTFunction").upper() or "LINEAR"
        try:
            return apply_window(values, *window, function)
        except ValueError:
            warnings.append("its window cannot be used; the whole range of stored values is shown")
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise ImageError("its modality transformation makes every pixel the same")
    return (values - low) / (high - low)


def _modality(domain: NDArray[np.int64], dataset: Dataset, warnings: list[str]) -> tuple[NDArray[np.float64], bool]:
    """The values after the modality transformation, and whether a window may be applied to them."""
    table = read_table(dataset, "ModalityLUTSequence", "modality lookup table", warnings)
    if table:
        return table(domain).astype(np.float64), True
    slope, intercept = (
        next((number for number in numbers(dataset, keyword) if number is not None), neutral)
        for keyword, neutral in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if math.isnan(slope) or math.isnan(intercept):
        warnings.append("its rescale cannot be read; neither it nor a window was used")
        return domain.astype(np.float64), False
    return domain.astype(np.float64) * slope + intercept, True


def _window(dataset: Dataset, warnings: list[str]) -> tuple[float, float] | None:
    """Centre and width of the first window that has both; None where there is none."""
    centres, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    pairs = [(c, w) for c, w in zip(centres, widths, strict=False) if c is not None and w is not None]
    usable = [(c, w) for c, w in pairs if not (math.isnan(c) or math.isnan(w))]
    if not usable:
        if any(number is not None for number in (*centres, *widths)):
            warnings.append("its window cannot be used; the whole range of stored values is shown")
        return None
    if usable[0] != (centres[0], widths[0]):
        warnings.append("its first window is empty or cannot be read; the next one was used")
    return usable[0]
