"""`cxrtool select`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


def select(
    ctx: typer.Context,
    manifests: Annotated[
        list[Path],
        typer.Argument(help="Manifests or steps' folders to join, or - for standard input.", metavar="MANIFEST..."),
    ],
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="SQL", help="Rows for which this SQLite expression holds.", show_default=False),
    ] = None,
    relabel: Annotated[
        list[str] | None,
        typer.Option("--relabel", metavar="OLD,OLD=NEW", help="Rename or join labels; repeatable.", show_default=False),
    ] = None,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="One of each set of images with identical pixels.")
    ] = False,
    one_per: Annotated[
        str | None,
        typer.Option("--one-per", metavar="COLUMN", help="One image a patient, a study, ….", show_default=False),
    ] = None,
    per_class: Annotated[
        str | None,
        typer.Option(
            "--per-class",
            metavar="N|smallest",
            help="Draw so many images of each class, or as many as the smallest has.",
            show_default=False,
        ),
    ] = None,
    fraction: Annotated[
        float | None, typer.Option("--fraction", help="Draw this share of each class.", show_default=False)
    ] = None,
    out: options.Out = None,
    seed: options.Seed = 0,
    root: options.Root = None,
    verify: options.Verify = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    config: options.Config = None,
) -> None:
    """Choose, relabel, thin out or join the rows of manifests.

    The options work in the order of this page. With -o FILE.csv the selection goes to a file, with -o FOLDER to a
    folder that also lists what was left out and why, without -o to standard output. In --where every column is a
    name, a text stands in single quotes, and an empty cell in a column of numbers is NULL.

    Example: cxrtool select prepared --where "view = 'PA' and age >= 18" --one-per patient_id -o adults.csv
    """
    from cxrtool.commands import select as step
    from cxrtool.data.tables.manifest import order_columns, print_manifest

    settings = options.settings(ctx)
    selection = step.select(options.collect(ctx, step.SelectOptions), settings)
    if selection is None:
        return
    for text in selection.warnings:
        settings.report.warn(text)
    left = f", {len(selection.rejects)} left out" if selection.rejects else ""
    where = f", see {out / 'rejects.csv'}" if left and out and out.suffix.lower() != ".csv" else ""
    settings.report.say(f"{len(selection.rows)} images{left}{where}")
    if out is None:
        print_manifest(sys.stdout, order_columns(selection.columns, selection.rows), selection.rows)
