"""`cxrtool compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


def compare(
    ctx: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|CSV...",
            help="Runs, or predictions as CSV; each perhaps with a name: vgg=runs/vgg16.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="RUN|NAME",
            help="What all others are compared with.",
            show_default="the best on validation images",
        ),
    ] = None,
    positive: options.Positive = None,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            help="What to compare by: accuracy, balanced_accuracy, macro_sensitivity, macro_specificity, "
            "macro_precision, macro_f1, mcc, macro_auc, average_precision; with --positive also sensitivity, "
            "specificity, precision, npv, f1, auc.",
        ),
    ] = "accuracy",
    published: Annotated[
        str | None,
        typer.Option(
            "--published",
            metavar="NAME",
            help="The printed table of a paper beside ours: covid-sdnet, covid-sdnet-without-normal-pcr, covid-xnet, "
            "makris, portable-densenet161, vgg16-portable.",
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
    """Runs side by side, and whether they differ on the same images.

    Each difference from the reference comes with an interval from the same resampled patients, a permutation test of
    the two trained models and a corrected t test of the two methods; what a test cannot show is refused with the
    reason. p values are adjusted for all comparisons (Holm).

    Example: cxrtool compare runs/vgg16 runs/densenet201 --baseline runs/thumbnail -o comparison
    """
    from cxrtool.cli.console import check_format, print_tables
    from cxrtool.commands import compare as step
    from cxrtool.evaluation.comparison import tables

    check_format(style)
    settings = options.settings(ctx)
    found = step.compare(options.collect(ctx, step.CompareOptions), settings)
    if found:
        print_tables(found, tables, step.dump_comparison, style, digits, settings.report)
