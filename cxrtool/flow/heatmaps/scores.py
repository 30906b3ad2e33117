"""The scores of heatmaps against a reference, and their faithfulness: of an image, over images, in words, as files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.files import atomic_write
from cxrtool.data.tables.manifest import write_table
from cxrtool.errors import count_of

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.flow.heatmaps.drawing import View
    from cxrtool.flow.heatmaps.subject import Reason, Subject

SCORES, REFERENCE, FAITHFULNESS, FIGURE = "scores.json", "reference.csv", "faithfulness.csv", "scores.png"
"""The files: all means with intervals; the scores of each image; the same of faithfulness; the figure."""

FIGURES = {
    "energy": "energy",
    "pointing": "peak inside",
    "average_precision": "average precision",
    "iou": "IoU at equal area",
}
"""The fields of `Scores`, in words."""

AREAS = {"deletion": "deletion", "insertion": "insertion"}
"""The fields of `Areas`; those of a random map have the prefix `random_`."""

LUNGS, IMAGE = "lungs", "image"
"""Where a map without preference is uniform, for the scores by chance: in the lungs, where a mask of them is known."""

ABSENT, EMPTY, LOST, REFUSED = (
    "not in the reference",
    "nothing in the reference",
    "cut off by the preprocessing",
    "cannot be used",
)
"""Why an image has no scores."""

COLUMNS = (
    "image_id",
    "label",
    "predicted",
    "target",
    "method",
    "structure",
    "reference_share",
    *FIGURES,
    "chance_in",
    *(f"chance_{name}" for name in FIGURES),
    "energy_inside",
    "empty_map",
    "reason",
)
"""Of `reference.csv`. `energy_inside` is the share of the energy inside the mask of the lungs."""

FAITHFULNESS_COLUMNS = (
    "image_id",
    "label",
    "predicted",
    "target",
    "method",
    *AREAS,
    *(f"random_{name}" for name in AREAS),
)


def absences(view: View, structures: Sequence[str]) -> dict[str, str]:
    """Why an image has no scores, by structure; without those that it has scores for."""
    found = {}
    for name in structures:
        if name in view.refused:
            found[name] = f"{REFUSED}: {view.refused[name]}"
        elif name not in view.references:
            found[name] = ABSENT
        elif not view.references[name].any():
            found[name] = LOST if name in view.lost else EMPTY
    return found


def by_chance(view: View) -> dict[str, dict[str, Any]]:
    """For each structure in an image, its share of the image, and the scores of a map without any preference."""
    import numpy as np

    from cxrtool.explaining.scoring import Ranking

    inside = view.mask is not None and bool(view.mask.any())
    size = next(iter(view.references.values())).shape if view.references else (1, 1)
    uniform = Ranking(view.mask > 0 if view.mask is not None and inside else np.ones(size, bool))
    return {
        name: {
            "reference_share": float((reference > 0).mean()),
            "chance_in": LUNGS if inside else IMAGE,
            **{f"chance_{key}": value for key, value in asdict(uniform.score(reference > 0)).items()},
        }
        for name, reference in view.references.items()
        if reference.any()
    }


def score(values: np.ndarray, view: View) -> dict[str, dict[str, float]]:
    """The scores of a map (h, w) against each structure in its image."""
    from cxrtool.explaining.scoring import Ranking

    present = {name: reference > 0 for name, reference in view.references.items() if reference.any()}
    if not present:
        return {}
    ranking = Ranking(values)
    return {name: asdict(ranking.score(reference)) for name, reference in present.items()}


def faithfulness(
    subject: Subject, method: str, reason: Reason, steps: int, batch_size: int, seed: int, image_id: str
) -> dict[str, float]:
    """The areas under the curves of deletion and insertion for one map, and for a random one."""
    import cv2
    import numpy as np

    from cxrtool.explaining.faithfulness import measure

    column = subject.classes.index(reason.output or reason.target)

    def predict(inputs: list[np.ndarray]) -> np.ndarray:
        parts = [subject.ask(inputs[start : start + batch_size]) for start in range(0, len(inputs), batch_size)]
        found: np.ndarray = np.concatenate(parts)[:, column]
        return found

    values, size = reason.values, reason.pixels.shape[1::-1]
    if values.shape != reason.pixels.shape[:2]:
        values = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.float32)
    # The same for an image whatever the order of the images is.
    rng = np.random.default_rng(int(hashlib.sha256(f"{seed} {image_id}".encode()).hexdigest()[:16], 16))
    cells = subject.explainers[method].layer.shape.side
    return asdict(measure(reason.pixels, values, cells, steps, predict, rng))


def summarise(
    rows: Sequence[Mapping[str, Any]],
    scored: Sequence[Mapping[str, Any]],
    absent: Sequence[Mapping[str, str]],
    seed: int,
) -> dict[str, Any]:
    """The mean of each score with an interval over patients, beside what chance gives.

    Args:
        rows: The rows of the manifest, by image.
        scored: The rows of `reference.csv`, without those that have a reason.
        absent: For each image, why it has no scores, by structure.
        seed: Of the resamples.
    """
    manifest = {row["image_id"]: dict(row) for row in rows}
    names = dict.fromkeys([*(one["structure"] for one in scored), *(name for one in absent for name in one)])
    found: dict[str, Any] = {}
    for name in names:
        of_name = [one for one in scored if one["structure"] == name]
        reasons = Counter(one[name].split(":")[0] for one in absent if name in one)
        methods = {method: [one for one in of_name if one["method"] == method] for method in _methods(of_name)}
        some = next(iter(methods.values()), [])
        found[name] = {
            "images": len(some),
            "excluded": dict(sorted(reasons.items())),
            "reference_share": sum(one["reference_share"] for one in some) / len(some) if some else None,
            "chance_in": dict(Counter(one["chance_in"] for one in some)),
            "methods": {method: _means(own, manifest, seed) for method, own in methods.items()},
        }
    return found


def _methods(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(one["method"] for one in entries))


def _means(entries: Sequence[Mapping[str, Any]], manifest: Mapping[str, dict[str, Any]], seed: int) -> dict[str, Any]:
    return {
        "empty_maps": sum(one["empty_map"] for one in entries),
        **{name: _mean(entries, name, f"chance_{name}", "chance", manifest, seed) for name in FIGURES},
        # Against its share of the image: of a device, most of which is not in the lungs.
        "energy_above_share": _differences(entries, "energy", "reference_share", manifest, seed),
    }


def _mean(
    entries: Sequence[Mapping[str, Any]],
    name: str,
    other: str,
    word: str,
    manifest: Mapping[str, dict[str, Any]],
    seed: int,
) -> dict[str, Any]:
    """A mean, that of what it is compared with, and their paired difference."""
    from cxrtool.evaluation.resampling.means import mean_of_images

    rows = [manifest[one["image_id"]] for one in entries]
    mean = mean_of_images(rows, [one[name] for one in entries], seed, proportion=name == "pointing")
    expected = sum(one[other] for one in entries) / len(entries)
    return {**mean, word: expected, "difference": _differences(entries, name, other, manifest, seed)}


def _differences(
    entries: Sequence[Mapping[str, Any]], name: str, other: str, manifest: Mapping[str, dict[str, Any]], seed: int
) -> dict[str, Any]:
    from cxrtool.evaluation.resampling.means import mean_of_images

    rows = [manifest[one["image_id"]] for one in entries]
    return mean_of_images(rows, [one[name] - one[other] for one in entries], seed, proportion=False)


def summarise_faithfulness(
    rows: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]], steps: int, seed: int
) -> dict[str, Any]:
    """The mean areas with intervals over patients, beside those of random maps; `measured` are the rows of the file."""
    manifest = {row["image_id"]: dict(row) for row in rows}
    methods = {}
    for method in _methods(measured):
        own = [one for one in measured if one["method"] == method]
        methods[method] = {name: _mean(own, name, f"random_{name}", "random", manifest, seed) for name in AREAS}
    return {"steps": steps, "methods": methods}


def in_words(found: Mapping[str, Any]) -> list[str]:
    """One line for each structure and method, one on faithfulness for each method, and what was excluded."""
    lines = []
    for structure, part in found.get("structures", {}).items():
        if part["excluded"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in part["excluded"].items())
            lines.append(f"{structure}: {count_of(sum(part['excluded'].values()), 'image')} without scores: {reasons}")
        where = " or ".join(part["chance_in"])
        for method, means in part["methods"].items():
            parts = _parts(means, FIGURES, "chance")
            counted = f"{count_of(part['images'], 'image')} of {count_of(means['energy']['patients'], 'patient')}"
            empty = f"; {means['empty_maps']} maps are empty" if means["empty_maps"] else ""
            lines.append(
                f"{method} on {structure}: {', '.join(parts)}; chance is a map without preference in the {where}; "
                f"{structure} cover {part['reference_share']:.1%} of the image ({counted}{empty})"
            )
    tested = found.get("faithfulness", {})
    for method, means in tested.get("methods", {}).items():
        parts = _parts(means, AREAS, "random")
        lines.append(
            f"{method}, area under the probability in {tested['steps']} steps: {', '.join(parts)} "
            f"({count_of(means['deletion']['images'], 'image')})"
        )
    return lines


def _parts(means: Mapping[str, Any], names: Mapping[str, str], against: str) -> list[str]:
    return [f"{text} {_shown(means[name])} ({against} {means[name][against]:.3f})" for name, text in names.items()]


def _shown(measure: Mapping[str, Any]) -> str:
    interval = f" [{measure['low']:.3f}, {measure['high']:.3f}]" if measure["low"] is not None else ""
    return f"{measure['value']:.3f}{interval}"


def on_overlay(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """For the caption of an overlay a line on each structure, from the rows of an image in `reference.csv`."""
    lines = []
    for structure in dict.fromkeys(one["structure"] for one in entries):
        own = [one for one in entries if one["structure"] == structure]
        shares = ", ".join(f"{one['method']} {one['energy']:.0%}" for one in own)
        where, chance = own[0]["chance_in"], own[0]["chance_energy"]
        lines.append(f"energy on {structure} (green): {shares}; by chance in the {where} {chance:.0%}")
    return lines


def write(
    folder: Path,
    found: Mapping[str, Any],
    scored: Sequence[Mapping[str, Any]],
    measured: Sequence[Mapping[str, Any]],
) -> None:
    """Write the tables, the summary, and the figure into a folder."""
    from cxrtool.explaining.score_figure import draw

    if "structures" in found:
        write_table(folder / REFERENCE, COLUMNS, [_cells(one, COLUMNS) for one in scored])
    if "faithfulness" in found:
        write_table(
            folder / FAITHFULNESS, FAITHFULNESS_COLUMNS, [_cells(one, FAITHFULNESS_COLUMNS) for one in measured]
        )
    atomic_write(folder / SCORES, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    draw(found, {**FIGURES, **AREAS}, folder / FIGURE)


def _cells(entry: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    cells = {name: entry.get(name, "") for name in columns}
    return {name: f"{cell:.6g}" if isinstance(cell, float) else str(cell) for name, cell in cells.items()}
