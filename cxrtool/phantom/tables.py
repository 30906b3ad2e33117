"""The two tables of a synthetic set: the metadata that a real set has, and the ground truth.

While a set is being drawn, its rows are in one file, a line an image. It is read line by line, so that memory does not
grow with the set. A row is written after the image's files, so that the file shows the progress of a killed process.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cxrtool.data.files import saying_what_fails
from cxrtool.data.tables.manifest import Row
from cxrtool.phantom.cohort import Shot, severity_of
from cxrtool.phantom.subject import KINDS, Drawing

TRUTHS = ("right", "left", "heart", "lesions", "opacities", "ribless")
"""The images of the ground truth, named by the image's id and this suffix."""

METADATA = (
    "path",
    "label",
    "patient_id",
    "severity",
    "source",
    "view",
    "age",
    "sex",
    "mask",
    "extent",
    "subset",
)
"""The columns of `metadata.csv`."""

TRUTH = (
    "path",
    *TRUTHS,
    "extent_right",
    "extent_left",
    "share_right",
    "share_left",
    "lesion_kinds",
    "planted",
    "twin_of",
)
"""The columns of `truth.csv`: the files of the ground truth, extent (0 to 4) and share (0 to 1) of the lesions in each
lung, their kinds, the planted shortcuts, and the image that is duplicated."""

TABLES = {"metadata.csv": METADATA, "truth.csv": TRUTH}

PART = ".rows.csv"
"""Hidden, as an unfinished file; it is removed when a step's folder gets its final name."""

_COLUMNS = (*dict.fromkeys((*METADATA, *TRUTH)), "bytes")
_FILES = ("path", "mask", *TRUTHS)


def describe(shot: Shot, drawing: Drawing, files: Mapping[str, Path], folder: Path) -> Row:
    """The row of a radiograph, for both tables: extent and severity as drawn, files by column, relative to `folder`."""
    subject, total = shot.subject, sum(drawing.extent)
    present = np.bincount(drawing.lesions.ravel(), minlength=256) > 0
    return {
        "label": subject.label,
        "patient_id": shot.patient_id,
        "severity": severity_of(subject.label, total),
        "source": shot.source.name,
        "view": subject.view,
        "age": str(subject.age),
        "sex": subject.sex,
        "extent": str(total),
        "subset": shot.subset,
        "extent_right": str(drawing.extent[0]),
        "extent_left": str(drawing.extent[1]),
        "share_right": f"{drawing.shares[0]:.4f}",
        "share_left": f"{drawing.shares[1]:.4f}",
        "lesion_kinds": ";".join(name for name, value in KINDS.items() if present[value]),
        "planted": ";".join(shot.planted),
        "twin_of": shot.twin_of,
    } | {column: path.relative_to(folder).as_posix() for column, path in files.items()}


class Rows:
    """The rows of a set that is being drawn, in the order of its images.

    Attributes:
        done: Number of images whose files were complete when it was opened.

    Args:
        folder: The set's folder; rows of an earlier run are kept as long as their files are complete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / PART
        self.done = self._keep_whole()
        self._file = self.path.open("a", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def add(self, row: Row, size: int) -> None:
        """Record a finished image whose files have `size` bytes in total; flushed, so that a resumed run finds it."""
        with saying_what_fails(self.path):
            self._writer.writerow([*(row.get(name, "") for name in _COLUMNS[:-1]), size])
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __iter__(self) -> Iterator[Row]:
        with self.path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file, _COLUMNS)

    def write_tables(self) -> None:
        """Write the tables of the finished set."""
        for name, columns in TABLES.items():
            with saying_what_fails(self.path), (self.folder / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
                writer.writeheader()
                writer.writerows(self)

    def _keep_whole(self) -> int:
        if not self.path.exists():
            return 0
        kept = size = 0
        with self.path.open("r+b") as file:
            # Not by iterating over the file, which could then not be truncated.
            for line in iter(file.readline, b""):
                if not self._is_whole(line):
                    break
                kept, size = kept + 1, size + len(line)
            file.truncate(size)
        return kept

    def _is_whole(self, line: bytes) -> bool:
        # The last line of a killed process may be incomplete.
        if not line.endswith(b"\n"):
            return False
        cells = next(csv.reader([line.decode(errors="replace")]))
        if len(cells) != len(_COLUMNS):
            return False
        row = dict(zip(_COLUMNS, cells, strict=True))
        try:
            found = sum((self.folder / row[name]).stat().st_size for name in _FILES if row[name])
        except OSError:
            return False
        return str(found) == row["bytes"]
