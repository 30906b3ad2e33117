"""An image with its DICOM header in a JSON file: its samples are stored values, and the header defines their display.

SimpleITK and the converters of hospital archives write such pairs: the PNG has the values of the detector, inverted
where the header has MONOCHROME1 and without any window. The rescale is part of the conversion, and is not applied
again. The header is JSON, by tag (`{"00281050": {"vr": "DS", "Value": [2048]}}`, PS3.18 section F.2) or
by keyword (`{"WindowCenter": 2048}`).
"""

from __future__ import annotations

import warnings as python_warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.reading.dicom import TAGS, remarks_on, show_stored, tags_of
from cxrtool.data.reading.dicom_header import whole
from cxrtool.data.reading.radiograph import Radiograph
from cxrtool.data.structured import load_json
from cxrtool.errors import ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LARGEST = 1 << 24
"""Largest size of a header in bytes; a lookup table of 65,536 entries takes half a million."""

_CONVERTED = ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept")
"""Tags that the conversion has applied."""


def apply_header(radiograph: Radiograph, header: Path) -> Radiograph:
    """Display an image by its header, and add the tags of the header.

    An image that was not stored as plain grey is returned unchanged, with a warning.

    Raises:
        ImageError: The header cannot be read, or does not fit the image.
    """
    if not radiograph.plain:
        radiograph.warnings.append("its header was not applied: it is not a plain grey image")
        return radiograph
    with python_warnings.catch_warnings():
        # pydicom warns with values from the header, which may be a patient's.
        python_warnings.simplefilter("ignore")
        try:
            dataset = _read(header)
            size = whole(dataset, "Columns"), whole(dataset, "Rows")
            height, width = radiograph.pixels.shape
            if None not in size and size != (width, height):
                raise ImageError(f"{header.name} has {size[0]} x {size[1]} pixels, the image {width} x {height}")
            pixels = show_stored(radiograph.pixels, dataset, radiograph.warnings)
            return Radiograph(pixels, tags_of(dataset), [*radiograph.warnings, *remarks_on(dataset)])
        except (ImageError, MemoryError):
            raise
        except Exception as error:
            # On damaged headers pydicom raises anything from KeyError to OverflowError.
            raise ImageError(f"its header {header.name} cannot be read ({type(error).__name__})") from error


def _read(path: Path) -> Dataset:
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataset import Dataset

    if path.stat().st_size > LARGEST:
        raise ImageError(f"its header {path.name} is larger than {LARGEST:,} bytes")
    entries: dict[str, Any] = load_json(path)
    dataset = Dataset()
    for keyword in TAGS:
        if keyword in _CONVERTED:
            continue
        key = f"{tag_for_keyword(keyword):08X}"
        entry = entries.get(key, entries.get(key.lower(), entries.get(keyword)))
        if isinstance(entry, dict) and "vr" in entry:
            dataset.update(Dataset.from_json({key: entry}))
        elif isinstance(entry, str | int | float) or (isinstance(entry, list) and entry):
            _add(dataset, keyword, entry)
    return dataset


def _add(dataset: Dataset, keyword: str, entry: Any) -> None:
    """Add an attribute; one whose value is not what the standard says keeps its text."""
    from pydicom.tag import Tag

    try:
        setattr(dataset, keyword, entry)
    except Exception:
        parts = entry if isinstance(entry, list) else [entry]
        dataset.add_new(Tag(keyword), "UN", "\\".join(map(str, parts)).encode())
