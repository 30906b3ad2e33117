"""Images that stand twice in a manifest: with the same pixels, or as copies that look alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxrtool.data.tables.manifest import Row
from cxrtool.imaging.neighbours import NEAR, near_duplicates

COLUMNS = (
    "image_id", "duplicate_of", "kind", "bits", "label", "label_of_other", "patient_id", "patient_id_of_other",
)  # fmt: skip


@dataclass(frozen=True)
class Duplicate:
    """A later image that repeats an earlier one.

    Attributes:
        later: Index of the later row.
        earlier: Index of the earlier row.
        bits: Differing bits of the perceptual hash; None when the pixels are equal.
    """

    later: int
    earlier: int
    bits: int | None


def find_duplicates(rows: Sequence[Row], near: int = NEAR) -> list[Duplicate]:
    """Compare `sha256` and `dhash` of all rows.

    Of several with the same pixels each is paired with the first; a pair that only looks alike is told once, between
    the first of either.

    Args:
        rows: Rows of a manifest.
        near: The most bits of `dhash` in which pictures that look alike may differ.
    """
    first: dict[str, int] = {}
    found = []
    for index, row in enumerate(rows):
        if not row.get("sha256"):
            continue
        earlier = first.setdefault(row["sha256"], index)
        if earlier != index:
            found.append(Duplicate(index, earlier, None))
    # A blank picture has no brighter cell than another, and looks like every other blank one.
    unique = [index for index in first.values() if rows[index].get("dhash", "").strip("0")]
    for earlier, later, bits in near_duplicates([rows[index]["dhash"] for index in unique], near):
        found.append(Duplicate(unique[later], unique[earlier], bits))
    return sorted(found, key=lambda duplicate: (duplicate.later, duplicate.earlier))


def remark(duplicate: Duplicate, rows: Sequence[Row]) -> str:
    """What the `warning` column says of the later image."""
    other = rows[duplicate.earlier]
    text = f"same pixels as {other['image_id']}" if duplicate.bits is None else f"looks like {other['image_id']}"
    return text + (f", which is labelled {other['label']}" if conflicts(duplicate, rows) else "")


def conflicts(duplicate: Duplicate, rows: Sequence[Row]) -> bool:
    """Whether both have a label, and not the same."""
    one, other = rows[duplicate.later].get("label", ""), rows[duplicate.earlier].get("label", "")
    return bool(one and other and one != other)


def as_table(duplicates: Sequence[Duplicate], rows: Sequence[Row]) -> list[Row]:
    """The duplicates as rows with the columns `COLUMNS`."""
    table = []
    for duplicate in duplicates:
        later, earlier = rows[duplicate.later], rows[duplicate.earlier]
        table.append(
            {
                "image_id": later["image_id"],
                "duplicate_of": earlier["image_id"],
                "kind": "same pixels" if duplicate.bits is None else "looks alike",
                "bits": "0" if duplicate.bits is None else str(duplicate.bits),
                "label": later.get("label", ""),
                "label_of_other": earlier.get("label", ""),
                "patient_id": later.get("patient_id", ""),
                "patient_id_of_other": earlier.get("patient_id", ""),
            }
        )
    return table
