"""The pictures of an audit, each manifest read once and only when a part asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.data.manifest import Manifest, Row, read_manifest, write_manifest
from cxrtool.errors import InputError
from cxrtool.flow.settings import Muted, Settings
from cxrtool.steps.audit_pictures import read_pictures
from cxrtool.steps.segment import SegmentOptions, segment

if TYPE_CHECKING:
    from cxrtool.auditing.inputs import Pictures

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
    from cxrtool.data.dealing import rank
    from cxrtool.data.grouping import group_images

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
