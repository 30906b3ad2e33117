"""`cohen`: COVID-19 Image Data Collection (Cohen, Morrison, Dao 2020), github.com/ieee8023/covid-chestxray-dataset.

Layout: `metadata.csv` and the folders of its column `folder` (`images/`, and `volumes/` for CT); early versions have no
such column. Images from publications on several hundred patients, with one row an image.

- `label`: the first entry of `finding` (early: `COVID-19, ARDS`), and of that the last level of the hierarchy
  (late: `Pneumonia/Viral/COVID-19`): `COVID-19`, `SARS`, `Streptococcus`, `No Finding`. `finding` itself is kept.
- `patient_id`: `patientid`. One patient has up to some twenty images.
- `view`: `PA`, `AP`, `AP SUPINE`, `AP ERECT`, `L`. Excluded: CT, the findings `todo` and `Unknown`, and lateral views
  unless `--view` includes them.
- `annotations/covid-severity-scores.csv`, if present (Cohen et al. 2020, Cureus 12(7)): `geographic_mean`, the
  extent of lung involvement from 0 to 8, and `opacity_mean`, the degree from 0 to 6, of three raters.

Every other column passes through: days since onset, survival, intensive care, laboratory, location, licence, source.
The masks below `annotations/` were made by a network, not drawn by a reader, and are not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cxrtool.data.datasets import collection
from cxrtool.data.datasets.layout import columns_of, has_columns
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.tables.manifest import Row, read_table

SCORES = "annotations/covid-severity-scores.csv"
SCORE_COLUMNS = ("geographic_mean", "opacity_mean")


@adapter("cohen", mark=lambda root: has_columns(root, "finding", "filename", "view"))
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield one record a row of `metadata.csv`, with the severity scores where there are any."""
    layout = collection.Layout("cohen", "filename", "imagename", _place, label_of, used_up=("folder", "filename"))
    scores = _scores(collection.root_of(source) / SCORES)
    for record in collection.read(source, request, layout):
        yield replace(record, columns=record.columns | scores.get(record.path.name, {}))


def label_of(finding: str) -> str:
    """The class in a finding.

    >>> label_of("Pneumonia/Viral/COVID-19"), label_of("COVID-19, ARDS"), label_of(" No Finding ")
    ('COVID-19', 'COVID-19', 'No Finding')
    """
    return finding.split(",")[0].split("/")[-1].strip()


def _place(root: Path, row: Row) -> Path | None:
    return root / (row.get("folder") or "images") / row["filename"] if row["filename"] else None


def _scores(path: Path) -> dict[str, Row]:
    if not path.is_file():
        return {}
    table = read_table(path)
    name, *columns = columns_of(table, "filename", *SCORE_COLUMNS)
    return {
        row[name].strip(): {given: row[column].strip() for given, column in zip(SCORE_COLUMNS, columns, strict=True)}
        for row in table.rows
    }
