"""`shenzhen`: the Shenzhen set (Jaeger et al. 2014), 662 radiographs of a hospital in China, and its masks.

Layout: `ChinaSet_AllFiles/CXR_png/CHNCXR_0001_0.png` and `ClinicalReadings/CHNCXR_0001_0.txt`. The 566 masks were made
later, by students in Kyiv (Stirenko et al. 2018), and are in a folder `mask` or `masks` as `CHNCXR_0001_0_mask.png`,
beside or inside the set, depending on the copy.

- `label`: `normal` (326) or `tuberculosis` (336), by the last digit of the name. `mask` where there is one.
- `age`, `sex`, `reading` from the readings. `patient_id`: one image a patient.
- `view` stays empty: most are PA, but some images of children are AP, and it is not documented which.
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

IMAGES, PREFIX = "CXR_png", "CHNCXR_"
MASKS = ("mask", "masks")


@adapter("shenzhen", mark=lambda root: any((within(root, IMAGES) / IMAGES).glob(f"{PREFIX}*")))
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield every image, with its mask where there is one.

    Raises:
        InputError: There is no folder of images.
    """
    root = within(source, IMAGES)
    if not (root / IMAGES).is_dir() or not any((root / IMAGES).glob(f"{PREFIX}*")):
        raise misfit(source, "shenzhen", f"the folder {IMAGES} with {PREFIX}*.png")
    folders = [place / name for place in (root, root / IMAGES, source) for name in MASKS if (place / name).is_dir()]
    if not folders:
        request.remarks.append("no folder mask or masks was found: the images have no masks")
    for record in folder.read(root / IMAGES, request):
        stem = record.path.stem
        if not stem.startswith(PREFIX) or stem.endswith("_mask"):
            request.skipped.append(record.path)
            continue
        columns = {"label": label_of(stem), "patient_id": stem, "source": "shenzhen"}
        columns |= read_reading(root, stem)
        found = [path for place in folders if (path := place / f"{stem}_mask.png").is_file()]
        yield replace(record, columns=columns, relative=f"{IMAGES}/{record.relative}", masks=tuple(found[:1]))
