"""The layout of the COVID-19 image data collection and of the sets modelled on it: `metadata.csv` and `images/`.

Columns are found by name in any case: `patientid` (early: `Patientid`), `sex`, `age`, `finding`, `view`, `modality`
(absent in the first versions, whose `view` is `CT`, `Axial` or `Coronal`). Other columns pass through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.datasets.cells import not_frontal, view_of
from cxrtool.data.datasets.layout import columns_of, find, folder_of, misfit, table_of, within
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.people import sex_of, years_of
from cxrtool.errors import count_of

TABLE = "metadata.csv"
UNKNOWN = {"todo", "unknown"}
"""Findings that mean that the class is not known."""

_CT_VIEWS = {"CT", "AXIAL", "CORONAL", "SAGITTAL"}
_RENAMED = {"patientid": "patient_id", "sex": "sex", "age": "age", "view": "view"}


@dataclass(frozen=True)
class Layout:
    """How one of these sets differs from the others.

    Attributes:
        name: The adapter, which is also the source in the prefix of patient ids.
        marked_by: A column that some of the other sets lack.
        without: A column that only another set has.
        place: The file of a row: from the set's folder and the row by lower-case column.
        label: The class, from the finding.
        patient: The patient, from the cell.
        used_up: Columns that `place` uses and that do not pass through.
    """

    name: str
    marked_by: str
    without: str
    place: Callable[[Path, Row], Path | None]
    label: Callable[[str], str]
    patient: Callable[[str], str] = str.strip
    used_up: tuple[str, ...] = ()


def read(source: Path, request: Request, layout: Layout) -> Iterator[Record]:
    """Yield one record a row; CT slices, unknown findings and lateral views get a reason to exclude them.

    Raises:
        InputError: There is no such table, or it belongs to another set.
    """
    root, listed = root_of(source), set[Path]()
    table = table_of(source if source.is_file() else root, layout.name, f"{TABLE} and images/", TABLE)
    known = {column.lower() for column in table.columns}
    if layout.marked_by not in known or layout.without in known:
        other = f" and without {layout.without}" if layout.without in known else ""
        raise misfit(source, layout.name, f"{TABLE} with a column {layout.marked_by}{other}")
    columns_of(table, "patientid", "finding", "view")
    for index, cells in enumerate(table.rows):
        row = {column.lower(): cell.strip() for column, cell in cells.items()}
        columns = {name: row[name] for name in row if name not in _RENAMED and name not in layout.used_up}
        view = view_of(row["view"])
        columns |= {
            "label": layout.label(row["finding"]),
            "patient_id": layout.patient(row["patientid"]),
            "view": view,
            "age": years_of(row.get("age", "")),
            "sex": sex_of(row.get("sex", "")),
            "source": layout.name,
        }
        if row.get("age") and not columns["age"]:
            columns["age_as_given"] = row["age"]
        path = layout.place(root, row)
        if path is None:
            yield Record(Path(table.place(index)), columns, "")
            continue
        listed.add(path)
        yield Record(path, columns, path.relative_to(root).as_posix(), _unwanted(row, view, request))
    others = sum(path not in listed for path in find(root / "images", "*"))
    if others:
        request.remarks.append(f"{count_of(others, 'file')} in {root / 'images'} not listed in {TABLE}, so not read")


def root_of(source: Path) -> Path:
    """The folder of the table."""
    return within(source, TABLE) if source.is_dir() else folder_of(source)


def _unwanted(row: Row, view: str, request: Request) -> str:
    modality = row.get("modality", "")
    if view in _CT_VIEWS or modality.upper() == "CT":
        return f"{'modality' if modality else 'view'} {modality or view}, not a radiograph"
    if modality and modality.lower().replace("-", "").replace(" ", "") not in ("xray", "cr", "dx"):
        return f"modality {modality}, not a radiograph"
    if row["finding"].lower() in UNKNOWN:
        return f"finding '{row['finding']}': its class is not known"
    return not_frontal(view, request)
