"""`cxrtool segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


def segment(
    ctx: typer.Context,
    manifest: options.ManifestFile,
    out: options.Out = None,
    lungs: Annotated[
        Path | None,
        typer.Option(
            "--lungs",
            metavar="PART",
            help="A lung network from `cxrtool fit lungs`.",
            show_default="the one that comes with cxrtool",
        ),
    ] = None,
    crop: Annotated[
        bool, typer.Option("--crop", help="Cut every picture to its lungs, at its own resolution.")
    ] = False,
    margin: Annotated[float, typer.Option("--margin", help="What --crop leaves on each side, as a share.")] = 0.025,
    margin_of: Annotated[
        str, typer.Option("--margin-of", help="Of what: image (its sides) or box (the rectangle's).")
    ] = "image",
    apply_mask: Annotated[bool, typer.Option("--apply-mask", help="Black out what is outside of the lungs.")] = False,
    erase_lungs: Annotated[bool, typer.Option("--erase-lungs", help="Black out the lungs.")] = False,
    tta: Annotated[bool, typer.Option("--tta", help="Average with the answer for the mirror image.")] = False,
    threshold: Annotated[float, typer.Option("--threshold", help="Probability above which a pixel is lung.")] = 0.5,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at once.")] = 16,
    sheet: Annotated[int, typer.Option("--sheet", min=0, help="Images on a contact sheet; 0 makes none.")] = 24,
    max_pixels: options.MaxPixels = None,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    root: options.Root = None,
    config: options.Config = None,
    force: options.Force = False,
    verify: options.Verify = False,
    dry_run: options.DryRun = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the lungs; crop to them, keep them alone, or erase them.

    Writes masks/ at the size of each picture, contact sheets, and a manifest that says how large each mask is, how well
    it agrees with a mask that was there before, and where it can hardly be that of two lungs. Pictures are written anew
    only where their pixels change.

    Example: cxrtool segment prepared --crop -o cropped
    """
    from cxrtool.flow import segmenting as step

    step.segment(options.collect(ctx, step.SegmentOptions), options.settings(ctx))
