"""Numbers as text, also with a decimal comma, as spreadsheets write them in much of Europe and South America."""

from __future__ import annotations


def decimal(cell: str) -> float | None:
    """A number, also with a decimal comma; None for all else."""
    try:
        return float(cell)
    except ValueError:
        pass
    try:
        # Not of a number with both marks, whose thousands are not known.
        return float(cell.replace(",", ".")) if cell.count(",") == 1 and "." not in cell else None
    except ValueError:
        return None
