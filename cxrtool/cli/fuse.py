"""`cxrtool fuse`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


def fuse(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(help="joint, twins or mean.", metavar="KIND")],
    sources: Annotated[
        list[Path],
        typer.Argument(help="joint: A and B; twins: one; mean: two or more. Runs, or CSVs.", metavar="RUN|CSV..."),
    ],
    names: Annotated[
        str | None,
        typer.Option(
            "--names",
            metavar="NAMES",
            help="joint: what A and B tell apart, A the first from the rest, B the last from the rest.",
            show_default="normal,pathological,covid",
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option("--rule", help="joint: product (independent) or nested (a part).", show_default="product"),
    ] = None,
    on_conflict: Annotated[
        str | None,
        typer.Option(
            "--on-conflict",
            help="joint: where A says normal and B covid: prob (the likelier), inconclusive or covid.",
            show_default="prob",
        ),
    ] = None,
    prior_correct: Annotated[
        bool, typer.Option("--prior-correct", help="joint: scale B's odds from its training shares to A's.")
    ] = False,
    positive: Annotated[
        str | None,
        typer.Option(
            "--positive",
            metavar="CLASS",
            help="twins: the class that ties go to.",
            show_default="covid, else the first",
        ),
    ] = None,
    partial: options.Partial = False,
    out: options.Out = None,
    seed: options.Seed = 0,
    allow_leakage: options.Leakage = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    config: options.Config = None,
) -> None:
    """Make one answer of two networks, of an image's twins, or of runs.

    joint: three classes from A (normal or not) and B (covid or not), where B has answered all of A's test images and
    was trained on none. twins: one answer a radiograph from those about what each generator made of it. mean: the mean
    probability where all have answered. Prints predictions, which evaluate and compare take, or writes them with -o.

    Example: cxrtool fuse joint run-a run-b -o joint.csv
    """
    from cxrtool.commands import fuse as step

    step.fuse(options.collect(ctx, step.FuseOptions), options.settings(ctx))
