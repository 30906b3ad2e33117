"""Read radiographs of any kind into grey PNGs and a manifest."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cxrtool.data.datasets import ADAPTERS
from cxrtool.data.datasets.listing import Listing, list_images, printable
from cxrtool.data.datasets.record import Request
from cxrtool.data.files import is_whole_png
from cxrtool.data.tables.ids import patient_id
from cxrtool.data.tables.manifest import Row, write_table
from cxrtool.errors import ImageError, InputError, UsageError
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder
from cxrtool.flow.parallel import map_items
from cxrtool.flow.settings import Settings

KINDS = ("images", "masks", "ribless")
"""The folders of what is written."""


@dataclass(frozen=True)
class Task:
    """One image to read: its id, its file, and the files of its mask, header and rib-free twin, or nothing."""

    image_id: str
    path: str
    mask: str
    header: str = ""
    mask_parts: tuple[str, ...] = ()
    ribless: str = ""


def read_one(
    task: Task, *, target: Path, size: int | str, fit: str, max_pixels: int, root: Path | None
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

    _confine(task.path, root)
    header = Path(task.header) if task.header else None
    if header:
        _confine(task.header, root)
    radiograph = read_image(task.path, max_pixels=max_pixels, overhear=True, header=header)
    pixels = radiograph.pixels
    record = {
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "sha256": pixel_sha256(pixels),
        "dhash": dhash(pixels),
        "tags": radiograph.tags,
        "warnings": radiograph.warnings,
        "bytes": write_png(place_of(target, "images", task.image_id), prepare_pixels(pixels, size, fit)),
    }
    if task.mask:
        try:
            for file in (task.mask, *task.mask_parts):
                _confine(file, root)
            record["mask_bytes"] = _read_mask(task, record, target, size, fit, max_pixels)
        except ImageError as error:
            radiograph.warnings.append(f"mask left out: {error.message}")
    if task.ribless:
        try:
            _confine(task.ribless, root)
            record["ribless_bytes"] = _read_ribless(task, record, target, size, fit, max_pixels)
        except ImageError as error:
            radiograph.warnings.append(f"rib-free picture left out: {error.message}")
    return record


def _read_mask(task: Task, record: Mapping[str, Any], target: Path, size: int | str, fit: str, max_pixels: int) -> int:
    from cxrtool.data.reading.images import write_png
    from cxrtool.data.reading.mask_files import read_mask
    from cxrtool.imaging.pair import check_proportions
    from cxrtool.imaging.resize import prepare_mask

    mask = read_mask([task.mask, *task.mask_parts], max_pixels=max_pixels)
    height, width = record["height"], record["width"]
    # The masks of one-pixel rounding are resampled; a mask of other proportions belongs to another picture.
    check_proportions(mask, (height, width), "it")
    return write_png(place_of(target, "masks", task.image_id), prepare_mask(mask, height, width, size, fit), mask=True)


def _read_ribless(
    task: Task, record: Mapping[str, Any], target: Path, size: int | str, fit: str, max_pixels: int
) -> int:  # fmt: skip
    """Bring the picture without ribs to the size of its image, and with it through the same geometry."""
    from cxrtool.data.reading.images import read_image, write_png
    from cxrtool.imaging.pair import check_proportions
    from cxrtool.imaging.resize import prepare_pixels, resample

    pixels = read_image(task.ribless, max_pixels=max_pixels, overhear=True).pixels
    height, width = record["height"], record["width"]
    check_proportions(pixels, (height, width), "it")
    shown = prepare_pixels(resample(pixels, height, width), size, fit)
    return write_png(place_of(target, "ribless", task.image_id), shown)


def _confine(path: str, root: Path | None) -> None:
    if root is not None and not Path(path).resolve().is_relative_to(root.resolve()):
        raise ImageError(f"it lies outside --root {root}")


def place_of(target: Path, folder: str, image_id: str) -> Path:
    """Where a picture of an image is written: below `target`, in one of `KINDS`."""
    return target / folder / f"{image_id}.png"


VERSION = 2
"""Raised when the same options would give other pixels."""

NATIVE = "native"
FITS = ("squash", "pad", "crop")
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
class PrepareOptions:
    """The options of `cxrtool prepare`."""

    sources: tuple[Path, ...]
    dataset: str | None = None
    like: Path | None = None
    size: str = NATIVE
    fit: str = "squash"
    view: str | None = None
    max_pixels: int = 100_000_000
    path_column: str | None = None
    label_column: str | None = None
    patient_column: str | None = None
    source_name: str | None = None
    salt: str | None = None


def prepare(options: PrepareOptions, settings: Settings) -> int | None:
    """Read every image of the sources and write it as grey PNG, with a manifest.

    Returns:
        The number of images, or None where there was nothing to do.

    Raises:
        UsageError: An option has a value that it cannot have.
        InputError: A source is missing or lists nothing.
        StrictError: `--strict`, and a file could not be read.
    """
    if options.dataset is not None and options.dataset not in ADAPTERS:
        raise UsageError(f"--dataset: expected one of {', '.join(ADAPTERS)}, found '{options.dataset}'")
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
        counts = {"inputs": len(listing.rows), "skipped": len(listing.skipped), **_report(rows, build, settings)}
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
            "dataset": options.dataset,
            "size": size,
            "fit": fit,
            "view": options.view,
            "max_pixels": options.max_pixels,
            "path_column": options.path_column,
            "label_column": options.label_column,
            "patient_column": options.patient_column,
            "source_name": options.source_name,
            # Enough to notice another salt, and too little to find it by trying.
            "salted": patient_id("salt", "", options.salt)[1:9] if options.salt else None,
        },
        inputs=Inputs.of(
            *listing.tables,
            verify=settings.verify,
            files=[*listing.headers.values(), *(file for parts in listing.mask_parts.values() for file in parts)],
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
    if options.fit not in FITS:
        raise UsageError(f"--fit: expected one of {', '.join(FITS)}, found '{options.fit}'")
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
        return {"size": entry["size"], "fit": entry["fit"]} if entry else {"size": NATIVE, "fit": FITS[0]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--like {model}: {place} does not tell how its images were prepared: {error!r}") from error


def _views(text: str | None) -> frozenset[str]:
    return frozenset(view.strip().upper() for view in (text or "").split(",") if view.strip())


def _other_view(row: Row, views: frozenset[str]) -> str | None:
    """Why a row is left out by `--view`, or None; `AP supine` is a kind of `AP`."""
    view = row.get("view", "").strip().upper() or UNKNOWN_VIEW
    if not views or view in views or view.split()[0] in views:
        return None
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
    rows, rejects, unwanted = listing.rows, dict[int, str](), 0
    for name in KINDS:
        (build.path / name).mkdir(exist_ok=True)
    pending = []
    for index, row in enumerate(rows):
        record = build.journal.done.get(row["image_id"])
        if not row["path"]:
            rejects[index] = "the table names no file in this row"
        elif index in listing.unwanted:
            rejects[index] = listing.unwanted[index]
            unwanted += 1
        elif row.get("view", "").strip() and (reason := _other_view(row, views)):
            rejects[index] = reason
            unwanted += 1
        elif record and _is_whole(record, row, build.path):
            _complete(row, record, build.path, salt)
        else:
            pending.append(index)
    tasks = (
        Task(
            rows[i]["image_id"],
            rows[i]["path"],
            rows[i].get("mask", ""),
            str(listing.headers.get(i, "")),
            tuple(map(str, listing.mask_parts.get(i, ()))),
            rows[i].get("ribless", ""),
        )
        for i in pending
    )
    preload = ("cxrtool.data.reading.images", "cxrtool.imaging.hashing", "cxrtool.imaging.resize")
    results = map_items(work, tasks, workers=min(settings.workers, len(pending) or 1), preload=preload)
    with settings.report.progress("prepare", len(pending)) as advance:
        for index, (task, result) in zip(pending, results, strict=False):
            if isinstance(result, InputError):
                rejects[index] = result.message
            else:
                tagged = {**rows[index], "view": rows[index].get("view") or result["tags"].get("view", "")}
                reason = _other_view(tagged, views)
                if reason:
                    rejects[index] = reason
                    unwanted += 1
                    for name in KINDS:
                        place_of(build.path, name, task.image_id).unlink(missing_ok=True)
                else:
                    build.journal.add(task.image_id, result)
                    _complete(rows[index], result, build.path, salt)
            advance(1)
    for index, reason in sorted(rejects.items()):
        build.reject(printable(rows[index]["path"] or rows[index]["original"]), printable(reason))
    for name in KINDS[1:]:
        if not any((build.path / name).iterdir()):
            (build.path / name).rmdir()
    return [row for index, row in enumerate(rows) if index not in rejects], unwanted


def _is_whole(record: Mapping[str, Any], row: Row, folder: Path) -> bool:
    """Whether the files that a record of the journal speaks of are there as they were written."""
    places = {"bytes": "images", "mask_bytes": "masks", "ribless_bytes": "ribless"}
    return all(
        is_whole_png(place_of(folder, places[name], row["image_id"]), record[name]) for name in places if name in record
    )


def _complete(row: Row, record: Mapping[str, Any], folder: Path, salt: str | None) -> None:
    """Turn a row of the source into a row of the manifest; what the table says goes before what a header says."""
    for name, value in record["tags"].items():
        row[name] = row.get(name) or value
    row["patient_id"] = patient_id(row.get("patient_id", ""), row["source"], salt)
    row["path"] = str(place_of(folder, "images", row["image_id"]))
    row["mask"] = str(place_of(folder, "masks", row["image_id"])) if "mask_bytes" in record else ""
    if "ribless" in row:
        row["ribless"] = str(place_of(folder, "ribless", row["image_id"])) if "ribless_bytes" in record else ""
    for name in ("width", "height", "sha256", "dhash"):
        row[name] = str(record[name])
    row["warning"] = "; ".join(filter(None, [row.get("warning", ""), *record["warnings"]]))


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
