"""One page on a run, to read, print and send: results to methods.

A single HTML file with the flow of images and reasons of exclusion, Table 1, results, the most confident errors with
heatmaps, the audit of the same images, settings, training curves, a methods text to paste and edit, limits, and
versions. It loads nothing from the network. Of predictions without labels it has no accuracy: what was predicted, how
surely, and which images are unlike the training images.

Example: cxrtool report run --positive covid --checklist claim -o report.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cxrtool.commands.report.batch import Batch, count_unlabelled, find_unlabelled
from cxrtool.commands.report.options import ReportOptions
from cxrtool.commands.report.page import Maker
from cxrtool.commands.report.study import Study
from cxrtool.commands.report.unlabelled import UnlabelledMaker
from cxrtool.data.files import STDIN, atomic_write, scratch_folder
from cxrtool.errors import InputError, TakenError, UsageError
from cxrtool.flow.evaluating import find_sources
from cxrtool.flow.folder import Inputs, Plan, touch
from cxrtool.flow.settings import Settings

VERSION = 2
"""Raised when the same options would give another page."""

HEAD = 600
"""Characters at the start of a page that contain its digest."""

LARGEST = 8 * 2**20
"""Bytes that a page should not exceed, so that it can be sent by e-mail."""


def run(options: ReportOptions, settings: Settings) -> None:
    """Write the page, and print where it is."""
    written = report(options, settings)
    if written is not None:
        settings.output.write(f"{written}\n")


def report(options: ReportOptions, settings: Settings) -> Path | None:
    """Write the page.

    Returns:
        The file; None under `--dry-run`.

    Raises:
        UsageError: Options that exclude each other, or an unknown class.
        IncompleteError: A run lacks folds.
        InputError: Predictions, manifest, audit or scores of heatmaps cannot be read.
        TakenError: The output exists and was not made by `cxrtool report`.
    """
    options.evaluation().check_decisions()
    sources = find_sources(options.evaluation())
    if any(STDIN in paths for paths in sources.values()):
        raise UsageError("expected a run or a CSV, found predictions on standard input", "save them as CSV first")
    out = _target(settings)
    table = find_unlabelled(sources)
    if table is not None:
        batch = Batch.read(table, options, settings)
        return _make(out, options, settings, batch.files, partial(UnlabelledMaker, batch), batch.remark)
    study = Study.read(
        sources,
        partial=options.partial,
        manifest=options.manifest,
        audit=options.audit,
        explained=options.explained,
        positive=options.positive,
    )
    if not study.tested:
        raise InputError(
            f"{study.sources[0].tables[0]}: expected labelled predictions, found none",
            "a report needs the column `label`; predict on a manifest that has it",
        )
    without, every = count_unlabelled(
        [table for source in study.sources if not source.folds for table in source.tables]
    )
    remark = f"{without} of {every} images have no label and are not on this page." if without else ""
    return _make(out, options, settings, study.files, partial(Maker, study), remark)


def _make(
    out: Path,
    options: ReportOptions,
    settings: Settings,
    files: Sequence[Path],
    maker: Callable[..., Any],
    remark: str,
) -> Path | None:
    """Write the page that a maker makes, with a remark on its input, unless it is up to date; None for `--dry-run`."""
    if remark:
        settings.report.warn(remark)
    plan = _plan(options, settings, files)
    digest = plan.digest(settings)
    if _needs_work(out, digest, plan, settings):
        _write(out, digest, settings, partial(maker, options, settings), remark)
    return None if settings.dry_run else out


def _target(settings: Settings) -> Path:
    if settings.out is None:
        raise UsageError("expected -o FILE, found none", "add -o report.html")
    if settings.out.is_dir():
        raise TakenError(
            f"-o {settings.out}: expected the name of a file, found a folder", f"-o {settings.out / 'report.html'}"
        )
    return settings.out


def _plan(options: ReportOptions, settings: Settings, files: Sequence[Path]) -> Plan:
    return Plan(
        "report",
        {**options.identity(), "version": VERSION},
        Inputs.of(files=files, verify=settings.verify),
        libraries=("numpy", "matplotlib", "jinja2", "pillow", "torch"),
        seeded=True,
        threaded=True,
    )


def _needs_work(out: Path, digest: str, plan: Plan, settings: Settings) -> bool:
    """Whether the page has to be made; refuses to replace a file that `cxrtool report` did not make."""
    from cxrtool.reporting.html import read_digest

    found = ""
    if out.is_file() and out.stat().st_size:
        with out.open("rb") as file:
            found = read_digest(file.read(HEAD).decode("utf-8", "replace"))
        if not found:
            raise TakenError(
                f"-o {out}: expected a new file or one that `cxrtool report` made, found something else",
                "choose another -o, or remove it yourself",
            )
    if found == digest and not settings.force:
        if out.stat().st_mtime < plan.inputs.newest and not settings.dry_run:
            touch(out)
        settings.report.say(f"{out}: up to date, nothing to do")
        return False
    if settings.dry_run:
        why = (
            "it does not exist yet" if not found else "--force" if found == digest else "inputs or options have changed"
        )
        settings.report.say(f"would write {out}: {why}")
        return False
    return True


def _write(out: Path, digest: str, settings: Settings, maker: Callable[[Path], Any], remark: str) -> None:
    from cxrtool.auditing.part import WARNING
    from cxrtool.reporting.html import render

    with scratch_folder("report") as folder:
        page = maker(folder).page()
        marks = [(WARNING, remark), *page.marks] if remark else page.marks
        text = render(replace(page, marks=marks), digest)
    if len(text.encode()) > LARGEST:
        settings.report.warn(
            f"{out}: {len(text.encode()) / 2**20:.1f} MiB, which may be too large for an e-mail; use a lower --errors"
        )
    atomic_write(out, text)
