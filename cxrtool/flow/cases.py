"""Which model explains which image: in a run, the fold that tested it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from cxrtool.data.file_names import FITTED_ON, PREDICTIONS
from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Manifest, Row, read_table
from cxrtool.data.tables.twins import is_twin, radiograph_id
from cxrtool.errors import InputError
from cxrtool.flow.chain import Chain, chain_of
from cxrtool.flow.fold_chains import own_fold
from cxrtool.flow.parts import without_paths

ALL = "all"
SUBSETS = ("test", "validation", ALL)
"""The values of `--subset`; the training images of a fold are in none of them."""


@dataclass(frozen=True)
class Case:
    """An image and the model that explains it.

    Attributes:
        row: The image's row of the manifest.
        folder: The model folder.
        subset: The subset of the image; empty for a single model.
        recorded: The predicted class in the fold's own predictions; empty for a single model.
    """

    row: Row
    folder: Path
    subset: str = ""
    recorded: str = ""


def assign(manifest: Manifest, folders: Sequence[Path], subset: str, *, of_run: bool) -> tuple[list[Case], list[Row]]:
    """Find the model for every image, by its id or, where a fold used a derived image, by the id of the original.

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
    by_fold: dict[tuple[str, str, str], tuple[Path, Row]] = {}
    trained: set[str] = set()
    for folder in folders:
        rows = read_table(folder / PREDICTIONS).rows
        for name_of in (itemgetter("image_id"), original_of, radiograph_id):
            for row in rows:
                key = row.get("subset") or "test", name_of(row)
                answers.setdefault(key, (folder, row))
                by_fold.setdefault((*key, folder.name), (folder, row))
        if (folder / FITTED_ON).is_file():
            trained.update(row["image_id"] for row in read_table(folder / FITTED_ON).rows)
    chains: dict[Path, Chain | None] = {}
    cases, rejects = [], []
    for row in manifest.rows:
        name = row["image_id"]
        if fold := own_fold(row):
            # Made for one fold: only its model used such images.
            name = original_of(row)
            found_in = next((key for key in wanted if (key, name, fold) in by_fold), None)
        else:
            found_in = next((key for key in wanted if (key, name) in answers), None)
        if found_in is None:
            used = "it was used in training" if name in trained else "it is not among the images of the run"
            verb = {"test": "tested it", "validation": "used it for validation", ALL: "tested or validated on it"}[
                subset
            ]
            rejects.append({"path": row["path"], "reason": f"no fold of the run {verb}: {used}"})
            continue
        folder, answer = by_fold[found_in, name, fold] if fold else answers[found_in, name]
        digest, known = row.get("sha256", "").lower(), answer.get("sha256", "").lower()
        if digest and known and digest != known and _same_chain(row, answer, chains):
            reason = f"its pixels differ from those of the image '{name}' that {folder.name} predicted"
            rejects.append({"path": row["path"], "reason": reason})
            continue
        # The prediction for one twin is not the prediction for the image.
        of_twin = is_twin(answer) and not is_twin(row)
        cases.append(Case(row, folder, found_in, "" if of_twin else answer.get("predicted", "")))
    return cases, rejects


def _same_chain(row: Row, answer: Row, known: dict[Path, Chain | None]) -> bool:
    """Whether the preprocessing of two images is the same."""
    found = []
    for path in (Path(row["path"]), Path(answer.get("path") or row["path"])):
        if path.parent not in known:
            try:
                known[path.parent] = without_paths(chain_of([path]))
            except InputError:
                # The chain is not known any more.
                known[path.parent] = None
        found.append(known[path.parent])
    return found[0] == found[1]
