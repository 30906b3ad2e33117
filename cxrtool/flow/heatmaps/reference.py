"""The reference of a heatmap: where it is for each image, and how it is brought to the pixels of the image.

A reference is a folder of masks, a table with paths of masks, or a table of boxes. It is in the pixels of the original
image; an image that steps have cropped or resized takes its reference through the same steps.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cxrtool.data.confinement import is_inside
from cxrtool.data.files import no_such
from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.ids import SUFFIXES, one_file, stem_of
from cxrtool.data.tables.manifest import Row, Table, read_table
from cxrtool.data.tables.numbers import decimal
from cxrtool.errors import ImageError, InputError, UsageError, count_of
from cxrtool.flow.chain import Chain
from cxrtool.flow.replaying import CROP, MOVES, STEPS
from cxrtool.imaging.fits import NATIVE
from cxrtool.options import one_of

if TYPE_CHECKING:
    import numpy as np

BOX = ("x", "y", "width", "height")
BOXES = "boxes"
"""The name of the structure of a table of boxes."""

FILES = ("image_id", "file", "patientid", "image", "filename", "path")
"""Columns that name the image of a row; the first that a table has is used. That of RSNA names an image, too."""

TARGET = "target"
"""A row of the table of RSNA has a box where this is 1."""

_SHOWN = 6

Box = tuple[float, float, float, float]
"""Left, top, width, height, in pixels."""


@dataclass(frozen=True)
class Outline:
    """The reference of a structure in an image: a mask file, or boxes; neither where there is nothing in the image."""

    structure: str
    file: str = ""
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Origin:
    """How an image came from its original: the steps, the size of the original (height, width), the box of its crop.

    `size` is None where it is not known, and `crop` where nothing was cropped.
    """

    chain: Chain = field(default_factory=list)
    size: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None

    @classmethod
    def of(cls, row: Row, chain: Chain) -> Origin:
        """From the row of an image that has been through a chain."""
        crop = [row.get(f"crop_{name}", "") for name in ("top", "left", "height", "width")]
        size = row.get("height", ""), row.get("width", "")
        # `segment` writes the size of its images, `prepare` that of the originals.
        known = all(text.isdigit() for text in size) and not row.get("mask_area")
        return cls(
            [{name: entry[name] for name in ("step", "size", "fit", "use") if name in entry} for entry in chain],
            (int(size[0]), int(size[1])) if known else None,
            (int(crop[0]), int(crop[1]), int(crop[2]), int(crop[3])) if all(t.isdigit() for t in crop) else None,
        )

    def read(self, outline: Outline, shape: tuple[int, int], max_pixels: int | None) -> np.ndarray:
        """The reference (height, width) of an image of this shape: 0 and 255.

        Raises:
            ImageError: The mask cannot be read, or does not belong to this image.
        """
        from cxrtool.data.reading import mask_files
        from cxrtool.data.reading.images import MAX_PIXELS
        from cxrtool.imaging.resize import prepare_mask
        from cxrtool.imaging.view import check_proportions

        moving = [entry for entry in self.chain if entry["step"] in MOVES and (_crops(entry) or "size" in entry)]
        original = self.size if moving else shape
        if not outline.file:
            if original is None:
                raise ImageError("the size of the original image, in whose pixels its boxes are, is not known")
            return self._follow(_draw(outline.boxes, original), shape)
        mask = mask_files.read_mask([outline.file], max_pixels=max_pixels or MAX_PIXELS)
        if moving and mask.shape == shape != original:
            if original is None and self.crop is not None:
                raise ImageError(f"it is {shape[1]} x {shape[0]}, which may be the original image or its crop")
            return mask
        if original is not None:
            check_proportions(mask, original, "it")
            mask = prepare_mask(mask, *original, NATIVE, "squash")
        return self._follow(mask, shape)

    def _follow(self, mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        from cxrtool.imaging.crop import cut
        from cxrtool.imaging.resize import prepare_mask

        crops = sum(map(_crops, self.chain))
        for entry in self.chain:
            if entry["step"] not in (*MOVES, *STEPS) or crops > 1:
                raise ImageError(f"it cannot be transformed like its image by '{entry['step']}'")
            if "size" in entry:
                mask = prepare_mask(mask, mask.shape[0], mask.shape[1], entry["size"], entry["fit"])
            elif _crops(entry) and self.crop is not None:
                mask = cut(mask, self.crop)
        if mask.shape != shape:
            height, width = mask.shape
            raise ImageError(
                f"after the steps of its image it is {width} x {height}, its image {shape[1]} x {shape[0]}"
            )
        return mask


def _crops(entry: Mapping[str, object]) -> bool:
    return CROP in str(entry.get("use", "")).split("+")


def _draw(boxes: Iterable[Box], shape: tuple[int, int]) -> np.ndarray:
    """Boxes as a mask: a pixel is inside where its centre is.

    Raises:
        ImageError: A box is not in the image, or less than half of it is: it is probably in the pixels of another size.
    """
    import numpy as np

    mask = np.zeros(shape, np.uint8)
    rows, columns = (np.arange(length) + 0.5 for length in shape)
    for left, top, width, height in boxes:
        inside = np.outer((rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width))
        if not inside.any():
            raise ImageError(f"its box {left:g}, {top:g} is outside of the image of {shape[1]} x {shape[0]}")
        across = min(left + width, shape[1]) - max(left, 0)
        down = min(top + height, shape[0]) - max(top, 0)
        if across * down < width * height / 2:
            raise ImageError(
                f"less than half of its box {left:g}, {top:g}, {width:g}, {height:g} is in the image of "
                f"{shape[1]} x {shape[0]}"
            )
        mask[inside] = 255
    return mask


class References:
    """The reference of every image, found by the name of the image.

    Attributes:
        source: The folder or table.
        structures: Their names, in order.
    """

    def __init__(self, source: Path, entries: Mapping[str, Mapping[str, Sequence[Outline]]]) -> None:
        """`entries`: for each structure, the outlines of each image, by the path of the image without its suffix."""
        self.source, self.structures = source, list(entries)
        self._entries = entries
        self._stems: dict[str, dict[str, list[str]]] = {}
        for structure, listed in entries.items():
            stems: dict[str, list[str]] = {}
            for key in listed:
                stems.setdefault(one_file(PurePosixPath(key).name), []).append(key)
            self._stems[structure] = stems

    @classmethod
    def read(cls, source: Path, structures: str | None, root: Path | None = None) -> References:
        """Read the folder or table of `--reference`.

        Args:
            source: The folder or table.
            structures: `--structure`.
            root: Masks may be in no other folder.

        Raises:
            InputError: It is not there, has no such structure, or a row cannot be read.
            UsageError: `--structure` is needed, or names a structure twice.
        """
        names = [name.strip() for name in structures.split(",")] if structures else []
        if len(set(names)) < len(names):
            raise UsageError(f"--structure: expected each name once, found {structures}")
        if not source.exists():
            raise InputError(no_such(source, "folder of masks or table"))
        found = _of_folder(source, names) if source.is_dir() else _of_table(read_table(source), names)
        outlines = (one for listed in found.values() for several in listed.values() for one in several)
        outside = [one.file for one in outlines if root and one.file and not is_inside(Path(one.file), root)]
        if outside:
            raise InputError(f"{outside[0]} is outside --root {root}")
        return cls(source, found)

    def files(self, rows: Iterable[Row]) -> list[Path]:
        """The files on which the reference of images depends."""
        outlines = (outline for row in rows for outline in self.of(row).values())
        return [*(Path(one.file) for one in outlines if one.file), *([self.source] if self.source.is_file() else [])]

    def of(self, row: Row) -> dict[str, Outline]:
        """The reference of each structure that has one for an image.

        Raises:
            InputError: It has several images of this name.
        """
        found = {}
        for structure in self.structures:
            key = self._key(structure, row)
            if key is not None:
                several = self._entries[structure][key]
                boxes = tuple(box for one in several for box in one.boxes)
                found[structure] = Outline(structure, several[0].file, boxes)
        return found

    def _key(self, structure: str, row: Row) -> str | None:
        names = [row.get("original", ""), row["path"], row["image_id"], original_of(row)]
        for name in filter(None, names):
            path = _without_suffix(name)
            known = self._stems[structure].get(one_file(PurePosixPath(path).name), [])
            # Where images of several folders have one name, the folders decide.
            fitting = [key for key in known if f"/{path}".endswith(f"/{key}") or f"/{key}".endswith(f"/{path}")]
            chosen = fitting or known
            if len(chosen) > 1:
                raise InputError(
                    f"--reference {self.source}: expected one entry for '{row['image_id']}', found {', '.join(chosen)}",
                    "--structure NAME chooses a subfolder of --reference",
                )
            if chosen:
                return chosen[0]
        return None


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name.strip().replace("\\", "/"))
    return (path.parent / stem_of(path.name)).as_posix()


def _images_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (*SUFFIXES, ".gif") and not path.name.startswith("."):
            yield path


def _of_folder(folder: Path, names: Sequence[str]) -> dict[str, dict[str, list[Outline]]]:
    found: dict[str, dict[str, list[Outline]]] = {}
    for name in names or [folder.name]:
        inner = folder / name if names and (folder / name).is_dir() else folder
        ending = f"_{name}" if names and inner == folder else ""
        listed = found.setdefault(name, {})
        for path in _images_in(inner):
            stem = path.with_suffix("").relative_to(inner).as_posix()
            if not stem.endswith(ending):
                continue
            if several := listed.setdefault(stem.removesuffix(ending), []):
                raise InputError(
                    f"--reference {folder}: expected one mask an image, found {several[0].file} and {path}"
                )
            several.append(Outline(name, str(path)))
        if not listed:
            example = f"masks that end in {ending}, such as ID{ending}.png" if ending else "masks, such as ID.png"
            raise InputError(f"--reference {folder}: expected {example}, found none")
    return found


def _of_table(table: Table, names: Sequence[str]) -> dict[str, dict[str, list[Outline]]]:
    columns = {column.lower(): column for column in reversed(table.columns)}
    image = next((columns[name] for name in FILES if name in columns), None)
    if image is None:
        raise InputError(
            f"{table.name}: expected a column that names the image ({', '.join(FILES)}), found: "
            f"{', '.join(table.columns)}"
        )
    if columns.keys() >= set(BOX) and not set(names) - {BOXES}:
        return {BOXES: _boxes(table, image, columns)}
    others = [column for column in table.columns if column != image and column != "path"]
    bases = {column: _base_of(table, column) for column in others}
    candidates = [column for column, base in bases.items() if base]
    if not names and len(candidates) != 1:
        known = ", ".join(candidates) if candidates else f"none among {', '.join(others)}"
        raise UsageError(
            f"--reference {table.name}: expected one column with paths of masks, or the columns {', '.join(BOX)}; "
            f"found {known}",
            f"--structure {candidates[0]} chooses one" if candidates else _hint(columns),
        )
    found: dict[str, dict[str, list[Outline]]] = {}
    for name in names or candidates:
        one_of("--structure", name, others)
        base = bases[name]
        if base is None:
            example = next(filter(None, table.column(name)), "none")
            raise InputError(f"{table.name}: expected paths of masks in column {name}, found {example}", PATHS)
        listed: dict[str, list[Outline]] = {}
        for index, row in enumerate(table.rows):
            key, cell = _without_suffix(row[image]), row[name].strip()
            if listed.setdefault(key, []):
                raise InputError(f"{table.place(index)}: '{row[image]}' is listed twice, expected one row an image")
            listed[key].append(Outline(name, str(base / cell) if cell else ""))
        found[name] = listed
    return found


def _hint(columns: Collection[str]) -> str:
    """What to do about a table that has neither masks nor boxes; `columns` in small letters."""
    corners = sorted(name for name in columns if _CORNER.fullmatch(name))
    if len(corners) == len(BOX):
        return f"of the corners {', '.join(corners)}, x and y are the least, width and height the differences"
    return PATHS


_CORNER = re.compile(r"[xy]_?(min|max|[012])|(left|top|right|bottom)")

PATHS = "paths are relative to the folder of the table, or to the one above it"


def _base_of(table: Table, column: str) -> Path | None:
    """The folder to which the paths in a column are relative; None where they are no files."""
    folder = table.origin.absolute().parent if table.origin else Path.cwd()
    filled = [cell.strip() for cell in table.column(column) if cell.strip()]
    return next((base for base in (folder, folder.parent) if any((base / cell).is_file() for cell in filled)), None)


def _boxes(table: Table, image: str, columns: Mapping[str, str]) -> dict[str, list[Outline]]:
    listed: dict[str, list[Outline]] = {}
    target = columns.get(TARGET)
    for index, row in enumerate(table.rows):
        cells = [row[columns[name]].strip() for name in BOX]
        several = listed.setdefault(_without_suffix(row[image]), [])
        marked = not target or row[target].strip() not in ("0", "0.0")
        if not any(cells) or not marked:
            continue
        numbers = [number for cell in cells if (number := decimal(cell)) is not None and isfinite(number)]
        if len(numbers) < len(BOX) or min(numbers[2:]) <= 0:
            raise InputError(
                f"{table.place(index)}: expected a box with x, y, width and height, the last two above 0, found "
                f"{', '.join(cells)}"
            )
        left, top, width, height = numbers
        several.append(Outline(BOXES, boxes=((left, top, width, height),)))
    return {key: several or [Outline(BOXES)] for key, several in listed.items()}


def none_found(references: References, rows: Sequence[Row]) -> InputError:
    """The error where no image has a reference."""
    names = ", ".join(row["image_id"] for row in rows[:_SHOWN])
    return InputError(
        f"--reference {references.source}: expected masks or rows named like the {count_of(len(rows), 'image')}, such "
        f"as {names}, found none",
        "--structure NAME chooses masks that end in _NAME, or a subfolder",
    )
