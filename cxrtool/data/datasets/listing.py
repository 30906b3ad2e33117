"""Every image of one or several sources as a row of a manifest, before any of them is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxrtool.data.datasets import ADAPTERS
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.tables.ids import Naming, stem_of, unique_ids
from cxrtool.data.tables.manifest import Manifest, Row, order_columns
from cxrtool.errors import InputError

ORIGINAL = "original"
"""The column that says from which file of the source an image was made."""

TABLES = (".csv", ".tsv")

# Names that say what lies in a folder, not whose it is: the data set's name is that of the folder above.
_GENERIC = {"images", "image", "img", "data", "dataset", "png", "jpg", "jpeg", "dicom", "dcm", "raw", "cxr", "train"}


@dataclass
class Listing:
    """What sources list.

    Attributes:
        rows: One an image: `image_id`, `path` and `mask` of the source (absolute), `source`, `original`, and what is
            known. An empty `path` is a row of a table that names no file.
        columns: All columns, the manifest's first.
        tables: The same rows by source, to take a digest of.
        skipped: Files that were not taken for images.
        unwanted: Why a row is none of what is asked for, by its index.
        headers: The file that tells how a row's image is to be shown, by the row's index.
        remarks: What the user should know of a set as a whole.
        mask_parts: The files that are joined with the one in `mask`, by the row's index.
    """

    rows: list[Row]
    columns: list[str]
    tables: list[Manifest]
    skipped: list[Path]
    unwanted: dict[int, str] = field(default_factory=dict)
    headers: dict[int, Path] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    mask_parts: dict[int, tuple[Path, ...]] = field(default_factory=dict)


def list_images(sources: Sequence[Path], dataset: str | None, request: Request, source_name: str | None) -> Listing:
    """List the images of all sources and give each its id.

    Args:
        sources: Folders, tables, or single images.
        dataset: A key of `ADAPTERS`; None takes `csv` for a table and `folder` for all else.
        request: What the adapters are told.
        source_name: The name of the data set; None takes the one that the table gives, else the folder's.

    Raises:
        InputError: A source does not exist, is not what its adapter expects, or lists nothing.
    """
    rows: list[Row] = []
    namings: list[Naming] = []
    tables: list[Manifest] = []
    unwanted: dict[int, str] = {}
    headers: dict[int, Path] = {}
    parts: dict[int, tuple[Path, ...]] = {}
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file or folder", "SOURCE is a folder of images, a table, or an image")
        adapter = ADAPTERS[dataset or ("csv" if source.suffix.lower() in TABLES else "folder")]
        name = default_source(source)
        mine: list[Row] = []
        for record in adapter(source, request):
            row = _row(record)
            row["source"] = (source_name or row.get("source") or name).replace(":", "_")
            if record.unwanted:
                unwanted[len(rows) + len(mine)] = record.unwanted
            if record.header:
                headers[len(rows) + len(mine)] = record.header
            if record.mask_parts:
                parts[len(rows) + len(mine)] = record.mask_parts
            mine.append(row)
            given = record.columns.get("image_id", "")
            folder = record.path.parent.name if record.relative else ""
            stem = given or (stem_of(record.path.name) if record.relative else "")
            namings.append(Naming(stem, folder, f"{name}/{record.relative}"))
        rows += mine
        tables.append(Manifest([], mine, source))
    if not rows:
        where = ", ".join(map(str, sources))
        raise InputError(
            f"{where}: expected images, found none", "`cxrtool prepare --help` says how data may be laid out"
        )
    for row, identity in zip(rows, unique_ids(namings), strict=True):
        row["image_id"] = identity
    remarks = list(dict.fromkeys(request.remarks))
    return Listing(rows, order_columns([], rows), tables, request.skipped, unwanted, headers, remarks, parts)


def default_source(source: Path) -> str:
    """The name of a data set by its place: that of the folder, or of the one above where it only says `images`.

    >>> default_source(Path("/data/padchest/images")), default_source(Path("/data/nih/metadata.csv"))
    ('padchest', 'nih')
    """
    folder = source.absolute() if source.is_dir() or not source.suffix else source.absolute().parent
    while folder.name.lower() in _GENERIC and folder.parent.name:
        folder = folder.parent
    return folder.name or "data"


def printable(path: Path | str) -> str:
    """A path as text that can be written as UTF-8, whatever bytes its name has."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def _row(record: Record) -> Row:
    row = dict(record.columns)
    row["path"] = os.path.abspath(record.path) if record.relative else ""  # noqa: PTH100
    for column in ("mask", "ribless"):
        if row.get(column):
            row[column] = os.path.abspath(row[column])  # noqa: PTH100
    row.setdefault(ORIGINAL, printable(record.relative or record.path))
    return row
