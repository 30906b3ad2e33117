"""`padchest`: PadChest (Bustos et al. 2020, Medical Image Analysis 66:101797), 160,000 images of San Juan, Spain.

Layout: `PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv` and the images in folders `0` to `54` beside it (column
`ImageDir`), or all in one folder, as in smaller editions. 16-bit PNGs, scaled by their windows; a few dozen are corrupt
in every copy, and are rejected like any other file that cannot be read.

- `label`: `COVID-19`, `pneumonia`, `normal`, `other findings`, or empty, by the rule of `cells.class_of`; `labels` is
  the set's own list as text. `select --where "labels LIKE '%cardiomegaly%'"` finds any other finding.
- `patient_id`: `PatientID`. `sex`: `PatientSex_DICOM`. `age`: the year of `StudyDate_DICOM` minus `PatientBirth`.
- `view`: `Projection`; `AP_horizontal` is `AP SUPINE`. Excluded: `EXCLUDE` and reports with `exclude`; lateral views
  (`L`) and views of the ribs (`COSTAL`), unless `--view` includes them.
- `warning`: where the header has MONOCHROME1. Whether such a PNG is stored inverted is not documented: look at some.

Every other column passes through but `Report`, which is free text about a patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cxrtool.data.datasets.cells import class_of, items_of, not_frontal, view_of, years_between
from cxrtool.data.datasets.layout import columns_of, find, folder_of, header_of, locate, table_of
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.tables.manifest import COLUMNS
from cxrtool.data.tables.people import sex_of

TABLE = "a table such as PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
FOLDERS = ("images", "images-224", "")
"""Folders of smaller editions, which have all images in one."""

INVERTED = "its header has MONOCHROME1: check whether the PNG is inverted"


@adapter(
    "padchest",
    mark=lambda root: any({"imageid", "projection"} <= header_of(path) for path in find(root, "*.csv")),
)
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield one record a row.

    Raises:
        InputError: There is no table, or it lacks a column that PadChest has.
    """
    table = table_of(source, "padchest", TABLE, "PADCHEST*.csv", "*chest_x_ray_images_labels*.csv")
    image, patient, birth, sex, projection, labels, date = columns_of(
        table,
        "ImageID",
        "PatientID",
        "PatientBirth",
        "PatientSex_DICOM",
        "Projection",
        "Labels",
        "StudyDate_DICOM|StudyDate",
    )
    root = folder_of(source)
    shared = [root / name for name in FOLDERS if (root / name).is_dir()]
    numbered: dict[str, Path] = {}
    used = {image, patient, sex, projection, labels, "ImageDir", "Report"} | set(COLUMNS)
    for index, row in enumerate(table.rows):
        findings, view = items_of(row[labels]), view_of(row[projection])
        columns = {name: cell.strip() for name, cell in row.items() if name not in used}
        columns |= {
            "label": class_of(findings),
            "labels": row[labels].strip(),
            "patient_id": row[patient].strip(),
            "view": view,
            "sex": sex_of(row[sex]),
            "age": years_between(row[birth], row[date]),
            "source": "padchest",
        }
        if row.get("PhotometricInterpretation_DICOM", "").strip().upper() == "MONOCHROME1":
            columns["warning"] = INVERTED
        name = row[image].strip()
        if not name:
            yield Record(Path(table.place(index)), columns, "")
            continue
        # A spreadsheet may have changed the number of a folder to 12.0.
        number = row.get("ImageDir", "").strip().removesuffix(".0")
        path = locate([numbered.setdefault(number, root / number), *shared], name)
        relative = path.relative_to(root).as_posix()
        yield Record(path, columns, relative, _unwanted(view, findings, request))


def _unwanted(view: str, findings: list[str], request: Request) -> str:
    if view == "EXCLUDE" or "exclude" in (finding.lower() for finding in findings):
        return "excluded by the data set: not a chest, or no usable report"
    return not_frontal(view, request)
