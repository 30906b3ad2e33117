"""Read the inputs of commands: models, runs, images, manifests."""

from __future__ import annotations

from pathlib import Path

from cxrtool.data.file_names import MANIFEST
from cxrtool.data.tables.manifest import Manifest, read_manifest
from cxrtool.errors import InputError
from cxrtool.flow import run as runs
from cxrtool.flow.settings import Settings


def model_folders(argument: Path, *, partial: bool) -> list[Path]:
    """The model folders of a model or a run.

    Raises:
        InputError: It is neither.
        IncompleteError: A run lacks folds and `partial` is false.
    """
    if runs.is_model(argument):
        return [argument]
    if runs.is_run(argument):
        return [argument / runs.fold_name(*pair) for pair in runs.check_whole(argument, partial=partial)]
    raise InputError(
        f"{argument}: expected a model folder or a run, found {'another folder' if argument.is_dir() else 'neither'}",
        "`cxrtool train -o RUN` makes a run; each RUN/rRfF in it is a model folder",
    )


def read_source(argument: str, settings: Settings) -> Manifest:
    """Read images, a folder or a manifest as a manifest; raw images get an id, and their subfolder's name as label.

    Raises:
        InputError: There is no such file or folder, no image in it, or an image outside `--root`.
    """
    from cxrtool.data.datasets.listing import list_images
    from cxrtool.data.datasets.record import Request

    path = Path(argument)
    if argument == "-" or path.suffix.lower() in (".csv", ".tsv") or (path / MANIFEST).is_file():
        return read_manifest(argument, root=settings.root)
    if not path.exists():
        raise InputError(f"{argument}: no such image, folder or manifest")
    listing = list_images([path], None, Request(), None)
    for record in listing.records:
        if settings.root and not record.path.resolve().is_relative_to(settings.root.resolve()):
            raise InputError(f"{record.path} is outside --root {settings.root}")
    if listing.skipped:
        settings.report.say(f"{len(listing.skipped)} files were skipped: their names are not those of images")
    columns = ["image_id", "path", "label"]
    rows = [{name: record.columns.get(name, "") for name in columns} for record in listing.records]
    return Manifest(columns, rows, path)
