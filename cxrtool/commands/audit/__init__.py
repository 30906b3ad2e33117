"""Say what an accuracy is worth: leaks, confounding, shortcuts.

Looks for patients and pictures on two sides, for what else tells the label, and for how far classifiers get that
see no lung, on the model's own splits; for heatmaps beside the lungs, and for what becomes of it elsewhere. With -o
a page (audit.html) and audit.json are written, whose summary evaluate, compare and report repeat. Exit code 4: a
patient or a picture is on two sides.

Example: cxrtool audit prepared --run run --external elsewhere -o audit
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxrtool
from cxrtool.commands.audit.options import AuditOptions
from cxrtool.commands.audit.parts import Audited, parts
from cxrtool.data.files import atomic_write
from cxrtool.data.tables.manifest import read_manifest
from cxrtool.errors import LeakageError, StrictError, UsageError
from cxrtool.flow import run as runs
from cxrtool.flow.audits import FILE, PAGE
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder
from cxrtool.flow.seen import FITTED
from cxrtool.flow.settings import Settings

if TYPE_CHECKING:
    from cxrtool.auditing.part import Part

SCHEMA = 1
"""Of `audit.json`."""

VERSION = 1
"""Raised when the same options would find something else."""

CERTAIN = {"patients": "patients", "radiographs": "radiographs", "same_pixels": "pairs of equal pictures"}
"""What of `across_subsets` is a leak beyond doubt, and what it counts."""


def run(options: AuditOptions, settings: Settings) -> None:
    """Audit, print what was found, and say by the exit code that something is on two sides.

    Raises:
        LeakageError: A patient or a picture is on two sides of a split.
    """
    from cxrtool.auditing import summary

    if found := audit(options, settings):
        settings.output.report(found, summary, dump_audit)
        if leaking := leaks(found):
            raise LeakageError(leaking, "cxrtool split keeps patients and equal pictures on one side")


def audit(options: AuditOptions, settings: Settings) -> dict[str, Any]:
    """Audit the images of a manifest, and write a folder where `-o` names one.

    Returns:
        The content of `audit.json`; empty under `--dry-run`.

    Raises:
        UsageError: Options that exclude one another.
        InputError: A manifest, a run or splits cannot be read, or do not belong together.
        StrictError: `--strict`, and an image could not be read; the audit is complete all the same.
    """
    stages = _stages(options)
    if options.quick and (options.external or stages or options.probes):
        raise UsageError("--quick: does what needs no training, and does not go with --external, --stage or --probes")
    manifest = read_manifest(options.manifest, root=settings.root)
    audited = Audited.read(options, manifest, stages, settings)
    if settings.out is None:
        return _without_folder(audited, settings)
    folder = StepFolder(settings.out, _plan(options, settings, audited), settings)
    if not folder.needs_work():
        return {} if settings.dry_run else dict(json.loads((folder.out / FILE).read_text(encoding="utf-8")))
    with folder.build() as build:
        found = _describe(audited, _resumed(build, audited, settings))
        _write(build, found)
        counts = {"findings": sum(len(part["findings"]) for part in found["parts"].values())}
        build.finish(manifest.columns, manifest.rows, counts=counts)
    return found


def leaks(found: dict[str, Any]) -> str:
    """What is in more than one subset for certain, in a line; empty where nothing is.

    Pictures that only look alike are an alarm, which a person has to look at, and no such certainty.
    """
    across = found["parts"]["leakage"]["content"]["across_subsets"]
    told = [f"{across[name]['count']} {what}" for name, what in CERTAIN.items() if across[name]["count"]]
    return f"in more than one subset of a fold: {', '.join(told)}" if told else ""


def dump_audit(found: dict[str, Any]) -> str:
    """`audit.json` as text."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _without_folder(audited: Audited, settings: Settings) -> dict[str, Any]:
    import tempfile

    if settings.dry_run:
        settings.report.say(f"would audit {audited.manifest.name}")
        return {}
    rejects: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place:
        made = parts(audited, settings, Path(place), lambda path, reason: rejects.update({str(path): reason}))
        found = _describe(audited, [make() for _, make in made])
    if rejects:
        path, reason = next(iter(rejects.items()))
        text = f"{len(rejects)} images cannot be read, such as {path}: {reason}"
        if settings.strict:
            raise StrictError(text)
        settings.report.warn(text)
    return found


def _resumed(build: Build, audited: Audited, settings: Settings) -> list[Part]:
    """The parts, those that an interrupted run had finished from its journal, with what could not be read for them."""
    from cxrtool.auditing.part import Part

    def reject(path: Path | str, reason: str) -> None:
        # The same file may be looked at for several parts, and again once the audit goes on.
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
    from cxrtool.auditing.summary import headline

    content = {
        "schema": SCHEMA,
        "about": audited.about(),
        "headline": headline(found),
        "quick": audited.options.quick,
        "images": len(audited.manifest.rows),
        "classes": audited.manifest.classes(),
        "parts": {part.name: part.as_json() for part in found},
    }
    # As it will be read again: a pair, say, as a list.
    return dict(json.loads(dump_audit(content)))


def _write(build: Build, found: dict[str, Any]) -> None:
    from cxrtool.auditing.part import by_gravity
    from cxrtool.auditing.summary import parts_of, verdict
    from cxrtool.flow.audits import section_of
    from cxrtool.reporting.html import render
    from cxrtool.reporting.page import Page

    made = parts_of(found)
    marks = [(finding.level, finding.text) for finding in by_gravity(made)]
    sections = [section_of(part, build.path) for part in made]
    page = Page(f"Audit: {verdict(made)}", found["about"], marks, sections, f"Made by cxrtool {cxrtool.__version__}.")
    atomic_write(build.path / PAGE, render(page))
    atomic_write(build.path / FILE, dump_audit(found))


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
        names = (runs.PREDICTIONS, FITTED, "model.json", "model.safetensors")
        folders = [options.run / runs.fold_name(*pair) for pair in runs.whole_folds(options.run)] or [options.run]
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
