"""`cxrtool split`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


def split(
    ctx: typer.Context,
    manifest: options.ManifestFile,
    holdout: Annotated[
        str | None,
        typer.Option(
            "--holdout",
            metavar="SHARES",
            help="One division: 60/20/20, or 80/20.",
            show_default=False,
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Cross-validation with so many folds.", show_default=False)
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(
            "--leave-out", metavar="COLUMN", help="One fold a value: test on that source.", show_default=False
        ),
    ] = None,
    from_column: Annotated[
        str | None,
        typer.Option("--from-column", metavar="COLUMN", help="The column that names the subset.", show_default=False),
    ] = None,
    within: Annotated[
        Path | None,
        typer.Option("--within", metavar="SPLITS", help="Thin out this division; see --equal.", show_default=False),
    ] = None,
    equal: Annotated[
        str | None,
        typer.Option(
            "--equal",
            metavar="COLUMN",
            help="With --within: in each fold and subset as many images of each value as the rarest has there.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="SUBSETS", help="With --within: these stay whole.", show_default=False),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Draw so many divisions.")] = 1,
    validation: Annotated[
        float | None,
        typer.Option(
            "--validation", help="Share of the training images kept for validation.", show_default="0.1 with folds"
        ),
    ] = None,
    group: Annotated[
        str, typer.Option("--group", metavar="COLUMN", help="What must never be on two sides.")
    ] = "patient_id",
    stratify: Annotated[
        str | None,
        typer.Option(
            "--stratify",
            metavar="COLUMNS",
            help="What to balance, each within those before.",
            show_default="label,severity",
        ),
    ] = None,
    out: options.Out = None,
    seed: options.Seed = 0,
    allow_leakage: options.Leakage = False,
    root: options.Root = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    config: options.Config = None,
) -> None:
    """Divide patients into training, validation and test.

    Images of one patient, images derived from one another (parent_id) and identical pictures (sha256) stay together.
    Classes and severities are spread evenly. The order of rows does not matter. Without -o, splits.csv goes to
    standard output; images, patients and classes of every part are shown on standard error.

    With --within no image changes sides: a network trained on a balanced part of another's images has seen no test
    image of that other one; the same images are drawn with and without --keep.

    Example: cxrtool split prepared --folds 5 --repeats 5 -o splits.csv
    """
    from cxrtool.cli.console import render
    from cxrtool.commands import split as step

    settings = options.settings(ctx)
    result = step.split(options.collect(ctx, step.SplitOptions), settings)
    settings.report.say(render(result.columns, result.table))
    for text in result.warnings:
        settings.report.warn(text)
    if out is None:
        sys.stdout.write(result.text())
