"""The audit that was made of the images of some predictions, so that no accuracy is read without it.

`audit -o FOLDER` leaves a folder with `audit.json` and the manifest of what was audited. It is looked for beside the
predictions, beside the manifest that a run was trained on, and in the working directory.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import FILE_NAME, Row, read_table
from cxrtool.data.tables.twins import MARK, is_twin, radiograph_id, split_class
from cxrtool.errors import InputError
from cxrtool.flow.folder import read_run_file

if TYPE_CHECKING:
    from cxrtool.auditing.part import Part
    from cxrtool.reporting.page import Section


FILE = "audit.json"
PAGE = "audit.html"

SCANNED = 2000
"""Of a folder with more entries than this only so many are looked at."""


@dataclass(frozen=True)
class Audit:
    """An audit that was found.

    Attributes:
        folder: Where it lies.
        content: Its `audit.json`.
    """

    folder: Path
    content: Mapping[str, Any]

    def summary(self) -> dict[str, Any]:
        """The entry `audit` of `metrics.json`: where it lies, as seen from here, and its first lines."""
        inside = self.folder.is_relative_to(Path.cwd())
        shown = self.folder.relative_to(Path.cwd()) if inside else self.folder
        return {"folder": str(shown), "lines": list(self.content["headline"])}


def audits_near(paths: Iterable[Path]) -> list[Path]:
    """Every `audit.json` in a folder beside one of the paths, or beside what a run among them was trained on.

    What comes through a pipe lies beside nothing but the working directory.
    """
    places: dict[Path, None] = {Path.cwd(): None}
    for path in paths:
        if str(path) == "-":
            continue
        here = path.absolute()
        places.setdefault(here.parent)
        places.setdefault(here.parent.parent)
        made = read_run_file(here if here.is_dir() else here.parent) or {}
        source = (made.get("options", {}).get("manifest") or {}).get("value")
        if source:
            places.setdefault(Path(source).absolute().parent)
    found: dict[Path, None] = {}
    for place in places:
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            for entry in islice(entries, SCANNED):
                if not entry.name.startswith(".") and Path(entry.path, FILE).is_file():
                    found.setdefault(Path(entry.path, FILE))
    return sorted(found)


def audit_of(rows: Sequence[Row], files: Iterable[Path]) -> Audit | None:
    """The latest audit whose images include all of these under the same labels; None where there is none.

    Args:
        rows: Of predictions; images that were made of others count as those, and those of twins as the radiograph.
        files: What `audits_near` found.
    """
    asked = {_key(row) for row in rows if row.get("label")}
    if not asked:
        return None
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            audit = read_audit(file.parent)
            known = read_table(file.parent / FILE_NAME).rows
        except InputError:
            continue
        if asked <= {_key(row) for row in known}:
            return audit
    return None


def read_audit(folder: Path) -> Audit:
    """Read the audit in a folder.

    Raises:
        InputError: There is none.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: expected a folder that `cxrtool audit` wrote, found no readable {FILE}",
            f"cxrtool audit MANIFEST -o {folder}",
        ) from error
    return Audit(folder, content)


def _key(row: Row) -> tuple[str, str]:
    """The radiograph that a row is about, and its label."""
    label = row.get("label", "")
    return (radiograph_id(row), split_class(label)[0]) if is_twin(row) and MARK in label else (original_of(row), label)


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
