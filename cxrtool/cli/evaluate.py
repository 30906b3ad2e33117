"""`cxrtool evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


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
    positive: options.Positive = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            metavar="NAMES",
            help="Only images of these classes, their probabilities scaled to one.",
            show_default=False,
        ),
    ] = None,
    within: Annotated[
        Path | None,
        typer.Option(
            "--within",
            metavar="SPLITS|MANIFEST",
            help="Only images that stand there; of splits, in that repeat, fold and subset.",
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
    calibrated: options.Calibrated = False,
    sensitivity: options.Sensitivity = None,
    prevalence: options.Prevalence = None,
    abstain: options.Abstain = False,
    partial: options.Partial = False,
    style: options.Format = "table",
    digits: options.Digits = 2,
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
    resampled patients. With -o the figures, tables and pictures are written to a folder too; of a run of several folds
    also how they trained (repetitions.png). What was called inconclusive is no decision, and is told as coverage. With
    --positive comes the operating point, and what acting on the model is worth (decision_curve.png).

    Example: cxrtool evaluate run --by severity,age:0,40,65 --positive covid -o evaluation
    """
    from cxrtool.cli.console import check_format, print_tables
    from cxrtool.evaluation import tables
    from cxrtool.flow import evaluating as step

    check_format(style)
    settings = options.settings(ctx)
    results = step.evaluate(options.collect(ctx, step.EvaluateOptions), settings)
    if results:
        print_tables(results, tables, step.dump_metrics, style, digits, settings.report)
