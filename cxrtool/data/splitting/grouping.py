"""Groups: images of one patient, of one original and of identical content belong together.

Splits divide groups, resampling draws groups, and leakage is counted in groups.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from cxrtool.data.tables.missing import ALWAYS, missing_words
from cxrtool.data.tables.views import RowView, cells_of

PATIENT = "patient_id"

RELATED = {"parent_id": "images derived from one another", "sha256": "images with identical pixels"}
"""The other columns by which images belong together, and what such images are."""


_HASH = "hashed:"
_HASHED = re.compile(_HASH + "[0-9a-f]{24}")


def normalised(identity: str) -> str:
    """An id as it is compared: without outer or doubled spaces, in one case and one Unicode form.

    A whole number that a program has written as `7.0` is 7, and what programs write for a missing value is empty.

    >>> normalised("  Cohen  12 ") == normalised("COHEN 12"), normalised("clinic:7.0"), normalised("clinic:nan")
    (True, 'clinic:7', '')
    """
    known = " ".join(unicodedata.normalize("NFC", identity).split()).casefold()
    space, colon, plain = known.rpartition(":")
    if plain.strip() in ALWAYS:
        return ""
    number = re.fullmatch(r"(\d+)\.0+", plain)
    return f"{space}{colon}{number[1]}" if number else known


def hashed(identity: str) -> str:
    """A patient id for a file that is published with a model: equal for ids that are equal once `normalised`.

    It is not salted, because the images of another hospital have to be compared with it. So it hides an id from a
    reader, but not from one who can try all ids; those of `prepare --salt` are safe from that too.

    >>> hashed(" clinic:7.0 ") == hashed("Clinic:7") == hashed(hashed("clinic:7")), hashed("")
    (True, '')
    """
    known = normalised(identity)
    if not known or _HASHED.fullmatch(known):
        return known
    return _HASH + hashlib.sha256(f"cxrtool patient {known}".encode("utf-8", "surrogateescape")).hexdigest()[:24]


def identities(rows: Sequence[RowView], column: str = PATIENT) -> list[str]:
    """The `normalised` id of every row; empty where it is missing, also by a word that means it in this column."""
    cells = cells_of(rows, column)
    found = {cell: normalised(cell) for cell in set(cells)}
    missing = missing_words(name.rpartition(":")[2] for name in set(found.values()))
    known = {cell: "" if name.rpartition(":")[2] in missing else name for cell, name in found.items()}
    return [known[cell] for cell in cells]


def count_patients(rows: Sequence[RowView]) -> tuple[int, int]:
    """The number of patients as splits, audits and evaluations count them, and how many are images without an id.

    Each image without an id counts as a patient; images that belong together under two ids are one.
    """
    nameless = len({original_of(row) for row, name in zip(rows, identities(rows), strict=True) if not name})
    return len(set(group_images(rows))), nameless


def original_of(row: RowView) -> str:
    """The id of the radiograph that a row shows; after image processing it is still the same radiograph.

    What a generator made of an image is another image.

    >>> original_of({"image_id": "a_r0f1", "parent_id": "a"}), original_of({"image_id": "b"})
    ('a', 'b')
    >>> original_of({"image_id": "a_covid", "parent_id": "a", "generator": "covid"})
    'a_covid'
    """
    return row["image_id"] if row.get("generator") else row.get("parent_id") or row["image_id"]


def group_images(rows: Sequence[RowView], column: str = PATIENT) -> list[int]:
    """Number the groups of images that must stay on one side of a split.

    Images are joined, also through one another, when they share the patient (an empty cell shares nothing), when one is
    derived from the other or both from a third (`parent_id`), and when their pixels are identical (`sha256`).

    Args:
        rows: Rows of a manifest.
        column: The column of patients.

    Returns:
        The group of each row, numbered from 0 in order of appearance.
    """
    # Union-find by hand: scipy's takes longer to import than this takes for ten thousand images.
    roots = list(range(len(rows)))

    def root(index: int) -> int:
        while roots[index] != index:
            roots[index] = roots[roots[index]]
            index = roots[index]
        return index

    images = [cells_of(rows, name) for name in ("image_id", "parent_id")]
    pixels = [cell.lower() for cell in cells_of(rows, "sha256")]
    for shared in (images, [identities(rows, column)], [pixels]):
        first: dict[str, int] = {}
        for cells in shared:
            for index, cell in enumerate(cells):
                if cell and (other := first.setdefault(cell, index)) != index:
                    roots[root(index)] = root(other)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(len(rows))]
