"""What an adapter is told, and what it yields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        columns: What is known of it, by the manifest's columns; others pass through.
        relative: The path below the source, with slashes.
        unwanted: Why the set lists it but it is none of what is asked for, such as a lateral view or a slice of CT; it
            is then not opened, and stands in `rejects.csv` with this reason. Empty for all else.
        header: A file beside the image that tells how its stored values are to be shown, as DICOM headers do.
        mask_parts: Further files of its mask, which are joined with the one in the column `mask`: the other lung.
    """

    path: Path
    columns: Row
    relative: str
    unwanted: str = ""
    header: Path | None = None
    mask_parts: tuple[Path, ...] = ()


Adapter = Callable[[Path, Request], Iterator[Record]]
