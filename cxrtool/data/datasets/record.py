"""The input and the output of an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cxrtool.data.tables.manifest import Row


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
        ribless: The same image without ribs.
        listed_in: The source that lists it.
    """

    path: Path
    columns: Row
    relative: str
    unwanted: str = ""
    doubt: str = ""
    header: Path | None = None
    masks: tuple[Path, ...] = ()
    ribless: Path | None = None
    listed_in: Path | None = None

    @property
    def image_id(self) -> str:
        """The id in the set, or empty; after `list_images` the unique id."""
        return self.columns.get("image_id", "")
