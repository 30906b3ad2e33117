"""The flow of images of a study, from the files that were found to the images that were tested."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.data.grouping import PATIENT, group_images
from cxrtool.data.manifest import Row
from cxrtool.data.splits import SUBSETS, Splits
from cxrtool.steps.report_origin import Origin, radiographs

if TYPE_CHECKING:
    from cxrtool.reporting.flow_chart import Flow, Stage

SHOWN_REASONS = 5

WORDS = {
    "prepare": "read as grey images (prepare)",
    "select": "chosen (select)",
    "segment": "lungs found (segment)",
    "enhance": "enhanced (enhance)",
    "transform": "transformed (transform)",
    "phantom": "drawn (phantom)",
}
"""What the images of each step's folder are."""

UNTOLD = "why is not recorded (`cxrtool select` with a folder behind -o records it)"


def flow_of(
    origins: Sequence[Origin], rows: Sequence[Row], splits: Splits | None, unread: Sequence[Row], tested: Sequence[Row]
) -> Flow:
    """The flow of a study.

    Args:
        origins: The steps behind it, the earliest first.
        rows: The images that were trained on and tested, one a radiograph; or those of the predictions.
        splits: Which image is in which subset; None for predictions from elsewhere.
        unread: What training could not read.
        tested: The labelled images whose predictions are evaluated, one a radiograph.
    """
    from cxrtool.reporting.flow_chart import Flow

    stages = _steps(origins)
    notes = (
        [] if origins else ["Where the images come from is not known: the folders of the steps before are not there."]
    )
    parts: list[tuple[str, str]] = []
    if splits is not None:
        known = splits.ids()
        labelled = [row for row in rows if row.get("label")]
        divided = [row for row in labelled if row["image_id"] in known]
        left = [(len(rows) - len(labelled), "no label"), (len(labelled) - len(divided), "in no subset of the splits")]
        left += _reasons(unread)
        gone = {reject["path"] for reject in unread}
        readable = [row for row in divided if row.get("path") not in gone]
        stages.append(_stage("divided for training and test", readable, left))
        parts = parts_of(readable, splits)
        lost = len({row["image_id"] for row in readable} - {row["image_id"] for row in tested})
        if tested and lost and len(splits.runs) > 1:
            notes.append(f"{lost} of these images were tested in no fold that is evaluated here.")
    else:
        stages.append(_stage("evaluated", tested, []))
    return Flow(stages, parts, notes)


def parts_of(rows: Sequence[Row], splits: Splits) -> list[tuple[str, str]]:
    """The subsets with their sizes: of one division exactly, of several as the range over the folds."""
    by_id = {row["image_id"]: row for row in rows}
    sizes: dict[str, list[tuple[int, int | None]]] = {name: [] for name in SUBSETS}
    for subsets in splits.runs.values():
        for name in SUBSETS:
            own = [by_id[identity] for identity, subset in subsets.items() if subset == name and identity in by_id]
            sizes[name].append((len(own), _patients(own)))
    several = len(splits.runs) > 1
    found = []
    for name, pairs in sizes.items():
        if not any(images for images, _ in pairs):
            continue
        people = [patients for _, patients in pairs if patients is not None]
        text = f"{_span([images for images, _ in pairs])} images" + (f"\n{_span(people)} patients" if people else "")
        title = "training" if name == "train" else name
        found.append((f"{title}, in each fold" if several else title, text))
    return found


def _steps(origins: Sequence[Origin]) -> list[Stage]:
    from cxrtool.reporting.flow_chart import Stage

    stages: list[Stage] = []
    before: set[str] = set()
    for origin in origins:
        rows = radiographs(origin.manifest.rows)
        counts = origin.made.get("counts", {}) if origin.made else {}
        if not stages and counts.get("inputs"):
            stages.append(Stage("files of the source", int(counts["inputs"])))
        left = _reasons(origin.rejects)
        now = {row["image_id"] for row in rows}
        gone = len(before - now) - sum(count for count, _ in left)
        if before and gone > 0:
            left.append((gone, UNTOLD if not origin.made else "not in the table that this step was given"))
        title = WORDS.get(origin.command, origin.command) or f"listed in {origin.place.name}"
        stages.append(_stage(title, rows, left))
        before = now
    return stages


def _stage(title: str, rows: Sequence[Row], left: Sequence[tuple[int, str]]) -> Stage:
    from cxrtool.reporting.flow_chart import Stage

    return Stage(title, len(rows), _patients(rows), [(count, reason) for count, reason in left if count])


def _patients(rows: Sequence[Row]) -> int | None:
    return len(set(group_images(rows))) if any(row.get(PATIENT, "").strip() for row in rows) else None


def _reasons(rejects: Sequence[Row]) -> list[tuple[int, str]]:
    """How often each reason is given, the commonest first; names of single images are left away."""
    counts = Counter(re.sub(r"'[^']*'|\S*/\S+", "…", row.get("reason", "")) or "no reason told" for row in rejects)
    common = counts.most_common()
    rest = sum(count for _, count in common[SHOWN_REASONS:])
    found = [(count, reason) for reason, count in common[:SHOWN_REASONS]]
    return found + ([(rest, "other reasons, in the step's rejects.csv")] if rest else [])


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def places(origins: Sequence[Origin]) -> list[Path]:
    """The files that tell of the steps."""
    return [path for origin in origins for path in origin.files()]
