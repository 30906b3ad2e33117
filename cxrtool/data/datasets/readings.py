"""The clinical readings of the tuberculosis sets of the National Library of Medicine: a short text file each.

Montgomery has `Patient's Sex: F`, `Patient's Age: 027Y` and the finding on separate lines; Shenzhen has `male 45yrs`,
`Female, 32yrs` or `male 24days`, and the finding below.
"""

from __future__ import annotations

import re
from pathlib import Path

from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.people import sex_of

FOLDER = "ClinicalReadings"
LABELS = {"0": "normal", "1": "tuberculosis"}
"""What the digit at the end of a file's name means."""

_SEX = re.compile(r"\b(male|female|[MF])\b", re.IGNORECASE)
_AGE = re.compile(r"(\d{1,3})\s*(y|m|d)?", re.IGNORECASE)
_PER_YEAR = {"y": 1.0, "m": 12.0, "d": 365.25}


def label_of(stem: str) -> str:
    """The class in a file name: `MCUCXR_0001_0` is normal."""
    return LABELS.get(stem.rpartition("_")[2], "")


def read_reading(root: Path, stem: str) -> Row:
    """Age, sex and finding of an image; nothing where there is no reading."""
    path = root / FOLDER / f"{stem}.txt"
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.replace("\ufeff", "").splitlines() if line.strip()]
    patient = [line for line in lines if _SEX.search(line) or "age" in line.lower()]
    finding = " ".join(line for line in lines if line not in patient)
    sex = _SEX.search(" ".join(line.partition(":")[2] or line for line in patient if "age:" not in line.lower()))
    return {"age": _age(" ".join(patient)), "sex": sex_of(sex[1]) if sex else "", "reading": finding}


def _age(text: str) -> str:
    match = _AGE.search(text)
    if not match:
        return ""
    years = int(match[1]) / _PER_YEAR[(match[2] or "y").lower()]
    return f"{years:.2f}".rstrip("0").rstrip(".")
