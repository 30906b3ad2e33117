"""The findings of one part of an audit: as sentences, tables, figures, and numbers for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cxrtool.evaluation.tables import Sheet

ALARM, WARNING, NOTE, CLEAR, UNKNOWN = "alarm", "warning", "note", "clear", "unknown"

LEVELS = (ALARM, WARNING, NOTE, CLEAR, UNKNOWN)
"""From the most serious: an accuracy proves nothing; something else may explain it; worth knowing; searched and not
found; could not be searched, with the reason."""


@dataclass(frozen=True)
class Finding:
    """One finding, as a sentence that can be understood on its own.

    Attributes:
        level: One of `LEVELS`.
        text: The sentence, with its figures.
    """

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


def by_gravity(parts: Iterable[Part]) -> list[Finding]:
    """The findings of all parts, the most serious first; among equals in the order of the parts.

    >>> one = Part("a", "A", findings=[Finding(CLEAR, "no"), Finding(ALARM, "yes")])
    >>> [finding.text for finding in by_gravity([one])]
    ['yes', 'no']
    """
    findings = [finding for part in parts for finding in part.findings]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
