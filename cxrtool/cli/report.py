"""`cxrtool report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


def report(
    ctx: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|CSV...",
            help="A run, or predictions of one or many folds; side by side as internal=A.csv external=B.csv.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="COLUMNS",
            help="Groups, as `cxrtool evaluate` takes them.",
            show_default="severity, view, source, sex and age, where known",
        ),
    ] = None,
    positive: options.Positive = None,
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", help="The images, for Table 1 and their flow.", show_default="that of the run"),
    ] = None,
    audit: Annotated[
        Path | None,
        typer.Option("--audit", metavar="DIR", help="What `cxrtool audit` wrote.", show_default="one of these images"),
    ] = None,
    errors: Annotated[int, typer.Option("--errors", min=0, help="Show so many of the most confident errors.")] = 8,
    checklist: Annotated[
        str | None,
        typer.Option("--checklist", help="Which section answers which item: claim or tripod-ai.", show_default=False),
    ] = None,
    heatmaps: Annotated[
        bool, typer.Option("--heatmaps/--no-heatmaps", help="Show what the models saw in the errors.")
    ] = True,
    calibrated: options.Calibrated = False,
    sensitivity: options.Sensitivity = None,
    prevalence: options.Prevalence = None,
    abstain: options.Abstain = False,
    partial: options.Partial = False,
    out: options.Out = None,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    verify: options.Verify = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    config: options.Config = None,
) -> None:
    """One page on a run, to read, print and send: results to methods.

    A single HTML file with results, the most confident errors with heatmaps, the audit of the same images, the flow of
    images with reasons of exclusion, Table 1, settings, training curves, a methods text to paste and edit, limits, and
    versions. It needs no network and shows nothing that is not in it.

    Example: cxrtool report run --positive covid --checklist claim -o report.html
    """
    from cxrtool.commands import report as step
    from cxrtool.commands.report.options import ReportOptions

    written = step.report(options.collect(ctx, ReportOptions), options.settings(ctx))
    if written is not None:
        sys.stdout.write(f"{written}\n")
