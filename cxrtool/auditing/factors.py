"""What is known about a radiograph without its pixels, and may be associated with its label.

Factors are columns of the manifest that group or measure, properties of the file, and patterns of names: images that
were collected from two sources are seldom named alike. Columns about the disease itself are no factors, nor are columns
that identify a single image.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from cxrtool.data.tables.ids import stem_of
from cxrtool.data.tables.manifest import PATH_COLUMNS, Row
from cxrtool.data.tables.people import years
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


def factors(rows: Sequence[Row]) -> list[Factor]:
    """The factors of a manifest, in the order: columns, file, names.

    Factors without any value, or with the same value everywhere, are included: that is reported too. The rows have
    `bits` and `kind` where the files were read.
    """
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if is_factor(name)]
    labels = {row.get("label", "").casefold() for row in rows} - {""}
    found = []
    for name in columns:
        values = [row.get(name, "").strip() for row in rows]
        if name in (*SIZES, *FILE_COLUMNS) or {value.casefold() for value in values} - {""} == labels:
            continue
        factor = _of_column(name, values)
        if factor is not None:
            found.append(factor)
    return found + _of_files(rows) + _of_names(rows)


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
        return Factor(name, NUMBER, tuple(_number(years(value)) for value in values))
    filled = [value for value in values if value]
    levels = len(set(filled))
    if name in GROUPINGS or (levels <= MOST_LEVELS and levels * FEWEST_A_LEVEL <= max(len(filled), FEWEST_A_LEVEL)):
        return Factor(name, CATEGORY, tuple(values))
    numbers = [_parsed(value) for value in values]
    # Whole numbers that no two images share are probably ids.
    if sum(number is not None for number in numbers) == len(filled) and levels < len(filled):
        return Factor(name, NUMBER, tuple(_number(number) for number in numbers))
    return None


def _of_files(rows: Sequence[Row]) -> list[Factor]:
    sizes = [tuple(_parsed(row.get(name, "")) or 0.0 for name in SIZES) for row in rows]
    found = []
    if any(width and height for width, height in sizes):
        for side, name in enumerate(SIZES):
            found.append(Factor(name, NUMBER, tuple(_number(size[side] or None) for size in sizes), FILE))
        shapes = tuple(_number(width / height if width and height else None) for width, height in sizes)
        found.append(Factor("aspect", NUMBER, shapes, FILE))
        found += _common(
            "size", [f"{width:g} x {height:g}" if width and height else "" for width, height in sizes], FILE
        )
    if any(row.get("bits") for row in rows):
        found.append(Factor("bits", CATEGORY, tuple(row.get("bits", "") for row in rows), FILE))
    kinds = tuple(row.get("kind") or _suffix(row.get("original") or row.get("path", "")) for row in rows)
    return [*found, Factor("kind", CATEGORY, kinds, FILE)]


def _of_names(rows: Sequence[Row]) -> list[Factor]:
    patients = [_unhashed(row.get("patient_id", "")) for row in rows]
    spaces = tuple(name.partition(":")[0] if ":" in name else "" for name in patients)
    families = [letters(name) or pattern(name.rpartition(":")[2]) for name in patients]
    names = [PurePath(row["original"]).name if row.get("original") else row.get("image_id", "") for row in rows]
    told = spaces == tuple(row.get(SOURCE, "") for row in rows)
    return [
        *([] if told else [Factor(NAMESPACE, CATEGORY, spaces, NAMING)]),
        *_common(PATIENTS, families, NAMING),
        *_common(FILES, _examples([stem_of(name) for name in names]), NAMING),
    ]


def _examples(names: Sequence[str]) -> list[str]:
    """For each name the alphabetically first with the same pattern, which is more readable than the pattern."""
    first: dict[str, str] = {}
    for name in sorted(names):
        first.setdefault(pattern(name), name)
    return [first[pattern(name)] for name in names]


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
    suffix = PurePath(path).suffix.lstrip(".").lower()
    return {"jpg": "jpeg", "tif": "tiff", "dcm": "dicom"}.get(suffix, suffix)


def _parsed(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
