"""`cxrtool predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


def predict(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="A model folder, or a run, whose folds answer together.")],
    source: Annotated[
        str, typer.Argument(help="An image, a folder, a manifest, or - for standard input.", metavar="INPUT")
    ],
    out: options.Out = None,
    members: Annotated[bool, typer.Option("--members", help="A row for each fold of a run, not their mean.")] = False,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Each model's answer at the temperature of its own validation images.")
    ] = False,
    tta: Annotated[bool, typer.Option("--tta", help="Average with the answer for the mirror image.")] = False,
    partial: options.Partial = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at once.")] = 32,
    max_pixels: options.MaxPixels = None,
    threads: options.Threads = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    root: options.Root = None,
    config: options.Config = None,
    allow_leakage: options.Leakage = False,
    dry_run: options.DryRun = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask a model about an image, a folder or a manifest.

    Prints a table with the probability of every class, or writes it with -o. Raw images go through all that the model's
    training images went through. A warning beside an answer says that the picture is unlike those.

    Example: cxrtool predict run new-images -o answers.csv
    """
    from cxrtool.commands import predict as step

    step.predict(options.collect(ctx, step.PredictOptions), options.settings(ctx))
