"""`actualmed`: Actualmed COVID-19 Chest X-ray Dataset, github.com/agchung/Actualmed-COVID-chestxray-dataset.

Layout: `metadata.csv` and `images/<imagename>`.

- `label`: `finding` (`COVID-19`, `No finding`); an empty cell means an inconclusive case, and the image stays
  unlabelled. A patient may be positive on one day and have no finding on another.
- `patient_id`: `patientid`. `view`: `PA` or `AP`.

Age and sex are not given. Every other column passes through; `notes` hold the date.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cxrtool.data.datasets import collection
from cxrtool.data.datasets.layout import has_columns
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.tables.manifest import Row


@adapter("actualmed", mark=lambda root: has_columns(root, "finding", "imagename"))
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield one record a row of `metadata.csv`."""
    layout = collection.Layout("actualmed", "imagename", "filename", _place, str.strip, used_up=("imagename",))
    return collection.read(source, request, layout)


def _place(root: Path, row: Row) -> Path | None:
    return root / "images" / row["imagename"] if row["imagename"] else None
