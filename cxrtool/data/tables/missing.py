"""Words in the cells of a table that stand for nothing, as pandas, R, Excel and people write them."""

from __future__ import annotations

from collections.abc import Iterable

ALWAYS = frozenset({"nan", "<na>", "nat", "#n/a", "n/a"})
"""Words that programs write for a missing value, and nobody as a name."""

SOMETIMES = frozenset({"none", "null", "na", "unknown", "unk", "missing", "?", "-", "--"})
"""Words that may also be a name or a class; in a column of numbers or of ids with digits they stand for nothing."""


def missing_words(cells: Iterable[str]) -> frozenset[str]:
    """The words that stand for nothing in a column of ids or numbers, in lower case.

    >>> sorted(missing_words(["P1", "P2", "None", "nan"])), sorted(missing_words(["AB", "NA", "nan"]))
    (['nan', 'none'], ['nan'])
    """
    words = {cell.strip().casefold() for cell in cells} - {""}
    others = words - ALWAYS - SOMETIMES
    shown = bool(others) and all(any(mark.isdigit() for mark in word) for word in others)
    return frozenset(words & (ALWAYS | SOMETIMES if shown else ALWAYS))
