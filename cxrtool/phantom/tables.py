"""The two tables of a drawn set: what a real set tells of its images, and the truth that none tells.

While a set is being drawn its rows stand in one file, a line an image: short enough to be read in passing, so that
memory does not grow with the set, and written after the image's files, so that a killed process leaves a file that
tells how far it came.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cxrtool.data.files import saying_what_fails
from cxrtool.data.tables.manifest import Row
from cxrtool.phantom.cohort import Shot
from cxrtool.phantom.illness import severity_of
from cxrtool.phantom.subject import KINDS, Drawing

TRUTHS = ("right", "left", "heart", "lesions", "ribless")
"""The pictures of the truth, as they are called behind an image's id."""

METADATA = (
    "path", "label", "patient_id", "severity", "source", "view", "age", "sex", "mask", "extent", "subset",
)  # fmt: skip
"""The columns of `metadata.csv`: what a real set may tell."""

TRUTH = (
    "path", *TRUTHS, "extent_right", "extent_left", "share_right", "share_left", "lesion_kinds", "planted", "twin_of",
)  # fmt: skip
"""The columns of `truth.csv`: the files of the truth, extent (0 to 4) and share (0 to 1) of the lesions in each lung,
the kinds that are there, the shortcuts that were planted, and the image whose twin it is."""

TABLES = {"metadata.csv": METADATA, "truth.csv": TRUTH}

PART = ".rows.csv"
"""Hidden, as all that is not finished: a step's folder loses it when it takes its final name."""

_COLUMNS = (*dict.fromkeys((*METADATA, *TRUTH)), "bytes")
_FILES = ("path", "mask", *TRUTHS)


def describe(shot: Shot, drawing: Drawing, files: Mapping[str, Path], folder: Path) -> Row:
    """What both tables tell of a radiograph.

    Args:
        shot: What was to be drawn.
        drawing: What was drawn; extent and severity are measured in it.
        files: What was written, by the column that names it.
        folder: The set's folder, to which paths are relative.
    """
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
        done: Images whose files were found whole when it was opened.

    Args:
        folder: The set's folder; rows of an earlier attempt in it are kept as far as their files are whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / PART
        self.done = self._keep_whole()
        self._file = self.path.open("a", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def add(self, row: Row, size: int) -> None:
        """Note that an image is finished, whose files have `size` bytes; survives the death of this process."""
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
        kept = place = 0
        with self.path.open("r+b") as file:
            for line in _lines(file):
                if not self._is_whole(line):
                    break
                kept, place = kept + 1, place + len(line)
            file.truncate(place)
        return kept

    def _is_whole(self, line: bytes) -> bool:
        # The line that was being written when the process died has no end.
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


def _lines(file: BinaryIO) -> Iterator[bytes]:
    # Not by iterating: a file cannot be cut in the middle of that.
    return iter(file.readline, b"")
