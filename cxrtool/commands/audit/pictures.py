"""The pictures of an audit, each manifest read once and only when a part asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from cxrtool.data.tables.manifest import Manifest, Row, read_manifest, write_manifest
from cxrtool.errors import ImageError, InputError
from cxrtool.flow.lungs import find_lungs, read_mask
from cxrtool.flow.parallel import map_items
from cxrtool.flow.parts import AT
from cxrtool.flow.segmenting import SegmentOptions, segment
from cxrtool.flow.settings import Muted, Settings

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.auditing.inputs import Pictures


ENOUGH = 0.5
"""Share of the images whose mask the manifest names, from which on its masks are taken. With fewer, the masks of all
are found anew: where some are drawn by hand and others by a network, the difference could tell the label."""

PRELOAD = ("cxrtool.data.reading.images", "cxrtool.imaging.masks", "cxrtool.imaging.resize")

KINDS = {"jpg": "jpeg", "jpe": "jpeg", "tif": "tiff", "dcm": "dicom", "dic": "dicom"}
"""Other names of file types."""


@dataclass(frozen=True)
class Look:
    """One image as it is kept.

    Attributes:
        thumb: (64, 64) float32 in [0, 1].
        lungs: (64, 64) float32 share of lung; None where nobody looked.
        shape: Height and width of the picture.
        bits: 8 or 16.
        doubt: Why the mask that the manifest names was not taken.
    """

    thumb: np.ndarray
    lungs: np.ndarray | None
    shape: tuple[int, int]
    bits: int
    doubt: str = ""


def read_pictures(
    manifest: Manifest,
    settings: Settings,
    *,
    quick: bool = False,
    max_pixels: int | None = None,
    reject: Callable[[Path | str, str], None] = lambda path, reason: None,
) -> Pictures:
    """Read every image of a manifest.

    Args:
        manifest: The images.
        settings: Workers, and who is told.
        quick: Do not look for lungs where the manifest has no masks.
        max_pixels: Refuse larger pictures before they are decoded.
        reject: Told of every image that cannot be read.

    Raises:
        InputError: Not a single image can be read.
    """
    import numpy as np

    from cxrtool.auditing.inputs import SIDE, Pictures

    given = sum(bool(row.get("mask")) for row in manifest.rows)
    drawn = given > 0 and given >= ENOUGH * len(manifest.rows)
    entry = None if drawn or quick else _finder_entry()
    see = partial(look_at, drawn=drawn, entry=entry, max_pixels=max_pixels)
    looks: list[Look] = []
    index: list[int] = []
    doubts: list[str] = []
    reasons: list[str] = []
    workers = min(settings.workers, len(manifest.rows) or 1)
    with settings.report.progress("looking at images", len(manifest.rows)) as advance:
        results = map_items(see, manifest.rows, workers=workers, preload=PRELOAD)
        for place, (row, result) in enumerate(results):
            if isinstance(result, InputError):
                reject(row["path"], result.message)
                reasons.append(result.message)
            else:
                looks.append(result)
                index.append(place)
                doubts += [f"{row['image_id']}: {result.doubt}"] if result.doubt else []
            advance(1)
    if not looks:
        why = f", the first: {reasons[0]}" if reasons else ""
        raise InputError(f"{manifest.name}: none of the {len(manifest)} images can be read{why}")
    if doubts:
        settings.report.warn(f"{manifest.name}: {len(doubts)} masks were left out, such as that of {doubts[0]}")
    rows = [_described(manifest.rows[place], one) for place, one in zip(index, looks, strict=True)]
    empty = np.zeros((SIDE, SIDE), np.float32)
    looked = drawn or entry is not None
    lungs = np.stack([empty if one.lungs is None else one.lungs for one in looks]) if looked else None
    return Pictures(
        tuple(rows),
        np.stack([one.thumb for one in looks]),
        lungs,
        np.array([one.shape[1] for one in looks], np.intp),
        np.array([one.shape[0] for one in looks], np.intp),
        np.array([one.bits for one in looks], np.intp),
        tuple(row["kind"] for row in rows),
        np.array(index, np.intp),
        _where_from(drawn, looked, given),
    )


def look_at(row: Row, *, drawn: bool, entry: Mapping[str, Any] | None, max_pixels: int | None) -> Look:
    """Read one image, and its mask or its lungs; run in a worker process.

    Args:
        row: Of the manifest.
        drawn: Take the mask that the row names.
        entry: How the network is asked; None does not ask it.
        max_pixels: Refuse larger pictures.

    Raises:
        ImageError: It cannot be read.
    """
    from cxrtool.auditing.inputs import SIDE
    from cxrtool.data.reading.images import MAX_PIXELS, read_image

    pixels = read_image(row["path"], max_pixels=max_pixels or MAX_PIXELS, capture_decoder_errors=True).pixels
    shape = int(pixels.shape[0]), int(pixels.shape[1])
    lungs, doubt = None, ""
    if drawn and row.get("mask"):
        try:
            lungs = _small(read_mask(row["mask"], shape, max_pixels), SIDE)
        except ImageError as error:
            doubt = error.message
    elif entry is not None:
        lungs = _small(find_lungs(pixels, entry)[0], SIDE)
    return Look(_small(pixels, SIDE), lungs, shape, pixels.dtype.itemsize * 8, doubt)


def kind_of(row: Row) -> str:
    """The type of the file that an image came as.

    >>> kind_of({"path": "a.png", "original": "b/c.JPG"}), kind_of({"path": "a.dcm"}), kind_of({"path": "IM0001"})
    ('jpeg', 'dicom', 'unknown')
    """
    suffix = PurePath(row.get("original") or row["path"]).suffix.lstrip(".").lower()
    return KINDS.get(suffix, suffix) or "unknown"


def _small(pixels: np.ndarray, side: int) -> np.ndarray:
    """(side, side) float32 in [0, 1], the whole picture, averaged over areas."""
    import numpy as np

    from cxrtool.imaging.resize import prepare_pixels

    highest = np.iinfo(pixels.dtype).max
    small: np.ndarray = prepare_pixels(pixels, side, "squash").astype(np.float32) / np.float32(highest)
    return small


def _described(row: Row, one: Look) -> Row:
    height, width = one.shape
    return {**row, "width": str(width), "height": str(height), "bits": str(one.bits), "kind": kind_of(row)}


def _finder_entry() -> dict[str, Any]:
    """How the lung network that comes with cxrtool is asked."""
    from cxrtool.imaging.masks import THRESHOLD
    from cxrtool.models.parts import default_part

    return {AT: str(default_part("lungs").folder), "threshold": THRESHOLD}


def _where_from(drawn: bool, looked: bool, given: int) -> str:
    if drawn:
        return "the manifest's masks"
    few = f"the manifest has masks of {given} images only" if given else "the manifest has no masks of the lungs"
    return f"the lung network that comes with cxrtool, as {few}" if looked else few


HERE = "these images"
"""What the manifest itself is called among the stages."""

LUNGS = ".lungs"

MOST = 10_000
"""Images of which pictures are looked at, so that memory and time stay bounded: a thumbnail and its lungs take 32 KB,
and a share is known to a point from so many."""


@dataclass
class Views:
    """Thumbnails of the images, of the same images after other steps, and of those from elsewhere.

    Attributes:
        manifest: The images.
        others: The same after other steps, by name.
        external: Those from elsewhere, or None.
        place: The folder of the audit.
        settings: Workers, and who is told how far it is.
        reject: Told of every image that cannot be read.
        quick: Read no picture.
        max_pixels: Refuse larger pictures before they are decoded.
    """

    manifest: Manifest
    others: dict[str, Manifest]
    external: Manifest | None
    place: Path
    settings: Settings
    reject: Callable[[Path | str, str], None]
    quick: bool = False
    max_pixels: int | None = None

    @cached_property
    def pictures(self) -> Pictures:
        """Those of the manifest; of very many a sample of patients.

        Raises:
            InputError: Not a single one can be read.
        """
        return self._read(self.manifest)

    @property
    def rows(self) -> Sequence[Row]:
        """The manifest's rows, with what the files tell where all were read."""
        return self.manifest.rows if self.quick or len(self.manifest) > MOST else self.pictures.rows

    @cached_property
    def stages(self) -> dict[str, Pictures]:
        """Those of the manifest, and of the same images after other steps."""
        return {HERE: self.pictures, **{name: self._read(table) for name, table in self.others.items()}}

    @cached_property
    def elsewhere(self) -> Pictures:
        """Those from elsewhere.

        Raises:
            InputError: There are none, or not a single one can be read.
        """
        if self.external is None:
            raise InputError("expected a manifest from elsewhere, found none")
        return self._read(self.external)

    def with_masks(self, rows: Sequence[Row]) -> list[Row]:
        """Rows that all name a mask: their own where each has one, else those of the network that comes with cxrtool.

        Where some were drawn by hand and others found by a network, the difference could tell the label.
        """
        if not rows or all(row.get("mask") for row in rows):
            return list(rows)
        listed, found = self.place / f"{LUNGS}.csv", self.place / LUNGS
        write_manifest(listed, self.manifest.columns, rows)
        quiet = replace(self.settings, out=found, report=Muted(self.settings.report), strict=False)
        segment(SegmentOptions(listed, sheet=0, max_pixels=self.max_pixels), quiet)
        return read_manifest(found).rows

    def close(self) -> None:
        """Remove what was made on the way."""
        (self.place / f"{LUNGS}.csv").unlink(missing_ok=True)
        shutil.rmtree(self.place / LUNGS, ignore_errors=True)

    def _read(self, manifest: Manifest) -> Pictures:
        import numpy as np

        places = sample(manifest.rows, self.settings.seed)
        some = manifest.subset(manifest.rows[place]["image_id"] for place in places)
        read = read_pictures(some, self.settings, quick=self.quick, max_pixels=self.max_pixels, reject=self.reject)
        return replace(read, index=np.array(places, np.intp)[read.index])


def sample(rows: Sequence[Row], seed: int, most: int = MOST) -> list[int]:
    """Places of all images, or of as many whole patients as have `most` images, drawn by seed and ids alone."""
    from cxrtool.data.splitting.dealing import rank
    from cxrtool.data.splitting.grouping import group_images

    if len(rows) <= most:
        return list(range(len(rows)))
    members: dict[int, list[int]] = {}
    for place, group in enumerate(group_images(rows)):
        members.setdefault(group, []).append(place)
    chosen: list[int] = []
    for places in sorted(members.values(), key=lambda own: rank(seed, "sample", min(rows[i]["image_id"] for i in own))):
        if len(chosen) + len(places) <= most:
            chosen += places
    return sorted(chosen)
