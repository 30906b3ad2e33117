"""Files of synthetic radiographs: images in the formats of the sources, and the ground truth as PNG.

Equal pixels give equal bytes: no file has a date or a machine.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.data.confinement import check_inside
from cxrtool.data.reading.images import write_png
from cxrtool.data.reading.radiograph import Grey
from cxrtool.errors import OutputError

Grid = NDArray[np.float32]

JPEG_QUALITY = 90
BITS = 12
"""Stored bits of the 16 that DICOM allocates, as from a detector."""

WINDOWS = ((0, 4095), (250, 3250), (900, 3700))
"""Pairs of stored values that are displayed as black and white; each DICOM file has one pair."""


@dataclass(frozen=True)
class Header:
    """Metadata of a radiograph; only DICOM files have them.

    Attributes:
        patient_id: The patient.
        view: `PA` or `AP`.
        age: Years, from 0 to 999.
        sex: `F` or `M`.
        key: Unique to the exposure; identifiers, window and polarity follow from it.
    """

    patient_id: str
    view: str
    age: int
    sex: str
    key: str


def quantise(image: Grid, bits: int) -> Grey:
    """Round grey values from [0, 1] to unsigned integers of 8 or 16 bits.

    >>> quantise(np.array([[0, 0.5, 1]], np.float32), 8).tolist()
    [[0, 128, 255]]
    """
    levels = _round(image, (1 << bits) - 1)
    return levels.astype(np.uint8) if bits == 8 else levels


def write_png8(path: Path, image: Grid, header: Header) -> int:
    """Write grey values from [0, 1] as PNG of 8 bits; return the number of bytes."""
    return write_png(path, quantise(image, 8))


def write_png16(path: Path, image: Grid, header: Header) -> int:
    """Write grey values from [0, 1] as PNG of 16 bits; return the number of bytes."""
    return write_png(path, quantise(image, 16))


def write_jpeg(path: Path, image: Grid, header: Header) -> int:
    """Write grey values from [0, 1] as JPEG; return the number of bytes."""
    done, data = cv2.imencode(".jpg", quantise(image, 8), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise OutputError(f"cannot encode {path} as JPEG")
    check_inside(path)
    return path.write_bytes(data.tobytes())


def write_dicom(path: Path, image: Grid, header: Header) -> int:
    """Write grey values from [0, 1] as Computed Radiography Image (PS3.3, A.2); return the number of bytes.

    A window maps the stored values back to [0, 1]; about half of the files are inverted, as MONOCHROME1.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

    choice = hashlib.sha256(header.key.encode()).digest()
    inverted = choice[0] % 2 == 1
    low, high = WINDOWS[choice[1] % len(WINDOWS)]

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, _uid(header, "image")
    data.StudyInstanceUID, data.SeriesInstanceUID = _uid(header, "study"), _uid(header, "series")
    # Tags that are required but may be empty.
    for name in (
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyID",
        "PatientName",
        "PatientBirthDate",
        "Manufacturer",
        "SeriesNumber",
    ):
        setattr(data, name, "")
    data.InstanceNumber = 1
    data.Modality, data.BodyPartExamined, data.ViewPosition = "CR", "CHEST", header.view
    data.PatientID, data.PatientSex, data.PatientAge = header.patient_id, header.sex, f"{header.age:03}Y"
    data.BurnedInAnnotation = "NO"
    data.Rows, data.Columns = image.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, BITS, BITS - 1
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    # A LINEAR window of width w has w values, whose middle is half a value below its centre (C.11.2.1.2.1).
    data.WindowCenter, data.WindowWidth = f"{(low + high + 1) / 2:g}", str(high - low + 1)
    # Inverted after rounding, so that the same image is read in either polarity.
    levels = _round(image, high - low)
    data.PixelData = (high - levels if inverted else low + levels).astype("<u2").tobytes()
    check_inside(path)
    with path.open("wb") as file:
        data.save_as(file, enforce_file_format=True)
        return file.tell()


def _round(image: Grid, full: int) -> NDArray[np.uint16]:
    return (np.clip(image, 0, 1) * full + np.float32(0.5)).astype(np.uint16)


def _uid(header: Header, what: str) -> str:
    """A UID from a UUID (PS3.5, B.2), which depends on the header's key and `what` alone."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, f'cxrtool phantom {header.key} {what}').int}"


@dataclass(frozen=True)
class Kind:
    """A file format: the depth of the image that is read from it, 8 or 16, and its writer."""

    bits: int
    write: Callable[[Path, Grid, Header], int]


KINDS = {
    "png": Kind(8, write_png8),
    "png16": Kind(16, write_png16),
    "jpeg": Kind(8, write_jpeg),
    "dicom": Kind(16, write_dicom),
}
"""The file formats of sources."""
