"""An audit for readers and programs: its first lines, its tables, and one row per finding.

All of it is made from the content of `audit.json`, so that terminal, file and page show the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part, by_gravity
from cxrtool.evaluation.sheet import Sheet, as_markdown, count_of

Audit = Mapping[str, Any]
"""The content of `audit.json`."""

SHOWN = 4
"""Findings of an audit that other commands print; the audit itself prints all."""

WORDS = {ALARM: "ALARM", WARNING: "Warning", NOTE: "Note", CLEAR: "Clear", UNKNOWN: "Not known"}
"""The word before a finding."""

TIDY = ("level", "part", "text")


def parts_of(audit: Audit) -> list[Part]:
    """The parts, in order."""
    return [Part.from_json(name, entry) for name, entry in audit["parts"].items()]


def verdict(parts: Sequence[Part]) -> str:
    """The first line: the overall result.

    >>> verdict([Part("a", "A", findings=[Finding(CLEAR, "no")])])
    'No alarm and no warning; that is not yet proof that a model looks at the lungs.'
    """
    levels = [finding.level for part in parts for finding in part.findings]
    alarms, warnings = levels.count(ALARM), levels.count(WARNING)
    if alarms:
        more = f", and {count_of(warnings, 'warning')}" if warnings else ""
        return (
            f"{count_of(alarms, 'alarm')}{more}: an accuracy measured on these images need not come from the lungs, "
            "and may not hold on other images."
        )
    if warnings:
        return (
            f"No alarm, but {count_of(warnings, 'warning')}: something other than the disease may explain an accuracy."
        )
    if not levels or set(levels) == {UNKNOWN}:
        return "Nothing could be searched, so nothing is known."
    return "No alarm and no warning; that is not yet proof that a model looks at the lungs."


def line(finding: Finding) -> str:
    """A finding as a line."""
    return f"{WORDS[finding.level]}: {finding.text}"


def headline(parts: Sequence[Part], shown: int = SHOWN) -> list[str]:
    """What other commands print: the verdict and the most serious findings."""
    serious = [finding for finding in by_gravity(parts) if finding.level in (ALARM, WARNING)]
    rest = len(serious) - shown
    return [verdict(parts), *map(line, serious[:shown]), *([f"and {rest} more"] if rest > 0 else [])]


def opening(audit: Audit) -> list[str]:
    """The first lines: what was audited, the verdict, and every finding, the most serious first."""
    parts = parts_of(audit)
    return [audit["about"], "", verdict(parts), "", *map(line, by_gravity(parts))]


def sheets(audit: Audit, digits: int = 2) -> list[Sheet]:
    """All tables, part by part; their numbers are already rounded."""
    return [sheet for part in parts_of(audit) for sheet in part.sheets]


def tidy(audit: Audit) -> tuple[list[str], list[list[str]]]:
    """One row per finding, in the order of the parts."""
    rows = [[finding.level, part.name, finding.text] for part in parts_of(audit) for finding in part.findings]
    return list(TIDY), rows


def markdown(audit: Audit, digits: int = 2) -> str:
    """First lines and tables as one Markdown document."""
    lines = [f"{text}  " if text else "" for text in opening(audit)]
    for part in parts_of(audit):
        lines += ["", f"## {part.title}"]
        for sheet in part.sheets:
            lines += as_markdown(sheet, f"**{sheet.title}**")
    return "\n".join(lines) + "\n"
