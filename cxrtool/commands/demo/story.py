"""What the demonstration found, in sentences and on a page; every figure is read from what the commands wrote."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.file_names import MANIFEST
from cxrtool.data.files import atomic_write, scratch_folder
from cxrtool.data.tables.manifest import read_manifest, read_table
from cxrtool.evaluation.sheet import cell, fixed

if TYPE_CHECKING:
    from cxrtool.auditing.part import Finding
    from cxrtool.imaging.sheet import Picture as Tile

METRICS = "metrics.json"
EXAMPLES = 2
"""Images of each class and place on the page."""

FRAME, FRAME_COLOUR = 5, (86, 160, 211)
"""Width in pixels and colour of the frame around each of them."""

TESTED = {
    "tested-a": "the network, on new patients of hospital A",
    "tested-b": "the same network, on hospital B",
    "remedy-b": "the network of the lungs of several hospitals, on hospital B",
}
"""The folders of `evaluate`, and what was tested there."""

SUBTITLE = "A demonstration of cxrtool on drawn radiographs"
EXAMPLES_TITLE = "The first images of each class"
EXAMPLES_CAPTION = (
    "Hospital A: the border tells the class. Hospital B: it does not. Last row: images "
    "of several hospitals, cropped to the lungs that a network found."
)
NO_CURE = "On real images cropping or masking alone is no cure: always test on another hospital."
DRAWN = "Every image is drawn, so no figure says anything about patients."


@dataclass(frozen=True)
class Story:
    """The figures of a demonstration, from its folder.

    Attributes:
        out: The folder.
    """

    out: Path

    @property
    def home(self) -> str:
        """The network on new patients of its own hospital."""
        return self._accuracy("tested-a")

    @property
    def away(self) -> str:
        """The same network on the second hospital."""
        return self._accuracy("tested-b")

    @property
    def remedy(self) -> str:
        """The network of the lungs of several hospitals, on the second hospital."""
        return self._accuracy("remedy-b")

    @property
    def audit(self) -> str:
        """The most serious finding of the audit, without its remarks in brackets."""
        return self._finding.text.partition(" (")[0].rstrip(".")

    def lines(self) -> list[str]:
        """The story in a few lines."""
        classes = len(self._metrics("tested-b")["classes"])
        hospitals = len({row["source"] for row in read_table(self.out / "several" / "metadata.csv").rows})
        return [
            f"Hospital A: {self.home} on new patients.",
            f"Audit: {self.audit}.",
            f"Hospital B, the same network: {self.away}; guessing gives {fixed(1 / classes, 2)}.",
            f"Hospital B, a network of {hospitals} other hospitals' images, cropped to the lungs: {self.remedy}.",
            NO_CURE,
            DRAWN,
        ]

    def write_page(self, path: Path, commands: Sequence[Sequence[str]], further: Sequence[str]) -> None:
        """Write the page.

        Args:
            path: The HTML file.
            commands: The command lines that were run, without the name of the program.
            further: The command lines to go on with.
        """
        import cv2

        from cxrtool.auditing.part import parts_of
        from cxrtool.evaluation.sheet import Sheet
        from cxrtool.flow.audits import read_audit, section_of
        from cxrtool.imaging.sheet import draw_sheet
        from cxrtool.reporting.html import COMMAND, render
        from cxrtool.reporting.page import Page, Picture, Section

        audit = read_audit(self.out / "audit")
        rows = [[title, *self._row(folder)] for folder, title in TESTED.items()]
        measured = Sheet("", ["tested on", "images", "patients", "accuracy", "AUC"], rows, [])
        curves = [Picture(self.out / folder / "roc.png", f"ROC curve: {title}.") for folder, title in TESTED.items()]
        typed = [COMMAND + shlex.join(["cxrtool", *line]) for line in commands]
        with scratch_folder("demo") as folder:
            sheet = folder / "examples.png"
            cv2.imwrite(str(sheet), draw_sheet(list(self._tiles()), EXAMPLES_TITLE, 2 * EXAMPLES)[..., ::-1])
            sections = [
                Section("What the networks saw", pictures=[Picture(sheet, EXAMPLES_CAPTION, wide=True)]),
                Section("What they reached", ["In brackets: 95% intervals."], [measured], curves),
                *(section_of(part, audit.folder) for part in parts_of(audit.content) if part.pictures),
                Section("Go on with your own images", [COMMAND + line for line in further]),
                Section("The commands, to repeat it", typed, folded=True),
            ]
            levels = ("note", self._finding.level, "note", "note", "warning", "note")
            marks = list(zip(levels, self.lines(), strict=True))
            atomic_write(path, render(Page("Why an accuracy is not enough", SUBTITLE, marks, sections)))

    def _tiles(self) -> Iterator[tuple[Tile, list[str]]]:
        """The first images of each class of the two hospitals, and of the cropped lungs."""
        import cv2
        import numpy as np

        from cxrtool.data.reading.images import read_image
        from cxrtool.imaging.sheet import TILE, grey_tile

        for place, folder in (("hospital A", "network/prepared"), ("hospital B", "tested-b"), ("lungs", "lungs")):
            manifest = read_manifest(self.out / folder / MANIFEST)
            for label in sorted({row["label"] for row in manifest.rows}, reverse=True):
                for row in [row for row in manifest.rows if row["label"] == label][:EXAMPLES]:
                    tile = grey_tile(read_image(row["path"]).pixels, TILE - 2 * FRAME)
                    # On the white page a white border of a radiograph could not be seen.
                    framed = cv2.copyMakeBorder(
                        tile, FRAME, FRAME, FRAME, FRAME, cv2.BORDER_CONSTANT, value=FRAME_COLOUR
                    )
                    yield np.asarray(framed, np.uint8), [f"{place}: {label}"]

    @cached_property
    def _finding(self) -> Finding:
        from cxrtool.auditing.part import by_gravity, parts_of
        from cxrtool.flow.audits import read_audit

        return by_gravity(parts_of(read_audit(self.out / "audit").content))[0]

    def _accuracy(self, folder: str) -> str:
        return f"accuracy {cell(self._metrics(folder)['overall']['accuracy'])}"

    def _row(self, folder: str) -> list[str]:
        found = self._metrics(folder)
        measures = found["overall"]
        return [str(found["images"]), str(found["patients"]), cell(measures["accuracy"]), cell(measures["macro_auc"])]

    def _metrics(self, folder: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.out / folder / METRICS).read_text(encoding="utf-8"))
        return content
