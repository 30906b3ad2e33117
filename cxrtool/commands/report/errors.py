"""The most confident errors: which they are, and what they look like, with heatmaps where the models are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

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
"""What is told of an image beside the error, where it is known."""


SIDE = 480
"""Pixels of the longer side of a picture without a heatmap."""

HEATMAPS = (
    "Each image stands beside its heatmap: where the network found reasons for what it called the image (Grad-CAM, "
    "each map on its own scale, made by the fold that tested the image)."
)


@dataclass(frozen=True)
class Wrong:
    """An image that was called another class than its own.

    Attributes:
        row: Of its predictions, in the run that was surest of the error.
        label: Its class.
        called: The class that it was called.
        probability: What the model gave that class.
        times: In how many of its test runs it was called wrong.
        of: In how many it was tested.
    """

    row: Row
    label: str
    called: str
    probability: float
    times: int
    of: int


def find_errors(scores: Scores) -> list[Wrong]:
    """Every image that was called wrong at least once, those first of which the model was surest."""
    tested: dict[str, int] = {}
    times: dict[str, int] = {}
    surest: dict[str, tuple[float, int]] = {}
    decided = scores.decided
    for place, row in enumerate(scores.rows):
        name = original_of(row)
        tested[name] = tested.get(name, 0) + 1
        called = int(scores.predicted[place])
        if not decided[place] or called == scores.truth[place]:
            continue
        times[name] = times.get(name, 0) + 1
        probability = float(scores.probabilities[place, called])
        if name not in surest or probability > surest[name][0]:
            surest[name] = probability, place
    order = sorted(surest.items(), key=lambda item: (-item[1][0], item[0]))
    return [
        Wrong(
            scores.rows[place], scores.classes[int(scores.truth[place])], scores.classes[int(scores.predicted[place])],
            probability, times[name], tested[name],
        )
        for name, (probability, place) in order
    ]  # fmt: skip


def tabulate(errors: Sequence[Wrong]) -> Sheet:
    """The errors as a table."""
    from cxrtool.evaluation.tables import Sheet

    facts = [name for name in FACTS if any(wrong.row.get(name, "").strip() for wrong in errors)]
    repeated = any(wrong.of > 1 for wrong in errors)
    rows = []
    for wrong in errors:
        cells = [wrong.row["image_id"], wrong.label, wrong.called, f"{wrong.probability:.3f}"]
        cells += [f"{wrong.times} of {wrong.of}"] if repeated else []
        rows.append([*cells, *(wrong.row.get(name, "") for name in facts)])
    columns = ["image", "true class", "called", "probability", *(["wrong in tests"] if repeated else []), *facts]
    return Sheet("The errors that the model was surest of", columns, rows, [])


def draw_errors(
    errors: Sequence[Wrong], folds: Sequence[Path], masks: Mapping[str, Row], place: Path, settings: Settings,
    *, heatmaps: bool,
) -> tuple[list[tuple[Path, str]], list[str]]:  # fmt: skip
    """Draw the errors as contact sheets.

    Args:
        errors: What to show.
        folds: The folders of the models that tested them; empty for predictions alone.
        masks: Rows of the manifest by path, for masks.
        place: A folder to write into.
        settings: The shared options.
        heatmaps: Ask the models why.

    Returns:
        Pictures with captions, and what a reader should know of them.
    """
    there = [wrong for wrong in errors if Path(wrong.row.get("path", "")).is_file()]
    remarks = []
    if len(there) < len(errors):
        remarks.append(f"{len(errors) - len(there)} of these {len(errors)} images are not there and are not shown.")
    if not there:
        return [], remarks
    models = {fold.name: fold for fold in folds}
    asked = [
        (wrong, models.get(fold_name(wrong.row.get("repeat") or "0", wrong.row.get("fold") or "0"))) for wrong in there
    ]
    if heatmaps and all(model is not None and (model / "model.safetensors").is_file() for _, model in asked):
        cases = [
            Case({**wrong.row, **_mask(masks, wrong.row)}, model, "test", wrong.row.get("predicted", ""))
            for wrong, model in asked if model is not None
        ]  # fmt: skip
        try:
            drawn = _with_heatmaps(cases, [caption_of(wrong) for wrong in there], place, settings)
            return drawn, [HEATMAPS, *remarks]
        except CxrtoolError as error:
            remarks.append(f"No heatmaps: {error.message}.")
    elif heatmaps:
        remarks.append("No heatmaps: the models that tested these images are not there.")
    pictures, unread = _alone(there, place)
    return pictures, remarks + unread


def _with_heatmaps(
    cases: Sequence[Case], captions: Sequence[str], place: Path, settings: Settings
) -> list[tuple[Path, str]]:
    from cxrtool.flow.heatmaps.images import Explanation
    from cxrtool.flow.heatmaps.options import ExplainOptions
    from cxrtool.training.device import local_randomness

    quiet = replace(
        settings, out=place / "heatmaps", report=Muted(settings.report), workers=1, strict=False, force=False,
        dry_run=False,
    )  # fmt: skip
    options = ExplainOptions(cases[0].folder, "the errors", sheet=0)
    plan = Plan("explain", {}, Inputs.of())
    with local_randomness(settings.seed, settings.threads), StepFolder(quiet.out, plan, quiet).build() as build:
        explanation = Explanation(options, quiet, build, None)
        explanation.make_maps(cases)
        explanation.draw()
        build.finish(["image_id", "path"], [])
    made = {case.row["image_id"]: caption for case, caption in zip(cases, captions, strict=True)}
    overlays = place / "heatmaps" / "overlays"
    return [(path, text) for name, text in made.items() if (path := overlays / f"{name}.png").is_file()]


def _alone(errors: Sequence[Wrong], place: Path) -> tuple[list[tuple[Path, str]], list[str]]:
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
        path = place / f"error{number}.png"
        write_picture(path, grey_tile(pixels, SIDE))
        pictures.append((path, caption_of(wrong)))
    return pictures, unread


def caption_of(wrong: Wrong) -> str:
    """What stands below the picture of an error."""
    return f"{wrong.row['image_id']}: {wrong.label}, called {wrong.called} with probability {wrong.probability:.3f}."


def _mask(rows: Mapping[str, Row], row: Row) -> Row:
    known = rows.get(row.get("path", ""), {})
    return {"mask": known["mask"]} if known.get("mask") else {}
