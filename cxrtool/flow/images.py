"""The images that a command reads: single ones, folders, manifests, lists of paths, in any number and mixture.

An image that a step wrote has its row of the manifest of that step, however it was named: alone, by its folder or in a
list. So its id, its patient and the digest of its radiograph are known, and a model recognises what it was trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.confinement import is_inside
from cxrtool.data.file_names import MANIFEST
from cxrtool.data.files import is_stream, no_such
from cxrtool.data.tables.ids import Naming, safe_name, stem_of, unique_ids
from cxrtool.data.tables.manifest import SUFFIXES, Manifest, Row, order_columns, read_manifest
from cxrtool.errors import InputError, count_of
from cxrtool.flow.origins import step_folder
from cxrtool.flow.settings import Settings

RAW = ("image_id", "path", "label")
"""The columns of images without a manifest."""


@dataclass(frozen=True)
class _Image:
    """An image, and the argument that gave it; the id of a raw image is still to be made of its naming."""

    row: Row
    source: Path
    naming: Naming
    raw: bool


def read_images(arguments: Path | str | Sequence[Path | str], settings: Settings) -> Manifest:
    """The images of all arguments, each once, with ids that are unique.

    An argument is an image, a folder of images, a step's folder, a manifest (.csv or .tsv), a list of paths (.txt), or
    a stream with a manifest or a list. Raw images have their subfolder's name as label. An image in a list that does
    not exist has a row, too: it is rejected when it is read.

    Raises:
        InputError: An argument does not exist, is no manifest, or has no image; or an image is outside `--root`.
    """
    given = [arguments] if isinstance(arguments, Path | str) else arguments
    sources = list(dict.fromkeys(map(Path, given)))
    again = [str(source) for source, count in Counter(map(Path, given)).items() if count > 1]
    if len(sources) == 1 and is_manifest(sources[0]):
        return read_manifest(sources[0], root=settings.root)
    for source in sources:
        if not is_stream(source) and not source.exists():
            raise InputError(no_such(source, "image, folder or manifest"))
    listed = {source: _of_manifest(source, settings) for source in sources if is_manifest(source)}
    found = {**_list([source for source in sources if source not in listed], settings), **listed}
    images = _once([image for source in sources for image in found.get(source, [])], again, settings)
    rows = _with_unique_ids(images)
    columns = list(RAW) if all(image.raw for image in images) else order_columns(RAW, rows)
    origin = sources[0] if len(sources) == 1 and not is_stream(sources[0]) else None
    name = f"the {len(sources)} inputs" if len(sources) > 1 else "the list of images"
    return Manifest(columns, rows, origin, stream=name)


def is_manifest(source: Path) -> bool:
    """Whether an argument is read as a manifest: a table, a step's folder, or a stream that is no list of paths."""
    if is_stream(source):
        from cxrtool.data.datasets.paths import is_list

        return not is_list(source)
    return source.suffix.lower() in SUFFIXES or (source / MANIFEST).is_file()


def _of_manifest(source: Path, settings: Settings) -> list[_Image]:
    table = read_manifest(source, root=settings.root)
    return [_known_image(row, source) for row in table.rows]


def _known_image(row: Row, source: Path) -> _Image:
    folder = source if source.is_dir() else Path(row["path"]).parent
    return _Image(row, source, Naming(row["image_id"], folder.name, row["path"]), raw=False)


def _list(sources: Sequence[Path], settings: Settings) -> dict[Path, list[_Image]]:
    """The images of each source that is no manifest."""
    from cxrtool.data.datasets.listing import default_source, list_images, printable, real_place
    from cxrtool.data.datasets.record import Request

    if not sources:
        return {}
    listing = list_images(sources, None, Request(), None)
    known = _Known(settings.root)
    folders = {source: default_source(source) for source in sources if source.is_dir()}
    found: dict[Path, list[_Image]] = {}
    for record in listing.records:
        if settings.root and not is_inside(record.path, settings.root):
            raise InputError(f"{record.path} is outside --root {settings.root}")
        source = record.listed_in or record.path
        row = known.row_of(record.path)
        if row:
            found.setdefault(source, []).append(_known_image(row, source))
            continue
        # From the folder's name on, the path is the same on every machine.
        relative = f"{folders[source]}/{record.relative}" if source in folders else printable(real_place(record.path))
        naming = Naming(stem_of(record.path.name), record.path.parent.name, relative)
        row = {name: record.columns.get(name, "") for name in RAW}
        found.setdefault(source, []).append(_Image(row, source, naming, raw=True))
    for remark in listing.remarks:
        settings.report.say(remark)
    if listing.skipped:
        files, example = count_of(len(listing.skipped), "file"), listing.skipped[0].name
        settings.report.say(f"{files} skipped by name, such as {example}: no image has such a name")
    return found


class _Known:
    """The rows of images that a step wrote, by their paths."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._folders: dict[Path, Mapping[str, Row]] = {}

    def row_of(self, path: Path) -> Row | None:
        """The row of an image in the manifest of its step; None where it has none."""
        if path.parent not in self._folders:
            step = step_folder([{"path": str(path)}])
            rows = read_manifest(step, root=self._root).rows if step else []
            self._folders[path.parent] = {row["path"]: row for row in rows}
        return self._folders[path.parent].get(str(path))


def _once(images: Sequence[_Image], again: Sequence[str], settings: Settings) -> list[_Image]:
    """The images without those that an earlier source has; one manifest may list a file twice.

    Reports them, and `again`, the sources that were given before.
    """
    from cxrtool.data.datasets.paths import listed_again

    first: dict[str, Path] = {}
    kept = [image for image in images if first.setdefault(image.row["path"], image.source) == image.source]
    chosen = set(map(id, kept))
    repeated = [*again, *(image.row["path"] for image in images if id(image) not in chosen)]
    if repeated:
        settings.report.say(listed_again(repeated))
    return kept


def _with_unique_ids(images: Sequence[_Image]) -> list[Row]:
    """The rows; where several images have one id, it gets their folder before it, as in `prepare`."""
    names = unique_ids([image.naming for image in images])
    # An id of a manifest that is unique stays, whatever its characters.
    return [
        image.row if not image.raw and name == safe_name(image.naming.stem) else {**image.row, "image_id": name}
        for image, name in zip(images, names, strict=True)
    ]
