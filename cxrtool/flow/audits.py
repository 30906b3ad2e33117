"""Finds the audit of the images of some predictions, so that an accuracy is shown together with it.

`audit -o FOLDER` writes a folder with `audit.json` and the manifest of what was audited. It is searched beside the
predictions, beside the manifest that a run was trained on, and in the working directory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.digests import check
from cxrtool.data.file_names import AUDIT, MANIFEST, PREDICTIONS
from cxrtool.data.files import sha256_file
from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.structured import load_json
from cxrtool.data.tables.manifest import read_table
from cxrtool.data.tables.twins import MARK, is_twin, radiograph_id, split_class
from cxrtool.data.tables.views import RowView
from cxrtool.errors import ChangedError, InputError
from cxrtool.flow import run as runs
from cxrtool.flow.folder import read_run_file

if TYPE_CHECKING:
    from cxrtool.auditing.part import Part
    from cxrtool.reporting.page import Section


PAGE = "audit.html"

AUDITED = "model"
"""The key of `audit.json` with the name of the audited model and the digests of its predictions."""

OF_MODEL = ("external_model", "heatmaps", "corners")
"""The parts that are about the audited model; the others are about the images and their division."""

SCANNED = 2000
"""Most entries of a folder that are searched."""


@dataclass(frozen=True)
class Audit:
    """The folder of an audit, and the content of its `audit.json`."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def model(self) -> Mapping[str, Any]:
        """The name of the audited model and the digests of its predictions; empty where none was audited."""
        return self.content.get(AUDITED) or {}

    def summary(self) -> dict[str, Any]:
        """The entry `audit` of `metrics.json`: its folder, relative to the working directory, and its first lines."""
        inside = self.folder.is_relative_to(Path.cwd())
        shown = self.folder.relative_to(Path.cwd()) if inside else self.folder
        return {"folder": str(shown), "lines": list(self.content["headline"])}

    def of_the_data(self) -> Audit:
        """The same without what it found out about a model, for another model that was tested on these images."""
        from cxrtool.auditing.part import headline, parts_of

        parts = {name: part for name, part in self.content["parts"].items() if name not in OF_MODEL}
        if len(parts) == len(self.content["parts"]):
            return self
        left_out = f"Not shown: what the audit found out about the model {self.model.get('name', 'another')} alone."
        content = {**self.content, "parts": parts, "about": f"{self.content['about']}. {left_out}"}
        return Audit(self.folder, {**content, "headline": [*headline(parts_of(content)), left_out]})


def digests_of(path: Path) -> list[str]:
    """The digests of the predictions of a run, one of its folds or a table: by them a model is known again."""
    if not path.is_dir():
        return [sha256_file(path)] if path.is_file() else []
    folds = runs.whole_folders(path) or [path]
    return [sha256_file(fold / PREDICTIONS) for fold in folds if (fold / PREDICTIONS).is_file()]


def audits_near(paths: Iterable[Path]) -> list[Path]:
    """Every `audit.json` in a folder beside one of the paths, or beside the manifest that a run among them used.

    For standard input (`-`) only the working directory is searched.
    """
    folders: dict[Path, None] = {Path.cwd(): None}
    for path in paths:
        if str(path) == "-":
            continue
        here = path.absolute()
        folders.setdefault(here.parent)
        folders.setdefault(here.parent.parent)
        made = read_run_file(here if here.is_dir() else here.parent) or {}
        source = (made.get("options", {}).get("manifest") or {}).get("value")
        if source:
            folders.setdefault(Path(source).absolute().parent)
    found: dict[Path, None] = {}
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in islice(entries, SCANNED):
                if not entry.name.startswith(".") and Path(entry.path, AUDIT).is_file():
                    found.setdefault(Path(entry.path, AUDIT))
    return sorted(found)


def audit_of(rows: Iterable[RowView], files: Iterable[Path], sources: Iterable[Path]) -> Audit | None:
    """The latest audit that includes all images of these predictions with the same labels; None where there is none.

    Among `files`, as from `audits_near`. A processed image counts as its original, a twin as its radiograph. What it
    found out about a model is left out, unless all `sources` of the predictions are those of that model.
    """
    predicted = {_key(row) for row in rows if row.get("label")}
    if not predicted:
        return None
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            audit = read_audit(file.parent)
            known = read_table(file.parent / MANIFEST).rows
        except ChangedError:
            raise
        except InputError:
            continue
        if predicted <= {_key(row) for row in known}:
            return for_predictions(audit, sources)
    return None


def for_predictions(audit: Audit, sources: Iterable[Path]) -> Audit:
    """An audit beside predictions: without its findings about a model that is not theirs."""
    known = set(audit.model.get("predictions", ()))
    if known and all(known.intersection(digests_of(source)) for source in sources):
        return audit
    return audit.of_the_data()


def read_audit(folder: Path) -> Audit:
    """Read the audit in a folder; an `InputError` where there is none."""
    check(folder / AUDIT)
    try:
        content = load_json(folder / AUDIT)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: expected a folder that `cxrtool audit` wrote, found no readable {AUDIT}",
            f"cxrtool audit MANIFEST -o {folder}",
        ) from error
    return Audit(folder, content)


def _key(row: RowView) -> tuple[str, str]:
    """The radiograph of a row, and its label."""
    label = row.get("label", "")
    return (radiograph_id(row), split_class(label)[0]) if is_twin(row) and MARK in label else (original_of(row), label)


SHOWN = 6
"""Findings among the first lines of a report; the sections of the audit list all."""


def first_marks(audit: Audit | None) -> list[tuple[str, str]]:
    """The most serious findings as the first lines of a page, or the line that there is no audit."""
    from cxrtool.auditing.part import ALARM, UNKNOWN, WARNING, by_gravity, parts_of
    from cxrtool.evaluation.tables import NO_AUDIT

    if audit is None:
        return [(UNKNOWN, NO_AUDIT)]
    found = by_gravity(parts_of(audit.content))
    serious = [finding for finding in found if finding.level in (ALARM, WARNING)]
    marks = [(finding.level, finding.text) for finding in serious[:SHOWN]]
    if len(serious) > SHOWN:
        marks.append((serious[SHOWN].level, f"{len(serious) - SHOWN} more, in the sections of the audit."))
    return marks or [(finding.level, finding.text) for finding in found[:2]]


def sections_of(audit: Audit | None) -> list[Section]:
    """The overview of an audit, and a section for each of its parts, folded where it has no alarm and no warning."""
    from cxrtool.auditing.part import ALARM, WARNING, WORDS, by_gravity, parts_of, verdict
    from cxrtool.evaluation.tables import NO_AUDIT, Sheet
    from cxrtool.reporting.page import Section
    from cxrtool.reporting.titles import AUDIT

    if audit is None:
        hint = "`cxrtool audit` searches for leaks between subsets, for confounding and for shortcuts."
        return [Section("No audit", [NO_AUDIT, hint])]
    parts = parts_of(audit.content)
    found = [(part.title, by_gravity([part])) for part in parts]
    rows = [[title, WORDS[one[0].level] if one else "", str(len(one))] for title, one in found]
    overview = Sheet("Parts of the audit", ["part", "level", "findings"], rows, [])
    lines = [str(audit.content["about"]), verdict(parts), f"From the audit in {audit.folder}."]
    serious = {part.name for part in parts if any(finding.level in (ALARM, WARNING) for finding in part.findings)}
    return [
        Section(AUDIT, lines, [overview]),
        *(section_of(part, audit.folder, folded=part.name not in serious) for part in parts),
    ]


def section_of(part: Part, folder: Path, *, folded: bool = False) -> Section:
    """A part of an audit as a section of a page; figures whose files are missing are only counted."""
    from cxrtool.auditing.part import by_gravity, line
    from cxrtool.evaluation.tables import count_of
    from cxrtool.reporting.page import Picture, Section
    from cxrtool.reporting.titles import AUDIT

    there = [(folder / file, caption) for file, caption in part.pictures if (folder / file).is_file()]
    lines = [line(finding) for finding in by_gravity([part])]
    if len(there) < len(part.pictures):
        lines.append(
            f"{count_of(len(part.pictures) - len(there), 'figure')} of this part can no longer be found in {folder}."
        )
    return Section(f"{AUDIT}: {part.title}", lines, part.sheets, [Picture(*picture) for picture in there], folded)
