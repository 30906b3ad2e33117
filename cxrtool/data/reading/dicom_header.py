"""Attributes of a DICOM header, read as they are met: empty, with a decimal comma, with more or fewer values.

pydicom converts an attribute when it is asked for, and raises where its text is not what the standard says. Here such a
value is one that cannot be read, told from one that is empty, and the reader decides what follows from it.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from cxrtool.errors import ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

GREY = ("MONOCHROME1", "MONOCHROME2")

_INTERPRETATIONS = {
    name.replace("_", "").replace(" ", ""): name
    for name in (*GREY, "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
}
_WHOLE = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
"""Attributes with one whole number."""


def values_of(dataset: Dataset, keyword: str) -> list[Any]:
    """The values of an attribute, none where it is missing or empty; text where pydicom cannot convert them."""
    try:
        value = dataset.get(keyword)
    except Exception:
        # Anything from ValueError to BytesLengthException; the element then keeps its bytes.
        value = dataset.get_item(keyword).value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        value = value.strip("\0 ").split("\\") if value.strip("\0 ") else []
    if value is None:
        return []
    return list(value) if hasattr(value, "__len__") else [value]


def numbers(dataset: Dataset, keyword: str) -> list[float | None]:
    """The values of an attribute as numbers: None for an empty one, not a number for one that cannot be read."""
    return [_number(value) for value in values_of(dataset, keyword)]


def _number(value: Any) -> float | None:
    text = str(value).strip("\0 ") if value is not None else ""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def whole(dataset: Dataset, keyword: str) -> int | None:
    """The whole number of an attribute that has one; None where it is missing or empty.

    Raises:
        ImageError: It has several different values, or one that is not a whole number.
    """
    found = {number for number in numbers(dataset, keyword) if number is not None}
    if not found:
        return None
    if len(found) > 1:
        raise ImageError(f"malformed DICOM: expected one value of {keyword}, found {len(found)}")
    (number,) = found
    if number != number // 1:
        raise ImageError(f"malformed DICOM: {keyword} in its header is not a whole number")
    return int(number)


def text(dataset: Dataset, keyword: str) -> str:
    """The first value of an attribute that is not empty, as text without blanks around it."""
    return next((found for value in values_of(dataset, keyword) if (found := str(value).strip("\0 "))), "")


def interpretation(dataset: Dataset) -> str:
    """The photometric interpretation as the standard spells it, whatever its blanks, case and underlines.

    Raises:
        ImageError: There is none, so that black and white could be exchanged, or it is unknown.
    """
    found = text(dataset, "PhotometricInterpretation")
    if not found:
        raise ImageError("its header has no PhotometricInterpretation: whether 0 is black or white is not known")
    key = re.sub(r"[ _-]", "", found.upper())
    if key not in _INTERPRETATIONS:
        raise ImageError("a DICOM image of this colour model is not supported")
    return _INTERPRETATIONS[key]


def make_regular(dataset: Dataset, precision: int | None, warnings: list[str]) -> bool:
    """Write the attributes that the decoder needs as the standard has them; what is missing is derived and reported.

    Args:
        dataset: Changed in place.
        precision: Bits a sample of a compressed stream, where they are known.
        warnings: Warnings are appended here.

    Returns:
        Whether the number of stored bits is known.

    Raises:
        ImageError: An attribute contradicts itself or the stream, or is missing and cannot be derived.
    """
    for keyword in _WHOLE:
        value = whole(dataset, keyword)
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            del dataset[keyword]
    dataset.PhotometricInterpretation = interpretation(dataset)
    grey = dataset.PhotometricInterpretation in (*GREY, "PALETTE COLOR")
    if "SamplesPerPixel" not in dataset:
        dataset.SamplesPerPixel = 1 if grey else 3
    if "PixelRepresentation" not in dataset:
        dataset.PixelRepresentation = 0
        warnings.append("PixelRepresentation is missing in its header: its pixels are read as unsigned")
    elif dataset.PixelRepresentation not in (0, 1):
        raise ImageError("malformed DICOM: expected 0 or 1 as PixelRepresentation")
    if "BitsAllocated" not in dataset:
        dataset.BitsAllocated = _allocated(dataset, precision)
        warnings.append(f"BitsAllocated is missing in its header: {dataset.BitsAllocated} bits by its size")
    known = "BitsStored" in dataset
    if not known:
        high = dataset.get("HighBit")
        dataset.BitsStored = precision or (high + 1 if high is not None else dataset.BitsAllocated)
        known = bool(precision or high is not None or dataset.BitsAllocated <= 8)
        if known:
            warnings.append(f"BitsStored is missing in its header: {dataset.BitsStored} bits are assumed")
    if precision:
        _reconcile(dataset, precision, warnings)
    return known


def _allocated(dataset: Dataset, precision: int | None) -> int:
    if precision:
        return 8 if precision <= 8 else 16
    samples = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel
    bits = {1: 8, 2: 16}.get(len(dataset.PixelData) // max(samples, 1))
    if bits is None:
        raise ImageError("its header has no BitsAllocated, and the size of its pixels does not tell it")
    return bits


def _reconcile(dataset: Dataset, precision: int, warnings: list[str]) -> None:
    """Follow the stream where it has fewer bits than the header; a display that fits only the header is refused."""
    stored, allocated = dataset.BitsStored, dataset.BitsAllocated
    if precision >= stored and not (precision <= 8 < allocated):
        return
    if precision < stored:
        range_of_stream = 1 << precision
        centre = next((number for number in numbers(dataset, "WindowCenter") if number is not None), None)
        slope = next((number for number in numbers(dataset, "RescaleSlope") if number), 1.0)
        shift = next((number for number in numbers(dataset, "RescaleIntercept") if number), 0.0)
        entries = (
            max((numbers(item, "LUTDescriptor") or [0])[0] or 0 for item in _items(dataset)) if _items(dataset) else 0
        )
        outside = centre is not None and not math.isnan(centre) and abs((centre - shift) / slope) >= range_of_stream
        if outside or entries > range_of_stream:
            raise ImageError(
                f"its header has {stored} bits a pixel and its compressed stream {precision}, and the window or lookup "
                "table fits only the header"
            )
        warnings.append(f"its header has {stored} bits a pixel, its compressed stream {precision}: the stream counts")
    dataset.BitsStored = min(stored, precision)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.BitsAllocated = 8 if precision <= 8 else allocated


def _items(dataset: Dataset) -> list[Dataset]:
    return [item for keyword in ("ModalityLUTSequence", "VOILUTSequence") for item in dataset.get(keyword) or ()]
