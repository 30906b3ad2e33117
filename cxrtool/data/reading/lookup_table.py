"""Lookup tables of a DICOM header (PS3.3, sections C.11.1 and C.11.2), in every encoding in which they are met.

A table has entries of 8 to 16 bits. The standard packs entries of 8 bits two to a word and allows one to a word;
writers do both, as US, as SS and as OW. Many declare 16 bits and use 12, so that the declared range would show them
nearly black.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.reading.dicom_header import numbers

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class LookupTable:
    """One table.

    Attributes:
        first: The value to which the first entry belongs; smaller values have the first entry, larger ones than the
            table holds the last.
        entries: (N,), unsigned, as stored.
        bits: Bits of an entry, by the descriptor.
    """

    first: int
    entries: NDArray[np.int64]
    bits: int

    @property
    def used_bits(self) -> int:
        """Bits that the largest entry needs."""
        return int(self.entries.max()).bit_length()

    def __call__(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """The entries for values after the preceding stage, of any shape."""
        first = self.first
        if first > (1 << 15) - 1 and values.min() < 0:
            # A negative first value that was written as unsigned.
            first -= 1 << 16
        index = np.rint(values).astype(np.int64) - first
        return np.asarray(self.entries[np.clip(index, 0, len(self.entries) - 1)])


def read_table(dataset: Dataset, keyword: str, name: str, warnings: list[str]) -> LookupTable | None:
    """The first table of a sequence that can be used; None where there is none.

    An item without descriptor and data, which some writers leave beside a window, is passed over. A table that
    contradicts its descriptor is passed over with a warning.

    Args:
        dataset: With the sequence.
        keyword: Of the sequence.
        name: In warnings.
        warnings: Warnings are appended here.
    """
    for item in dataset.get(keyword) or ():
        descriptor = [number for number in numbers(item, "LUTDescriptor") if number is not None]
        data, endian = _data(item, dataset)
        if not descriptor and not len(data):
            continue
        if len(descriptor) != 3 or any(part != part // 1 for part in descriptor) or not len(data):
            warnings.append(f"its {name} is incomplete and was not used")
            continue
        count, first, bits = (int(part) for part in descriptor)
        count = count % (1 << 16) or 1 << 16
        entries = _entries(data, endian, count, bits)
        if entries is None:
            warnings.append(f"its {name} does not have the {count} entries of its descriptor and was not used")
            continue
        if int(entries.min()) == int(entries.max()):
            warnings.append(f"its {name} makes every pixel the same and was not used")
            continue
        return LookupTable(first, entries, bits)
    return None


def _data(item: Dataset, dataset: Dataset) -> tuple[NDArray[Any], str]:
    """The table's data as words, or as bytes where they are stored as such, and the order of the bytes."""
    endian = "<" if dataset.original_encoding[1] is not False else ">"
    try:
        value = item.get("LUTData")
    except Exception:
        value = item.get_item("LUTData").value
    if value is None or value == "":
        return np.zeros(0, np.uint8), endian
    if isinstance(value, bytes):
        return np.frombuffer(value, np.uint8), endian
    words = np.atleast_1d(np.asarray(value)).astype(np.int64)
    return words & 0xFFFF, endian


def _entries(data: NDArray[Any], endian: str, count: int, bits: int) -> NDArray[np.int64] | None:
    """The entries of a table, one a word or two a word; None where their number is not that of the descriptor."""
    if data.dtype == np.uint8:
        packed = bits <= 8 and len(data) in (count, count + count % 2)
        if not packed:
            if len(data) != 2 * count:
                return None
            return data.view(f"{endian}u2").astype(np.int64)
        # The first of two packed entries is the lower byte of their word.
        ordered = data if endian == "<" or len(data) % 2 else data.reshape(-1, 2)[:, ::-1].reshape(-1)
        return ordered[:count].astype(np.int64)
    if len(data) == count:
        return data
    if bits <= 8 and len(data) == (count + 1) // 2:
        return np.stack((data & 0xFF, data >> 8), axis=1).reshape(-1)[:count]
    return None
