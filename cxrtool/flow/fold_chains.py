"""The preprocessing of a manifest's images, where some images were made for single folds of the splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Manifest, Row
from cxrtool.errors import InputError
from cxrtool.flow.chain import chain_of
from cxrtool.flow.parts import AT, PER_FOLD, Chain
from cxrtool.flow.run import fold_name

ALL = ""
"""The name of the images that are valid in every fold."""


def own_fold(row: Row) -> str:
    """The name of the fold for which an image was made, `r0f3`, or `ALL`."""
    return fold_name(row["repeat"], row.get("fold") or "0") if row.get("repeat") else ALL


def radiograph_of(row: Row) -> str:
    """The id in a fold's predictions: for an image that was made for this fold alone, the id of its original.

    So the predictions of a run on such images can be compared with those of any other run on the same splits.
    """
    return original_of(row) if row.get("repeat") else row["image_id"]


def is_divided(manifest: Manifest) -> bool:
    """Whether some of the images were made for single folds."""
    return any(row.get("repeat") for row in manifest.rows)


def chain_of_manifest(manifest: Manifest) -> Chain:
    """The chain of all images; an entry that differs between folds has `folds`.

    Raises:
        InputError: Their preprocessing differs.
    """
    folds: dict[str, list[Path]] = {}
    for row in manifest.rows:
        folds.setdefault(own_fold(row), []).append(Path(row["path"]))
    return fold_together({name: chain_of(paths) for name, paths in folds.items()})


def chain_of_rows(rows: Sequence[Row]) -> Chain:
    """The chain of the images that one fold uses.

    Raises:
        InputError: Their preprocessing differs.
    """
    return chain_of(Path(row["path"]) for row in rows)


def fold_together(chains: Mapping[str, Chain]) -> Chain:
    """One chain with the preprocessing of the images of each fold.

    Args:
        chains: The chain of each fold by its name; `ALL` for images that are valid in every fold.

    Raises:
        InputError: They differ in more than their references.
    """
    joined: Chain = []
    for column in zip(*chains.values(), strict=False):
        first = column[0]
        if all(entry == first for entry in column):
            joined.append(first)
        elif ALL not in chains and all(_shared(entry) == _shared(first) for entry in column):
            fitted = PER_FOLD[first["step"]]
            folds = {name: entry[fitted] for name, entry in zip(chains, column, strict=True)}
            joined.append({**_shared(first), "folds": folds})
    if any(len(chain) != len(joined) for chain in chains.values()):
        names = " and ".join(name or "that of all folds" for name in list(chains)[:2])
        raise InputError(
            f"expected images of one preprocessing, found different preprocessing in the folds, such as {names}",
            "make all of them with the same options, in one command",
        )
    return joined


def _shared(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an entry that must not differ between folds."""
    return {name: value for name, value in entry.items() if name not in (PER_FOLD.get(entry["step"]), AT)}
