"""Duplicate images in a manifest: with identical pixels, or near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.views import RowView, cells_of
from cxrtool.imaging.hashing import NEAR, near_duplicates

COLUMNS = (
    "image_id",
    "duplicate_of",
    "kind",
    "bits",
    "label",
    "label_of_other",
    "patient_id",
    "patient_id_of_other",
)


@dataclass(frozen=True)
class Duplicate:
    """A later image that repeats an earlier one.

    Attributes:
        later: Row index.
        earlier: Row index.
        bits: Differing bits of the perceptual hash; None when the pixels are identical.
    """

    later: int
    earlier: int
    bits: int | None


def find_duplicates(rows: Sequence[RowView], near: int = NEAR) -> list[Duplicate]:
    """Compare `sha256` and `dhash` of all rows.

    Of several images with identical pixels, each is paired with the first. Near-duplicates are compared among these
    first images only, so that a pair is listed once.

    Args:
        rows: Rows of a manifest.
        near: The largest number of bits of `dhash` in which near-duplicates may differ.
    """
    first: dict[str, int] = {}
    found = []
    for index, digest in enumerate(cells_of(rows, "sha256")):
        if digest and (earlier := first.setdefault(digest, index)) != index:
            found.append(Duplicate(index, earlier, None))
    hashes = cells_of(rows, "dhash")
    # All blank images have the same hash, of zeros.
    unique = [index for index in first.values() if hashes[index].strip("0")]
    for earlier, later, bits in near_duplicates([hashes[index] for index in unique], near):
        found.append(Duplicate(unique[later], unique[earlier], bits))
    return sorted(found, key=lambda duplicate: (duplicate.later, duplicate.earlier))


def remark(duplicate: Duplicate, rows: Sequence[RowView]) -> str:
    """The text for the `warning` column of the later image."""
    other = rows[duplicate.earlier]
    kind = "same pixels as" if duplicate.bits is None else "near-duplicate of"
    return f"{kind} {other['image_id']}" + (
        f", which is labelled {other['label']}" if conflicts(duplicate, rows) else ""
    )


def conflicts(duplicate: Duplicate, rows: Sequence[RowView]) -> bool:
    """Whether both images have a label, and the labels differ."""
    one, other = rows[duplicate.later].get("label", ""), rows[duplicate.earlier].get("label", "")
    return bool(one and other and one != other)


def as_table(duplicates: Sequence[Duplicate], rows: Sequence[RowView]) -> list[Row]:
    """The duplicates as rows with the columns `COLUMNS`."""
    table = []
    for duplicate in duplicates:
        later, earlier = rows[duplicate.later], rows[duplicate.earlier]
        table.append(
            {
                "image_id": later["image_id"],
                "duplicate_of": earlier["image_id"],
                "kind": "same pixels" if duplicate.bits is None else "near-duplicate",
                "bits": "0" if duplicate.bits is None else str(duplicate.bits),
                "label": later.get("label", ""),
                "label_of_other": earlier.get("label", ""),
                "patient_id": later.get("patient_id", ""),
                "patient_id_of_other": earlier.get("patient_id", ""),
            }
        )
    return table
