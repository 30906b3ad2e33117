"""Convert radiographs of any format to grey PNGs with a manifest.

Reads PNG, JPEG, TIFF, BMP and DICOM by their content, checks that every file is complete, turns it upright, and
writes images/, masks/ where the data have masks, manifest.csv, duplicates.csv, and rejects.csv with the reason for
each file that could not be read or that was excluded. Source files are never changed.

Example: cxrtool prepare covid-cxr/metadata.csv --size 512 -o prepared
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.data.confinement import is_inside
from cxrtool.data.datasets import ADAPTERS
from cxrtool.data.datasets.listing import AUTO, ORIGINAL, TABLES, Listing, list_images, printable
from cxrtool.data.datasets.pseudonyms import HIDDEN, hide_names, without_names
from cxrtool.data.datasets.record import BESIDE, Record, Request
from cxrtool.data.datasets.table import AMBIGUOUS, STANDARD, parse_columns
from cxrtool.data.file_names import MANIFEST, MODEL, REJECTS
from cxrtool.data.splitting.grouping import count_patients, identities
from cxrtool.data.structured import load_json
from cxrtool.data.tables.ids import patient_id
from cxrtool.data.tables.labels import warn_of_spellings
from cxrtool.data.tables.manifest import Row, read_table, write_table
from cxrtool.data.tables.views import Columns, Packed, RowView, columns_of
from cxrtool.errors import ImageError, InputError, NothingReadError, UsageError, count_of
from cxrtool.flow.cluster import Cluster
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder, read_run_file
from cxrtool.flow.parallel import map_items
from cxrtool.flow.settings import READING, RUNNING, SCALING, Settings
from cxrtool.imaging.fits import FITS, NATIVE
from cxrtool.options import Options, argument, option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cxrtool.data.reading.radiograph import Grey

KINDS = ("images", "masks", *BESIDE)
"""The folders of written images."""


def read_one(
    record: Record, *, target: Path, size: int | str, fit: str, max_pixels: int, root: Path | None
) -> dict[str, Any]:
    """Read one image and its mask, bring them to size and write them below `target`; run in a worker process.

    Returns:
        Values for the manifest, and in `files` the number of bytes of each file, so that a later run can check them.

    Raises:
        ImageError: The image cannot be read.
    """
    from cxrtool.data.reading.dicom import TURNED
    from cxrtool.data.reading.images import read_image, write_png
    from cxrtool.imaging.hashing import dhash, pixel_sha256
    from cxrtool.imaging.resize import prepare_pixels

    _confine(record.path, root)
    if record.header:
        _confine(record.header, root)
    radiograph = read_image(record.path, max_pixels=max_pixels, capture_decoder_errors=True, header=record.header)
    pixels = radiograph.pixels
    height, width = pixels.shape

    def write(folder: str, values: Grey, *, mask: bool = False) -> None:
        made["files"][name_of(folder, record.image_id)] = write_png(
            target / name_of(folder, record.image_id), values, mask=mask
        )

    made: dict[str, Any] = {
        "width": width,
        "height": height,
        "sha256": pixel_sha256(pixels),
        "dhash": dhash(pixels),
        "tags": radiograph.tags,
        "warnings": radiograph.warnings,
        "files": {},
    }
    write("images", prepare_pixels(pixels, size, fit))
    if record.masks:
        try:
            for file in record.masks:
                _confine(file, root)
            write("masks", _read_mask(record.masks, (height, width), size, fit, max_pixels), mask=True)
            if TURNED in radiograph.warnings:
                radiograph.warnings.append("its mask is in a file of its own and was not turned with it")
        except ImageError as error:
            radiograph.warnings.append(f"mask excluded: {error.message}")
    for column, file in record.beside.items():
        try:
            _confine(file, root)
            if column == "ribless":
                write(column, _read_ribless(file, (height, width), size, fit, max_pixels))
            else:
                write(column, _read_mask((file,), (height, width), size, fit, max_pixels), mask=True)
        except ImageError as error:
            radiograph.warnings.append(f"{BESIDE[column]} excluded: {error.message}")
    return made


def _read_mask(
    files: Sequence[Path], shape: tuple[int, int], size: int | str, fit: str, max_pixels: int
) -> NDArray[np.uint8]:
    from cxrtool.data.reading.mask_files import read_mask
    from cxrtool.imaging.resize import prepare_mask
    from cxrtool.imaging.view import check_proportions

    mask = read_mask(files, max_pixels=max_pixels)
    # A difference of a pixel by rounding is resampled; a mask of other proportions belongs to another image.
    check_proportions(mask, shape, "it")
    return prepare_mask(mask, *shape, size, fit)


def _read_ribless(file: Path, shape: tuple[int, int], size: int | str, fit: str, max_pixels: int) -> Grey:
    """The image without ribs at the size of its original, with the same geometry."""
    from cxrtool.data.reading.images import read_image
    from cxrtool.imaging.resize import prepare_pixels, resample
    from cxrtool.imaging.view import check_proportions

    pixels = read_image(file, max_pixels=max_pixels, capture_decoder_errors=True).pixels
    check_proportions(pixels, shape, "it")
    return prepare_pixels(resample(pixels, *shape), size, fit)


def _confine(path: Path, root: Path | None) -> None:
    if root is not None and not is_inside(path, root):
        raise ImageError(f"it is outside --root {root}")


def name_of(folder: str, image_id: str) -> str:
    """The name of a written image, relative to the output; `folder` is one of `KINDS`."""
    return f"{folder}/{image_id}.png"


VERSION = 2
"""Increased when the same options would give other pixels."""

SIZES = range(16, 8193)
UNKNOWN_VIEW = "UNKNOWN"
DUPLICATES = "duplicates.csv"
COLUMNS = (
    "image_id",
    "path",
    "label",
    "patient_id",
    "severity",
    "source",
    "view",
    "age",
    "sex",
    "mask",
    "width",
    "height",
    "sha256",
    "dhash",
    "warning",
)
"""Columns of every manifest of `prepare`, empty where unknown; other columns of a table pass through."""

_SHOWN = 6
"""Classes and kinds of warnings that the summary lists."""


@dataclass(frozen=True)
class PrepareOptions(Options):
    """The options of `prepare`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "workers", *SCALING, *READING, *RUNNING)

    sources: tuple[Path, ...] = argument(
        "Folders of images, tables or lists (.txt) of images, images, or - for standard input: a table or a list.",
        metavar="SOURCE...",
        effect=False,
    )
    dataset: str | None = option(
        "The layout of the data: {choices}. In folder the class is the last folder's name, csv is any table that lists "
        "images, auto the published set that the layout fits, the others are published sets as they are downloaded.",
        None,
        choices=lambda: [AUTO, *ADAPTERS],
        shown="csv for a table or a folder with metadata.csv, else folder",
    )
    like: Path | None = option("Size and fit of this model's images.", None, metavar="MODEL", shown="", effect=False)
    size: str = option("Side in pixels, or native for images as they are.", NATIVE)
    fit: str = option(
        "How an image becomes square: {choices}. The published systems squash; pad adds a black border, which shows "
        "the proportions and so perhaps the source; crop keeps the centre and may cut off parts of the lungs.",
        "squash",
        choices=FITS,
    )
    view: str | None = option("Only these views; unknown means a missing one.", None, metavar="PA,AP", shown="")
    max_pixels: int = option("Refuse larger images, from their header alone.", 100_000_000, minimum=1)
    images: Path | None = option(
        "The folder, with its subfolders, of the images that a table names; a name needs no extension.",
        None,
        metavar="FOLDER",
        shown="beside the table",
        # The files that are found are part of the digest.
        effect=False,
    )
    columns: str | None = option(
        "Columns of a table that have other names, such as path=Bild,label=Befund; the names are {choices}.",
        None,
        choices=STANDARD,
        closed=False,
        metavar="NAME=COLUMN,...",
        shown="path, file, label, class, …",
    )
    source_name: str | None = option(
        "Name of the data set.", None, flags=("--source",), metavar="NAME", shown="the table's, else the folder's"
    )
    salt: str | None = option(
        "Replace patient ids and the names of files and folders by hashes with this secret, which is not stored.",
        None,
        shown="",
        envvar="CXRTOOL_SALT",
        # The plan has a short digest of it instead.
        effect=False,
    )


def run(options: PrepareOptions, settings: Settings) -> None:
    """Prepare."""
    prepare(options, settings)


def prepare(options: PrepareOptions, settings: Settings) -> int | None:
    """Read every image of the sources and write it as grey PNG, with a manifest.

    Returns:
        The number of images, or None where there was nothing to do.

    Raises:
        UsageError: An option has a value that it cannot have.
        InputError: A source is missing or has no images.
        StrictError: `--strict`, and a file could not be read.
    """
    size, fit = _shape(options, settings)
    views = _views(options.view)
    listing = _list(options, settings)
    folder = StepFolder(settings.out, _plan(options, settings, listing, size, fit), _without_salt(settings, options))
    if not folder.needs_work():
        if not settings.dry_run and not len(read_table(folder.out / MANIFEST)):
            raise _nothing_read(listing, folder)
        return None
    if listing.skipped:
        settings.report.say(f"files skipped because their names are not those of images: {len(listing.skipped)}")
    for remark in listing.remarks:
        settings.report.say(remark)
    if options.salt is not None:
        settings.report.say(_what_stays(listing))
    for warning in listing.warnings:
        settings.report.warn(warning)
    for table in listing.unread_tables(options.sources):
        settings.report.warn(f"{table} is not read; `cxrtool prepare {shlex.quote(str(table))}` reads it")
    with folder.build() as build:
        work = partial(
            read_one, target=build.path, size=size, fit=fit, max_pixels=options.max_pixels, root=settings.root
        )
        rows, unwanted = _read_all(listing, build, work, views, settings, options.salt)
        if build.is_part:
            build.put_aside(len(rows))
            return None
        if not rows and (images := _earlier(folder)):
            first = build.rejects[0]
            kept = f"{folder.shown} with its {count_of(images, 'image')} stays as it is"
            found = len(listing.records), first["path"], first["reason"]
            raise NothingReadError("the sources", *found, hint=kept)
        counts = {"inputs": len(listing.records), "skipped": len(listing.skipped), **_report(rows, build, settings)}
        wanted = unwanted == len(build.rejects)
        reported = _report_rejects(build, settings, wanted=wanted)
        build.finish([*COLUMNS, *listing.columns], rows, counts=counts, wanted=wanted or reported)
    if not rows:
        raise _nothing_read(listing, folder)
    return len(rows)


def _earlier(folder: StepFolder) -> int:
    """The number of images in the output that stands there already."""
    made = read_run_file(folder.shown)
    return int(made["counts"]["images"]) if made and isinstance(made.get("counts"), dict) else 0


def _what_stays(listing: Listing) -> str:
    """What `--salt` leaves as it is."""
    further = [name for name in listing.columns if name not in (*COLUMNS, ORIGINAL)]
    known = [name for name in ("severity",) if name in listing.columns]
    kept = ["label", "source", "view", "age", "sex", *known, *further]
    return (
        "--salt: image ids, original names and patient ids are hashes; "
        f"as they are: {', '.join(kept)}, the pixels, and the paths in the command line of run.json"
    )


def _nothing_read(listing: Listing, folder: StepFolder) -> InputError:
    # A table without its images is the most common reason.
    absent = any(record.listed_in and record.listed_in.is_file() for record in listing.records) and not any(
        record.path.exists() for record in listing.records
    )
    return InputError(
        f"expected an image that can be read, found none among {len(listing.records)}",
        f"each is listed with its reason in {folder.shown / REJECTS}"
        + ("; --images FOLDER names the folder of a table's images" if absent else ""),
    )


def _list(options: PrepareOptions, settings: Settings) -> Listing:
    # The output may be inside the source, and must not become its own input.
    exclude = frozenset({settings.out.resolve()} if settings.out else ())
    request = Request(parse_columns(options.columns), options.images, exclude, _views(options.view))
    listing = list_images(options.sources, options.dataset, request, options.source_name)
    if options.salt is not None:
        hide_names(listing, options.salt)
    return listing


def _plan(options: PrepareOptions, settings: Settings, listing: Listing, size: int | str, fit: str) -> Plan:
    return Plan(
        command="prepare",
        options={
            **options.identity(),
            "size": size,
            "fit": fit,
            # Enough to notice another salt, but too little to find the salt by trying.
            "salted": f"names {patient_id('salt', '', options.salt)[1:9]}" if options.salt else None,
        },
        inputs=Inputs.of(
            *listing.tables,
            verify=settings.verify,
            files=[
                *(record.header for record in listing.records if record.header),
                *(mask for record in listing.records for mask in record.masks[1:]),
            ],
        ),
        chain=[{"step": "prepare", "version": VERSION, "size": size, "fit": fit}],
        libraries=("numpy", "opencv-python-headless", "pydicom"),
    )


def _without_salt(settings: Settings, options: PrepareOptions) -> Settings:
    """The same settings; of a command line with `--salt`, without the salt and the names of single images."""
    if options.salt is None:
        return settings
    named = {str(path) for path in options.sources if path.is_file() and path.suffix.lower() not in (*TABLES, ".txt")}
    hidden = list(settings.argv)
    for index, word in enumerate(hidden):
        if word == f"--salt={options.salt}":
            hidden[index] = f"--salt={HIDDEN}"
        elif word in named or (word == options.salt and hidden[index - 1] == "--salt"):
            hidden[index] = HIDDEN
    return replace(settings, argv=hidden)


def _shape(options: PrepareOptions, settings: Settings) -> tuple[int | str, str]:
    """Size and fit, from the options or from the model of `--like`."""
    size: int | str = options.size
    if options.size != NATIVE:
        if not options.size.isdecimal() or int(options.size) not in SIZES:
            found = f"expected native or a number from {SIZES[0]} to {SIZES[-1]}, found '{options.size}'"
            raise UsageError(f"--size: {found}")
        size = int(options.size)
    if options.like is None:
        return size, options.fit
    entry = _prepare_entry(options.like)
    for name, given, wanted in (("size", size, entry["size"]), ("fit", options.fit, entry["fit"])):
        if settings.origins.get(name, "default") != "default" and given != wanted:
            raise UsageError(f"--{name} {given} contradicts --like {options.like}, which has {wanted}")
    return entry["size"], entry["fit"]


def _prepare_entry(model: Path) -> Mapping[str, Any]:
    """The entry of `prepare` in the chain of a model, or of the first fold of a run."""
    paths = [model] if model.is_file() else [model / MODEL, *sorted(model.glob("r*f*/model.json"))]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(f"--like {model}: expected a model folder, found no model.json", "`cxrtool train` writes them")
    try:
        chain = load_json(path)["chain"]
        entry = next((entry for entry in chain if entry["step"] == "prepare"), None)
        return {"size": entry["size"], "fit": entry["fit"]} if entry else {"size": NATIVE, "fit": PrepareOptions.fit}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--like {model}: expected the size and fit of its images in {path}, cannot read them: {error!r}"
        ) from error


def _views(text: str | None) -> frozenset[str]:
    return frozenset(view.strip().upper() for view in (text or "").split(",") if view.strip())


def _other_view(view: str, views: frozenset[str]) -> str:
    """Why a view is excluded by `--view`, or empty; `AP supine` is a kind of `AP`."""
    view = view.strip().upper() or UNKNOWN_VIEW
    if not views or view in views or view.split()[0] in views:
        return ""
    return f"view {view.lower() if view == UNKNOWN_VIEW else view}, --view is {', '.join(sorted(views))}"


def _read_all(
    listing: Listing,
    build: Build,
    work: partial[dict[str, Any]],
    views: frozenset[str],
    settings: Settings,
    salt: str | None,
) -> tuple[Columns, int]:
    """Read all remaining images; return the rows of readable images, and the number of images excluded on purpose."""
    rejects, unwanted = dict[str, str](), 0
    for name in KINDS:
        (build.path / name).mkdir(exist_ok=True)
    wanted: dict[str, int] = {}
    for index, record in enumerate(listing.records):
        view = record.columns.get("view", "").strip()
        if not record.relative:
            rejects[record.image_id] = "this row of the table has no file"
        elif reason := record.unwanted or (_other_view(view, views) if view else ""):
            rejects[record.image_id] = reason
            unwanted += 1
        elif record.doubt:
            rejects[record.image_id] = record.doubt
        else:
            wanted[record.image_id] = index
    wanted = build.share(wanted)
    # With a salt the names of files are secret.
    identity = build.marks(secret=salt or "")
    root = None if settings.root is None else str(settings.root.absolute())
    marks = {
        name: identity.of(name, root, one.columns.get("view"), salt and one.columns["source"], files=_files_of(one))
        for name, one in ((name, listing.records[index]) for name, index in wanted.items())
    }
    done = build.done(marks, "image")
    pending = [index for name, index in wanted.items() if name not in done]
    preload = ("cxrtool.data.reading.images", "cxrtool.imaging.hashing", "cxrtool.imaging.resize")
    workers = min(settings.workers, len(pending) or 1)
    records = map(listing.records.__getitem__, pending)
    results = map_items(work, records, workers=workers, preload=preload, cluster=Cluster.of(settings))
    with settings.report.progress("prepare", len(pending)) as advance:
        for record, result in results:
            if isinstance(result, InputError):
                rejects[record.image_id] = without_names(result.message, record) if salt else result.message
            elif reason := _other_view(record.columns.get("view") or result["tags"].get("view", ""), views):
                rejects[record.image_id] = reason
                unwanted += 1
                for name in result["files"]:
                    (build.path / name).unlink(missing_ok=True)
            else:
                if salt is not None:
                    # What is left of a killed process has no clear id either.
                    result = _without_identity(record, result, salt)
                build.journal.add(record.image_id, result, marks[record.image_id])
            advance(1)
    for record in listing.records:
        if record.image_id in rejects:
            path = record.columns[ORIGINAL] if salt else record.columns["path"] or record.columns[ORIGINAL]
            build.reject(printable(path), printable(rejects[record.image_id]))
    for name in KINDS[1:]:
        if not any((build.path / name).iterdir()):
            (build.path / name).rmdir()
    read = (record for record in listing.records if record.image_id in done)
    rows = Packed(_complete(record, done[record.image_id], build.path, salt) for record in read)
    return columns_of(rows, COLUMNS), unwanted


def _files_of(record: Record) -> list[Path]:
    """The files that `read_one` reads."""
    return [file for file in (record.path, record.header, *record.masks, *record.beside.values()) if file]


def _complete(record: Record, made: Mapping[str, Any], folder: Path, salt: str | None) -> Row:
    """The row of an image in the manifest; values of the table take precedence over those of a header."""
    row = dict(record.columns)
    row["patient_id"] = patient_id(row.get("patient_id", ""), row["source"], salt)
    for name, value in made["tags"].items():
        row[name] = row.get(name) or (value if name != "patient_id" or salt else patient_id(value, row["source"]))
    places = {"images": "path", "masks": "mask"} | {name: name for name in BESIDE}
    for kind, column in places.items():
        name = name_of(kind, record.image_id)
        if column in row or kind not in BESIDE:
            row[column] = str(folder / name) if name in made["files"] else ""
    for name in ("width", "height", "sha256", "dhash"):
        row[name] = str(made[name])
    row["warning"] = "; ".join(filter(None, [row.get("warning", ""), *made["warnings"]]))
    return row


def _without_identity(record: Record, made: Mapping[str, Any], salt: str) -> dict[str, Any]:
    """What was read of an image, with the hash of its patient and without the names of its files."""
    tags = dict(made["tags"])
    if "patient_id" in tags:
        tags["patient_id"] = patient_id(tags["patient_id"], record.columns["source"], salt)
    return {**made, "tags": tags, "warnings": [without_names(text, record) for text in made["warnings"]]}


def _report(rows: Columns, build: Build, settings: Settings) -> dict[str, int]:
    """Mark and list duplicates, show the summary, and return the numbers for `run.json`."""
    from cxrtool.data.tables import duplicates

    warnings = Counter(
        re.sub(r"\d[\d,]*", "n", text) for cell in rows.cells["warning"] for text in cell.split("; ") if text
    )
    found = duplicates.find_duplicates(rows)
    for duplicate in found:
        cells = rows.cells["warning"]
        texts = [cells[duplicate.later], duplicates.remark(duplicate, rows)]
        cells[duplicate.later] = "; ".join(filter(None, texts))
    write_table(build.path / DUPLICATES, duplicates.COLUMNS, duplicates.as_table(found, rows))
    settings.report.say(_overview(rows))
    for text, count in warnings.most_common(_SHOWN):
        settings.report.say(f"  {count} x {text}")
    same = sum(duplicate.bits is None for duplicate in found)
    near = len(found) - same
    conflicts = [duplicate for duplicate in found if duplicates.conflicts(duplicate, rows)]
    listed = build.folder.shown / DUPLICATES
    if found:
        settings.report.say(f"  {same} x same pixels as an earlier image, {near} x near-duplicate of one: see {listed}")
    if conflicts:
        one, other = rows[conflicts[0].later], rows[conflicts[0].earlier]
        settings.report.warn(
            f"duplicates with DIFFERENT labels: {len(conflicts)}; {one['image_id']} is labelled {one['label']}, "
            f"{other['image_id']} {other['label']}; see {listed}"
        )
    if text := warn_of_spellings(rows.cells["label"]):
        settings.report.warn(text)
    return {"same_pixels": same, "look_alike": near, "contradictions": len(conflicts)}


def _report_rejects(build: Build, settings: Settings, *, wanted: bool) -> bool:
    """Show each reason that several rejected images share, with one of them.

    Returns:
        Whether the message is complete, so that their number needs no line of its own.
    """
    groups: dict[str, list[Row]] = {}
    for row in build.rejects:
        groups.setdefault(re.sub(r"\d[\d,]*", "n", row["reason"].partition(": ")[0]), []).append(row)
    listed = build.folder.shown / REJECTS
    if len(groups) == 1 and len(build.rejects) > 1 and not settings.strict:
        say = settings.report.say if wanted else settings.report.warn
        say(f"{_same_reason(build.rejects)}; all in {listed}")
        return True
    shared = sorted((rows for rows in groups.values() if len(rows) > 1), key=len, reverse=True)
    for rows in shared[:_SHOWN]:
        settings.report.say(f"  {_same_reason(rows)}")
    if shared and wanted:
        settings.report.say(f"  all in {listed}")
    return False


def _same_reason(rows: Sequence[Row]) -> str:
    reason, sign, detail = rows[0]["reason"].partition(": ")
    example = " ".join(rows[0]["path"].rpartition("/")[2].split())
    way = "; name a smaller folder with --images, or the subfolder in the table" if reason == AMBIGUOUS else ""
    return f"{count_of(len(rows), 'image')}: {reason}, such as {example}{sign}{detail}{way}"


def _overview(rows: Sequence[RowView]) -> str:
    labels = Counter(row.get("label", "") for row in rows)
    unlabelled = labels.pop("", 0)
    parts = [f"{label} {count}" for label, count in sorted(labels.items())[:_SHOWN]]
    if len(labels) > _SHOWN:
        parts.append(f"{len(labels) - _SHOWN} more classes")
    if unlabelled:
        parts.append(f"unlabelled {unlabelled}")
    patients, nameless = count_patients(rows)
    known = count_of(patients, "patient") if any(identities(rows)) else "patients unknown"
    if nameless and any(identities(rows)):
        known += f", {nameless} of them images without a patient_id"
    return f"{count_of(len(rows), 'image')}: {', '.join(parts)}; {known}" if rows else "no image could be read"
