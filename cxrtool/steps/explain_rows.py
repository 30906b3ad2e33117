"""What a row of the manifest that `explain` writes tells of a map, and of the second map of twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxrtool.data.predictions import GROUPING
from cxrtool.steps.explain_heatmaps import OPPOSITE

OWN = ("target_probability", "twin", "output", "map", "energy_inside", "peak_x", "peak_y", "peak_inside")
"""What a row tells of its map."""

SECOND = {"target": OPPOSITE, **{name: f"{OPPOSITE}_{name.removeprefix('target_')}" for name in OWN}}
"""What a row calls the same of its second map: that of the opposite, where twins are explained."""

COLUMNS = (
    "image_id", "path", "label", "predicted", "probability", "overlay", "target", *OWN, *SECOND.values(),
    "warning", "mask", "mask_share", "repeat", "fold", "subset", *GROUPING,
)  # fmt: skip
"""The columns of the manifest that `explain` writes."""


def tell_of_map(record: Mapping[str, Any], name: str) -> dict[str, str]:
    """What a row tells of one map."""
    inside, peak = record["energy_inside"], record["peak"]
    twin = {key: record[key] for key in ("twin", "output") if record.get(key)}
    return {
        "target": record["target"],
        "target_probability": f"{record['target_probability']:.6g}",
        **twin,
        "map": name,
        "energy_inside": "" if inside is None else f"{inside:.6g}",
        "peak_x": str(peak[0]) if peak else "",
        "peak_y": str(peak[1]) if peak else "",
        "peak_inside": "" if record["peak_inside"] is None else str(int(record["peak_inside"])),
    }


def second_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as they tell of the second maps; those without one are left out."""
    known = [row for row in rows if OPPOSITE in row]
    return [{**row, **{name: row.get(other, "") for name, other in SECOND.items()}} for row in known]
