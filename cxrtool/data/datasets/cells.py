"""Cells of published tables in one spelling: views, ages, and lists of findings written as text."""

from __future__ import annotations

import ast
import math
import re
from functools import lru_cache

from cxrtool.data.datasets.record import Request

LATERAL = {"L", "LL", "RL", "LAT", "LATERAL"}
_VIEWS = {"AP_HORIZONTAL": "AP SUPINE", "APS": "AP SUPINE", "AP_SUPINE": "AP SUPINE", "LATERAL": "L", "LAT": "L"}

COVID = re.compile(r"^(?:covid[ -]?19|sars[ -]?cov[ -]?2)(?P<doubt> uncertain)?$", re.IGNORECASE)
NO_FINDINGS = {"", "unchanged", "exclude", "suboptimal study"}
"""Entries in the lists of PadChest and BIMCV that are not findings."""


def view_of(text: str) -> str:
    """A view in capitals; all supine views become `AP SUPINE`.

    >>> view_of(" AP Supine"), view_of("AP_horizontal"), view_of("Lateral")
    ('AP SUPINE', 'AP SUPINE', 'L')
    """
    view = " ".join(text.upper().split())
    return _VIEWS.get(view, view)


def without_letter(identity: str) -> str:
    """The patient in an image's id of Figure 1, where a letter distinguishes images of one patient.

    >>> without_letter("COVID-00003a"), without_letter("COVID-00004")
    ('COVID-00003', 'COVID-00004')
    """
    return re.sub(r"(?<=\d)[a-z]$", "", identity.strip())


def not_frontal(view: str, request: Request) -> str:
    """Why a view is excluded without `--view`; empty for a frontal or an unknown view."""
    if request.views or not view or view.split()[0] in ("PA", "AP"):
        return ""
    kind = "a lateral view" if view.split()[0] in LATERAL else "not a frontal view"
    return f"view {view}, {kind} (--view {view.split()[0]} keeps it)"


def years_between(birth: str, study: str) -> str:
    """Age in years from the year of birth (`1938.0`) and the date of the study (`20140915`), to within a year.

    >>> years_between("1938.0", "20140915"), years_between("", "20140915"), years_between("2015", "2014")
    ('76', '', '')
    """
    try:
        age = int(study.strip()[:4]) - float(birth)
    except ValueError:
        return ""
    return f"{age:g}" if math.isfinite(age) and 0 <= age <= 120 else ""


def items_of(text: str) -> list[str]:
    """The distinct items of a list written as text, in order, without outer spaces.

    >>> items_of("['pneumonia', ' kyphosis', 'pneumonia', '']"), items_of("nan"), items_of("normal")
    (['pneumonia', 'kyphosis'], [], ['normal'])
    """
    text = text.strip()
    if text.lower() in ("", "nan", "none", "[]"):
        return []
    if not text.startswith("["):
        return [text]
    try:
        listed = _literal(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        # Some rows were cut or quoted twice: the text between the quotes is still readable.
        listed = tuple(re.findall(r"'([^']*)'", text))
    return list(dict.fromkeys(str(item).strip() for item in listed if str(item).strip()))


@lru_cache(maxsize=4096)
def _literal(text: str) -> tuple[object, ...]:
    # Most rows of a table of 160,000 have one of the same few lists.
    return tuple(ast.literal_eval(text))


def class_of(findings: list[str]) -> str:
    """One class from the findings of a report, by the first rule that applies.

    1. `COVID 19` among them: `COVID-19`; 2. `COVID 19 uncertain`: `COVID-19 uncertain`; 3. any pneumonia: `pneumonia`;
    4. `normal` and nothing else: `normal`; 5. no finding: empty; 6. else `other findings`.

    >>> class_of(["pneumonia", "COVID 19"]), class_of(["normal", "unchanged"]), class_of(["normal", "nodule"])
    ('COVID-19', 'normal', 'other findings')
    >>> class_of(["atypical pneumonia", "infiltrates"]), class_of(["unchanged"]), class_of(["COVID 19 uncertain"])
    ('pneumonia', '', 'COVID-19 uncertain')
    """
    relevant = [finding for finding in findings if finding.lower() not in NO_FINDINGS]
    covid = [match for match in map(COVID.match, relevant) if match]
    if covid:
        return "COVID-19" if any(not match["doubt"] for match in covid) else "COVID-19 uncertain"
    if any("pneumonia" in finding.lower() for finding in relevant):
        return "pneumonia"
    if not relevant:
        return ""
    return "normal" if {finding.lower() for finding in relevant} == {"normal"} else "other findings"
