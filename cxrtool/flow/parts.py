"""The fitted parts that a chain of preprocessing speaks of: where they lie, and how they travel with what needs them.

An entry of a chain names its part by digest alone (`"part": {"kind", "network", "sha256"}`). The part itself lies in
`parts/` beside the `run.json` or `model.json` that tells the chain, or comes with cxrtool. While a command works, the
entries carry the place as well, under `AT`, which is never written down and never compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrtool.errors import InputError

FOLDER = "parts"
PER_FOLD = {"match-histogram": "quantiles", "transform": "part"}
"""The steps that are fitted anew in each fold, and what of an entry differs then; `folds` holds it for all of them."""

CARRIED = ("part.json", "part.safetensors", "fitted_on.csv")
"""What of a set of generators goes along."""

AT = "_at"

Chain = list[dict[str, Any]]


def without_paths(chain: Iterable[Mapping[str, Any]]) -> Chain:
    """A chain without places, as it is written down and compared."""
    return [{name: value for name, value in entry.items() if name != AT} for entry in chain]


def locate(chain: Sequence[Mapping[str, Any]], folder: Path) -> Chain:
    """A chain whose entries know where their parts lie.

    Args:
        chain: As `run.json` or `model.json` in `folder` tells it.
        folder: A step's folder or a model folder.

    Raises:
        InputError: A part is neither there nor among those that come with cxrtool.
    """
    return [dict(entry) | ({AT: str(_find(entry["part"], folder))} if "part" in entry else {}) for entry in chain]


def _find(part: Mapping[str, str], folder: Path) -> Path:
    from cxrtool.models.parts import SHIPPED, read_part

    kind = part["kind"]
    for place in (folder / FOLDER / name_of(part), *sorted(SHIPPED.glob(f"{kind}-*"))):
        if place.is_dir() and read_part(place, kind).sha256 == part["sha256"]:
            return place
    raise InputError(
        f"{folder}: its images went through a {kind} network ({part['network']}, {part['sha256'][:12]}) that is "
        f"neither in {folder / FOLDER} nor among those that come with this cxrtool"
    )


def name_of(part: Mapping[str, str]) -> str:
    """The folder of a part below `parts/`."""
    return f"{part['kind']}-{part['sha256'][:16]}"


def copy_parts(chain: Iterable[Mapping[str, Any]], target: Path) -> None:
    """Copy the parts of a located chain into a folder in the making; those that come with cxrtool stay where they are.

    Args:
        chain: As `locate` returns it.
        target: The folder whose `run.json` or `model.json` will tell the chain.
    """
    from cxrtool.models.parts import SHIPPED

    for entry in chain:
        if AT in entry and Path(entry[AT]).parent != SHIPPED:
            place = target / FOLDER / name_of(entry["part"])
            if not place.exists():
                many = entry["part"]["kind"] == "generators"
                shutil.copytree(entry[AT], place, ignore=_all_but_the_part if many else None)


def _all_but_the_part(folder: str, names: Sequence[str]) -> set[str]:
    """A fold of generators holds more than they: a classifier, its answers, pictures."""
    return set(names) - set(CARRIED)
