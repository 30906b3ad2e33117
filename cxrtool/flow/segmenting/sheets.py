"""The contact sheets of `segment`: a random sample, the implausible masks, and the lowest agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.tables.manifest import Row
from cxrtool.errors import ImageError, InputError
from cxrtool.flow.heatmaps.drawing import choose
from cxrtool.flow.parallel import map_items
from cxrtool.flow.segmenting.images import PRELOAD, Way
from cxrtool.flow.settings import Settings

if TYPE_CHECKING:
    from cxrtool.explaining.outlines import Outlined

SHEETS = {
    "lungs": "lung masks",
    "warnings": "no plausible lung mask, the most implausible first",
    "worst": "lowest agreement with the manifest's masks, the lowest first",
}
"""Each sheet, and its title."""


@dataclass(frozen=True)
class Tile:
    """An image on a sheet.

    Attributes:
        path: Its file.
        mask: The file of the mask that was found.
        reference: The file of the manifest's mask, or an empty text.
        caption: Lines below the image.
    """

    path: str
    mask: str
    reference: str
    caption: tuple[str, ...]


def draw_sheets(
    rows: Sequence[Row], records: Mapping[str, Mapping[str, Any]], way: Way, count: int, settings: Settings
) -> None:
    """Draw the contact sheets of a finished segmentation, each of at most `count` images."""
    from cxrtool.explaining import outlines, overlay

    members = _members(rows, records)
    chosen = choose({"lungs": members["lungs"]}, count, settings.seed)
    chosen |= {name: members[name][:count] for name in ("warnings", "worst") if members[name]}
    wanted = {name for names in chosen.values() for name in names}
    tiles = [_tile(row, records[row["image_id"]]) for row in rows if row["image_id"] in wanted]
    ids = [row["image_id"] for row in rows if row["image_id"] in wanted]
    work = partial(outline_one, max_pixels=way.max_pixels)
    preload = (*PRELOAD, "cxrtool.explaining.outlines")
    shown: dict[str, Outlined] = {}
    for name, (_, result) in zip(
        ids, map_items(work, tiles, workers=min(settings.workers, len(tiles)), preload=preload), strict=True
    ):
        if isinstance(result, InputError):
            raise InputError(f"{name}: cannot be drawn: {result.message}")
        shown[name] = result
    (way.target / "sheets").mkdir(exist_ok=True)
    known = any(row.get("mask_dice") for row in rows)
    for sheet, names in chosen.items():
        drawn = ", a random sample" if sheet == "lungs" else ""
        total = len(members[sheet])
        of = f"all {total}" if len(names) == total else f"{len(names)} of {total}{drawn}"
        colours = "blue: found" + (", orange: the manifest's mask" if known else "")
        drawing = outlines.draw_sheet([shown[name] for name in names], f"{SHEETS[sheet]}, {of}; {colours}")
        overlay.write_picture(way.target / "sheets" / f"{sheet}.png", drawing)


def outline_one(tile: Tile, *, max_pixels: int | None) -> Outlined:
    """Read the image and masks of a tile, reduced; runs in a worker process.

    Raises:
        ImageError: A file cannot be read any more.
    """
    from cxrtool.data.reading.images import MAX_PIXELS, read_image
    from cxrtool.explaining.outlines import Outlined, thumbnail
    from cxrtool.flow.lungs import read_mask

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


def _members(rows: Sequence[Row], records: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The images of each sheet, in order: implausible masks by the number of warnings and the network's confidence."""
    ids = [row["image_id"] for row in rows]
    doubtful = [name for name in ids if records[name]["doubt"]]
    compared = [name for name in ids if "dice" in records[name]]
    return {
        "lungs": ids,
        "warnings": sorted(doubtful, key=lambda name: (-records[name]["doubt"].count(","), records[name]["sureness"])),
        "worst": sorted(compared, key=lambda name: float(records[name]["dice"])),
    }


def _tile(row: Row, record: Mapping[str, Any]) -> Tile:
    numbers = f"{record['mask_area']:.0%} of the image"
    if "dice" in record:
        numbers += f", Dice {record['dice']:.3f}"
    caption = (row["image_id"], numbers, *([record["doubt"]] if record["doubt"] else []))
    return Tile(str(Path(row["path"])), row["mask"], row.get("mask_reference", ""), caption)
