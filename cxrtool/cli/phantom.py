"""`cxrtool phantom`."""

from __future__ import annotations

from typing import Annotated

import typer

from cxrtool.cli import options


def phantom(
    ctx: typer.Context,
    count: Annotated[int, typer.Option("--count", min=1, help="Radiographs; some patients have two or three.")] = 100,
    size: Annotated[
        int, typer.Option("--size", min=64, max=4096, help="Side in pixels, more or less, as the sources differ.")
    ] = 256,
    classes: Annotated[
        str,
        typer.Option(
            "--classes", metavar="NAMES", help="Among normal, pathological, covid, viral and bacterial; equal shares."
        ),
    ] = "normal,pathological,covid",
    sources: Annotated[
        str | None,
        typer.Option(
            "--sources",
            metavar="NAMES",
            help="Where they come from: look, size, letters and kind of file; county=4,archive=1 gives them weights.",
            show_default="all there are",
        ),
    ] = None,
    children: Annotated[
        float, typer.Option("--children", min=0, max=1, help="Share of patients under 13; the others are adults.")
    ] = 0.2,
    plant: Annotated[
        str | None,
        typer.Option(
            "--plant",
            metavar="NAMES",
            help="Shortcuts to plant: marker, border, size, source or age tells the class; duplicate or near-duplicate "
            "patients return under another id in another subset.",
            show_default="none",
        ),
    ] = None,
    plant_strength: Annotated[
        float, typer.Option("--plant-strength", min=0, max=1, help="Share of images that follow what is planted.")
    ] = 1.0,
    truth: Annotated[
        str,
        typer.Option(
            "--truth",
            help="Pictures of the truth: all (each lung, heart, lesions, no ribs), masks (both lungs) or none.",
        ),
    ] = "all",
    out: options.Out = None,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    config: options.Config = None,
) -> None:
    """Draw chest radiographs from anatomy, with the truth about each.

    Writes a folder laid out as a real set is: images/CLASS/ in the kinds of files that the sources write, masks/,
    metadata.csv; and, as no real set can, truth/ and truth.csv with the place, kind and extent of every lesion. Unless
    a shortcut is planted, nothing but the lesions tells the class. The same seed gives the same bytes.

    Example: cxrtool phantom --count 300 -o phantoms
    """
    from cxrtool.commands import phantom as step

    step.phantom(options.collect(ctx, step.PhantomOptions), options.settings(ctx))
