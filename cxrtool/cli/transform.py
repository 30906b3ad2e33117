"""`cxrtool transform`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options


def transform(
    ctx: typer.Context,
    manifest: options.ManifestFile,
    generators: Annotated[
        Path,
        typer.Option("--generators", metavar="RUN", help="What `fit generators` wrote, or one fold's folder in it."),
    ],
    out: options.Out = None,
    only: options.Only = None,
    strips: Annotated[
        int, typer.Option("--strips", min=0, max=50, help="Images shown beside their twins in twins.png; 0 for none.")
    ] = 4,
    threads: options.Threads = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    cache: options.Cache = None,
    root: options.Root = None,
    config: options.Config = None,
    allow_leakage: options.Leakage = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    strict: options.Strict = False,
    verify: options.Verify = False,
    quiet: options.Quiet = False,
) -> None:
    """Write what generators make of every image, fold by fold.

    Writes images/rRfF/, a twin of every image for every generator of the fold, of the depth that the image has; masks/,
    at the twins' size; manifest.csv, twins.png and rejects.csv. `train` on that folder tells apart every pair of a
    label and a generator. To train without writing 25 folds of pictures, give the images and --transform RUN to `train`
    instead: the networks are the same.

    Example: cxrtool transform cropped --generators generators -o twins
    """
    from cxrtool.commands import transform as step

    step.transform(options.collect(ctx, step.TransformOptions), options.settings(ctx))
