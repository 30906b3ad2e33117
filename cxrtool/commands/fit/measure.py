"""Evaluation of fitted networks: Dice and IoU at the size of the mask, errors of rib-free images, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cxrtool.commands.fit.pairs import Pair, Targets
from cxrtool.data.splitting.grouping import group_images
from cxrtool.data.tables.manifest import Manifest, Row
from cxrtool.flow.assignment import Assignment

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.imaging.fits import Form
    from cxrtool.imaging.masks import Mask
    from cxrtool.imaging.resize import Pixels
    from cxrtool.imaging.view import Placed

FIGURES = {
    "lungs": ("dice", "iou"),
    "opacities": ("dice", "iou", "share_error"),
    "ribs": ("mse", "mse_before", "ms_ssim", "ms_ssim_before"),
}
"""By kind, the metrics of each image. `before`: of the image with ribs, as the baseline. `share_error`: of the share of
the lungs that is opaque."""

TABLES = {"lungs": "dice.csv", "opacities": "dice.csv", "ribs": "errors.csv"}


def found_and_true(
    pair: Pair, predict: Callable[[Placed], np.ndarray], form: Form, kind: str
) -> tuple[Pixels, Mask, Mask, Mask | None]:
    """An image, the mask found in it, the given mask, and that of the lungs; the masks at the size of the given one.

    Opacities are looked for inside the lungs, where their mask is known.

    Args:
        pair: The files.
        predict: From the network's input to its answer (S, S) or (2, S, S).
        form: Of the input.
        kind: `lungs` or `opacities`.

    Raises:
        ImageError: A file cannot be read.
    """
    import cv2
    import numpy as np

    from cxrtool.commands.fit.pairs import read_lungs
    from cxrtool.data.reading.images import read_image
    from cxrtool.imaging.masks import clean, most_probable
    from cxrtool.imaging.resize import binary, resample
    from cxrtool.imaging.view import layers_of, see
    from cxrtool.imaging.zones import opaque_shares

    pixels = read_image(pair.image, capture_decoder_errors=True).pixels
    lungs = read_lungs(pair, pixels.shape) if kind == "opacities" and pair.lungs else None
    placed = see(pixels, form, lungs)
    layers = layers_of(predict(placed), placed, form)
    truth: Mask = np.zeros(pixels.shape, np.uint8)
    if pair.target:
        truth = binary(read_image(pair.target, capture_decoder_errors=True).pixels)
    if layers[0].shape != truth.shape:
        layers = [cv2.resize(one, truth.shape[::-1], interpolation=cv2.INTER_LINEAR) for one in layers]
        lungs = None if lungs is None else binary(resample(lungs, truth.shape[0], truth.shape[1]))
    if kind == "lungs":
        return pixels, clean(layers[0]), truth, lungs
    share = opaque_shares(layers[-1], np.full(truth.shape, 255, np.uint8) if lungs is None else lungs)["lungs"]
    return pixels, most_probable(layers[0], lungs, share or 0.0), truth, lungs


def measure_mask(item: tuple[Pair, np.ndarray], *, form: Form, kind: str) -> dict[str, float]:
    """Map a prediction back to its image and compare it with the given mask; in a worker process.

    Args:
        item: The files, and the network's answer (S, S) or (2, S, S).
        form: The network's input form.
        kind: `lungs` or `opacities`.

    Returns:
        `dice` and `iou`, both 1 if both masks are empty; of opacities also `share_error`, the distance of the opaque
        shares of the lungs, or NaN without a lung mask.

    Raises:
        ImageError: A file cannot be read.
    """
    from cxrtool.imaging.masks import dice, iou, share_of

    pair, prediction = item
    _, found, truth, lungs = found_and_true(pair, lambda placed: prediction, form, kind)
    figures = {"dice": dice(found, truth), "iou": iou(found, truth)}
    if kind == "opacities":
        figures["share_error"] = float("nan")
        if lungs is not None and lungs.any():
            figures["share_error"] = abs(share_of(found, lungs) - share_of(truth, lungs))
    return figures


def measure_masks(
    manifest: Manifest,
    targets: Targets,
    indices: Sequence[int],
    predictions: Iterable[np.ndarray],
    form: Form,
    kind: str,
    workers: int,
) -> list[dict[str, float]]:
    """Measure every prediction; an image that can no longer be read has Dice 0."""
    from cxrtool.flow.parallel import map_items

    items = ((targets.pair(manifest.rows[i]), prediction) for i, prediction in zip(indices, predictions, strict=True))
    work = partial(measure_mask, form=form, kind=kind)
    preload = ("cxrtool.data.reading.images", "cxrtool.imaging.view")
    results = map_items(work, items, workers=max(1, min(workers, len(indices))), preload=preload)
    lost = {name: float("nan") if name == "share_error" else 0.0 for name in FIGURES[kind]}
    return [result if isinstance(result, dict) else lost for _, result in results]


def measure_pictures(
    predictions: Iterable[np.ndarray], images: Iterable[np.ndarray], targets: Iterable[np.ndarray]
) -> list[dict[str, float]]:
    """Errors at the network's size, of the predictions and of the images with ribs."""
    import numpy as np
    import torch

    from cxrtool.training.losses import SMALLEST, mean_squares, ms_ssim

    rows = []
    for prediction, image, target in zip(predictions, images, targets, strict=True):
        shown, wanted = (x.astype(np.float32) / np.float32(np.iinfo(x.dtype).max) for x in (image, target))
        truth = torch.from_numpy(wanted)[None, None]
        row = {}
        for name, values in (("", prediction), ("_before", shown)):
            found = torch.from_numpy(np.asarray(values))[None, None]
            row["mse" + name] = float(mean_squares(found, truth))
            small = prediction.shape[0] < SMALLEST
            row["ms_ssim" + name] = float("nan") if small else float(ms_ssim(found, truth))
        rows.append(row)
    return rows


def score_rows(
    manifest: Manifest,
    assignment: Assignment,
    predicted: Sequence[tuple[int, str]],
    measured: Sequence[dict[str, float]],
) -> list[Row]:
    """The rows of `dice.csv` or `errors.csv`."""
    rows = []
    for (i, subset), figures in zip(predicted, measured, strict=True):
        row = manifest.rows[i]
        rows.append(
            {
                "image_id": row["image_id"],
                "patient_id": row.get("patient_id", ""),
                "repeat": assignment.repeat,
                "fold": assignment.fold,
                "subset": subset,
                **{name: "" if value != value else f"{value:.6f}" for name, value in figures.items()},
            }
        )
    return rows


def summarise(rows: Sequence[Row], kind: str, subset: str, seed: int) -> tuple[list[str], list[list[str]]]:
    """A table of each fold and of all folds, with intervals from resampled patients.

    Args:
        rows: Of `dice.csv` or `errors.csv`, of all folds.
        kind: `lungs`, `opacities` or `ribs`.
        subset: The subset of the rows to use.
        seed: Of the resampling.

    Returns:
        Header and rows of text: mean with its interval, median and worst of the first metric, means of the others.
    """
    import numpy as np

    from cxrtool.evaluation.resampling.means import mean_over_patients

    names = FIGURES[kind]
    first = names[0]
    folds: dict[str, list[Row]] = {}
    for row in rows:
        if row["subset"] == subset:
            folds.setdefault(f"r{row['repeat']}f{row['fold']}", []).append(row)
    parts = list(folds.items())
    if len(parts) > 1:
        parts.append(("all", [row for members in folds.values() for row in members]))
    worst = "lowest" if FIGURES[kind][0] == "dice" else "highest"
    header = ["fold", "images", "patients", f"mean {first}", "95 % interval", "median", worst, *names[1:]]
    table = []
    for name, members in parts:
        values = np.array([float(row[first]) for row in members])
        groups = group_images([{**row, "sha256": ""} for row in _unique(members)])
        mean, count = mean_over_patients(values, groups, seed, proportion=False), len(set(groups))
        interval = "-" if mean.low is None or mean.high is None else f"{mean.low:.4g}-{mean.high:.4g}"
        others = [_mean([row[other] for row in members]) for other in names[1:]]
        extreme = values.min() if worst == "lowest" else values.max()
        figures = [f"{values.mean():.4g}", interval, f"{np.median(values):.4g}", f"{extreme:.4g}"]
        table.append([name, str(len(members)), str(count), *figures, *others])
    return header, table


def _unique(rows: Sequence[Row]) -> list[Row]:
    """Rows with unique ids in which the repeats of one image share a patient."""
    return [
        {"image_id": str(i), "patient_id": row["patient_id"] or f"image {row['image_id']}"}
        for i, row in enumerate(rows)
    ]


def _mean(cells: Sequence[str]) -> str:
    known = [float(cell) for cell in cells if cell]
    return f"{sum(known) / len(known):.4g}" if known else "-"
