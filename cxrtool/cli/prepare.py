"""`cxrtool prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options
from cxrtool.data.datasets import ADAPTERS


def prepare(
    ctx: typer.Context,
    sources: Annotated[
        list[Path], typer.Argument(help="Folders of images, tables that name images, or images.", metavar="SOURCE...")
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="How the data are laid out: folder (the class is the last folder's name), csv (any table that names "
            "images), or a published set as it is downloaded: "
            f"{', '.join(name for name in ADAPTERS if name not in ('folder', 'csv'))}.",
            show_default="csv for a table, else folder",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option("--like", metavar="MODEL", help="Size and fit of this model's images.", show_default=False),
    ] = None,
    size: Annotated[str, typer.Option("--size", help="Side in pixels, or native for images as they are.")] = "native",
    fit: Annotated[
        str,
        typer.Option(
            "--fit",
            help="How an image becomes square: squash (as the published systems do), pad with black (its border "
            "tells the proportions, and so perhaps the source), crop the middle (may cut lungs).",
        ),
    ] = "squash",
    view: Annotated[
        str | None,
        typer.Option(
            "--view", metavar="PA,AP", help="Only these views; unknown stands for a missing one.", show_default=False
        ),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=1, help="Refuse larger images, from their header alone.")
    ] = 100_000_000,
    path_column: Annotated[
        str | None,
        typer.Option("--path-column", help="The table's column of files.", show_default="path, file, filename, …"),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option("--label-column", help="The table's column of classes.", show_default="label, class, finding, …"),
    ] = None,
    patient_column: Annotated[
        str | None,
        typer.Option("--patient-column", help="The table's column of patients.", show_default="patient_id, patient, …"),
    ] = None,
    source_name: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="NAME", help="Name of the data set.", show_default="the table's, else the folder's"
        ),
    ] = None,
    salt: Annotated[
        str | None,
        typer.Option(
            "--salt",
            envvar="CXRTOOL_SALT",
            help="Hash patient ids with this secret, which is not written down.",
            show_default=False,
        ),
    ] = None,
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
    """Read radiographs of any kind into grey PNGs and a manifest.

    Reads PNG, JPEG, TIFF, BMP and DICOM by their content, checks that every file is whole, turns it upright, and
    writes images/, masks/ where the data have masks, manifest.csv, duplicates.csv, and rejects.csv with the reason for
    each file that could not be read or that a published set leaves out. Sources are never touched.

    Example: cxrtool prepare covid-cxr/metadata.csv --size 512 -o prepared
    """
    from cxrtool.commands import prepare as step

    step.prepare(options.collect(ctx, step.PrepareOptions), options.settings(ctx))
