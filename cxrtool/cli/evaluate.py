"""`cxrtool evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrtool.cli import options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrtool.steps.settings import Settings


def evaluate(
    ctx: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|CSV...",
            help="A run, or predictions of one or many folds, or -; side by side as internal=A.csv external=B.csv.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="COLUMNS",
            help="Groups: severity,view,source,age:0,40,65 (numbers are bins; grade:low/mid/high gives an order).",
            show_default=False,
        ),
    ] = None,
    positive: Annotated[
        str | None, typer.Option("--positive", metavar="CLASS", help="The class to find.", show_default=False)
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            metavar="NAMES",
            help="Only images of these classes, their probabilities scaled to one.",
            show_default=False,
        ),
    ] = None,
    subset: Annotated[str, typer.Option("--subset", help="Only rows of this subset.")] = "test",
    confusion_matrix: Annotated[
        Path | None,
        typer.Option(
            "--confusion-matrix",
            metavar="FILE",
            help="Counts instead of predictions: first column the true class, header the predicted classes.",
            show_default=False,
        ),
    ] = None,
    partial: options.Partial = False,
    style: options.Format = "table",
    digits: Annotated[int, typer.Option("--digits", min=0, max=10, help="Decimals in tables.")] = 2,
    out: options.Out = None,
    seed: options.Seed = 0,
    verify: options.Verify = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    config: options.Config = None,
) -> None:
    """Accuracy per class and group, with intervals and pictures.

    Decisions are pooled over the folds of a repeat, AUC and calibration computed inside each run; intervals come from
    resampled patients. With -o the figures, tables and pictures are written to a folder too.

    Example: cxrtool evaluate run --by severity,age:0,40,65 --positive covid -o evaluation
    """
    from cxrtool.cli.console import check_format
    from cxrtool.steps import evaluate as step

    check_format(style)
    settings = options.settings(ctx)
    results = step.evaluate(options.collect(ctx, step.EvaluateOptions), settings)
    if results:
        _print(results, style, digits, settings)


def _print(results: Mapping[str, Any], style: str, digits: int, settings: Settings) -> None:
    from cxrtool.cli.console import render
    from cxrtool.evaluation import tables
    from cxrtool.steps.evaluate import dump_metrics

    if style == "md":
        sys.stdout.write(tables.markdown(results, digits))
        return
    if style in ("csv", "json"):
        # What a program reads must hold nothing else; what a person should know goes to standard error.
        for line in tables.opening(results):
            settings.report.say(line)
        sys.stdout.write(dump_metrics(results) if style == "json" else render(*tables.tidy(results), style) + "\n")
        return
    mark = "% " if style == "latex" else ""
    for line in tables.opening(results):
        sys.stdout.write(mark + line + "\n")
    for sheet in tables.sheets(results, digits):
        sys.stdout.write("\n" + render(sheet.columns, sheet.rows, style, sheet.title) + "\n")
        for note in sheet.notes:
            sys.stdout.write(f"{mark or '  '}{note}\n")
