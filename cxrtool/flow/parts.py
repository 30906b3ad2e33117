"""The fitted parts of a chain of preprocessing: where they are, and how they are copied.

An entry of a chain identifies its part by digest (`"part": {"kind", "network", "sha256"}`). The part itself is in
`parts/` beside the `run.json` or `model.json` with the chain, or comes with cxrtool. While a command runs, the entries
also have the path of the part, under `AT`, which is never written and never compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrtool.data.file_names import FITTED_ON, PART, PART_WEIGHTS
from cxrtool.errors import InputError

FOLDER = "parts"
PER_FOLD = {"match-histogram": "quantiles", "transform": "part"}
"""The steps that are fitted in each fold, and the value of an entry that then differs; `folds` has it for all folds."""

COPIED = (PART, PART_WEIGHTS, FITTED_ON)
"""The files of a set of generators that are copied."""

AT = "_at"

Chain = list[dict[str, Any]]


def without_paths(chain: Iterable[Mapping[str, Any]]) -> Chain:
    """A chain without paths, as it is written and compared."""
    return [{name: value for name, value in entry.items() if name != AT} for entry in chain]


def locate(chain: Sequence[Mapping[str, Any]], folder: Path) -> Chain:
    """A chain whose entries have the paths of their parts.

    Args:
        chain: As in `run.json` or `model.json` of `folder`.
        folder: A step's folder or a model folder.

    Raises:
        InputError: A part is neither there nor among those that come with cxrtool.
    """
    return [dict(entry) | ({AT: str(_find(entry["part"], folder))} if "part" in entry else {}) for entry in chain]


def _find(part: Mapping[str, str], folder: Path) -> Path:
    from cxrtool.models.parts import SHIPPED, read_part

    kind = part["kind"]
    for path in (folder / FOLDER / name_of(part), *sorted(SHIPPED.glob(f"{kind}-*"))):
        if path.is_dir() and read_part(path, kind).sha256 == part["sha256"]:
            return path
    raise InputError(
        f"{folder}: its images were made with a {kind} network ({part['network']}, {part['sha256'][:12]}) that is "
        f"neither in {folder / FOLDER} nor among those that come with this cxrtool"
    )


def name_of(part: Mapping[str, str]) -> str:
    """The folder of a part below `parts/`."""
    return f"{part['kind']}-{part['sha256'][:16]}"


def copy_parts(chain: Iterable[Mapping[str, Any]], target: Path) -> None:
    """Copy the parts of a located chain into a folder; those that come with cxrtool are not copied.

    Args:
        chain: As `locate` returns it.
        target: The folder whose `run.json` or `model.json` will have the chain.
    """
    from cxrtool.models.parts import SHIPPED

    for entry in chain:
        if AT in entry and Path(entry[AT]).parent != SHIPPED:
            copy = target / FOLDER / name_of(entry["part"])
            if not copy.exists():
                generators = entry["part"]["kind"] == "generators"
                shutil.copytree(entry[AT], copy, ignore=_all_but_the_part if generators else None)


def _all_but_the_part(folder: str, names: Sequence[str]) -> set[str]:
    """The folder of a fold also has a classifier, its predictions and figures."""
    return set(names) - set(COPIED)
