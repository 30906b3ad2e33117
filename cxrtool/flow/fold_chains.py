"""What the images of a manifest have been through, where some were made for single folds of a split."""

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
    """The id under which a fold answers: of an image that was made for it alone, that of its original.

    So the answers of a run on such images stand beside those of any other run on the same splits.
    """
    return original_of(row) if row.get("repeat") else row["image_id"]


def is_divided(manifest: Manifest) -> bool:
    """Whether some of the images were made for single folds."""
    return any(row.get("repeat") for row in manifest.rows)


def chain_of_manifest(manifest: Manifest) -> Chain:
    """The chain of all images; an entry that differs between folds tells `folds`.

    Raises:
        InputError: They have been through different things.
    """
    folds: dict[str, list[Path]] = {}
    for row in manifest.rows:
        folds.setdefault(own_fold(row), []).append(Path(row["path"]))
    return fold_together({name: chain_of(paths) for name, paths in folds.items()})


def chain_of_rows(rows: Sequence[Row]) -> Chain:
    """The chain of the images that one fold uses.

    Raises:
        InputError: They have been through different things.
    """
    return chain_of(Path(row["path"]) for row in rows)


def fold_together(chains: Mapping[str, Chain]) -> Chain:
    """One chain that tells what the images of each fold have been through.

    Args:
        chains: The chain of each fold by its name; `ALL` for images that are valid in every fold.

    Raises:
        InputError: They differ in more than their references.
    """
    told: Chain = []
    for column in zip(*chains.values(), strict=False):
        first = column[0]
        if all(entry == first for entry in column):
            told.append(first)
        elif ALL not in chains and all(_shared(entry) == _shared(first) for entry in column):
            own = PER_FOLD[first["step"]]
            folds = {name: entry[own] for name, entry in zip(chains, column, strict=True)}
            told.append({**_shared(first), "folds": folds})
    if any(len(chain) != len(told) for chain in chains.values()):
        names = " and ".join(name or "those of all folds" for name in list(chains)[:2])
        raise InputError(
            f"expected images of one preprocessing, found different ones in the folds, such as {names}",
            "make all of them with the same options, in one command",
        )
    return told


def _shared(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What of an entry may not differ between folds."""
    return {name: value for name, value in entry.items() if name not in (PER_FOLD.get(entry["step"]), AT)}
