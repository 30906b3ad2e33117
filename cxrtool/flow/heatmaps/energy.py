"""The share of the energy of heatmaps that is inside the lungs: for one folder, and for two side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Row, read_manifest
from cxrtool.errors import InputError, count_of
from cxrtool.flow.folder import read_run_file

FIGURES = {
    "energy_inside": "of the energy of the maps is inside the masks",
    "peak_inside": "of the peaks are inside the masks",
}
"""Columns of the manifest that `explain` writes, and their description."""

ALIKE = ("method", "target", "over", "layer")
"""Options that must be the same in two folders, so that their difference has no other cause."""

BY_CLASS = "by_class"

MASKS = "mask_share"
"""The share of the images that their masks cover, which a uniform map would reach."""


def measure_place(rows: Sequence[dict[str, Any]], seed: int) -> dict[str, dict[str, Any]]:
    """Mean share of the energy of the maps inside the masks, and share of peaks inside, with intervals over patients.

    Rows without a value are excluded.

    Returns:
        `energy_inside` and `peak_inside`, each a measure as in `metrics.json` with its number of images, and `by_class`
        with the same for each of several labels; empty where no image has a mask.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in FIGURES:
        known = [row for row in rows if row[name] != ""]
        if not known:
            continue
        found[name] = _mean(known, name, seed)
        shares = [float(row["mask_share"]) for row in known if row.get("mask_share")]
        if name == "energy_inside" and len(shares) == len(known):
            found[name][MASKS] = sum(shares) / len(shares)
        classes = sorted({row.get("label", "") for row in known} - {""})
        if len(classes) > 1:
            parts = {label: [row for row in known if row.get("label") == label] for label in classes}
            found[name][BY_CLASS] = {label: _mean(part, name, seed) for label, part in parts.items()}
    return found


def _mean(rows: Sequence[dict[str, Any]], name: str, seed: int) -> dict[str, Any]:
    from cxrtool.evaluation.resampling.means import mean_of_images

    # A share of energy is not a count of successes: Wilson's interval is only for peaks.
    return mean_of_images(rows, [float(row[name]) for row in rows], seed, proportion=name == "peak_inside")


def read_other(folder: Path) -> list[Row]:
    """The rows of another folder of heatmaps; an `InputError` if it is not one."""
    made = read_run_file(folder)
    if made is None or made.get("command") != "explain":
        found = f"the output of `{made['command']}`" if made else "no run.json"
        raise InputError(f"--beside {folder}: expected the output folder of `cxrtool explain`, found {found}")
    return read_manifest(folder).rows


def differing(folder: Path, own: Mapping[str, Any]) -> list[str]:
    """Options with which the maps of the other folder were made differently, which may explain a difference."""
    options = (read_run_file(folder) or {}).get("options", {})
    theirs = {name: entry["value"] if isinstance(entry, Mapping) else entry for name, entry in options.items()}
    # Options that an older version did not have were at their default.
    return [
        f"--{name} is {own[name] or 'not given'} here and {theirs[name] or 'not given'} there"
        for name in ALIKE
        if name in theirs and theirs[name] != own[name]
    ]


def compare_beside(rows: Sequence[dict[str, Any]], others: Sequence[Row], seed: int) -> dict[str, Any]:
    """The energy inside the masks here minus that of the same images in the other folder, over patients.

    Images are paired by their ids, derived ones by the ids of their originals.

    Returns:
        The difference as a measure, `here` and `there` as means of the pairs, and `alone`, the number of images without
        a pair.

    Raises:
        InputError: There is no pair.
    """
    from cxrtool.evaluation.resampling.means import mean_of_images

    theirs = {original_of(row): row["energy_inside"] for row in others if row.get("energy_inside")}
    known = [row for row in rows if row["energy_inside"] != "" and original_of(row) in theirs]
    if not known:
        raise InputError(
            f"--beside: expected images with a value of energy_inside in both folders, found none of {len(rows)}",
            "explain the same manifest with masks for both folders: `cxrtool segment` makes masks",
        )
    here = [float(row["energy_inside"]) for row in known]
    there = [float(theirs[original_of(row)]) for row in known]
    found = mean_of_images(known, [one - other for one, other in zip(here, there, strict=True)], seed, proportion=False)
    return {**found, "here": sum(here) / len(known), "there": sum(there) / len(known), "alone": len(rows) - len(known)}


def in_words(measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The result of `measure_place`, one line per measure."""
    lines = []
    for name, text in FIGURES.items():
        if name not in measured:
            continue
        figure = measured[name]
        covered = f", which cover {figure[MASKS]:.1%} of the images" if MASKS in figure else ""
        lines.append(f"{_share(figure)} {text}{covered} ({_count(figure)})")
        classes = figure.get(BY_CLASS, {})
        if classes and name == "energy_inside":
            parts = (f"{label} {_share(part)} ({part['images']})" for label, part in classes.items())
            lines.append(f"  by class: {', '.join(parts)}")
    return lines


def beside_in_words(found: Mapping[str, Any], folder: Path) -> str:
    """The result of `compare_beside`, in one line."""
    low, high = found["low"], found["high"]
    interval = f" [{100 * low:+.1f}, {100 * high:+.1f}]" if low is not None else ""
    alone = f"; {count_of(found['alone'], 'image')} without a pair" if found["alone"] else ""
    return (
        f"energy inside the masks: {found['here']:.1%} here, {found['there']:.1%} in {folder}: "
        f"{100 * found['value']:+.1f} percentage points{interval} ({_count(found)}{alone})"
    )


def _share(figure: Mapping[str, Any]) -> str:
    interval = f" [{figure['low']:.1%}, {figure['high']:.1%}]" if figure["low"] is not None else ""
    return f"{figure['value']:.1%}{interval}"


def _count(figure: Mapping[str, Any]) -> str:
    return f"{count_of(figure['images'], 'image')} of {count_of(figure['patients'], 'patient')}"
