"""What a fitted part, or a run of them, is: the facts that `cxrtool info` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrtool.data.manifest import read_table
from cxrtool.data.splits import FILE_NAME as SPLITS
from cxrtool.data.splits import read_splits
from cxrtool.errors import InputError
from cxrtool.flow.chain import describe
from cxrtool.flow.run import fold_name
from cxrtool.flow.seen import FITTED
from cxrtool.steps.info_describe import Description, add_making, values

PART, SUMMARY = "part.json", "summary.csv"
KINDS = {"lungs": "lung network", "ribs": "rib-suppressing network", "generators": "class-inherent generators"}
NEXT = {
    "lungs": "cxrtool segment MANIFEST --lungs {} -o DIR",
    "ribs": "cxrtool enhance MANIFEST --steps suppress-ribs --ribs {} -o DIR",
    "generators": "cxrtool transform MANIFEST --generators {} -o DIR",
}


def is_part(path: Path) -> bool:
    """Whether a folder holds a fitted part."""
    return (path / PART).is_file()


def is_fit(made: Mapping[str, Any] | None, path: Path) -> bool:
    """Whether a folder is a run of `fit`: one part for each fold of its splits."""
    return made is not None and made.get("command") == "fit" and (path / SPLITS).is_file()


def kind_of(path: Path) -> str:
    """What a part is for, by its own word.

    Raises:
        InputError: It is for nothing that cxrtool knows.
    """
    try:
        kind = json.loads((path / PART).read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path / PART}: not readable JSON: {error}") from error
    if kind not in KINDS:
        raise InputError(f"{path / PART}: expected a part for {' or '.join(KINDS)}, found one for '{kind}'")
    return str(kind)


def describe_part(path: Path, made: Mapping[str, Any] | None) -> Description:
    """A part: its network, what it was fitted on, and how well it does.

    Raises:
        InputError: It is damaged, or of another schema.
    """
    from cxrtool.models.parts import read_part

    part = read_part(path, kind_of(path))
    result = Description(KINDS[part.kind], str(path))
    result.add("network", part.network)
    shown = [name.replace("_", " ") for name in ("crop_borders", "equalise", "invert") if getattr(part.form, name)]
    result.add("is shown", ", ".join([f"{part.form.size} pixels, {part.form.fit}", *shown]))
    result.add("sha256", part.sha256[:16])
    for name, told in part.description.items():
        if name == "chain":
            result.add("processing", describe(told))
        elif name not in ("schema", "kind", "network", "form", "sha256", "usual"):
            result.add(name.replace("_", " "), _plain(told))
    if (path / FITTED).is_file():
        table = read_table(path / FITTED)
        patients = len({row["patient_id"] for row in table.rows if row.get("patient_id")})
        result.add("fitted on", f"{values(table.column('subset'))}; {patients} patients")
    if made:
        add_making(result, made, path)
    result.next = NEXT[part.kind].format(path)
    return result


def describe_fit(path: Path, made: Mapping[str, Any]) -> Description:
    """A run of `fit`: its folds, and the table of how well they do."""
    kind = made.get("options", {}).get("kind", {}).get("value", "lungs")
    result = Description(f"run of `cxrtool fit {kind}`", str(path))
    expected = [fold_name(*run) for run in read_splits(path / SPLITS).runs]
    missing = [name for name in expected if not is_part(path / name)]
    text = f"{len(expected) - len(missing)} of {len(expected)}"
    result.add("folds", f"{text}; missing {', '.join(missing[:8])}" if missing else f"{text}, all there")
    if (path / SUMMARY).is_file():
        table = read_table(path / SUMMARY)
        result.tables.append(("", table.columns, [list(row.values()) for row in table.rows]))
    add_making(result, made, path)
    # Generators are asked fold by fold; of the others any fold's will do for new images.
    taken = path if kind == "generators" else path / expected[0]
    result.next = "the same `cxrtool fit` again, which goes on" if missing else NEXT[kind].format(taken)
    return result


def _plain(told: object) -> str:
    if isinstance(told, Mapping):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in told.items() if entry is not None)
    if isinstance(told, list):
        return ", ".join(map(_plain, told))
    return f"{told:g}" if isinstance(told, float) else str(told)
