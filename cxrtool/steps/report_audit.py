"""An audit inside a report: its first lines, and a section for each of its parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.flow.audits import Audit

if TYPE_CHECKING:
    from cxrtool.auditing.part import Part
    from cxrtool.reporting.page import Section

SHOWN = 6
"""Findings among the first lines of a report; the audit's own sections have all."""


def first_marks(audit: Audit | None) -> list[tuple[str, str]]:
    """The gravest findings as the first lines of a page; that there is no audit is one of them."""
    from cxrtool.auditing.part import ALARM, UNKNOWN, WARNING, by_gravity
    from cxrtool.auditing.summary import parts_of
    from cxrtool.evaluation.tables import NO_AUDIT

    if audit is None:
        return [(UNKNOWN, NO_AUDIT)]
    found = by_gravity(parts_of(audit.content))
    grave = [finding for finding in found if finding.level in (ALARM, WARNING)]
    marks = [(finding.level, finding.text) for finding in grave[:SHOWN]]
    if len(grave) > SHOWN:
        marks.append((grave[SHOWN].level, f"{len(grave) - SHOWN} more, in the sections of the audit."))
    return marks or [(finding.level, finding.text) for finding in found[:2]]


def sections_of(audit: Audit | None) -> list[Section]:
    """What an audit found, and a section for each of its parts, folded where nothing grave was found."""
    from cxrtool.auditing.part import ALARM, WARNING
    from cxrtool.auditing.summary import parts_of, verdict
    from cxrtool.evaluation.tables import NO_AUDIT, Sheet
    from cxrtool.reporting.page import Section
    from cxrtool.reporting.titles import AUDIT

    if audit is None:
        hint = "`cxrtool audit` looks for leaks between subsets, for confounding and for shortcuts."
        return [Section("No audit", [NO_AUDIT, hint])]
    parts = parts_of(audit.content)
    rows = [[part.title, *_worst(part)] for part in parts]
    overview = Sheet("What was looked at", ["part", "found", "findings"], rows, [])
    lines = [str(audit.content["about"]), verdict(parts), f"From the audit in {audit.folder}."]
    grave = {part.name for part in parts if any(finding.level in (ALARM, WARNING) for finding in part.findings)}
    return [
        Section(AUDIT, lines, [overview]),
        *(section_of(part, audit.folder, folded=part.name not in grave) for part in parts),
    ]


def section_of(part: Part, folder: Path, *, folded: bool = False) -> Section:
    """A part of an audit as a section of a page; pictures that are not there any more are left out with a word."""
    from cxrtool.auditing.part import by_gravity
    from cxrtool.auditing.summary import line
    from cxrtool.evaluation.tables import count_of
    from cxrtool.reporting.page import Picture, Section
    from cxrtool.reporting.titles import AUDIT

    there = [(folder / file, caption) for file, caption in part.pictures if (folder / file).is_file()]
    lines = [line(finding) for finding in by_gravity([part])]
    if len(there) < len(part.pictures):
        lines.append(
            f"{count_of(len(part.pictures) - len(there), 'picture')} of this part can no longer be found in {folder}."
        )
    pictures = [Picture(path, caption) for path, caption in there]
    return Section(f"{AUDIT}: {part.title}", lines, part.sheets, pictures, folded)


def _worst(part: Part) -> list[str]:
    from cxrtool.auditing.part import by_gravity
    from cxrtool.auditing.summary import WORDS

    found = by_gravity([part])
    return [WORDS[found[0].level] if found else "", str(len(found))]
