"""Show what an accuracy is worth: leakage, confounding, shortcuts.

Searches for patients and images on two sides of a split, and for what the label is associated with. Trains classifiers
that see no lung on the splits of the model, checks where its heatmaps are, and tests it on external images. -o writes
a page (audit.html) and audit.json; evaluate, compare and report repeat their summary. Exit code 4: a patient or an
image is on two sides.

Example: cxrtool audit prepared --run run --external other-hospital -o audit
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxrtool
from cxrtool.commands.audit.options import AuditOptions
from cxrtool.commands.audit.parts import Audited, parts
from cxrtool.data.file_names import AUDIT, FITTED_ON, MODEL, MODEL_WEIGHTS, PREDICTIONS
from cxrtool.data.files import atomic_write, scratch_folder
from cxrtool.data.structured import load_json
from cxrtool.data.tables.manifest import read_manifest
from cxrtool.errors import LeakageError, StrictError, UsageError, count_of
from cxrtool.flow import run as runs
from cxrtool.flow.audits import AUDITED, PAGE
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder
from cxrtool.flow.settings import Settings

if TYPE_CHECKING:
    from cxrtool.auditing.part import Part

SCHEMA = 1
"""Version of the schema of `audit.json`."""

VERSION = 2
"""Raised when the same options would give another result."""

CERTAIN = {"patients": "patients", "radiographs": "radiographs", "same_pixels": "pairs of images with the same pixels"}
"""The keys of `across_subsets` that are a leak beyond doubt, and what they count."""


def run(options: AuditOptions, settings: Settings) -> None:
    """Audit, and print what was found.

    Raises:
        LeakageError: A patient or an image is on two sides of a split.
    """
    from cxrtool.auditing import part

    if found := audit(options, settings):
        settings.output.report(found, part, dump_audit)
        if leaking := leaks(found):
            raise LeakageError(leaking, "cxrtool split keeps patients and identical images on one side")


def audit(options: AuditOptions, settings: Settings) -> dict[str, Any]:
    """Audit the images of a manifest, and write a folder where `-o` names one.

    Returns:
        The content of `audit.json`; empty under `--dry-run`.

    Raises:
        UsageError: Options that exclude each other.
        InputError: A manifest, a run or splits cannot be read, or do not belong together.
        StrictError: `--strict`, and an image could not be read; the audit is still complete.
    """
    stages = _stages(options)
    if options.quick and (options.external or stages or options.probes):
        raise UsageError("--quick: trains nothing, so it cannot be combined with --external, --stage or --probes")
    manifest = read_manifest(options.manifest, root=settings.root)
    audited = Audited.read(options, manifest, stages, settings)
    if settings.out is None:
        return _without_folder(audited, settings)
    folder = StepFolder(settings.out, _plan(options, settings, audited), settings)
    if not folder.needs_work():
        return {} if settings.dry_run else dict(load_json(folder.out / AUDIT))
    with folder.build() as build:
        found = _describe(audited, _resumed(build, audited, settings))
        _write(build, found)
        counts = {"findings": sum(len(part["findings"]) for part in found["parts"].values())}
        build.finish(manifest.columns, manifest.records, counts=counts)
    return found


def leaks(found: dict[str, Any]) -> str:
    """A line with what is certainly in more than one subset; empty where nothing is.

    Near-duplicates are an alarm for a person to check, but are not certain.
    """
    across = found["parts"]["leakage"]["content"]["across_subsets"]
    counts = [f"{across[name]['count']} {what}" for name, what in CERTAIN.items() if across[name]["count"]]
    return f"in more than one subset of a fold: {', '.join(counts)}" if counts else ""


def dump_audit(found: dict[str, Any]) -> str:
    """`audit.json` as text."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _without_folder(audited: Audited, settings: Settings) -> dict[str, Any]:
    if settings.dry_run:
        settings.report.say(f"would audit {audited.manifest.name}")
        return {}
    rejects: dict[str, str] = {}
    with scratch_folder("audit") as folder:
        made = parts(audited, settings, folder, lambda path, reason: rejects.update({str(path): reason}))
        found = _describe(audited, [make() for _, make in made])
    if rejects:
        path, reason = next(iter(rejects.items()))
        text = f"{count_of(len(rejects), 'image')} cannot be read, such as {path}: {reason}"
        if settings.strict:
            raise StrictError(text)
        settings.report.warn(text)
    return found


def _resumed(build: Build, audited: Audited, settings: Settings) -> list[Part]:
    """The parts; those that an interrupted run finished come from its journal, together with their rejects."""
    from cxrtool.auditing.part import Part

    def reject(path: Path | str, reason: str) -> None:
        # The same file may be read for several parts, and again when the audit continues.
        if {"path": str(path), "reason": reason} not in build.rejects:
            build.reject(path, reason)

    found = []
    for name, make in parts(audited, settings, build.path, reject):
        done = build.journal.done.get(name)
        if done and all((build.path / file).is_file() for file, _ in done["part"]["pictures"]):
            found.append(Part.from_json(name, done["part"]))
            for row in done["rejects"]:
                reject(row["path"], row["reason"])
            continue
        part = make()
        found.append(part)
        build.journal.add(name, {"part": part.as_json(), "rejects": build.rejects})
    return found


def _describe(audited: Audited, found: Sequence[Part]) -> dict[str, Any]:
    from cxrtool.auditing.part import headline

    content = {
        "schema": SCHEMA,
        "about": audited.about(),
        "headline": headline(found),
        "quick": audited.options.quick,
        AUDITED: audited.model(),
        "images": len(audited.manifest),
        "classes": audited.manifest.classes(),
        "parts": {part.name: part.as_json() for part in found},
    }
    # In the form in which it is read again, for example with lists instead of tuples.
    return dict(json.loads(dump_audit(content)))


def _write(build: Build, found: dict[str, Any]) -> None:
    from cxrtool.auditing.part import by_gravity, parts_of, verdict
    from cxrtool.flow.audits import section_of
    from cxrtool.reporting.html import render
    from cxrtool.reporting.page import Page

    made = parts_of(found)
    marks = [(finding.level, finding.text) for finding in by_gravity(made)]
    sections = [section_of(part, build.path) for part in made]
    page = Page(f"Audit: {verdict(made)}", found["about"], marks, sections, f"Made by cxrtool {cxrtool.__version__}.")
    atomic_write(build.path / PAGE, render(page))
    atomic_write(build.path / AUDIT, dump_audit(found))


def _stages(options: AuditOptions) -> dict[str, Path]:
    stages: dict[str, Path] = {}
    for text in options.stages:
        name, mark, path = text.partition("=")
        if not (mark and name and path):
            raise UsageError(f"--stage: expected NAME=MANIFEST, such as enhanced=enhanced/manifest.csv, found '{text}'")
        stages[name] = Path(path)
    return stages


def _plan(options: AuditOptions, settings: Settings, audited: Audited) -> Plan:
    files = [*audited.files]
    if options.run is not None and options.run.is_dir():
        names = (PREDICTIONS, FITTED_ON, MODEL, MODEL_WEIGHTS)
        folders = runs.whole_folders(options.run) or [options.run]
        files += [folder / name for folder in folders for name in names if (folder / name).is_file()]
    elif options.run is not None:
        files.append(options.run)
    tables = [audited.manifest, *(table for table in (audited.external, *audited.stages.values()) if table)]
    return Plan(
        "audit",
        {**options.identity(), "version": VERSION},
        Inputs.of(*tables, files=files, verify=settings.verify),
        libraries=("numpy", "scipy", "opencv-python-headless", "matplotlib", "torch"),
        seeded=True,
        threaded=True,
    )
