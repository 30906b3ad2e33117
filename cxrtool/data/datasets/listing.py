"""Every image of one or several sources as a record, before any of them is opened."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

from cxrtool.data.datasets.layout import fitting_adapters
from cxrtool.data.datasets.paths import is_list
from cxrtool.data.datasets.record import Record, Records, Request
from cxrtool.data.datasets.registry import ADAPTERS
from cxrtool.data.datasets.table import describes_images
from cxrtool.data.file_names import METADATA
from cxrtool.data.files import is_stream, no_such
from cxrtool.data.tables.ids import Naming, one_line, stem_of, unique_ids
from cxrtool.data.tables.manifest import SUFFIXES, Manifest, order_columns
from cxrtool.data.tables.views import Packed, cells_of
from cxrtool.errors import InputError, UsageError

ORIGINAL = "original"
"""The column with the source file of an image."""

TABLES = (*SUFFIXES, ".xlsx", ".xlsm", ".xls")

AUTO = "auto"
"""Instead of a data set: the one whose layout a folder has, else the plain adapters."""

# Generic folder names: the data set has the name of the folder above.
_GENERIC = {"images", "image", "img", "data", "dataset", "png", "jpg", "jpeg", "dicom", "dcm", "raw", "cxr", "train"}


@dataclass
class Listing:
    """The images of all sources.

    Attributes:
        records: One an image, with absolute paths. `columns` is its row of the manifest: `image_id`, `path` (empty
            where a row of a table has no file), `source`, `original`, and all other known columns.
        skipped: Files that are not images by their names.
        remarks: Messages about a set as a whole.
        warnings: What the user should check.
        described: The folders that were read by a table of their own.
    """

    records: Records
    skipped: list[Path]
    remarks: list[str]
    warnings: list[str] = field(default_factory=list)
    described: frozenset[Path] = frozenset()

    @property
    def columns(self) -> list[str]:
        """All columns, the manifest's first."""
        return order_columns([], self.records.rows)

    def unread_tables(self, sources: Sequence[Path]) -> list[Path]:
        """The tables directly in a source that may describe its images but that the adapter `folder` does not read."""
        return [path for path in self.skipped if path.name.lower() == METADATA and path.parent in sources]

    @property
    def tables(self) -> list[Manifest]:
        """The rows by source, as inputs of the step's digest."""
        by_source = itertools.groupby(self.records, attrgetter("listed_in"))
        return [
            Manifest([], Packed(one.columns for one in some), None if source and is_stream(source) else source)  # type: ignore[arg-type]
            for source, some in by_source
        ]


def list_images(sources: Sequence[Path], dataset: str | None, request: Request, source_name: str | None) -> Listing:
    """List the images of all sources and give each its id.

    Args:
        sources: Folders, tables, lists of paths, or single images.
        dataset: A key of `ADAPTERS`; None means `csv` for a table and for a folder with its own (`own_table`), `list`
            for a list, and `folder` for all else.
        request: Passed to the adapters.
        source_name: The name of the data set; None takes the name in the table, else the folder's.

    Raises:
        InputError: A source does not exist, does not fit its adapter, or has no images.
    """
    records = Records()
    namings: list[Naming] = []
    described: set[Path] = set()
    _check_table_options(sources, dataset, request)
    for source in sources:
        if not is_stream(source) and not source.exists():
            raise InputError(no_such(source, "file or folder"), "SOURCE is a folder of images, a table, or an image")
        table = own_table(source) if dataset in (None, AUTO) else None
        if table:
            described.add(source)
            request.remarks.append(
                f"{source} was read by its {table.name}; `cxrtool prepare --dataset folder` takes the names of folders "
                "as classes"
            )
        adapter = ADAPTERS[_adapter_of(table or source, dataset, request)]
        name = default_source(source)
        for record in adapter.read(table or source, request):
            folder, stem = (record.path.parent.name, stem_of(record.path.name)) if record.relative else ("", "")
            # A single image is told from others of its name by where it is.
            relative = printable(real_place(source)) if record.path == source else f"{name}/{record.relative}"
            namings.append(Naming(record.image_id or stem, folder, relative))
            records.append(_absolute(record, source, source_name or record.columns.get("source") or name))
    if not records:
        where = ", ".join(map(str, sources))
        raise InputError(
            f"{where}: expected images, found none", "`cxrtool prepare --help` lists the layouts that it reads"
        )
    for index, identity in enumerate(unique_ids(namings)):
        records.rows.put(index, "image_id", identity)
    remarks = [*request.remarks, *_patients_in_names(records)]
    warnings = list(dict.fromkeys(request.warnings))
    return Listing(records, request.skipped, list(dict.fromkeys(remarks)), warnings, frozenset(described))


def _check_table_options(sources: Sequence[Path], dataset: str | None, request: Request) -> None:
    """Raise a `UsageError` for options on a table where no source is read as one."""
    given = "--columns" if request.columns else "--images" if request.images is not None else ""
    if not given:
        return
    if dataset not in (None, AUTO, "csv"):
        raise UsageError(f"{given}: cannot be combined with --dataset {dataset}, which knows its files and columns")
    if dataset != "csv" and not any(source.suffix.lower() in TABLES or is_stream(source) for source in sources):
        found = ", ".join(map(str, sources))
        raise UsageError(
            f"{given}: expected a table (.csv, .tsv or .xlsx) as SOURCE, found {found}",
            "the table is the SOURCE, and --images is the folder of its images: cxrtool prepare TABLE --images FOLDER",
        )
    if request.images is not None and not request.images.is_dir():
        what = "a file" if request.images.exists() else "no such folder"
        raise UsageError(f"--images {request.images}: expected the folder of the images, found {what}")


_PATIENTS_IN_NAMES = (
    ("kaggle-pneumonia", r"person\d+_(bacteria|virus)_\d+|(NORMAL2-)?IM-\d+-\d+|(BACTERIA|VIRUS|NORMAL)-\d+-\d+"),
    ("NIH ChestX-ray14", r"\d{8}_\d{3}"),
    ("PadChest", r"\d{20,}_\w+"),
    ("BIMCV", r"sub-\w+_ses-\w+"),
    ("Shenzhen or Montgomery", r"(CHNCXR|MCUCXR)_\d+_[01]"),
)
"""Names of images in published sets, from which the patient can be told."""


def _patients_in_names(records: Records) -> list[str]:
    """A remark where no image has a patient, but its name is that of a set whose names tell the patient."""
    if any(cells_of(records.rows, "patient_id")):
        return []
    stems = [stem_of(record.path.name) for record in records if record.relative]
    for name, pattern in _PATIENTS_IN_NAMES:
        matching = [stem for stem in stems if re.fullmatch(pattern, stem, re.IGNORECASE)]
        # A single patient of another set may have such a name.
        if len(matching) > max(1, len(stems) // 10):
            known = name in ADAPTERS
            way = f"--dataset {name} reads it" if known else "a table with a column patient_id keeps patients together"
            return [
                f"{len(matching)} file names, such as {matching[0]}, are those of {name} and tell the patient, which "
                f"was not used: {way}; now every image counts as a patient"
            ]
    return []


def own_table(folder: Path) -> Path | None:
    """The `metadata.csv` directly in a folder that gives the files and classes of images in it, where there is one.

    Folders of masks beside the images are no classes. A published set has an adapter of its own.
    """
    table = folder / METADATA
    if not table.is_file() or fitting_adapters(folder):
        return None
    try:
        return table if describes_images(table) else None
    except (OSError, InputError):
        return None


def _adapter_of(source: Path, dataset: str | None, request: Request) -> str:
    """The key of the adapter that reads a source, recognised by the layout with `AUTO`.

    Raises:
        InputError: Several published sets have this layout.
    """
    if not request.columns and is_list(source):
        plain = "list"
    else:
        plain = "csv" if source.suffix.lower() in TABLES or is_stream(source) else "folder"
    if dataset not in (None, AUTO):
        return dataset
    fitting = fitting_adapters(source) if source.is_dir() else []
    if dataset is None:
        if fitting:
            request.remarks.append(
                f"{source} has the layout of {' or '.join(fitting)} and was read as plain folders; "
                f"`--dataset {fitting[0]}` also reads what is known of each image"
            )
        return plain
    if len(fitting) > 1:
        raise InputError(
            f"{source}: expected the layout of one published set, found that of {' and '.join(fitting)}",
            "name the one with --dataset",
        )
    if fitting:
        request.remarks.append(f"{source} was read as {fitting[0]}, by its layout")
    return fitting[0] if fitting else plain


def default_source(source: Path) -> str:
    """The default name of a data set: that of its folder, or of the folder above a generic name such as `images`.

    >>> default_source(Path("/data/padchest/images")), default_source(Path("/data/nih/metadata.csv"))
    ('padchest', 'nih')
    """
    if is_stream(source):
        folder = Path.cwd()
    else:
        # The folder's own name, from wherever and through whichever link it is reached: patients are named by it.
        folder = real_place(source)
        if source.is_file() or (source.suffix and not source.is_dir()):
            folder = folder.parent
        elif source.is_dir():
            folder = folder.resolve()
    while folder.name.lower() in _GENERIC and folder.parent.name:
        folder = folder.parent
    return folder.name or "data"


def real_place(path: Path) -> Path:
    """A path without `..` and with the real folder; of a link to a file, the place of the link."""
    path = path.absolute()
    # Of `..` the last part is no name.
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def printable(path: Path | str) -> str:
    """A path as text that can be written as UTF-8, whatever bytes its name has."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def _absolute(record: Record, listed_in: Path, source: str) -> Record:
    """The record with absolute paths and its full row of the manifest."""
    masks = tuple(map(_absolute_path, record.masks))
    path = _absolute_path(record.path)
    beside = {name: _absolute_path(file) for name, file in record.beside.items()}
    row = {
        **record.columns,
        **({"mask": str(masks[0])} if masks else {}),
        **{name: str(file) for name, file in beside.items()},
        "path": str(path) if record.relative else "",
        "source": one_line(source).replace(":", "_"),
    }
    row |= {name: one_line(row[name]) for name in ("label", "patient_id") if row.get(name)}
    row.setdefault(ORIGINAL, printable(record.relative or record.path))
    header = _absolute_path(record.header) if record.header else None
    return replace(record, path=path, columns=row, header=header, masks=masks, beside=beside, listed_in=listed_in)


def _absolute_path(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100
