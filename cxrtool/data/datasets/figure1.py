"""`figure1`: Figure 1 COVID-19 Chest X-ray Dataset, github.com/agchung/Figure1-COVID-chestxray-dataset.

Layout: `metadata.csv`, in Latin-1, and `images/<patientid>.jpg` or `.png`; the table does not name the files.

- `label`: `finding` (`COVID-19`, `Pneumonia`, `No finding`); most cells are empty, and the image stays unlabelled.
- `patient_id`: `patientid` without the letter that distinguishes images of one patient (`COVID-00003a`,
  `COVID-00003b`).
- `age`: years; an age that is not a number (`50+`) is in `age_as_given`.
- `view`: as given; lateral views are excluded unless `--view` includes them.

Every other column passes through. Every version has some rows without a file; these are rejected as missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cxrtool.data.datasets import collection
from cxrtool.data.datasets.cells import without_letter
from cxrtool.data.datasets.layout import has_columns, locate
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.tables.manifest import Row

SUFFIXES = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG")


@adapter("figure1", mark=lambda root: has_columns(root, "finding", "artifacts/distortion", without="imagename"))
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield one record a row of `metadata.csv`."""
    layout = collection.Layout("figure1", "artifacts/distortion", "imagename", _place, str.strip, without_letter)
    return collection.read(source, request, layout)


def _place(root: Path, row: Row) -> Path | None:
    identity = row["patientid"]
    if not identity:
        return None
    names = (identity + suffix for suffix in SUFFIXES)
    found = (path for name in names if (path := locate([root / "images"], name)).is_file())
    return next(found, root / "images" / f"{identity}.jpg")
