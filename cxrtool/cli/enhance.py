"""`cxrtool enhance`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


def enhance(
    ctx: typer.Context,
    manifest: options.ManifestFile,
    steps: Annotated[
        str,
        typer.Option(
            "--steps", metavar="A,B,C", help="Some of match-histogram, suppress-ribs and clahe, in the order wanted."
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="IMAGE",
            help="The picture whose histogram the others are given; it goes through the steps before the match too.",
            show_default="the one nearest to the mean histogram",
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(
            "--splits",
            help="Choose the reference in each fold, among its training images; the images are then written for each "
            "fold.",
            show_default="choose it among all images",
        ),
    ] = None,
    ribs: Annotated[
        Path | None,
        typer.Option(
            "--ribs",
            metavar="PART",
            help="A rib network that `fit ribs` or `weights import` made.",
            show_default="the one that comes with cxrtool",
        ),
    ] = None,
    clahe_clip: Annotated[
        float, typer.Option("--clahe-clip", help="The most that a grey level counts, in means over all levels.")
    ] = 2.0,
    clahe_tiles: Annotated[
        int, typer.Option("--clahe-tiles", min=1, max=64, help="Tiles a row and a column that are equalised each.")
    ] = 8,
    strips: Annotated[
        int, typer.Option("--strips", min=0, max=50, help="Images whose every step is shown in strips.png; 0 for none.")
    ] = 4,
    out: options.Out = None,
    workers: options.Workers = None,
    root: options.Root = None,
    strict: options.Strict = False,
    verify: options.Verify = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    config: options.Config = None,
) -> None:
    """Match histograms, suppress ribs, equalise contrast, in any order.

    Writes images/ of the same size and depth, manifest.csv, strips.png (what each step made of a few images) and
    rejects.csv. Masks stay valid, since no pixel moves. With --splits the histogram's reference of each fold is one of
    its training images, the images are in images/rRfF/, and `train` takes for each fold its own.

    Example: cxrtool enhance prepared --steps match-histogram,suppress-ribs,clahe --splits splits.csv -o enhanced
    """
    from cxrtool.commands import enhance as step

    step.enhance(options.collect(ctx, step.EnhanceOptions), options.settings(ctx))
