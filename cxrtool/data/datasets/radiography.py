"""`radiography-db`: COVID-19 Radiography Database (Chowdhury et al. 2020, Rahman et al. 2021), as Kaggle has it.

Layout, from version 4 on: `{COVID,Lung_Opacity,Normal,Viral Pneumonia}/{images,masks}/*.png` and for each class a
`<class>.metadata.xlsx` (`FILE NAME`, `FORMAT`, `SIZE`, `URL`). Before: the images directly in `COVID` or `COVID-19`,
`NORMAL` and `Viral Pneumonia`, without masks; some copies have `Viral_Pneumonia` and `Lung Opacity`.

- `label`: `COVID`, `Lung_Opacity`, `Normal` or `Viral Pneumonia`, however the folder spells it.
- `mask`: the lung mask of the same name, 256 pixels wide; the image has 299.
- `url`: from the workbook, if present: the collection that the image came from. The classes come from different
  collections (COVID-19 from several, among them BIMCV; Normal from RSNA and the paediatric set of Kermany et al.), so
  that this column almost determines the class: see what a network has learnt with `evaluate --by url`.

There are no patient ids, ages or views: images of one patient cannot be kept together, and results will be too good.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cxrtool.data.datasets import folder
from cxrtool.data.datasets.layout import misfit, within
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.tables.ids import stem_of
from cxrtool.data.tables.workbook import LARGEST, ROWS, check_workbook
from cxrtool.errors import InputError

CLASSES = {
    "covid": "COVID",
    "covid-19": "COVID",
    "lung opacity": "Lung_Opacity",
    "normal": "Normal",
    "viral pneumonia": "Viral Pneumonia",
}
"""The class of a folder's name, in lower case and without underscores."""

BOOK = ".metadata.xlsx"


@adapter("radiography-db", mark=lambda root: (within(root, "Viral Pneumonia") / "Viral Pneumonia").is_dir())
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield every image of the classes' folders, with its mask and its origin.

    Raises:
        InputError: Fewer than two classes have a folder, or a workbook cannot be read.
    """
    root = _root(source)
    folders = _classes(root)
    if len(folders) < 2:
        raise misfit(source, "radiography-db", "the folders COVID, Lung_Opacity, Normal and Viral Pneumonia")
    request.remarks.append("the set has no patient ids: images of one patient may fall on both sides of a split")
    for place, label in folders:
        origins = _origins(root, label)
        images = place / "images" if (place / "images").is_dir() else place
        for record in folder.read(images, request):
            columns = {"label": label, "source": "radiography-db"}
            if origins:
                columns["url"] = origins.get(_key(stem_of(record.path.name)), "")
            mask = place / "masks" / record.path.name
            masks = (mask,) if images != place and mask.is_file() else ()
            yield replace(record, columns=columns, relative=record.path.relative_to(root).as_posix(), masks=masks)


def _root(source: Path) -> Path:
    """The folder of the classes: `source`, or its only subfolder that has classes."""
    if not source.is_dir() or len(_classes(source)) >= 2:
        return source
    deeper = [child for child in sorted(source.iterdir()) if child.is_dir() and len(_classes(child)) >= 2]
    return deeper[0] if len(deeper) == 1 else source


def _classes(root: Path) -> list[tuple[Path, str]]:
    children = sorted(root.iterdir()) if root.is_dir() else []
    named = ((child, CLASSES.get(_key(child.name))) for child in children if child.is_dir())
    return [(child, label) for child, label in named if label]


def _origins(root: Path, label: str) -> dict[str, str]:
    """The URL of each image by its normalised name: workbooks have `NORMAL-1`, files `Normal-1`."""
    books = (path for path in sorted(root.glob(f"*{BOOK}")) if CLASSES.get(_key(path.name[: -len(BOOK)])) == label)
    book = next(books, None)
    rows = read_book(book) if book else []
    return {_key(row.get("FILE NAME", "")): row.get("URL", "").strip() for row in rows}


def read_book(path: Path) -> list[dict[str, str]]:
    """The first sheet of an Excel workbook as text, one dictionary a row; the first row is the header.

    Raises:
        InputError: It is not a workbook, damaged, or too large.
    """
    import pandas as pd

    try:
        check_workbook(path, LARGEST)
        with warnings.catch_warnings():
            # It warns of styles and drop-down lists, which are not needed.
            warnings.simplefilter("ignore")
            sheet = pd.read_excel(path, dtype=str, keep_default_na=False, engine="openpyxl", nrows=ROWS)
    except InputError:
        raise
    except Exception as error:
        # On damaged files openpyxl raises anything from KeyError to the error of its XML parser.
        raise InputError(f"{path}: expected an Excel workbook (.xlsx), cannot read it: {error}") from error
    rows: list[dict[str, str]] = sheet.rename(columns=lambda name: str(name).strip()).to_dict("records")
    return rows


def _key(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())
