"""The input and the output of an adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cxrtool.data.tables.manifest import Row


@dataclass
class Request:
    """The options of an adapter, and its messages.

    Attributes:
        path_column: The table's column of files; None finds it.
        label_column: The column of classes; None finds it.
        patient_column: The column of patients; None finds it.
        exclude: Folders that are not searched, because the output may be inside the source.
        views: The views of `--view`, in capitals; where it is empty, adapters of published sets exclude views that are
            not frontal.
        skipped: Files that are not images by their names; filled by the adapter.
        remarks: Messages about the set as a whole; filled by the adapter.
    """

    path_column: str | None = None
    label_column: str | None = None
    patient_column: str | None = None
    exclude: frozenset[Path] = frozenset()
    views: frozenset[str] = frozenset()
    skipped: list[Path] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


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
        header: A DICOM header in a file beside the image, for how its stored values are displayed.
        masks: The files of its mask, one for each lung where there are several; they are joined.
        ribless: The same image without ribs.
        listed_in: The source that lists it.
    """

    path: Path
    columns: Row
    relative: str
    unwanted: str = ""
    header: Path | None = None
    masks: tuple[Path, ...] = ()
    ribless: Path | None = None
    listed_in: Path | None = None

    @property
    def image_id(self) -> str:
        """The id in the set, or empty; after `list_images` the unique id."""
        return self.columns.get("image_id", "")
