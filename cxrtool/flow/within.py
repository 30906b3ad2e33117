"""`evaluate --within`: only the images that stand in a splits file or in a manifest."""

from __future__ import annotations

from pathlib import Path

from cxrtool.data.splitting.splits import FILE_NAME as SPLITS
from cxrtool.data.splitting.splits import known_as, read_splits
from cxrtool.data.tables.manifest import FILE_NAME, read_table
from cxrtool.data.tables.predictions import Predictions
from cxrtool.errors import InputError


def table_of(argument: Path) -> Path:
    """The file that is meant: of a folder its splits, as of a run, else its manifest.

    Raises:
        InputError: A folder holds neither.
    """
    if not argument.is_dir():
        return argument
    for name in (SPLITS, FILE_NAME):
        if (argument / name).is_file():
            return argument / name
    raise InputError(f"--within {argument}: expected {SPLITS} or {FILE_NAME} in that folder, found neither")


def keep_within(predictions: Predictions, argument: Path, subset: str) -> list[str]:
    """Leave out the answers about images that do not stand in a table.

    Args:
        predictions: Changed in place.
        argument: Splits, of which an image must stand in the same repeat and fold, and in `subset`; or a manifest, in
            which it must stand, or the one that it was made of. Answers without a repeat need splits with only one.
        subset: Which of the splits.

    Returns:
        What was left out, in plain words; nothing where nothing was.

    Raises:
        InputError: Nothing is left, or the table is neither splits nor a manifest.
    """
    path = table_of(argument)
    table = read_table(path)
    if "path" not in table.columns and "subset" in table.columns:
        runs = read_splits(path).runs
        wanted = {run: {name: where for name, where in s.items() if where == subset} for run, s in runs.items()}
        if len(runs) > 1 and not all(row.get("repeat") for row in predictions.rows):
            raise InputError(
                f"{predictions.name}: expected a repeat and a fold of every answer, as {path} has {len(runs)} of them"
            )
        own = [(row.get("repeat") or "0", row.get("fold") or "0") for row in predictions.rows]
        kept = [i for i, row in enumerate(predictions.rows) if known_as(row, wanted.get(own[i], {}))]
    else:
        table.require("image_id")
        known = dict.fromkeys(table.column("image_id"), subset)
        kept = [i for i, row in enumerate(predictions.rows) if known_as(row, known)]
    of_subset = [row.get("subset", "") == subset for row in predictions.rows]
    if not any(of_subset):
        # Where nothing is marked, an evaluation takes all.
        of_subset = [True] * len(of_subset)
    left = sum(of_subset) - sum(of_subset[i] for i in kept)
    if not any(of_subset[i] for i in kept):
        raise InputError(f"--within {path}: expected images of {predictions.name}, found none of its {sum(of_subset)}")
    predictions.rows = [predictions.rows[i] for i in kept]
    predictions.probabilities = predictions.probabilities[kept]
    return [f"Rows that do not stand in {path.name}, left out: {left}."] if left else []
