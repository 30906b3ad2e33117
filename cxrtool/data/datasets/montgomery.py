"""`montgomery`: the Montgomery County X-ray set (Jaeger et al. 2014), 138 radiographs of a tuberculosis screening.

Layout: `MontgomerySet/CXR_png/MCUCXR_0001_0.png`, `ManualMask/{leftMask,rightMask}/` with the same names, and
`ClinicalReadings/MCUCXR_0001_0.txt`.

- `label`: `normal` (80) or `tuberculosis` (58), by the last digit of the name.
- `mask`: both lungs, joined from the two files; without the heart and the lung below the dome of the diaphragm.
- `age`, `sex`, `reading` from the readings; `view` PA, as the set describes itself. `patient_id`: one image a patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cxrtool.data.datasets import folder
from cxrtool.data.datasets.layout import misfit, within
from cxrtool.data.datasets.readings import label_of, read_reading
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter

IMAGES, MASKS = "CXR_png", ("ManualMask/leftMask", "ManualMask/rightMask")


@adapter("montgomery", mark=lambda root: any((within(root, IMAGES) / IMAGES).glob("MCUCXR_*")))
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield every image, with its lung masks where both exist.

    Raises:
        InputError: There is no folder of images.
    """
    root = within(source, IMAGES)
    if not (root / IMAGES).is_dir() or not any((root / IMAGES).glob("MCUCXR_*")):
        raise misfit(source, "montgomery", f"the folder {IMAGES} with MCUCXR_*.png")
    for record in folder.read(root / IMAGES, request):
        stem = record.path.stem
        if not stem.startswith("MCUCXR_"):
            request.skipped.append(record.path)
            continue
        columns = {"label": label_of(stem), "patient_id": stem, "source": "montgomery", "view": "PA"}
        columns |= read_reading(root, stem)
        parts = tuple(root / place / record.path.name for place in MASKS)
        masks = parts if all(part.is_file() for part in parts) else ()
        yield replace(record, columns=columns, relative=f"{IMAGES}/{record.relative}", masks=masks)
