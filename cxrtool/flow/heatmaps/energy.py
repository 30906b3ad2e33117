"""How much of what a network looks at lies inside the lungs: of one folder of heatmaps, and of two side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Row, read_manifest
from cxrtool.errors import InputError
from cxrtool.flow.folder import read_run_file

FIGURES = {"energy_inside": "of the maps' energy lies inside the masks", "peak_inside": "of the peaks do"}
"""Columns of the manifest that `explain` writes, and what they say."""

ALIKE = ("method", "target", "over", "layer")
"""Options of two folders that must be the same, or something else differs beside what was meant."""

BY_CLASS = "by_class"

MASKS = "mask_share"
"""The share of the pictures that their masks cover: what maps that look nowhere in particular would reach."""


def measure_place(rows: Sequence[dict[str, Any]], seed: int) -> dict[str, dict[str, Any]]:
    """Mean share of the maps' energy inside the masks, and share of peaks there, with intervals over patients.

    Args:
        rows: Of the manifest that `explain` writes; those without a figure are left out.
        seed: Of the resamples.

    Returns:
        `energy_inside` and `peak_inside`, each a figure as in `metrics.json`, with its number of images, and
        `by_class` the same of every label, where there are several; empty where no image has a mask.
    """
    from cxrtool.evaluation.resampling.means import mean_of_images

    found: dict[str, dict[str, Any]] = {}
    for name in FIGURES:
        known = [row for row in rows if row[name] != ""]
        if not known:
            continue
        # A share of energy is no count of successes: Wilson's interval is for peaks alone.
        counted = name == "peak_inside"
        found[name] = mean_of_images(known, [float(row[name]) for row in known], seed, proportion=counted)
        shares = [float(row["mask_share"]) for row in known if row.get("mask_share")]
        if name == "energy_inside" and len(shares) == len(known):
            found[name][MASKS] = sum(shares) / len(shares)
        classes = sorted({row.get("label", "") for row in known} - {""})
        if len(classes) > 1:
            parts = {label: [row for row in known if row.get("label") == label] for label in classes}
            found[name][BY_CLASS] = {
                label: mean_of_images(part, [float(row[name]) for row in part], seed, proportion=counted)
                for label, part in parts.items()
            }
    return found


def read_other(folder: Path) -> list[Row]:
    """The rows of another folder of heatmaps.

    Raises:
        InputError: It is none.
    """
    made = read_run_file(folder)
    if made is None or made.get("command") != "explain":
        found = f"the output of `{made['command']}`" if made else "none"
        raise InputError(f"--beside {folder}: expected a folder that `cxrtool explain` wrote, found {found}")
    return read_manifest(folder).rows


def differing(folder: Path, own: Mapping[str, Any]) -> list[str]:
    """In what another folder's maps were made otherwise, so that a difference may come of that alone."""
    options = (read_run_file(folder) or {}).get("options", {})
    told = {name: entry["value"] if isinstance(entry, Mapping) else entry for name, entry in options.items()}
    # What an older version did not ask about was done as by default.
    return [
        f"--{name} is {own[name] or 'not given'} here and {told[name] or 'not given'} there"
        for name in ALIKE
        if name in told and told[name] != own[name]
    ]


def compare_beside(rows: Sequence[dict[str, Any]], others: Sequence[Row], seed: int) -> dict[str, Any]:
    """The energy inside the masks here less that of the same images elsewhere, with an interval over patients.

    Args:
        rows: Of the manifest that `explain` is about to write.
        others: Of the other one; images are found by their ids, derived ones by those of their originals.
        seed: Of the resamples.

    Returns:
        The difference as a figure, `here` and `there` the means of the pairs, and how many images have no partner with
        a figure.

    Raises:
        InputError: No image has one.
    """
    from cxrtool.evaluation.resampling.means import mean_of_images

    theirs = {original_of(row): row["energy_inside"] for row in others if row.get("energy_inside")}
    known = [row for row in rows if row["energy_inside"] != "" and original_of(row) in theirs]
    if not known:
        raise InputError(
            f"--beside: not one of {len(rows)} images has its energy inside a mask measured in both folders",
            "explain the same manifest in both, one whose images have masks: `cxrtool segment` makes them",
        )
    here = [float(row["energy_inside"]) for row in known]
    there = [float(theirs[original_of(row)]) for row in known]
    found = mean_of_images(known, [one - other for one, other in zip(here, there, strict=True)], seed, proportion=False)
    return {**found, "here": sum(here) / len(known), "there": sum(there) / len(known), "alone": len(rows) - len(known)}


def in_words(measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What `measure_place` found, a line a figure."""
    lines = []
    for name, text in FIGURES.items():
        if name not in measured:
            continue
        figure = measured[name]
        covered = f", which cover {figure[MASKS]:.1%} of the pictures" if MASKS in figure else ""
        lines.append(f"{_share(figure)} {text}{covered} ({_count(figure)})")
        classes = figure.get(BY_CLASS, {})
        if classes and name == "energy_inside":
            parts = (f"{label} {_share(part)} ({part['images']})" for label, part in classes.items())
            lines.append(f"  by class: {', '.join(parts)}")
    return lines


def beside_in_words(found: Mapping[str, Any], folder: Path) -> str:
    """What `compare_beside` found, in a line."""
    low, high = found["low"], found["high"]
    interval = f" [{100 * low:+.1f}, {100 * high:+.1f}]" if low is not None else ""
    alone = f"; {found['alone']} have no partner" if found["alone"] else ""
    return (
        f"energy inside the masks: {found['here']:.1%} here, {found['there']:.1%} in {folder}: "
        f"{100 * found['value']:+.1f} points{interval} ({_count(found)}{alone})"
    )


def _share(figure: Mapping[str, Any]) -> str:
    interval = f" [{figure['low']:.1%}, {figure['high']:.1%}]" if figure["low"] is not None else ""
    return f"{figure['value']:.1%}{interval}"


def _count(figure: Mapping[str, Any]) -> str:
    return f"{figure['images']} images of {figure['patients']} patients"
