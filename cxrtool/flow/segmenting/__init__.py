"""`segment`: find the lungs in every image, and crop to them, mask them, or erase them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.data.tables.manifest import Manifest, Row
from cxrtool.data.tables.views import Packed, RowView, cells_of
from cxrtool.errors import InputError, NothingReadError, UsageError, count_of
from cxrtool.evaluation.scales import ESTIMATES
from cxrtool.flow import common_options
from cxrtool.flow.assignment import Seen
from cxrtool.flow.chain import Chain, chain_of, copy_parts
from cxrtool.flow.folder import AT, Build, Inputs, Plan, StepFolder
from cxrtool.flow.images import read_images
from cxrtool.flow.replaying import APPLY, CROP, ERASE, VERSION
from cxrtool.flow.segmenting import opacities
from cxrtool.flow.segmenting.images import (
    IMAGES,
    MASKS,
    REFERENCES,
    Network,
    Task,
    Way,
    name_of,
    segment_all,
)
from cxrtool.flow.segmenting.sheets import draw_opacities, draw_sheets
from cxrtool.flow.settings import COMPUTING, READING, RUNNING, SCALING, Settings
from cxrtool.imaging.fits import IMAGE, MARGIN, MARGINS_OF
from cxrtool.options import Options, option

if TYPE_CHECKING:
    from cxrtool.models.parts import Part

MEASURES = {"dice": "Dice", "iou": "IoU"}
BOX = ("crop_top", "crop_left", "crop_height", "crop_width")
COLUMNS = (
    *("mask", "mask_reference", "mask_area", "mask_dice", "mask_iou", *BOX, "width", "height", "sha256", "warning"),
    *opacities.COLUMNS,
)
"""The columns that `segment` adds to the manifest."""

_SHOWN = 6
"""The number of kinds of warnings in the summary."""


@dataclass(frozen=True)
class SegmentOptions(Options):
    """The options of `segment`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", *COMPUTING, "precision", *SCALING, *READING, *RUNNING)

    sources: tuple[Path, ...] = common_options.images()
    lungs: Path | None = option(
        "A lung network from `cxrtool fit lungs`.", None, metavar="PART", shown="the one that comes with cxrtool"
    )
    crop: bool = option("Crop every image to its lungs, at its own resolution.", False)
    margin: float = option("Margin of --crop on each side, as a share.", MARGIN)
    margin_of: str = option(
        "Reference of --margin: {choices}. The sides of the image, or of the box around the lungs.",
        IMAGE,
        choices=MARGINS_OF,
    )
    apply_mask: bool = option("Set everything outside the lungs to black.", False)
    erase_lungs: bool = option("Set the lungs to black.", False)
    opacities: bool = option(
        "Find opacities (ground glass and consolidation) in the lungs, and their share of each lung and zone.", False
    )
    opacity_network: Path | None = option(
        "With --opacities: a network from `cxrtool fit opacities`.",
        None,
        metavar="PART",
        shown="the one that comes with cxrtool",
    )
    tta: bool = option("Average with the prediction for the mirrored image.", False)
    threshold: float = option("Probability above which a pixel is lung.", 0.5)
    batch_size: int = option("Images per batch.", 16, minimum=1, effect=False)
    sheet: int = option("Images on a contact sheet; 0 for none.", 24, minimum=0)
    max_pixels: int | None = common_options.max_pixels()


def segment(options: SegmentOptions, settings: Settings) -> int | None:
    """Find the lungs in the images of a manifest, write masks, and change the images as the options state.

    Returns:
        The number of images, or None where there was nothing to do.

    Raises:
        UsageError: Options exclude one another, or have an invalid value.
        InputError: There is no such manifest or network, or not a single image can be read.
        StrictError: `--strict`, and an image could not be read.
    """
    from cxrtool.models.parts import default_part, read_part

    check(options)
    manifest = read_images(options.sources, settings)
    manifest.check_file_names()
    if not len(manifest):
        raise InputError(f"{manifest.name}: expected images, found none")
    part = default_part("lungs") if options.lungs is None else read_part(options.lungs, "lungs")
    finder = _finder_of(options)
    precision = "fp32" if settings.precision == "auto" else settings.precision
    entry = make_entry(options, part, precision)
    chain = _chain_before(manifest, changing="use" in entry)
    finding = {"opacity_part": finder.sha256, "opacity_version": opacities.VERSION} if finder else {}
    plan = Plan(
        command="segment",
        options={**options.identity(), "part": part.sha256, **finding, "precision": precision, "version": VERSION},
        inputs=Inputs.of(manifest, verify=settings.verify),
        chain=[*chain, entry] if "use" in entry else chain,
        libraries=("numpy", "opencv-python-headless", "torch"),
        seeded=True,
        threaded=True,
    )
    folder = StepFolder(settings.out, plan, settings)
    if not folder.needs_work():
        return None
    from cxrtool.training.device import choose_device, choose_precision, local_randomness

    with local_randomness(settings.seed, settings.threads), folder.build() as build:
        device = choose_device(settings.device)
        network = Network(
            part.folder, str(device), choose_precision(precision, device), options.tta, options.batch_size
        )
        way = Way(build.path, part.form, entry, options.max_pixels, part.description.get("usual"))
        search = opacities.search_with(finder, network, manifest.records) if finder else None
        records = _segment(manifest, way, network, search, build, settings)
        if build.is_part:
            build.put_aside(len(records), len(build.rejects))
            return None
        known = (row for row in manifest.records if row["image_id"] in records)
        by = Finder(finder.name, Seen.of([finder.folder])) if finder else None
        rows = Packed(describe(row, records[row["image_id"]], way, by) for row in known).columns()
        found = _report(rows, records, build, settings)
        found["seen_in_fitting"] = _warn_of_seen(rows, part, settings)
        if options.sheet:
            draw_sheets(rows, records, way, options.sheet, settings)
        extra: dict[str, Any] = {"lungs": {**part.identity(), **found}}
        if finder:
            extra[opacities.FOUND] = {**finder.identity(), **opacities.report(rows, settings)}
            if options.sheet:
                draw_opacities(rows, records, way, options.sheet, settings)
        copy_parts(plan.chain, build.path)
        stale = [name for name in manifest.columns if finder and name in ESTIMATES]
        if stale:
            settings.report.say(
                f"removed, as they are of other opaque shares: {', '.join(stale)}; `grade` makes them anew"
            )
        kept = [name for name in manifest.columns if name not in stale]
        columns = [*kept, *(name for name in COLUMNS if any(cells_of(rows, name)))]
        build.finish(columns, rows, extra=extra)
    return len(rows)


def _finder_of(options: SegmentOptions) -> Part | None:
    """The network that finds opacities, where they are wanted."""
    from cxrtool.models.parts import default_part, read_part

    if not options.opacities:
        return None
    network = options.opacity_network
    return default_part("opacities") if network is None else read_part(network, "opacities")


def check(options: SegmentOptions) -> None:
    """Raise a `UsageError` for a wrong value, or for two options that exclude one another."""
    if options.apply_mask and options.erase_lungs:
        raise UsageError("--apply-mask keeps only the lungs, --erase-lungs everything else: choose one")
    if options.opacity_network and not options.opacities:
        raise UsageError("--opacity-network: expected --opacities with it, found none")
    if not 0 <= options.margin <= 1:
        raise UsageError(f"--margin: expected a share from 0 to 1, found {options.margin}")
    if not 0 < options.threshold < 1:
        raise UsageError(f"--threshold: expected a probability between 0 and 1, found {options.threshold}")


def make_entry(options: SegmentOptions, part: Part, precision: str) -> dict[str, Any]:
    """The entry of the chain: everything that is needed to repeat the step; `use` only where pixels change."""
    chosen = ((CROP, options.crop), (APPLY, options.apply_mask), (ERASE, options.erase_lungs))
    uses = [name for name, wanted in chosen if wanted]
    entry: dict[str, Any] = {"step": "segment", "version": VERSION, "part": part.identity(), AT: str(part.folder)}
    if uses:
        entry["use"] = "+".join(uses)
    if options.crop:
        entry |= {"margin": options.margin, "margin_of": options.margin_of}
    entry["threshold"] = options.threshold
    if options.tta:
        entry["tta"] = True
    if precision != "fp32":
        entry["precision"] = precision
    return entry


def _chain_before(manifest: Manifest, *, changing: bool) -> Chain:
    """The chain of the images; where only masks are written, images may have different chains."""
    try:
        return chain_of(Path(path) for path in manifest.column("path"))
    except InputError:
        if changing:
            raise
        return []


def reference_of(row: RowView) -> str:
    """The mask of an image in the manifest, unless an earlier `segment` made it."""
    return row.get("mask_reference") or ("" if row.get("mask_area") else row.get("mask", ""))


def _segment(
    manifest: Manifest,
    way: Way,
    network: Network,
    search: opacities.Search | None,
    build: Build,
    settings: Settings,
) -> Mapping[str, dict[str, Any]]:
    """Segment the remaining images; returns the records of all images that could be read, by id."""
    from cxrtool.training.device import choose_device
    from cxrtool.training.lanes import Lanes

    folders = (IMAGES, MASKS, REFERENCES, *((opacities.FOUND, opacities.REFERENCE) if search else ()))
    for name in folders:
        (build.path / name).mkdir(exist_ok=True)
    identity = build.marks()
    found = build.share(
        {
            row["image_id"]: Task(row["image_id"], row["path"], reference_of(row), row.get("sha256", ""))
            for row in manifest.records
        }
    )
    given = search.references if search else {}
    marks = {}
    for name, task in found.items():
        beside = (task.reference, given.get(name, ""))
        known = [bool(task.reference), network.batch_size, *([bool(beside[1])] if search else ())]
        marks[name] = identity.of(name, task.sha256, *known, files=filter(None, (task.path, *beside)))
    records = build.done(marks, "image")
    tasks = [task for name, task in found.items() if name not in records]
    rejects = {}
    with settings.report.progress("segmenting", len(tasks)) as advance, Lanes(choose_device(network.device)) as lanes:
        found_in = opacities.find_all(tasks, way, network, search, settings, lanes) if search else None
        for task, result in found_in or segment_all(tasks, way, network, settings, lanes):
            if isinstance(result, InputError):
                rejects[task.image_id] = result.message
            else:
                build.journal.add(task.image_id, result, marks[task.image_id])
            advance(1)
    for row in manifest.records:
        if row["image_id"] in rejects:
            build.reject(row["path"], rejects[row["image_id"]])
    if not records and not build.is_part:
        first = build.rejects[0]
        raise NothingReadError(manifest.name, len(manifest), first["path"], first["reason"])
    for name in folders:
        if not any((build.path / name).iterdir()):
            (build.path / name).rmdir()
    return records


@dataclass(frozen=True)
class Finder:
    """The network that found opacities: its short name, and the images that it was fitted on."""

    name: str
    fitted: Seen


def describe(row: RowView, record: Mapping[str, Any], way: Way, finder: Finder | None = None) -> Row:
    """The manifest's row of an image, with what was found by an opacity network where there is one.

    The digest stays that of the original radiograph, as with `prepare`: by it a model recognises later that it was
    trained on this radiograph, whatever was done to the pixels.
    """
    name, reference = row["image_id"], reference_of(row)
    if name_of(REFERENCES, name) in record["files"]:
        reference = str(way.path_of(REFERENCES, name))
    elif "dice" not in record or (CROP in way.entry.get("use", "")):
        reference = ""
    warnings = [row["warning"]] if row.get("warning") else record["odd"]
    kept = {column: cell for column, cell in row.items() if not (finder and column in ESTIMATES)}
    found = {
        **kept,
        "mask": str(way.path_of(MASKS, name)),
        "mask_reference": reference,
        "mask_area": f"{record['mask_area']:.4f}",
        **{f"mask_{key}": f"{record[key]:.4f}" if key in record else "" for key in MEASURES},
        "width": str(record["shape"][1]),
        "height": str(record["shape"][0]),
        "sha256": row.get("sha256") or record["sha256"],
        "warning": "; ".join(filter(None, [*warnings, record["doubt"]])),
    }
    if way.changing:
        found["path"] = str(way.path_of(IMAGES, name))
    if "crop" in record and CROP in way.entry["use"]:
        found |= dict(zip(BOX, map(str, record["crop"]), strict=True))
    if finder:
        seen = finder.fitted.by(found) is not None
        return found | opacities.describe(row, record, way, finder.name, seen=seen)
    return found | opacities.without(row, way)


def _report(
    rows: Sequence[RowView], records: Mapping[str, Mapping[str, Any]], build: Build, settings: Settings
) -> dict[str, Any]:
    """Report the results, and return the numbers for `run.json`; Dice and IoU where the manifest had masks."""
    from cxrtool.evaluation.resampling.means import mean_of_images

    say, warn = settings.report.say, settings.report.warn
    areas = [record["mask_area"] for record in records.values()]
    say(f"{count_of(len(rows), 'image')}; lungs cover {median(areas):.0%} of the image in the median")
    found: dict[str, Any] = {"agreement": {}}
    known = [row for row in rows if row.get("mask_dice")]
    for key in MEASURES if known else ():
        values = [float(row[f"mask_{key}"]) for row in known]
        mean = mean_of_images(known, values, settings.seed, proportion=False)
        found["agreement"][key] = {**mean, "least": min(values)}
    for key, mean in found["agreement"].items():
        interval = f" [{mean['low']:.3f}, {mean['high']:.3f}]" if mean["low"] is not None else ""
        say(
            f"{MEASURES[key]} with the masks of the manifest: {mean['value']:.3f}{interval}, minimum "
            f"{mean['least']:.3f} ({count_of(mean['images'], 'image')} of {count_of(mean['patients'], 'patient')})"
        )
    doubts = [record["doubt"] for record in records.values() if record["doubt"]]
    found["implausible"] = len(doubts)
    if doubts:
        sheet = build.folder.shown / "sheets" / "warnings.png"
        warn(f"{len(doubts)} of {count_of(len(rows), 'image')} have no plausible lung mask: see {sheet}")
        for text, count in Counter(_kinds(doubts)).most_common(_SHOWN):
            say(f"  {count} x {text}")
    return found


def _kinds(doubts: Sequence[str]) -> list[str]:
    """The reasons of doubts one by one, without the numbers in brackets."""
    from cxrtool.imaging.masks import IMPLAUSIBLE

    plain = (re.sub(r" \([^)]*\)", "", doubt).removeprefix(f"{IMPLAUSIBLE}: ") for doubt in doubts)
    return [kind for text in plain for kind in text.split(", ")]


def _warn_of_seen(rows: Sequence[RowView], part: Part, settings: Settings) -> int:
    """Warn where the network was fitted on some of these images, or on their patients; it saw no labels."""
    fitted = Seen.of([part.folder])
    seen = [row["image_id"] for row in rows if fitted.by(row)]
    if seen:
        settings.report.warn(
            f"the lung network was fitted on {len(seen)} of these "
            f"{count_of(len(rows), 'image')}, or on their patients, such as "
            f"{seen[0]}; it saw no labels, but its masks of these images are better than those of others"
        )
    return len(seen)
