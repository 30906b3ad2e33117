"""Which model explains which image: of a run, the fold that tested it; and what a single model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Manifest, Row, read_table
from cxrtool.data.tables.twins import is_twin, radiograph_id
from cxrtool.errors import InputError
from cxrtool.flow import run as runs
from cxrtool.flow.chain import Chain, chain_of
from cxrtool.flow.fold_chains import own_fold
from cxrtool.flow.parts import without_paths
from cxrtool.flow.seen import FITTED

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
    """Find the model for every image, by its id or, where a fold was shown something derived of it, by its original's.

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
    own: dict[tuple[str, str, str], tuple[Path, Row]] = {}
    trained: set[str] = set()
    for folder in folders:
        rows = read_table(folder / runs.PREDICTIONS).rows
        for name_of in (itemgetter("image_id"), original_of, radiograph_id):
            for row in rows:
                key = row.get("subset") or "test", name_of(row)
                answers.setdefault(key, (folder, row))
                own.setdefault((*key, folder.name), (folder, row))
        if (folder / FITTED).is_file():
            trained.update(row["image_id"] for row in read_table(folder / FITTED).rows)
    chains: dict[Path, Chain | None] = {}
    cases, rejects = [], []
    for row in manifest.rows:
        name = row["image_id"]
        if fold := own_fold(row):
            # Made for one fold, whose model alone was shown such images.
            name = original_of(row)
            place = next((key for key in wanted if (key, name, fold) in own), None)
        else:
            place = next((key for key in wanted if (key, name) in answers), None)
        if place is None:
            used = "some were fitted on it" if name in trained else "none knows it"
            verb = {"test": "tested it", "validation": "held it for validation", ALL: "tested it or held it"}[subset]
            rejects.append({"path": row["path"], "reason": f"no fold of the run {verb}: {used}"})
            continue
        folder, answer = own[place, name, fold] if fold else answers[place, name]
        digest, known = row.get("sha256", "").lower(), answer.get("sha256", "").lower()
        if digest and known and digest != known and _same_chain(row, answer, chains):
            reason = f"its pixels are not those of the image '{name}' that {folder.name} answered"
            rejects.append({"path": row["path"], "reason": reason})
            continue
        # What a fold says of one twin is not yet what it says of the image.
        of_twin = is_twin(answer) and not is_twin(row)
        cases.append(Case(row, folder, place, "" if of_twin else answer.get("predicted", "")))
    return cases, rejects


def _same_chain(row: Row, answer: Row, known: dict[Path, Chain | None]) -> bool:
    """Whether two images have been through the same, so that one image would have the same pixels in both."""
    found = []
    for path in (Path(row["path"]), Path(answer.get("path") or row["path"])):
        if path.parent not in known:
            try:
                known[path.parent] = without_paths(chain_of([path]))
            except InputError:
                # Through what, cannot be told any more.
                known[path.parent] = None
        found.append(known[path.parent])
    return found[0] == found[1]
