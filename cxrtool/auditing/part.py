"""An audit: its findings and parts, and what readers and programs get of them.

Lines and tables are made from the content of `audit.json`, so that terminal, file and page show the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cxrtool.evaluation.sheet import Sheet, as_markdown, count_of, plain

ALARM, WARNING, NOTE, CLEAR, UNKNOWN = "alarm", "warning", "note", "clear", "unknown"

WORDS = {ALARM: "ALARM", WARNING: "Warning", NOTE: "Note", CLEAR: "Clear", UNKNOWN: "Not known"}
"""The word before a finding."""

LEVELS = tuple(WORDS)
"""From the most serious: an accuracy proves nothing; something else may explain it; worth knowing; searched and not
found; could not be searched, with the reason."""

Audit = Mapping[str, Any]
"""The content of `audit.json`."""

SHOWN = 4
"""Findings of an audit that other commands print; the audit itself prints all."""


@dataclass(frozen=True)
class Finding:
    """One finding: its level, of `LEVELS`, and a sentence that can be understood on its own."""

    level: str
    text: str


@dataclass(frozen=True)
class Part:
    """One part of an audit.

    Attributes:
        name: Its key in `audit.json`, such as `leakage`.
        title: Its heading.
        content: Its numbers, for JSON.
        findings: What was found.
        sheets: Its tables.
        pictures: File names, relative to the folder of the audit, and captions.
    """

    name: str
    title: str
    content: Mapping[str, Any] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    sheets: Sequence[Sheet] = ()
    pictures: Sequence[tuple[str, str]] = ()

    def as_json(self) -> dict[str, Any]:
        """The entry in `audit.json`, which `from_json` reads."""
        return {
            "title": self.title,
            "findings": [asdict(finding) for finding in self.findings],
            "content": dict(self.content),
            "sheets": [asdict(sheet) for sheet in self.sheets],
            "pictures": [list(picture) for picture in self.pictures],
        }

    @classmethod
    def from_json(cls, name: str, entry: Mapping[str, Any]) -> Part:
        """The part that `as_json` wrote under a name."""
        return cls(
            name,
            entry["title"],
            entry["content"],
            [Finding(**finding) for finding in entry["findings"]],
            [Sheet(**sheet) for sheet in entry["sheets"]],
            [(file, caption) for file, caption in entry["pictures"]],
        )


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def capital(text: str) -> str:
    """The start of a sentence."""
    return text[:1].upper() + text[1:]


def parts_of(audit: Audit) -> list[Part]:
    """The parts, in order."""
    return [Part.from_json(name, entry) for name, entry in audit["parts"].items()]


def by_gravity(parts: Iterable[Part]) -> list[Finding]:
    """The findings of all parts, the most serious first; among equals in the order of the parts.

    >>> one = Part("a", "A", findings=[Finding(CLEAR, "no"), Finding(ALARM, "yes")])
    >>> [finding.text for finding in by_gravity([one])]
    ['yes', 'no']
    """
    findings = [finding for part in parts for finding in part.findings]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def verdict(parts: Sequence[Part]) -> str:
    """The first line: the overall result.

    >>> verdict([Part("a", "A", findings=[Finding(CLEAR, "no")])])
    'No alarm and no warning; that is not yet proof that a model looks at the lungs.'
    """
    levels = [finding.level for part in parts for finding in part.findings]
    alarms, warnings = levels.count(ALARM), levels.count(WARNING)
    if alarms:
        more = f" and {count_of(warnings, 'warning')}" if warnings else ""
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
    return ["level", "part", "text"], rows


def markdown(audit: Audit, digits: int = 2) -> str:
    """First lines and tables as one Markdown document."""
    lines = [f"{plain(text)}  " if text else "" for text in opening(audit)]
    for part in parts_of(audit):
        lines += ["", f"## {part.title}"]
        for sheet in part.sheets:
            lines += as_markdown(sheet, f"**{sheet.title}**")
    return "\n".join(lines) + "\n"
