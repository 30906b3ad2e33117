"""The images of an audit; each manifest is read once, and only when a part needs it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from cxrtool.data.tables.manifest import Manifest, Row, read_manifest, write_manifest
from cxrtool.data.tables.views import RowView
from cxrtool.errors import ChangedError, ImageError, InputError, NothingReadError, count_of
from cxrtool.flow.assignment import check_read
from cxrtool.flow.folder import AT
from cxrtool.flow.parallel import map_items
from cxrtool.flow.replaying import find_lungs, read_mask
from cxrtool.flow.segmenting import SegmentOptions, segment
from cxrtool.flow.settings import Muted, Settings

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.auditing.views import ImageSet


ENOUGH = 0.5
"""Share of images with a mask in the manifest from which its masks are used. With fewer, the network finds the lungs of
all images: outlines of two origins could show the label."""

PRELOAD = ("cxrtool.data.reading.images", "cxrtool.imaging.masks", "cxrtool.imaging.resize")

KINDS = {"jpg": "jpeg", "jpe": "jpeg", "tif": "tiff", "dcm": "dicom", "dic": "dicom"}
"""Other names of file types."""


@dataclass(frozen=True)
class Look:
    """What is kept of one image.

    Attributes:
        thumb: (64, 64) float32 in [0, 1].
        lungs: (64, 64) float32 share of lung; None where it was not searched.
        shape: Height and width of the image in pixels.
        bits: 8 or 16.
        mask_error: Why the mask in the manifest was not used.
    """

    thumb: np.ndarray
    lungs: np.ndarray | None
    shape: tuple[int, int]
    bits: int
    mask_error: str = ""


def read_pictures(
    manifest: Manifest,
    settings: Settings,
    *,
    quick: bool = False,
    max_pixels: int | None = None,
    reject: Callable[[Path | str, str], None] = lambda path, reason: None,
) -> ImageSet:
    """Read every image of a manifest.

    Args:
        manifest: The images.
        settings: Workers and messages.
        quick: Do not search lungs where the manifest has no masks.
        max_pixels: Refuse larger images before they are decoded.
        reject: Called with the path and the reason for every image that cannot be read.

    Raises:
        InputError: Not a single image can be read.
    """
    import numpy as np

    from cxrtool.auditing.views import SIDE, ImageSet

    given = sum(map(bool, manifest.column("mask")))
    drawn = given > 0 and given >= ENOUGH * len(manifest)
    entry = None if drawn or quick else _finder_entry()
    see = partial(look_at, drawn=drawn, entry=entry, max_pixels=max_pixels)
    looks: list[Look] = []
    index: list[int] = []
    mask_errors: list[str] = []
    reasons: list[tuple[str, str]] = []
    workers = min(settings.workers, len(manifest) or 1)
    with settings.report.progress("reading images", len(manifest)) as advance:
        results = map_items(see, manifest.rows, workers=workers, preload=PRELOAD)
        for i, (row, result) in enumerate(results):
            if isinstance(result, ChangedError):
                raise result
            if isinstance(result, InputError):
                reject(row["path"], result.message)
                reasons.append((row["path"], result.message))
            else:
                looks.append(result)
                index.append(i)
                mask_errors += [f"{row['image_id']}: {result.mask_error}"] if result.mask_error else []
            advance(1)
    if not looks:
        raise NothingReadError(manifest.name, len(manifest), *next(iter(reasons), ()))
    if mask_errors:
        settings.report.warn(
            f"{manifest.name}: {count_of(len(mask_errors), 'mask was', 'masks were')} "
            f"not used, such as that of {mask_errors[0]}"
        )
    read = [manifest.rows[i] for i in index]
    sizes = _sizes(read, looks)
    rows = [_described(row, one, size) for row, one, size in zip(read, looks, sizes, strict=True)]
    empty = np.zeros((SIDE, SIDE), np.float32)
    searched = drawn or entry is not None
    lungs = np.stack([empty if one.lungs is None else one.lungs for one in looks]) if searched else None
    return ImageSet(
        tuple(rows),
        np.stack([one.thumb for one in looks]),
        lungs,
        np.array([width for width, _ in sizes], np.intp),
        np.array([height for _, height in sizes], np.intp),
        np.array([one.bits for one in looks], np.intp),
        tuple(row["kind"] for row in rows),
        np.array(index, np.intp),
        _origin_of_masks(drawn, searched, given),
    )


def look_at(row: Row, *, drawn: bool, entry: Mapping[str, Any] | None, max_pixels: int | None) -> Look:
    """Read one image, and its mask or its lungs; run in a worker process.

    Args:
        row: A row of the manifest.
        drawn: Use the mask in the row.
        entry: The entry of the lung network; None does not run it.
        max_pixels: Refuse larger images.

    Raises:
        ImageError: It cannot be read.
    """
    from cxrtool.auditing.views import SIDE
    from cxrtool.data.reading.images import MAX_PIXELS, read_image

    pixels = read_image(row["path"], max_pixels=max_pixels or MAX_PIXELS, capture_decoder_errors=True).pixels
    check_read(row, pixels)
    shape = int(pixels.shape[0]), int(pixels.shape[1])
    lungs, mask_error = None, ""
    if drawn and row.get("mask"):
        try:
            lungs = _small(read_mask(row["mask"], shape, max_pixels), SIDE)
        except ImageError as error:
            mask_error = error.message
    elif entry is not None:
        lungs = _small(find_lungs(pixels, entry)[0], SIDE)
    return Look(_small(pixels, SIDE), lungs, shape, pixels.dtype.itemsize * 8, mask_error)


def kind_of(row: Row) -> str:
    """The type of the original file of an image.

    >>> kind_of({"path": "a.png", "original": "b/c.JPG"}), kind_of({"path": "a.dcm"}), kind_of({"path": "IM0001"})
    ('jpeg', 'dicom', 'unknown')
    """
    suffix = PurePath(row.get("original") or row["path"]).suffix.lstrip(".").lower()
    return KINDS.get(suffix, suffix) or "unknown"


def _small(pixels: np.ndarray, side: int) -> np.ndarray:
    """(side, side) float32 in [0, 1]: the whole image, averaged over areas."""
    import numpy as np

    from cxrtool.imaging.resize import prepare_pixels

    highest = np.iinfo(pixels.dtype).max
    small: np.ndarray = prepare_pixels(pixels, side, "squash").astype(np.float32) / np.float32(highest)
    return small


def _sizes(rows: Sequence[Row], looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Width and height of each image: those in the manifest, or where it lacks some, those of all files.

    `prepare --size` makes all files of one size, and keeps those of the originals in the manifest: squashed to a
    square, a chest still shows the proportions that its radiograph had.
    """
    cells = [(row.get("width", ""), row.get("height", "")) for row in rows]
    if all(cell.isdecimal() and int(cell) for pair in cells for cell in pair):
        return [(int(width), int(height)) for width, height in cells]
    return [(one.shape[1], one.shape[0]) for one in looks]


def _described(row: Row, one: Look, size: tuple[int, int]) -> Row:
    width, height = map(str, size)
    return {**row, "width": width, "height": height, "bits": str(one.bits), "kind": kind_of(row)}


def _finder_entry() -> dict[str, Any]:
    """The entry of the lung network that comes with cxrtool."""
    from cxrtool.imaging.masks import THRESHOLD
    from cxrtool.models.parts import default_part

    return {AT: str(default_part("lungs").folder), "threshold": THRESHOLD}


def _origin_of_masks(drawn: bool, searched: bool, given: int) -> str:
    if drawn:
        return "the masks of the manifest"
    few = f"the manifest has masks of {given} images only" if given else "the manifest has no masks of the lungs"
    return f"the lung network that comes with cxrtool, because {few}" if searched else few


HERE = "these images"
"""The name of the manifest itself among the stages."""

LUNGS = ".lungs"

MOST = 10_000
"""Most images whose pixels are read, so that memory and time are limited: a thumbnail and its lungs take 32 KB, and
from so many images a share is known to a percentage point."""


@dataclass
class Views:
    """Thumbnails of the images, of the same images after other steps, and of external images.

    Attributes:
        manifest: The images.
        others: The same images after other steps, by name.
        external: The external images, or None.
        folder: The folder of the audit.
        settings: Workers and messages.
        reject: Called with the path and the reason for every image that cannot be read.
        quick: Read no pixels.
        max_pixels: Refuse larger images before they are decoded.
    """

    manifest: Manifest
    others: dict[str, Manifest]
    external: Manifest | None
    folder: Path
    settings: Settings
    reject: Callable[[Path | str, str], None]
    quick: bool = False
    max_pixels: int | None = None

    @cached_property
    def pictures(self) -> ImageSet:
        """The images of the manifest; of more than `MOST`, those of a sample of patients.

        Raises:
            InputError: None can be read.
        """
        return self._read(self.manifest)

    @property
    def rows(self) -> Sequence[RowView]:
        """The rows of the manifest, with properties of the files where all were read."""
        return self.manifest.records if self.quick or len(self.manifest) > MOST else self.pictures.rows

    @cached_property
    def stages(self) -> dict[str, ImageSet]:
        """The images of the manifest, and the same images after other steps."""
        return {HERE: self.pictures, **{name: self._read(table) for name, table in self.others.items()}}

    @cached_property
    def external_images(self) -> ImageSet:
        """The external images.

        Raises:
            InputError: There are none, or none can be read.
        """
        if self.external is None:
            raise InputError("expected a manifest of external images, found none")
        return self._read(self.external)

    def with_masks(self, rows: Sequence[Row]) -> list[Row]:
        """Rows that all have a mask: their own where each has one, otherwise those of the lung network of cxrtool.

        They are never mixed, because outlines of two origins could show the label.
        """
        if not rows or all(row.get("mask") for row in rows):
            return list(rows)
        listed, found = self.folder / f"{LUNGS}.csv", self.folder / LUNGS
        write_manifest(listed, self.manifest.columns, rows)
        quiet = replace(self.settings, out=found, report=Muted(self.settings.report), strict=False)
        segment(SegmentOptions((listed,), sheet=0, max_pixels=self.max_pixels), quiet)
        return read_manifest(found).rows

    def close(self) -> None:
        """Remove temporary files."""
        (self.folder / f"{LUNGS}.csv").unlink(missing_ok=True)
        shutil.rmtree(self.folder / LUNGS, ignore_errors=True)

    def _read(self, manifest: Manifest) -> ImageSet:
        import numpy as np

        indices = sample(manifest.records, self.settings.seed)
        names = manifest.column("image_id")
        some = manifest.subset(names[i] for i in indices)
        read = read_pictures(some, self.settings, quick=self.quick, max_pixels=self.max_pixels, reject=self.reject)
        return replace(read, index=np.array(indices, np.intp)[read.index])


def sample(rows: Sequence[RowView], seed: int, most: int = MOST) -> list[int]:
    """Indices of all images, or of a sample of whole patients with at most `most` images, drawn by seed and ids."""
    from cxrtool.data.splitting.dealing import rank
    from cxrtool.data.splitting.grouping import group_images

    if len(rows) <= most:
        return list(range(len(rows)))
    members: dict[int, list[int]] = {}
    for i, group in enumerate(group_images(rows)):
        members.setdefault(group, []).append(i)
    chosen: list[int] = []
    for own in sorted(members.values(), key=lambda own: rank(seed, "sample", min(rows[i]["image_id"] for i in own))):
        if len(chosen) + len(own) <= most:
            chosen += own
    return sorted(chosen)
