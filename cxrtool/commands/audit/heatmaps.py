"""Where a model looks: the heatmaps of some test images, and how much of them is inside the lungs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxrtool.auditing.part import CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part
from cxrtool.data.structured import load_json
from cxrtool.data.tables.manifest import Manifest, Row
from cxrtool.errors import ChangedError, CxrtoolError, count_of
from cxrtool.evaluation.tables import ABSENT, Sheet, cell
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.heatmaps import explain
from cxrtool.flow.heatmaps.energy import BY_CLASS, FIGURES, MASKS
from cxrtool.flow.heatmaps.options import ExplainOptions
from cxrtool.flow.heatmaps.reference import References
from cxrtool.flow.heatmaps.scores import SCORES
from cxrtool.flow.settings import Muted, Settings

NAME, TITLE = "heatmaps", "Where the model looks"
FOLDER = "heatmaps"

ON = "on_structures"
"""The key of the scores against `--reference`."""

NAMES = {"energy_inside": "energy inside the lungs", "peak_inside": "peaks inside the lungs"}


def examine(
    run: Path,
    manifest: Manifest,
    rows: Sequence[Row],
    folder: Path,
    settings: Settings,
    partial: bool,
    references: References | None = None,
) -> Part:
    """Explain images by Grad-CAM, each by the fold that tested it.

    Args:
        run: A run of models.
        manifest: The manifest of the images.
        rows: The images, with masks.
        folder: The folder of the audit, in which the heatmaps are written.
        settings: Device, workers, seed.
        partial: Folds of the run may be missing.
        references: Outlines of what does not show the disease, such as devices and letters.

    Returns:
        The part `heatmaps`. A map without any preference puts as much energy inside the lungs as they cover of the
        image; no more than that is a warning, and so is more than that on devices.
    """
    images = Manifest(manifest.columns, [dict(row) for row in rows], manifest.origin, [], manifest.stream)
    quiet = replace(settings, out=folder / FOLDER, report=Muted(settings.report), strict=False)
    known = references if references and any(references.of(row) for row in images.rows) else None
    try:
        explain(ExplainOptions(run, (manifest.name,), partial=partial), quiet, images, known)
    except ChangedError:
        raise
    except CxrtoolError as error:
        return Part(NAME, TITLE, findings=[Finding(UNKNOWN, f"Where the model looks is not known: {error.message}")])
    explained = (read_run_file(folder / FOLDER) or {}).get("explained", {})
    found: dict[str, Any] = explained.get("place", {})
    pictures = [
        (path.relative_to(folder).as_posix(), f"Heatmaps: {path.stem.replace('-', ' ')}")
        for path in sorted((folder / FOLDER / "sheets").glob("*.png"))
    ]
    on = load_json(folder / FOLDER / SCORES)["structures"] if known else {}
    names = references.structures if references else []
    findings = [_judge_on(name, on.get(name, {})) for name in names]
    content = {**found, **({ON: on} if references else {})}
    sheets = [_tabulate_on(on)] if any(part["images"] for part in on.values()) else []
    if "energy_inside" not in found:
        text = "How much of the heatmaps is inside the lungs is not known: no image has a mask."
        return Part(NAME, TITLE, content, [Finding(UNKNOWN, text), *findings], sheets, pictures)
    return Part(NAME, TITLE, content, [_judge(found), *findings], [_tabulate(found), *sheets], pictures)


def _judge(found: dict[str, Any]) -> Finding:
    energy = found["energy_inside"]
    text = f"The share of heatmap energy inside the lungs is {cell(energy)} ({count_of(energy['images'], 'image')})"
    if MASKS not in energy:
        return Finding(NOTE, f"{text}.")
    text += f"; the lungs cover {energy[MASKS]:.2f} of the images"
    low, high = (energy[end] if energy[end] is not None else energy["value"] for end in ("low", "high"))
    if high < energy[MASKS]:
        return Finding(WARNING, f"{text}: the model looks outside the lungs, more than by chance.")
    if energy["value"] <= energy[MASKS]:
        return Finding(WARNING, f"{text}: no more than for a map without any preference.")
    if low <= energy[MASKS]:
        return Finding(NOTE, f"{text}: not clearly more than for a map without any preference.")
    return Finding(CLEAR, f"{text}.")


def _judge_on(name: str, found: dict[str, Any]) -> Finding:
    """The finding on a structure: its share of the energy against its share of the image."""
    means = next(iter(found.get("methods", {}).values()), None)
    if means is None:
        return Finding(UNKNOWN, f"How much of the heatmaps is on {name} is not known: no test image has an outline.")
    difference, energy = means["energy_above_share"], means["energy"]
    text = (
        f"The share of heatmap energy on {name} is {cell(energy, 3)} ({count_of(energy['images'], 'image')}); "
        f"they cover {found['reference_share']:.3f} of the images"
    )
    low = difference["low"] if difference["low"] is not None else difference["value"]
    if low > 0:
        return Finding(WARNING, f"{text}: the model looks at {name} more than by chance.")
    if difference["value"] > 0:
        return Finding(NOTE, f"{text}: not clearly more than for a map without any preference.")
    return Finding(CLEAR, f"{text}.")


def _tabulate_on(on: dict[str, Any]) -> Sheet:
    rows = []
    for name, found in on.items():
        for means in found["methods"].values():
            cells = [cell(means["energy"], 3), f"{found['reference_share']:.3f}", cell(means["energy_above_share"], 3)]
            rows.append([name, *cells, str(found["images"])])
    columns = ["", "share of the energy", "share of the image", "difference", "images"]
    return Sheet("Heatmaps on structures", columns, rows, ["Images without the structure are excluded."])


def _tabulate(found: dict[str, Any]) -> Sheet:
    classes = sorted({label for name in FIGURES for label in found.get(name, {}).get(BY_CLASS, {})})
    rows = []
    for name, text in NAMES.items():
        if name in found:
            parts = found[name].get(BY_CLASS, {})
            cells = [cell(parts[label]) if label in parts else ABSENT for label in classes]
            rows.append([text, cell(found[name]), *cells])
    energy = found["energy_inside"]
    notes = [
        f"Grad-CAM of the predicted class, {energy['images']} test "
        f"images of {count_of(energy['patients'], 'patient')}, each "
        "by the fold that tested it."
    ]
    if MASKS in energy:
        notes.append(f"The lungs cover {energy[MASKS]:.2f} of the images: a map without any preference reaches this.")
    return Sheet(TITLE, ["", "all", *classes], rows, notes)
