"""The most confident errors as a table and as images, with heatmaps where the models are available."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.data.file_names import MODEL_WEIGHTS
from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Row
from cxrtool.errors import CxrtoolError, ImageError
from cxrtool.flow.cases import Case
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.run import fold_name
from cxrtool.flow.settings import Muted, Settings

if TYPE_CHECKING:
    from cxrtool.evaluation.scores import Scores
    from cxrtool.evaluation.tables import Sheet

FACTS = ("severity", "source", "view", "age", "sex", "warning")
"""Columns that the table of errors shows, where known."""


SIDE = 480
"""Pixels of the longer side of an image without a heatmap."""

HEATMAPS = (
    "Each image is shown beside its heatmap: the regions that support the predicted class (Grad-CAM, each map on its "
    "own scale, made by the fold that tested the image). Bright is high; the cross is at the highest value, and the "
    "light line is the outline of the lungs where a mask is known."
)


@dataclass(frozen=True)
class Wrong:
    """An image for which another class than its own was predicted.

    Attributes:
        row: Its row of predictions in the run with the highest probability of the error.
        label: Its class.
        predicted: The predicted class.
        probability: The probability of the predicted class.
        times: Number of test runs with an error.
        of: Number of test runs.
    """

    row: Row
    label: str
    predicted: str
    probability: float
    times: int
    of: int


def find_errors(scores: Scores) -> list[Wrong]:
    """Every image with at least one wrong prediction, the most confident first."""
    tested: dict[str, int] = {}
    times: dict[str, int] = {}
    most_confident: dict[str, tuple[float, int]] = {}
    decided = scores.decided
    for i, row in enumerate(scores.rows):
        name = original_of(row)
        tested[name] = tested.get(name, 0) + 1
        predicted = int(scores.predicted[i])
        if not decided[i] or predicted == scores.truth[i]:
            continue
        times[name] = times.get(name, 0) + 1
        probability = float(scores.probabilities[i, predicted])
        if name not in most_confident or probability > most_confident[name][0]:
            most_confident[name] = probability, i
    order = sorted(most_confident.items(), key=lambda item: (-item[1][0], item[0]))
    return [
        Wrong(
            dict(scores.rows[i]),
            scores.classes[int(scores.truth[i])],
            scores.classes[int(scores.predicted[i])],
            probability,
            times[name],
            tested[name],
        )
        for name, (probability, i) in order
    ]


def tabulate(errors: Sequence[Wrong]) -> Sheet:
    """The errors as a table."""
    from cxrtool.evaluation.tables import Sheet

    facts = [name for name in FACTS if any(wrong.row.get(name, "").strip() for wrong in errors)]
    repeated = any(wrong.of > 1 for wrong in errors)
    rows = []
    for wrong in errors:
        cells = [wrong.row["image_id"], wrong.label, wrong.predicted, f"{wrong.probability:.3f}"]
        cells += [f"{wrong.times} of {wrong.of}"] if repeated else []
        rows.append([*cells, *(wrong.row.get(name, "") for name in facts)])
    columns = ["image", "true class", "predicted", "probability", *(["wrong in tests"] if repeated else []), *facts]
    return Sheet("The most confident errors", columns, rows, [])


def draw_errors(
    errors: Sequence[Wrong],
    folds: Sequence[Path],
    masks: Mapping[str, Row],
    folder: Path,
    settings: Settings,
    *,
    heatmaps: bool,
) -> tuple[list[tuple[Path, str]], list[str]]:
    """Draw the errors as contact sheets.

    Args:
        errors: The errors to show.
        folds: The folders of the models that tested them; empty for predictions alone.
        masks: Rows of the manifest by path, for masks.
        folder: Where images are written.
        settings: The shared options.
        heatmaps: Make heatmaps.

    Returns:
        Files with captions, and remarks for the reader.
    """
    there = [wrong for wrong in errors if Path(wrong.row.get("path", "")).is_file()]
    remarks = []
    if len(there) < len(errors):
        remarks.append(f"{len(errors) - len(there)} of these {len(errors)} images are missing and are not shown.")
    if not there:
        return [], remarks
    models = {fold.name: fold for fold in folds}
    tested_by = [
        (wrong, models.get(fold_name(wrong.row.get("repeat") or "0", wrong.row.get("fold") or "0"))) for wrong in there
    ]
    if heatmaps and all(model is not None and (model / MODEL_WEIGHTS).is_file() for _, model in tested_by):
        cases = [
            Case({**wrong.row, **_mask(masks, wrong.row)}, model, "test", wrong.row.get("predicted", ""))
            for wrong, model in tested_by
            if model is not None
        ]
        try:
            drawn = _draw_with_heatmaps(cases, [caption_of(wrong) for wrong in there], folder, settings)
            return drawn, [HEATMAPS, *remarks]
        except CxrtoolError as error:
            remarks.append(f"No heatmaps: {error.message}.")
    elif heatmaps:
        remarks.append("No heatmaps: the models that tested these images are missing.")
    pictures, unread = _draw_without_heatmaps(there, folder)
    return pictures, remarks + unread


def _draw_with_heatmaps(
    cases: Sequence[Case], captions: Sequence[str], folder: Path, settings: Settings
) -> list[tuple[Path, str]]:
    from cxrtool.flow.heatmaps import Explanation
    from cxrtool.flow.heatmaps.options import ExplainOptions
    from cxrtool.training.device import local_randomness

    quiet = replace(
        settings,
        out=folder / "heatmaps",
        report=Muted(settings.report),
        workers=1,
        strict=False,
        force=False,
        dry_run=False,
    )
    options = ExplainOptions(cases[0].folder, ("the errors",), sheet=0)
    plan = Plan("explain", {}, Inputs.of())
    with local_randomness(settings.seed, settings.threads), StepFolder(quiet.out, plan, quiet).build() as build:
        explanation = Explanation(options, quiet, build, None)
        explanation.make_maps(cases)
        explanation.draw()
        build.finish(["image_id", "path"], [])
    made = {case.row["image_id"]: caption for case, caption in zip(cases, captions, strict=True)}
    overlays = folder / "heatmaps" / "overlays"
    return [(path, text) for name, text in made.items() if (path := overlays / f"{name}.png").is_file()]


def _draw_without_heatmaps(errors: Sequence[Wrong], folder: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    from cxrtool.data.reading.images import read_image
    from cxrtool.explaining.overlay import write_picture
    from cxrtool.imaging.sheet import grey_tile

    pictures, unread = [], []
    for number, wrong in enumerate(errors):
        try:
            pixels = read_image(wrong.row["path"], capture_decoder_errors=True).pixels
        except ImageError as error:
            unread.append(f"{wrong.row['image_id']} cannot be read: {error.message}.")
            continue
        path = folder / f"error{number}.png"
        write_picture(path, grey_tile(pixels, SIDE))
        pictures.append((path, caption_of(wrong)))
    return pictures, unread


def caption_of(wrong: Wrong) -> str:
    """The caption of the image of an error."""
    return (
        f"{wrong.row['image_id']}: {wrong.label}, predicted {wrong.predicted} with probability {wrong.probability:.3f}."
    )


def _mask(rows: Mapping[str, Row], row: Row) -> Row:
    known = rows.get(row.get("path", ""), {})
    return {"mask": known["mask"]} if known.get("mask") else {}
