"""`rsna`: RSNA Pneumonia Detection Challenge (Shih et al. 2019, Radiology: AI 1:e180041), as Kaggle has it.

Layout: `stage_2_train_labels.csv` (`patientId, x, y, width, height, Target`), one row a box, so that an image with
three boxes has three; `stage_2_detailed_class_info.csv` (`patientId, class`), which repeats its rows likewise; and
`stage_2_train_images/<patientId>.dcm`. The names of stage 1 are read too.

- One row an image. `label`: `Normal`, `Lung Opacity` or `No Lung Opacity / Not Normal`; where the class table is
  missing, `pneumonia` or `no pneumonia` by `Target`. `target`: 1 where any row of the image has 1.
- `boxes`: number; `box`: `x y width height` of each in pixels of the image, separated by semicolons.
- `patient_id`: a `patientId` identifies an image, not a patient. With `pneumonia-challenge-dataset-mappings_2018.json`
  of the RSNA beside the tables, it is the patient of the NIH set that the images come from, as `nih:00013774`.
- Age, sex and view are read from the DICOM headers by `prepare`.

The images of `stage_2_test_images` have no labels, and are not listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cxrtool.data.datasets.layout import columns_of, find, folder_of, misfit, table_of
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.structured import load_json
from cxrtool.data.tables.manifest import Row, read_table
from cxrtool.errors import InputError

LABELS = "stage_*_train_labels.csv"
CLASSES = "stage_*_detailed_class_info.csv"
IMAGES = "stage_*_train_images"
MAPPING = "pneumonia-challenge-dataset-mappings*.json"


@adapter("rsna", mark=lambda root: bool(find(root, LABELS)))
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield one record an image of the training part.

    Raises:
        InputError: There is no table of labels, no folder of images, or an image that has two classes.
    """
    expected = "stage_2_train_labels.csv and stage_2_train_images/"
    table = table_of(source, "rsna", expected, LABELS)
    identity, target, *box = columns_of(table, "patientId", "Target", "x", "y", "width", "height")
    root = folder_of(source)
    folders = sorted(path for path in root.glob(IMAGES) if path.is_dir())
    if not folders:
        raise misfit(source, "rsna", expected)
    if any(root.glob("stage_*_test_images")):
        request.remarks.append("the test images of the challenge have no labels and are not listed")
    images: dict[str, tuple[bool, list[str]]] = {}
    for row in table.rows:
        name = row[identity].strip()
        positive, boxes = images.get(name, (False, []))
        positive |= row[target].strip() in ("1", "1.0")
        corners = [row[column].strip() for column in box]
        images[name] = positive, [*boxes, " ".join(corners)] if all(corners) else boxes
    classes, patients = _classes(root), _patients(root, request)
    for name, (positive, boxes) in images.items():
        columns = {
            "label": classes.get(name, "") if classes else ("pneumonia" if positive else "no pneumonia"),
            "patient_id": patients.get(name, name),
            "source": "rsna",
            "target": str(int(positive)),
            "boxes": str(len(boxes)),
            "box": "; ".join(boxes),
        }
        if not name:
            yield Record(Path(table.name), columns, "")
            continue
        path = folders[-1] / f"{name}.dcm"
        yield Record(path, columns, path.relative_to(root).as_posix())


def _classes(root: Path) -> dict[str, str]:
    classes: dict[str, str] = {}
    for path in find(root, CLASSES)[-1:]:
        table = read_table(path)
        identity, kind = columns_of(table, "patientId", "class")
        for index, row in enumerate(table.rows):
            name, label = row[identity].strip(), row[kind].strip()
            if classes.setdefault(name, label) != label:
                raise InputError(f"{table.place(index)}: '{name}' is '{label}', and '{classes[name]}' above")
    return classes


def _patients(root: Path, request: Request) -> dict[str, str]:
    paths = find(root, MAPPING)
    if not paths:
        request.remarks.append(
            "patientId identifies an image: without the mapping file a patient may be on both sides of a split"
        )
        return {}
    try:
        entries: list[Row] = load_json(paths[0])
        return {entry["subset_img_id"]: f"nih:{entry['img_id'].partition('_')[0]}" for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{paths[0]}: expected a list of objects with subset_img_id and img_id, cannot read it: {error!r}"
        ) from error
