"""What an adapter is told, and what it yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cxrtool.data.tables.manifest import Row


@dataclass
class Request:
    """What an adapter is told beside the place of the data.

    Attributes:
        path_column: The column of a table that names the image; None finds it.
        label_column: The column that names the class; None finds it.
        patient_column: The column that names the patient; None finds it.
        exclude: Folders that are not searched: the output itself may lie in the source.
        views: The views that `--view` asks for, in capitals; where there are none, a published set leaves out what is
            no frontal view.
        skipped: Files that were not taken for images; filled by the adapter.
        remarks: What the user should know of the set as a whole; filled by the adapter.
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
        path: The file; it may turn out to be missing or unreadable.
        columns: What else is known of it, by the manifest's columns; others pass through. Of a listed image this is its
            whole row of the manifest, with the files that are named below.
        relative: The path below the source, with slashes; empty where a row of a table names no file.
        unwanted: Why the set lists it but it is none of what is asked for, such as a lateral view or a slice of CT; it
            is then not opened, and stands in `rejects.csv` with this reason. Empty for all else.
        header: A file beside the image that tells how its stored values are to be shown, as DICOM headers do.
        masks: The files of its mask, which are joined where there are several: one for each lung.
        ribless: The same picture without ribs.
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
        """The id that the set gives, or nothing; of a listed image the one that is unique."""
        return self.columns.get("image_id", "")
