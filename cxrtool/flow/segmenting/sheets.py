"""Contact sheets of `segment`: outlines of lungs and of opacities, on images read and reduced by workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.tables.views import RowView
from cxrtool.errors import ImageError, InputError
from cxrtool.flow.parallel import map_items
from cxrtool.flow.segmenting.images import PRELOAD, Way
from cxrtool.flow.settings import Settings

if TYPE_CHECKING:
    from cxrtool.explaining.overlay import Outlined

SHEETS = {
    "lungs": "lung masks",
    "warnings": "no plausible lung mask, the most implausible first",
    "worst": "lowest agreement with the manifest's masks, the lowest first",
}
"""Each sheet, and its title."""


@dataclass(frozen=True)
class Tile:
    """An image on a sheet: the files of the image, of the mask that was found and, if any, of the manifest's mask."""

    path: str
    mask: str
    reference: str
    caption: tuple[str, ...]


def draw_sheets(
    rows: Sequence[RowView], records: Mapping[str, Mapping[str, Any]], way: Way, count: int, settings: Settings
) -> None:
    """Draw the contact sheets of a finished segmentation, each of at most `count` images."""
    from cxrtool.flow.heatmaps.drawing import choose

    members = _members(rows, records)
    chosen = choose({"lungs": members["lungs"]}, count, settings.seed)
    chosen |= {name: members[name][:count] for name in ("warnings", "worst") if members[name]}
    wanted = {name for names in chosen.values() for name in names}
    tiles = {row["image_id"]: _tile(row, records[row["image_id"]]) for row in rows if row["image_id"] in wanted}
    shown = _outline(tiles, way, settings)
    known = any(row.get("mask_dice") for row in rows)
    for sheet, names in chosen.items():
        of = _part(names, len(members[sheet]), at_random=sheet == "lungs")
        colours = "blue: found" + (", orange: the manifest's mask" if known else "")
        _write(way, sheet, [shown[name] for name in names], f"{SHEETS[sheet]}, {of}; {colours}")


def draw_opacities(
    rows: Sequence[RowView], records: Mapping[str, Mapping[str, Any]], way: Way, count: int, settings: Settings
) -> None:
    """Draw a contact sheet of opacities: with the manifest's masks, the lowest agreement first, where there are any."""
    from cxrtool.flow.heatmaps.drawing import choose

    given = sorted(
        (row["image_id"] for row in rows if row["opacity_dice"]),
        key=lambda name: float(records[name]["opacity_dice"]),
    )
    everything = given or [row["image_id"] for row in rows]
    names = given[:count] if given else choose({"opacities": everything}, count, settings.seed)["opacities"]
    tiles = {}
    for row in rows:
        if row["image_id"] in names:
            share = row["opacity_lungs"]
            numbers = f"opaque share {float(share):.0%}" if share else "no lungs"
            numbers += f", Dice {float(row['opacity_dice']):.3f}" if given else ""
            beside = row["opacities_reference"] if given else row["mask"]
            tiles[row["image_id"]] = Tile(row["path"], row["opacities"], beside, (row["image_id"], numbers))
    shown: dict[str, Outlined] = _outline(tiles, way, settings)
    of = _part(names, len(everything), at_random=not given)
    order = ", the lowest agreement first" if given else ""
    colours = f"blue: found, orange: {'the mask of the manifest' if given else 'the lungs'}"
    _write(way, "opacities", [shown[name] for name in names], f"opacities{order}, {of}; {colours}")


def _part(names: Sequence[str], total: int, *, at_random: bool) -> str:
    drawn = ", a random sample" if at_random else ""
    return f"all {total}" if len(names) == total else f"{len(names)} of {total}{drawn}"


def _outline(tiles: Mapping[str, Tile], way: Way, settings: Settings) -> dict[str, Outlined]:
    """The drawn tiles, read by workers."""
    work = partial(outline_one, max_pixels=way.max_pixels)
    preload = (*PRELOAD, "cxrtool.explaining.overlay")
    results = map_items(work, tiles.values(), workers=min(settings.workers, len(tiles)), preload=preload)
    shown: dict[str, Outlined] = {}
    for name, (_, result) in zip(tiles, results, strict=True):
        if isinstance(result, InputError):
            raise InputError(f"{name}: cannot be drawn: {result.message}")
        shown[name] = result
    return shown


def _write(way: Way, sheet: str, shown: Sequence[Outlined], title: str) -> None:
    from cxrtool.explaining import overlay

    (way.target / "sheets").mkdir(exist_ok=True)
    overlay.write_picture(way.target / "sheets" / f"{sheet}.png", overlay.draw_outlines(shown, title))


def outline_one(tile: Tile, *, max_pixels: int | None) -> Outlined:
    """Read the image and masks of a tile, reduced, in a worker process; an `ImageError` if that is impossible."""
    from cxrtool.data.reading.images import MAX_PIXELS, read_image
    from cxrtool.explaining.overlay import Outlined, thumbnail
    from cxrtool.flow.replaying import read_mask

    limit = max_pixels or MAX_PIXELS
    pixels = read_image(tile.path, max_pixels=limit, capture_decoder_errors=True).pixels
    found = thumbnail(read_image(tile.mask, max_pixels=limit).pixels, mask=True)
    reference = None
    if tile.reference:
        try:
            reference = thumbnail(read_mask(tile.reference, pixels.shape, max_pixels), mask=True)
        except ImageError:
            # The manifest already has a warning about it.
            reference = None
    return Outlined(thumbnail(pixels), found, reference, tile.caption)


def _members(rows: Sequence[RowView], records: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The images of each sheet, in order: implausible masks by the number of warnings and the network's confidence."""
    ids = [row["image_id"] for row in rows]
    doubtful = [name for name in ids if records[name]["doubt"]]
    compared = [name for name in ids if "dice" in records[name]]
    return {
        "lungs": ids,
        "warnings": sorted(doubtful, key=lambda name: (-records[name]["doubt"].count(","), records[name]["sureness"])),
        "worst": sorted(compared, key=lambda name: float(records[name]["dice"])),
    }


def _tile(row: RowView, record: Mapping[str, Any]) -> Tile:
    numbers = f"{record['mask_area']:.0%} of the image"
    if "dice" in record:
        numbers += f", Dice {record['dice']:.3f}"
    caption = (row["image_id"], numbers, *([record["doubt"]] if record["doubt"] else []))
    return Tile(str(Path(row["path"])), row["mask"], row.get("mask_reference", ""), caption)
