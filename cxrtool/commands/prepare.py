"""Read radiographs of any kind into grey PNGs and a manifest.

Reads PNG, JPEG, TIFF, BMP and DICOM by their content, checks that every file is whole, turns it upright, and
writes images/, masks/ where the data have masks, manifest.csv, duplicates.csv, and rejects.csv with the reason for
each file that could not be read or that a published set leaves out. Sources are never touched.

Example: cxrtool prepare covid-cxr/metadata.csv --size 512 -o prepared
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.data.datasets import ADAPTERS
from cxrtool.data.datasets.listing import ORIGINAL, Listing, list_images, printable
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.files import is_whole_png
from cxrtool.data.tables.ids import patient_id
from cxrtool.data.tables.manifest import Row, write_table
from cxrtool.errors import ImageError, InputError, UsageError
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder
from cxrtool.flow.parallel import map_items
from cxrtool.flow.settings import READING, RUNNING, Settings
from cxrtool.imaging.fits import FITS, NATIVE
from cxrtool.options import Options, argument, option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cxrtool.data.reading.radiograph import Grey

KINDS = ("images", "masks", "ribless")
"""The folders of what is written."""


def read_one(
    record: Record, *, target: Path, size: int | str, fit: str, max_pixels: int, root: Path | None
) -> dict[str, Any]:
    """Read one image and its mask, bring them to size and write them below `target`; run in a worker process.

    Returns:
        What the manifest says of it, and how many bytes were written, by which a resumed run knows the files as whole.

    Raises:
        ImageError: The image cannot be read.
    """
    from cxrtool.data.reading.images import read_image, write_png
    from cxrtool.imaging.hashing import dhash, pixel_sha256
    from cxrtool.imaging.resize import prepare_pixels

    _confine(record.path, root)
    if record.header:
        _confine(record.header, root)
    radiograph = read_image(record.path, max_pixels=max_pixels, capture_decoder_errors=True, header=record.header)
    pixels = radiograph.pixels
    height, width = pixels.shape
    made = {
        "width": width,
        "height": height,
        "sha256": pixel_sha256(pixels),
        "dhash": dhash(pixels),
        "tags": radiograph.tags,
        "warnings": radiograph.warnings,
        "bytes": write_png(place_of(target, "images", record.image_id), prepare_pixels(pixels, size, fit)),
    }
    if record.masks:
        try:
            for file in record.masks:
                _confine(file, root)
            mask = _read_mask(record.masks, (height, width), size, fit, max_pixels)
            made["mask_bytes"] = write_png(place_of(target, "masks", record.image_id), mask, mask=True)
        except ImageError as error:
            radiograph.warnings.append(f"mask left out: {error.message}")
    if record.ribless:
        try:
            _confine(record.ribless, root)
            ribless = _read_ribless(record.ribless, (height, width), size, fit, max_pixels)
            made["ribless_bytes"] = write_png(place_of(target, "ribless", record.image_id), ribless)
        except ImageError as error:
            radiograph.warnings.append(f"rib-free picture left out: {error.message}")
    return made


def _read_mask(
    files: Sequence[Path], shape: tuple[int, int], size: int | str, fit: str, max_pixels: int
) -> NDArray[np.uint8]:
    from cxrtool.data.reading.mask_files import read_mask
    from cxrtool.imaging.pair import check_proportions
    from cxrtool.imaging.resize import prepare_mask

    mask = read_mask(files, max_pixels=max_pixels)
    # The masks of one-pixel rounding are resampled; a mask of other proportions belongs to another picture.
    check_proportions(mask, shape, "it")
    return prepare_mask(mask, *shape, size, fit)


def _read_ribless(file: Path, shape: tuple[int, int], size: int | str, fit: str, max_pixels: int) -> Grey:
    """The picture without ribs, brought to the size of its image, and with it through the same geometry."""
    from cxrtool.data.reading.images import read_image
    from cxrtool.imaging.pair import check_proportions
    from cxrtool.imaging.resize import prepare_pixels, resample

    pixels = read_image(file, max_pixels=max_pixels, capture_decoder_errors=True).pixels
    check_proportions(pixels, shape, "it")
    return prepare_pixels(resample(pixels, *shape), size, fit)


def _confine(path: Path, root: Path | None) -> None:
    if root is not None and not path.resolve().is_relative_to(root.resolve()):
        raise ImageError(f"it lies outside --root {root}")


def place_of(target: Path, folder: str, image_id: str) -> Path:
    """Where a picture of an image is written: below `target`, in one of `KINDS`."""
    return target / folder / f"{image_id}.png"


VERSION = 2
"""Raised when the same options would give other pixels."""

SIZES = range(16, 8193)
UNKNOWN_VIEW = "UNKNOWN"
DUPLICATES = "duplicates.csv"
METADATA = "metadata.csv"
COLUMNS = (
    "image_id", "path", "label", "patient_id", "severity", "source", "view", "age", "sex", "mask", "width", "height",
    "sha256", "dhash", "warning",
)  # fmt: skip
"""What every manifest of `prepare` has, empty where it is not known; what a table has beside these passes through."""

_SHOWN = 6
"""Classes and kinds of warnings that the summary names."""


@dataclass(frozen=True)
class PrepareOptions(Options):
    """The options of `prepare`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "workers", *READING, *RUNNING)

    sources: tuple[Path, ...] = argument(
        "Folders of images, tables that name images, or images.", metavar="SOURCE...", effect=False
    )
    dataset: str | None = option(
        "How the data are laid out: {choices}. In folder the class is the last folder's name, csv is any table that "
        "names images, the others are published sets as they are downloaded.",
        None,
        choices=ADAPTERS,
        shown="csv for a table, else folder",
    )
    like: Path | None = option("Size and fit of this model's images.", None, metavar="MODEL", shown="", effect=False)
    size: str = option("Side in pixels, or native for images as they are.", NATIVE)
    fit: str = option(
        "How an image becomes square: {choices}. The published systems squash; pad adds a black border, which tells "
        "the proportions, and so perhaps the source; crop keeps the middle, and may cut lungs.",
        "squash",
        choices=FITS,
    )
    view: str | None = option("Only these views; unknown stands for a missing one.", None, metavar="PA,AP", shown="")
    max_pixels: int = option("Refuse larger images, from their header alone.", 100_000_000, minimum=1)
    path_column: str | None = option("The table's column of files.", None, shown="path, file, filename, …")
    label_column: str | None = option("The table's column of classes.", None, shown="label, class, finding, …")
    patient_column: str | None = option("The table's column of patients.", None, shown="patient_id, patient, …")
    source_name: str | None = option(
        "Name of the data set.", None, flags=("--source",), metavar="NAME", shown="the table's, else the folder's"
    )
    salt: str | None = option(
        "Hash patient ids with this secret, which is not written down.",
        None,
        shown="",
        envvar="CXRTOOL_SALT",
        # Its mark stands in the plan.
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
        InputError: A source is missing or lists nothing.
        StrictError: `--strict`, and a file could not be read.
    """
    size, fit = _shape(options, settings)
    views = _views(options.view)
    listing = _list(options, settings)
    folder = StepFolder(settings.out, _plan(options, settings, listing, size, fit), _without_salt(settings, options))
    if not folder.needs_work():
        return None
    if listing.skipped:
        settings.report.say(f"not tried, being no images by their names: {len(listing.skipped)}")
    for remark in listing.remarks:
        settings.report.say(remark)
    for table in unread_tables(listing, options.sources):
        settings.report.warn(f"{table} is not read; `cxrtool prepare {shlex.quote(str(table))}` reads it")
    with folder.build() as build:
        work = partial(
            read_one, target=build.path, size=size, fit=fit, max_pixels=options.max_pixels, root=settings.root
        )
        rows, unwanted = _read_all(listing, build, work, views, settings, options.salt)
        counts = {"inputs": len(listing.records), "skipped": len(listing.skipped), **_report(rows, build, settings)}
        build.finish([*COLUMNS, *listing.columns], rows, counts=counts, wanted=unwanted == len(build.rejects))
    return len(rows)


def unread_tables(listing: Listing, sources: Sequence[Path]) -> list[Path]:
    """The tables directly in a source that tell of its images, but not to who reads a folder by its names."""
    return [path for path in listing.skipped if path.name.lower() == METADATA and path.parent in sources]


def _list(options: PrepareOptions, settings: Settings) -> Listing:
    # The output may lie in the source, and must not become its own input.
    exclude = frozenset({settings.out.resolve()} if settings.out else ())
    columns = options.path_column, options.label_column, options.patient_column
    request = Request(*columns, exclude=exclude, views=_views(options.view))
    return list_images(options.sources, options.dataset, request, options.source_name)


def _plan(options: PrepareOptions, settings: Settings, listing: Listing, size: int | str, fit: str) -> Plan:
    return Plan(
        command="prepare",
        options={
            **options.identity(),
            "size": size,
            "fit": fit,
            # Enough to notice another salt, and too little to find it by trying.
            "salted": patient_id("salt", "", options.salt)[1:9] if options.salt else None,
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
    """The same settings with a command line that may be written down."""
    hidden = list(settings.argv)
    for index, word in enumerate(hidden):
        if options.salt and word == f"--salt={options.salt}":
            hidden[index] = "--salt=***"
        elif options.salt and word == options.salt and hidden[index - 1] == "--salt":
            hidden[index] = "***"
    return replace(settings, argv=hidden)


def _shape(options: PrepareOptions, settings: Settings) -> tuple[int | str, str]:
    """Size and fit, from the options or from the model that `--like` names."""
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
            raise UsageError(f"--{name} {given} and --like {options.like}, which has {wanted}, exclude one another")
    return entry["size"], entry["fit"]


def _prepare_entry(model: Path) -> Mapping[str, Any]:
    """The entry of `prepare` in the chain of a model, or of the first fold of a run."""
    places = [model] if model.is_file() else [model / "model.json", *sorted(model.glob("r*f*/model.json"))]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        raise InputError(f"--like {model}: expected a model folder, found no model.json", "`cxrtool train` writes them")
    try:
        chain = json.loads(place.read_text(encoding="utf-8"))["chain"]
        entry = next((entry for entry in chain if entry["step"] == "prepare"), None)
        return {"size": entry["size"], "fit": entry["fit"]} if entry else {"size": NATIVE, "fit": PrepareOptions.fit}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--like {model}: {place} does not tell how its images were prepared: {error!r}") from error


def _views(text: str | None) -> frozenset[str]:
    return frozenset(view.strip().upper() for view in (text or "").split(",") if view.strip())


def _other_view(view: str, views: frozenset[str]) -> str:
    """Why a view is left out by `--view`, or nothing; `AP supine` is a kind of `AP`."""
    view = view.strip().upper() or UNKNOWN_VIEW
    if not views or view in views or view.split()[0] in views:
        return ""
    return f"view {view.lower() if view == UNKNOWN_VIEW else view}, asked for {', '.join(sorted(views))}"


def _read_all(
    listing: Listing,
    build: Build,
    work: partial[dict[str, Any]],
    views: frozenset[str],
    settings: Settings,
    salt: str | None,
) -> tuple[list[Row], int]:
    """Read what is not read yet; return the rows of what could be read, and how many were left out on purpose."""
    rows, rejects, unwanted = dict[str, Row](), dict[str, str](), 0
    for name in KINDS:
        (build.path / name).mkdir(exist_ok=True)
    pending = []
    for record in listing.records:
        made = build.journal.done.get(record.image_id)
        view = record.columns.get("view", "").strip()
        if not record.relative:
            rejects[record.image_id] = "the table names no file in this row"
        elif reason := record.unwanted or (_other_view(view, views) if view else ""):
            rejects[record.image_id] = reason
            unwanted += 1
        elif made and _is_whole(made, record.image_id, build.path):
            rows[record.image_id] = _complete(record, made, build.path, salt)
        else:
            pending.append(record)
    preload = ("cxrtool.data.reading.images", "cxrtool.imaging.hashing", "cxrtool.imaging.resize")
    results = map_items(work, pending, workers=min(settings.workers, len(pending) or 1), preload=preload)
    with settings.report.progress("prepare", len(pending)) as advance:
        for record, result in results:
            if isinstance(result, InputError):
                rejects[record.image_id] = result.message
            elif reason := _other_view(record.columns.get("view") or result["tags"].get("view", ""), views):
                rejects[record.image_id] = reason
                unwanted += 1
                for name in KINDS:
                    place_of(build.path, name, record.image_id).unlink(missing_ok=True)
            else:
                build.journal.add(record.image_id, result)
                rows[record.image_id] = _complete(record, result, build.path, salt)
            advance(1)
    for record in listing.records:
        if record.image_id in rejects:
            place = record.columns["path"] or record.columns[ORIGINAL]
            build.reject(printable(place), printable(rejects[record.image_id]))
    for name in KINDS[1:]:
        if not any((build.path / name).iterdir()):
            (build.path / name).rmdir()
    return [rows[record.image_id] for record in listing.records if record.image_id in rows], unwanted


def _is_whole(made: Mapping[str, Any], image_id: str, folder: Path) -> bool:
    """Whether the files that an entry of the journal speaks of are there as they were written."""
    places = {"bytes": "images", "mask_bytes": "masks", "ribless_bytes": "ribless"}
    return all(is_whole_png(place_of(folder, places[name], image_id), made[name]) for name in places if name in made)


def _complete(record: Record, made: Mapping[str, Any], folder: Path, salt: str | None) -> Row:
    """The row of an image in the manifest; what the table says goes before what a header says."""
    row = dict(record.columns)
    for name, value in made["tags"].items():
        row[name] = row.get(name) or value
    row["patient_id"] = patient_id(row.get("patient_id", ""), row["source"], salt)
    row["path"] = str(place_of(folder, "images", record.image_id))
    row["mask"] = str(place_of(folder, "masks", record.image_id)) if "mask_bytes" in made else ""
    if "ribless" in row:
        row["ribless"] = str(place_of(folder, "ribless", record.image_id)) if "ribless_bytes" in made else ""
    for name in ("width", "height", "sha256", "dhash"):
        row[name] = str(made[name])
    row["warning"] = "; ".join(filter(None, [row.get("warning", ""), *made["warnings"]]))
    return row


def _report(rows: Sequence[Row], build: Build, settings: Settings) -> dict[str, int]:
    """Mark and list duplicates, tell the user what came of it all, and return the numbers for `run.json`."""
    from cxrtool.data.tables import duplicates as twice

    say, warn = settings.report.say, settings.report.warn
    remarks = Counter(re.sub(r"\d[\d,]*", "n", text) for row in rows for text in row["warning"].split("; ") if text)
    found = twice.find_duplicates(rows)
    for duplicate in found:
        row = rows[duplicate.later]
        row["warning"] = "; ".join(filter(None, [row["warning"], twice.remark(duplicate, rows)]))
    write_table(build.path / DUPLICATES, twice.COLUMNS, twice.as_table(found, rows))
    say(_overview(rows))
    for text, count in remarks.most_common(_SHOWN):
        say(f"  {count} x {text}")
    same = sum(duplicate.bits is None for duplicate in found)
    clashes = [duplicate for duplicate in found if twice.conflicts(duplicate, rows)]
    listed = f"{build.folder.shown / DUPLICATES}"
    if found:
        say(f"  {same} x same pixels as an earlier image, {len(found) - same} x looks like one: see {listed}")
    if clashes:
        one, other = rows[clashes[0].later], rows[clashes[0].earlier]
        warn(
            f"duplicates that CONTRADICT each other: {len(clashes)}; {one['image_id']} is labelled {one['label']}, "
            f"{other['image_id']} {other['label']}; see {listed}"
        )
    return {"same_pixels": same, "look_alike": len(found) - same, "contradictions": len(clashes)}


def _overview(rows: Sequence[Row]) -> str:
    labels = Counter(row.get("label", "") for row in rows)
    unlabelled = labels.pop("", 0)
    parts = [f"{label} {count}" for label, count in sorted(labels.items())[:_SHOWN]]
    if len(labels) > _SHOWN:
        parts.append(f"{len(labels) - _SHOWN} more classes")
    if unlabelled:
        parts.append(f"unlabelled {unlabelled}")
    patients = len({row["patient_id"] for row in rows if row["patient_id"]})
    told = f"; {patients} patients" if patients else "; patients unknown"
    return f"{len(rows)} images: {', '.join(parts)}{told}" if rows else "no image could be read"
