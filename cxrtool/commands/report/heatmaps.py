"""The scores of heatmaps against outlines, and their faithfulness, as `cxrtool explain` measured them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.digests import check
from cxrtool.data.file_names import MANIFEST
from cxrtool.data.structured import load_json
from cxrtool.data.tables.manifest import read_table
from cxrtool.errors import InputError, count_of
from cxrtool.flow import run as runs
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.heatmaps.scores import AREAS, FIGURE, FIGURES, SCORES

if TYPE_CHECKING:
    from cxrtool.evaluation.sheet import Sheet
    from cxrtool.reporting.page import Section


@dataclass(frozen=True)
class Explained:
    """A folder of `explain` with scores.

    Attributes:
        folder: The folder.
        content: Its `scores.json`.
        images: The ids of its images.
        model: The model, as it was given to `explain`.
    """

    folder: Path
    content: Mapping[str, Any]
    images: frozenset[str]
    model: str

    @classmethod
    def read(cls, folder: Path, tested: Collection[str], folds: Iterable[Path]) -> Explained:
        """Read it; `tested` are the ids of the test images of the report, `folds` the folders of its model.

        Raises:
            InputError: It has no scores, they were changed, or they are of other images or of another model.
        """
        for name in (SCORES, MANIFEST):
            if not (folder / name).is_file():
                raise InputError(
                    f"--explained {folder}: expected a folder of `cxrtool explain` with {name}, found none",
                    "`cxrtool explain RUN IMAGES --reference MASKS -o FOLDER` scores heatmaps against masks",
                )
            check(folder / name)
        content = load_json(folder / SCORES)
        images = frozenset(row["image_id"] for row in read_table(folder / MANIFEST).rows)
        if not images & set(tested):
            raise InputError(
                f"--explained {folder}: expected heatmaps of test images of this report, found heatmaps of "
                f"{count_of(len(images), 'other image')}",
                "explain the run, or the predictions, of this report",
            )
        model = (read_run_file(folder) or {}).get("explained", {}).get("model", {})
        own, explained, name = set(map(runs.model_digest, folds)) - {""}, model.get("runs"), model.get("name", "")
        if own and explained and own.isdisjoint(explained):
            raise InputError(
                f"--explained {folder}: expected heatmaps of the model of this report, found those of {name}",
                "explain the run of this report",
            )
        return cls(folder, content, images, name)

    @property
    def files(self) -> list[Path]:
        """What the page depends on."""
        return [self.folder / name for name in (SCORES, MANIFEST, FIGURE) if (self.folder / name).is_file()]

    def section(self, tested: Collection[str]) -> Section:
        """The section of a page; `tested` as in `read`."""
        from cxrtool.reporting.page import Picture, Section
        from cxrtool.reporting.titles import HEATMAPS

        lines = [
            "How much of a heatmap is on a structure, beside what a heatmap without any preference would get. On "
            "lesions it should be more than chance: otherwise the model decided by something else, however plausible "
            "single heatmaps look. On devices and letters it should not be more."
        ]
        if self.model:
            lines.append(f"Heatmaps of the model {self.model}, from {self.folder}.")
        if others := len(self.images - set(tested)):
            of = count_of(len(self.images), "image")
            lines.append(f"{others} of {of} with a heatmap are not among the test images of this page.")
        picture = self.folder / FIGURE
        caption = (
            "Scores of the heatmaps: mean with 95 % interval over patients (blue), and what chance or a random map "
            "gets (red)."
        )
        pictures = [Picture(picture, caption)] if picture.is_file() else []
        if self.content.get("structures"):
            lines.append(
                "Energy: the share of the heat that is on the structure. Peak inside: how often the hottest pixel is. "
                "Average precision: of the pixels, ranked by heat. IoU: of it and of the hottest pixels, as many as it "
                "has."
            )
        return Section(HEATMAPS, lines, [*self._against_outlines(), *self._faithfulness()], pictures)

    def _against_outlines(self) -> Iterator[Sheet]:
        """A table for each structure: a line for each score of each method."""
        from cxrtool.evaluation.sheet import Sheet

        for structure, part in self.content.get("structures", {}).items():
            if not part["images"]:
                continue
            where = " or ".join(part["chance_in"])
            notes = [
                f"{count_of(part['images'], 'image')} with {structure}, which cover {part['reference_share']:.1%} of "
                f"the image. Chance: a map without preference inside the {where}."
            ]
            if part["excluded"]:
                reasons = ", ".join(f"{count} {reason}" for reason, count in part["excluded"].items())
                notes.append(f"Images without scores: {reasons}.")
            notes += [
                f"{method}: {count_of(means['empty_maps'], 'map')} without any heat."
                for method, means in part["methods"].items()
                if means["empty_maps"]
            ]
            rows = _rows(part["methods"], FIGURES, "chance")
            yield Sheet(f"On {structure}", ["method", "score", "mean", "chance", "difference"], rows, notes)

    def _faithfulness(self) -> Iterator[Sheet]:
        from cxrtool.evaluation.sheet import Sheet

        tested = self.content.get("faithfulness")
        if not tested:
            return
        notes = [
            f"Area under the probability while the hottest pixels are removed (deletion: low is good) or shown alone "
            f"(insertion: high is good), in {tested['steps']} steps."
        ]
        rows = _rows(tested["methods"], AREAS, "random")
        yield Sheet("Faithfulness", ["method", "test", "mean", "random map", "difference"], rows, notes)


def _rows(methods: Mapping[str, Mapping[str, Any]], names: Mapping[str, str], against: str) -> list[list[str]]:
    from cxrtool.evaluation.sheet import cell

    return [
        [method, text, cell(means[name]), f"{means[name][against]:.2f}", cell(means[name]["difference"])]
        for method, means in methods.items()
        for name, text in names.items()
    ]
