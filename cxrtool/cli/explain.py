"""`cxrtool explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


def explain(
    ctx: typer.Context,
    model: Annotated[
        Path, typer.Argument(help="A run, which explains each image by the fold that tested it; or a model folder.")
    ],
    source: Annotated[
        str, typer.Argument(help="An image, a folder, a manifest, or - for standard input.", metavar="INPUT")
    ],
    out: options.Out = None,
    method: Annotated[
        str, typer.Option("--method", help="grad-cam; or cam, for networks with a pooled linear output.")
    ] = "grad-cam",
    target: Annotated[
        str,
        typer.Option(
            "--target", metavar="CLASS", help="The class to explain: predicted, opposite (the next best), or a name."
        ),
    ] = "predicted",
    layer: Annotated[
        str | None,
        typer.Option("--layer", metavar="NAME", help="The module to look at.", show_default="last map before pooling"),
    ] = None,
    inside_lungs: Annotated[
        bool, typer.Option("--inside-lungs", help="Show maps inside the masks alone; figures stay those of the whole.")
    ] = False,
    over: Annotated[
        str, typer.Option("--over", help="Lay maps over the model's input, or over the original picture as given.")
    ] = "input",
    scale: Annotated[
        str, typer.Option("--scale", help="Colours: image (each its own maximum) or run (one maximum for all).")
    ] = "image",
    subset: Annotated[
        str, typer.Option("--subset", help="Images of a run: test, validation, or all of both.")
    ] = "test",
    positive: options.Positive = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            "--beside",
            metavar="FOLDER",
            help="Heatmaps of the same images to show beside and compare with.",
            show_default=False,
        ),
    ] = None,
    check_randomised: Annotated[
        bool,
        typer.Option("--check-randomised", help="Do the maps change when what was learnt is replaced by chance?"),
    ] = False,
    sheet: Annotated[int, typer.Option("--sheet", min=0, help="Images on a contact sheet; 0 makes none.")] = 16,
    partial: options.Partial = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at once.")] = 16,
    max_pixels: options.MaxPixels = None,
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
    """Show where a network looks, and measure whether it is the lungs.

    Writes maps/ (raw, float32), overlays/, contact sheets, and a manifest with the peak of every map and, where there
    are masks, the share of its energy inside them. Heatmaps of training images are marked as such. A model of twins
    shows of each image why it is called so and why it might be called the opposite, side by side.

    Example: cxrtool explain run prepared -o heatmaps --check-randomised
    """
    from cxrtool.flow import heatmaps as step
    from cxrtool.flow.heatmaps.options import ExplainOptions

    step.explain(options.collect(ctx, ExplainOptions), options.settings(ctx))
