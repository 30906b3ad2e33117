"""Which model explains which image: of a run, the fold that tested it; and what a single model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.manifest import Manifest, Row, read_table
from cxrtool.steps import run as runs
from cxrtool.steps.fold import FITTED

ALL = "all"
SUBSETS = ("test", "validation", ALL)
"""What `--subset` may say; images that a fold was trained on are none of them."""


@dataclass(frozen=True)
class Case:
    """An image and the model that explains it.

    Attributes:
        row: Of the manifest.
        folder: The model folder.
        subset: Which the image belonged to; empty for a single model.
        recorded: The class that the fold's own predictions name; empty for a single model.
    """

    row: Row
    folder: Path
    subset: str = ""
    recorded: str = ""


def assign(manifest: Manifest, folders: Sequence[Path], subset: str, *, of_run: bool) -> tuple[list[Case], list[Row]]:
    """Find the model for every image.

    Args:
        manifest: The images.
        folders: The model folders, in the order of repeats and folds; the first that tested an image explains it.
        subset: `test`, `validation` or `all`, which prefers test.
        of_run: Whether the folders are the folds of a run; a single model explains everything.

    Returns:
        The cases in the manifest's order, and the images that no fold tested, each with the reason.
    """
    if not of_run:
        return [Case(row, folders[0]) for row in manifest.rows], []
    wanted = ("test", "validation") if subset == ALL else (subset,)
    answers: dict[tuple[str, str], tuple[Path, Row]] = {}
    trained: set[str] = set()
    for folder in folders:
        for row in read_table(folder / runs.PREDICTIONS).rows:
            answers.setdefault((row.get("subset") or "test", row["image_id"]), (folder, row))
        if (folder / FITTED).is_file():
            trained.update(row["image_id"] for row in read_table(folder / FITTED).rows)
    cases, rejects = [], []
    for row in manifest.rows:
        name = row["image_id"]
        place = next((key for key in wanted if (key, name) in answers), None)
        if place is None:
            used = "some were fitted on it" if name in trained else "none knows it"
            verb = {"test": "tested it", "validation": "held it for validation", ALL: "tested it or held it"}[subset]
            rejects.append({"path": row["path"], "reason": f"no fold of the run {verb}: {used}"})
            continue
        folder, answer = answers[place, name]
        digest, known = row.get("sha256", "").lower(), answer.get("sha256", "").lower()
        if digest and known and digest != known:
            reason = f"its pixels are not those of the image '{name}' that {folder.name} answered"
            rejects.append({"path": row["path"], "reason": reason})
            continue
        cases.append(Case(row, folder, place, answer.get("predicted", "")))
    return cases, rejects
