"""The input and the output of an adapter."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.views import Packed


@dataclass
class Request:
    """The options of an adapter, and its messages.

    Attributes:
        columns: A table's columns by the name of the manifest, as `--columns` names them; others are found.
        images: The folder, with its subfolders, of the images that a table names; None is that of the table.
        exclude: Folders that are not searched, because the output may be inside the source.
        views: The views of `--view`, in capitals; where it is empty, adapters of published sets exclude views that are
            not frontal.
        skipped: Files that are not images by their names; filled by the adapter.
        remarks: Messages about the set as a whole; filled by the adapter.
        warnings: What the user should check; filled by the adapter.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None
    exclude: frozenset[Path] = frozenset()
    views: frozenset[str] = frozenset()
    skipped: list[Path] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


BESIDE = {"opacities": "mask of opacities", "ribless": "rib-free image"}
"""The columns of images beside a radiograph, other than its lung mask, and what they are."""


@dataclass(frozen=True)
class Record:
    """One image that a data set lists.

    Attributes:
        path: The file; it may be missing or unreadable.
        columns: Other known values, by column of the manifest; unknown columns pass through. After `list_images` this
            is the full row of the manifest, including the files below.
        relative: The path below the source, with slashes; empty where a row of a table has no file.
        unwanted: Why the image is excluded, such as a lateral view or a CT slice; it is then not opened, and listed in
            `rejects.csv` with this reason. Empty for all other images.
        doubt: Why its file is not known, such as a name that several files have; it is listed in `rejects.csv` as a
            file that cannot be read.
        header: A DICOM header in a file beside the image, for how its stored values are displayed.
        masks: The files of its mask, one for each lung where there are several; they are joined.
        beside: Further images of the same geometry, by their column, one of `BESIDE`.
        listed_in: The source that lists it.
    """

    path: Path
    columns: Row
    relative: str
    unwanted: str = ""
    doubt: str = ""
    header: Path | None = None
    masks: tuple[Path, ...] = ()
    beside: Mapping[str, Path] = field(default_factory=dict)
    listed_in: Path | None = None

    @property
    def image_id(self) -> str:
        """The id in the set, or empty; after `list_images` the unique id."""
        return self.columns.get("image_id", "")


class Records:
    """The records of many images, in little memory: each is made anew when it is asked for.

    Attributes:
        rows: Their `columns`.
    """

    def __init__(self) -> None:
        self.rows, self._others = Packed(), Packed()

    def append(self, record: Record) -> None:
        """Add a record."""
        others = {"relative": record.relative, "unwanted": record.unwanted, "doubt": record.doubt}
        files = {"path": record.path, "header": record.header, "listed_in": record.listed_in, **record.beside}
        others |= {name: os.fspath(file) for name, file in files.items() if file}
        if record.masks:
            # No name has a zero byte.
            others["masks"] = "\0".join(map(os.fspath, record.masks))
        self.rows.append(record.columns)
        self._others.append(others)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Record]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> Record:
        row, others = self.rows[index], self._others[index]
        masks = others.pop("masks", "")
        texts = {name: others.pop(name) for name in ("relative", "unwanted", "doubt")}
        files = {name: Path(file) for name, file in others.items()}
        beside = {name: files.pop(name) for name in BESIDE if name in files}
        more = tuple(map(Path, masks.split("\0"))) if masks else ()
        return Record(columns=row, **texts, **files, beside=beside, masks=more)  # type: ignore[arg-type]
