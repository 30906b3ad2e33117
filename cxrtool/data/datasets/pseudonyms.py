"""Names that tell a patient, replaced: file and folder names are as good as an id, and often are one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

from cxrtool.data.datasets.listing import ORIGINAL, Listing
from cxrtool.data.datasets.record import Record
from cxrtool.data.tables.ids import SUFFIXES, keyed

HIDDEN = "***"
"""What stands in a recorded command line for a secret."""


def hide_names(listing: Listing, salt: str) -> None:
    """Replace the id and the original name of every image, in place, by a keyed hash of its source and its place in it.

    The suffix stays in `original`, because the kind of a file may tell the class, and `audit` looks at it. The same
    salt gives the same names.
    """
    taken: set[str] = set()
    rows = listing.records.rows
    for index, row in enumerate(rows):
        name = keyed(f"{row['source']}/{row[ORIGINAL]}", salt)
        number = 1
        while (identity := name if number == 1 else f"{name}-{number}") in taken:
            # A table lists this file twice.
            number += 1
        taken.add(identity)
        suffix = PurePath(row[ORIGINAL]).suffix.lower()
        rows.put(index, "image_id", identity)
        rows.put(index, ORIGINAL, identity + (suffix if suffix in SUFFIXES else ""))
    listing.remarks = [_without(text, listing.records) for text in listing.remarks]
    listing.warnings = [_without(text, listing.records) for text in listing.warnings]


def without_names(text: str, record: Record) -> str:
    """A message about an image without the names of its files."""
    return _without(text, [record])


def _without(text: str, records: Iterable[Record]) -> str:
    for record in records:
        for path in (record.path, record.header, *record.masks, *record.beside.values()):
            for name in (str(path), path.name, path.stem) if path else ():
                # A stem such as `1` is in every message.
                if len(name) > 2 and name in text:
                    text = text.replace(name, HIDDEN)
    return text
