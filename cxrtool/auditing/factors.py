"""What is known about a radiograph without its pixels, and may be associated with its label.

Factors are columns of the manifest that group or measure, properties of the file, and patterns of names: images that
were collected from two sources are seldom named alike. Columns about the disease itself are no factors, nor are columns
that identify a single image.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from cxrtool.data.tables.ids import stem_of
from cxrtool.data.tables.manifest import PATH_COLUMNS
from cxrtool.data.tables.people import years
from cxrtool.data.tables.views import Columns, RowView, cells_of, columns_of
from cxrtool.evaluation.metrics.confusion import FloatArray

CATEGORY, NUMBER = "category", "number"

MANIFEST, FILE, NAMING = "manifest", "file", "naming"
"""Origin of a factor: a column; the image file; derived from ids and file names."""

AGE = "age"
SOURCE = "source"
GROUPINGS = (SOURCE, "view", "sex")
"""Columns that are categories, whatever their number of values."""

SIZES = ("width", "height")
FILE_COLUMNS = ("bits", "kind")
NAMESPACE, PATIENTS, FILES = "namespace of patient ids", "letters of patient ids", "pattern of file names"

OTHERS = "others"
"""All levels that are too rare."""

KEYS = frozenset(
    {"image_id", "patient_id", "parent_id", "original", "sha256", "dhash", "label", "warning", "generator", "repeat"}
) | {"fold", "subset", *PATH_COLUMNS}
"""Columns that identify or locate a single image, or record what was done with it."""

OF_THE_DISEASE = re.compile(
    "severity|score|grade|stage|extent|finding|diagnos|lesion|opacit|label|class"
    "|report|pcr|rale|brixia|outcome|surviv|intubat|icu|death|notes"
)
"""Parts of names of columns about the disease or its outcome: these must differ between labels."""

OF_THE_MASK = "mask_"
"""Columns that `segment` adds: measurements of the lungs, whose outline has its own probe."""

MOST_LEVELS = 20
"""A column with more values than this, or with fewer than ten images per value, is not a category."""

FEWEST_A_LEVEL = 10


@dataclass(frozen=True)
class Factor:
    """One factor, with a value for each row of a manifest: as text, empty where missing.

    Its name is that of the column where it is one. Numbers are in their shortest decimal form.
    """

    name: str
    kind: str
    values: tuple[str, ...]
    origin: str = MANIFEST

    def numbers(self) -> FloatArray:
        """(rows,) values of a `NUMBER`, NaN where missing."""
        return np.array([float(value) if value else np.nan for value in self.values], np.float64)


def factors(rows: Sequence[RowView]) -> list[Factor]:
    """The factors of a manifest, in the order: columns, file, names.

    Factors without any value, or with the same value everywhere, are included: that is reported too. The rows have
    `bits` and `kind` where the files were read.
    """
    table = columns_of(rows)
    columns = [name for name in table.cells if is_factor(name)]
    labels = {label.casefold() for label in set(cells_of(table, "label"))} - {""}
    found = []
    for name in columns:
        values = list(map(str.strip, table.cells[name]))
        if name in (*SIZES, *FILE_COLUMNS) or {value.casefold() for value in set(values)} - {""} == labels:
            continue
        factor = _of_column(name, values)
        if factor is not None:
            found.append(factor)
    return found + _of_files(table) + _of_names(table)


def is_factor(name: str) -> bool:
    """Whether a column may be a factor, by its name.

    >>> is_factor("view"), is_factor("sha256"), is_factor("opacity_score"), is_factor("mask_area"), is_factor("scanner")
    (True, False, False, False, True)
    """
    if name.startswith(OF_THE_MASK):
        return False
    return name not in KEYS and not OF_THE_DISEASE.search(name.casefold())


def letters(identity: str) -> str:
    """The letters at the start of an id, after its namespace.

    >>> letters("set:cohen-77"), letters("set:Person12"), letters("007")
    ('cohen', 'person', '')
    """
    found = re.match(r"[^\W\d_]+", identity.rpartition(":")[2])
    return found[0].casefold() if found else ""


def pattern(name: str) -> str:
    """The pattern of a file's name: `a` for letters, `9` for digits, the rest as it is.

    >>> pattern("person23_bacteria_88"), pattern("IM-0203-0001")
    ('a9_a_9', 'a-9-9')
    """
    return re.sub(r"\d+", "9", re.sub(r"[^\W\d_]+", "a", name))


def _of_column(name: str, values: list[str]) -> Factor | None:
    if name == AGE:
        return Factor(name, NUMBER, tuple(_each(lambda value: _number(years(value)), values)))
    filled = [value for value in values if value]
    levels = len(set(filled))
    if name in GROUPINGS or (levels <= MOST_LEVELS and levels * FEWEST_A_LEVEL <= max(len(filled), FEWEST_A_LEVEL)):
        return Factor(name, CATEGORY, tuple(values))
    # Whole numbers that no two images share are probably ids.
    if levels < len(filled) and all(_parsed(value) is not None for value in set(filled)):
        return Factor(name, NUMBER, tuple(_each(lambda value: _number(_parsed(value)), values)))
    return None


def _each(function: Callable[[str], str], values: Sequence[str]) -> list[str]:
    """The function of each value, computed once for equal ones."""
    known = {value: function(value) for value in set(values)}
    return [known[value] for value in values]


def _of_files(rows: Columns) -> list[Factor]:
    sides = list(zip(*(cells_of(rows, name) for name in SIZES), strict=True))
    known = {cells: tuple(_parsed(cell) or 0.0 for cell in cells) for cells in set(sides)}
    sizes = [known[cells] for cells in sides]
    found = []
    if any(width and height for width, height in known.values()):
        for side, name in enumerate(SIZES):
            found.append(Factor(name, NUMBER, tuple(_number(size[side] or None) for size in sizes), FILE))
        shapes = tuple(_number(width / height if width and height else None) for width, height in sizes)
        found.append(Factor("aspect", NUMBER, shapes, FILE))
        found += _common(
            "size", [f"{width:g} x {height:g}" if width and height else "" for width, height in sizes], FILE
        )
    if any(bits := cells_of(rows, "bits")):
        found.append(Factor("bits", CATEGORY, tuple(bits), FILE))
    files = zip(*(cells_of(rows, name) for name in ("kind", "original", "path")), strict=True)
    kinds = tuple(kind or _suffix(original or path) for kind, original, path in files)
    return [*found, Factor("kind", CATEGORY, kinds, FILE)]


def _of_names(rows: Columns) -> list[Factor]:
    patients = _each(_unhashed, cells_of(rows, "patient_id"))
    spaces = tuple(name.partition(":")[0] if ":" in name else "" for name in patients)
    families = _each(lambda name: letters(name) or pattern(name.rpartition(":")[2]), patients)
    files = zip(cells_of(rows, "original"), cells_of(rows, "image_id"), strict=True)
    names = [stem_of(original.rstrip("/").rpartition("/")[2] if original else name) for original, name in files]
    told = spaces == tuple(cells_of(rows, SOURCE))
    return [
        *([] if told else [Factor(NAMESPACE, CATEGORY, spaces, NAMING)]),
        *_common(PATIENTS, families, NAMING),
        *_common(FILES, _examples(names), NAMING),
    ]


def _examples(names: Sequence[str]) -> list[str]:
    """For each name the alphabetically first with the same pattern, which is more readable than the pattern."""
    patterns = [pattern(name) for name in names]
    first: dict[str, str] = {}
    for name, form in zip(names, patterns, strict=True):
        first[form] = min(name, first.get(form, name))
    return [first[form] for form in patterns]


def _unhashed(identity: str) -> str:
    """An id; only its namespace where `prepare` hashed it, because the digits of a hash carry no information."""
    space, colon, plain = identity.partition(":")
    return space + colon if re.fullmatch("[0-9a-f]{16}", plain) else identity


def _common(name: str, values: Sequence[str], origin: str) -> list[Factor]:
    """A factor of the common values, with all rare ones as `OTHERS`; none where no value is common."""
    counts = Counter(value for value in values if value)
    kept = {value for value, count in counts.most_common(MOST_LEVELS) if count >= FEWEST_A_LEVEL}
    shown = tuple(value if value in kept else OTHERS if value else "" for value in values)
    return [Factor(name, CATEGORY, shown, origin)] if kept else []


def _suffix(path: str) -> str:
    name = path.rpartition("/")[2]
    # Not by `PurePath` where it is plain, because it is slow for a million names.
    plain = name.rpartition(".")
    suffix = plain[2].lower() if plain[0].strip(".") and plain[2] else PurePath(path).suffix.lstrip(".").lower()
    return {"jpg": "jpeg", "tif": "tiff", "dcm": "dicom"}.get(suffix, suffix)


def _parsed(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
