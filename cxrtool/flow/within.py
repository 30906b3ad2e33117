"""`evaluate --within`: only the images that are listed in a splits file or in a manifest."""

from __future__ import annotations

from pathlib import Path

from cxrtool.data.file_names import MANIFEST, SPLITS
from cxrtool.data.splitting.splits import known_as, read_splits
from cxrtool.data.tables.manifest import read_table
from cxrtool.data.tables.predictions import Predictions
from cxrtool.errors import InputError


def table_of(argument: Path) -> Path:
    """The file of an argument: for a folder its splits, otherwise its manifest; an `InputError` if it has neither."""
    if not argument.is_dir():
        return argument
    for name in (SPLITS, MANIFEST):
        if (argument / name).is_file():
            return argument / name
    raise InputError(f"--within {argument}: expected {SPLITS} or {MANIFEST} in that folder, found neither")


def keep_within(predictions: Predictions, argument: Path, subset: str) -> list[str]:
    """Exclude the predictions, in place, for images that are not listed in a table.

    Args:
        predictions: Are changed.
        argument: Splits, in which an image must be in the same repeat and fold, and in `subset`; or a manifest, which
            must list it or its original. Predictions without a repeat need splits with only one.
        subset: Of the splits.

    Returns:
        A note on the excluded rows, if there are any.

    Raises:
        InputError: No row remains, or the table is neither splits nor a manifest.
    """
    path = table_of(argument)
    table = read_table(path)
    if "path" not in table.columns and "subset" in table.columns:
        runs = read_splits(path).runs
        wanted = {run: {name: where for name, where in s.items() if where == subset} for run, s in runs.items()}
        if len(runs) > 1 and not all(row.get("repeat") for row in predictions.rows):
            raise InputError(
                f"{predictions.name}: expected a repeat and a fold for every prediction, because {path} has "
                f"{len(runs)} of them, found rows without"
            )
        own = [(row.get("repeat") or "0", row.get("fold") or "0") for row in predictions.rows]
        kept = [i for i, row in enumerate(predictions.rows) if known_as(row, wanted.get(own[i], {}))]
    else:
        table.require("image_id")
        known = dict.fromkeys(table.column("image_id"), subset)
        kept = [i for i, row in enumerate(predictions.rows) if known_as(row, known)]
    of_subset = [row.get("subset", "") == subset for row in predictions.rows]
    if not any(of_subset):
        # Where no row is marked, an evaluation uses all.
        of_subset = [True] * len(of_subset)
    excluded = sum(of_subset) - sum(of_subset[i] for i in kept)
    if not any(of_subset[i] for i in kept):
        raise InputError(f"--within {path}: expected images of {predictions.name}, found none of its {sum(of_subset)}")
    predictions.rows = [predictions.rows[i] for i in kept]
    predictions.probabilities = predictions.probabilities[kept]
    return [f"Rows excluded because they are not listed in {path.name}: {excluded}."] if excluded else []
