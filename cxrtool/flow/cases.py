"""Which model explains which image: in a run, the fold that tested it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path

from cxrtool.data.file_names import FITTED_ON, PREDICTIONS
from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Manifest, Row, read_table
from cxrtool.data.tables.twins import is_twin, radiograph_id
from cxrtool.errors import InputError
from cxrtool.flow.chain import Chain, chain_of, own_fold
from cxrtool.flow.folder import without_paths

ALL = "all"
SUBSETS = ("test", "validation", ALL)
"""The values of `--subset`; the training images of a fold are in none of them."""


@dataclass(frozen=True)
class Case:
    """An image and the model that explains it; of a run also its subset, and the class that the fold predicted."""

    row: Row
    folder: Path
    subset: str = ""
    recorded: str = ""


def assign(manifest: Manifest, folders: Sequence[Path], subset: str, *, of_run: bool) -> tuple[list[Case], list[Row]]:
    """Find the model for every image, by its id or, where a fold used a derived image, by the id of the original.

    The first of `folders`, in the order of repeats and folds, that tested an image explains it; a single model, which
    is not `of_run`, explains everything. `subset` is `test`, `validation` or `all`, which prefers test.

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

    @cache
    def chain_at(folder: Path) -> Chain | None:
        try:
            return without_paths(chain_of([folder / "any"]))
        except InputError:
            # The chain is not known any more.
            return None

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
        here, there = (Path(one.get("path") or row["path"]).parent for one in (row, answer))
        if digest and known and digest != known and chain_at(here) == chain_at(there):
            reason = f"its pixels differ from those of the image '{name}' that {folder.name} predicted"
            rejects.append({"path": row["path"], "reason": reason})
            continue
        # The prediction for one twin is not the prediction for the image.
        of_twin = is_twin(answer) and not is_twin(row)
        cases.append(Case(row, folder, found_in, "" if of_twin else answer.get("predicted", "")))
    return cases, rejects
