"""`cxrtool audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


def audit(
    ctx: typer.Context,
    manifest: options.ManifestFile,
    splits: Annotated[
        Path | None,
        typer.Option("--splits", help="The division to look at.", show_default="that of --run, else five folds"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN|CSV", help="The model to look at, or its predictions.", show_default=False),
    ] = None,
    external: Annotated[
        Path | None,
        typer.Option(
            "--external", metavar="MANIFEST", help="Images from elsewhere, with the same labels.", show_default=False
        ),
    ] = None,
    stages: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            metavar="NAME=MANIFEST",
            help="The same images after another step: can the source still be told? May be given several times.",
            show_default=False,
        ),
    ] = None,
    probes: Annotated[
        str | None,
        typer.Option(
            "--probes",
            metavar="NAMES",
            help="Among size-and-shape, border, centre-blacked, lungs-erased, mask-shape, metadata, lungs-only and "
            "thumbnail.",
            show_default="all",
        ),
    ] = None,
    permutations: Annotated[
        int, typer.Option("--permutations", min=100, help="Of the labels, to know what chance alone would reach.")
    ] = 200,
    images: Annotated[
        int, typer.Option("--images", min=0, help="Test images for heatmaps and covered corners; 0 for neither.")
    ] = 100,
    quick: Annotated[bool, typer.Option("--quick", help="Only what needs no training.")] = False,
    partial: options.Partial = False,
    max_pixels: options.MaxPixels = None,
    style: options.Format = "table",
    out: options.Out = None,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    root: options.Root = None,
    config: options.Config = None,
    force: options.Force = False,
    verify: options.Verify = False,
    dry_run: options.DryRun = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what an accuracy is worth: leaks, confounding, shortcuts.

    Looks for patients and pictures on two sides, for what else tells the label, and for how far classifiers get that
    see no lung, on the model's own splits; for heatmaps beside the lungs, and for what becomes of it elsewhere. With -o
    a page (audit.html) and audit.json are written, whose summary evaluate, compare and report repeat. Exit code 4: a
    patient or a picture is on two sides.

    Example: cxrtool audit prepared --run run --external elsewhere -o audit
    """
    from cxrtool.auditing import summary
    from cxrtool.cli.console import check_format, print_tables
    from cxrtool.commands import audit as step
    from cxrtool.commands.audit.options import AuditOptions
    from cxrtool.errors import LeakageError

    check_format(style)
    settings = options.settings(ctx)
    found = step.audit(options.collect(ctx, AuditOptions), settings)
    if found:
        print_tables(found, summary, step.dump_audit, style, 2, settings.report)
        if leaking := step.leaks(found):
            raise LeakageError(leaking, "cxrtool split keeps patients and equal pictures on one side")
