"""The effect of generators on held-out images, measured with their classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cxrtool.data.splitting.grouping import PATIENT, normalised
from cxrtool.data.tables.manifest import Manifest, Row
from cxrtool.flow.assignment import Assignment
from cxrtool.flow.chain import radiograph_of

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.training.class_inherent import GeneratorPredictions

EFFECTS, SUMMARY = "effects.csv", "summary.csv"
COLUMNS = (
    "image_id",
    "patient_id",
    "repeat",
    "fold",
    "subset",
    "label",
    "generator",
    "p_label",
    "p_label_after",
    "p_before",
    "p_after",
    "psnr",
)
"""A row for each image and generator. Probabilities are those of the classifier: `p_label` of the image's own class and
`p_before` of the generator's class, both on the unchanged image; `p_label_after` and `p_after` the same on the output
of the generator, as `transform` writes it. `psnr` is in dB, of grey values."""

HEADER = [
    "class",
    "images",
    "patients",
    "P before",
    "P after",
    "difference",
    "95 % interval",
    "share rising",
    "95 % of share",
    "log odds",
    "95 % of odds",
    "P by others",
    "own - others",
    "95 % of that",
    "PSNR dB",
]


def effect_rows(
    manifest: Manifest,
    assignment: Assignment,
    predicted: Sequence[tuple[int, str]],
    predictions: GeneratorPredictions,
    classes: Sequence[str],
) -> list[Row]:
    """The rows of `effects.csv` of one fold.

    Args:
        manifest: The images.
        assignment: The fold.
        predicted: Index and subset of each image, in the order of `predictions`.
        predictions: Of the fold's generators and classifier.
        classes: In the order of the generators.
    """
    rows = []
    for n, (index, subset) in enumerate(predicted):
        row = manifest.rows[index]
        shared = {
            "image_id": radiograph_of(row),
            "patient_id": row.get(PATIENT, ""),
            "repeat": assignment.repeat,
            "fold": assignment.fold,
            "subset": subset,
            "label": row["label"],
            "p_label": f"{predictions.before[n, classes.index(row['label'])]:.6f}",
        }
        for k, name in enumerate(classes):
            probabilities = {
                "p_label_after": predictions.after[k, n, classes.index(row["label"])],
                "p_before": predictions.before[n, k],
                "p_after": predictions.after[k, n, k],
            }
            shown = {key: f"{float(value):.6f}" for key, value in probabilities.items()}
            rows.append({**shared, "generator": name, **shown, "psnr": f"{float(predictions.psnr[k, n]):.3f}"})
    return rows


def summarise(rows: Sequence[Row], classes: Sequence[str], subset: str, seed: int) -> tuple[list[str], list[list[str]]]:
    """For each class, the effect of its own generator on its images.

    An image that is tested in several repeats counts in each, and its patient is drawn with all of them.

    Args:
        rows: Of `effects.csv`, of all folds.
        classes: One row each.
        subset: The subset of the rows to use.
        seed: Of the resampling.

    Returns:
        Header and rows of text: the mean probability of the class before and after, the difference with an interval
        from resampled patients, the share of images for which it rises and the mean change of its log odds, each with
        its interval (a probability close to 1 can hardly rise); the mean probability of the class on the output of the
        other generators for the same images, and the difference from its own generator; and the mean PSNR. The
        classifier was never trained on unchanged images, so the comparison between generators is the fairer one.
    """
    from cxrtool.evaluation.metrics.calibration import logit

    table = []
    for name in classes:
        mine = [row for row in rows if row["subset"] == subset and row["label"] == row["generator"] == name]
        images = len({row["image_id"] for row in mine})
        if not mine:
            table.append([name, "0", "0", *["-"] * (len(HEADER) - 3)])
            continue
        people = [normalised(row["patient_id"]) or f"image {row['image_id']}" for row in mine]
        before, after, psnr = (_figures(mine, column) for column in ("p_before", "p_after", "psnr"))
        gain, others = after - before, _by_others(rows, mine, subset)
        odds = logit(after) - logit(before)
        figures = [f"{before.mean():.3f}", f"{after.mean():.3f}", *_interval(gain, people, seed)]
        figures += _interval((gain > 0).astype(float), people, seed, share=True)
        figures += [*_interval(odds, people, seed), f"{others.mean():.3f}"]
        figures += _interval(after - others, people, seed)
        table.append([name, str(images), str(len(set(people))), *figures, f"{psnr.mean():.2f}"])
    return HEADER, table


def _interval(values: np.ndarray, people: Sequence[str], seed: int, *, share: bool = False) -> tuple[str, str]:
    """A mean (n,) and its interval from resampled patients; differences are shown with their sign."""
    from cxrtool.evaluation.resampling.means import mean_over_patients

    mean, form = mean_over_patients(values, people, seed, proportion=share), ".3f" if share else "+.3f"
    interval = "-" if mean.low is None or mean.high is None else f"{mean.low:{form}} to {mean.high:{form}}"
    return f"{values.mean():{form}}", interval


def _by_others(rows: Sequence[Row], mine: Sequence[Row], subset: str) -> np.ndarray:
    """For each image, the mean probability of its class on the output of the other generators."""
    import numpy as np

    found: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row["subset"] == subset and row["generator"] != row["label"]:
            found.setdefault(_key(row), []).append(float(row["p_label_after"]))
    return np.array([np.mean(found[_key(row)]) for row in mine])


def _key(row: Row) -> tuple[str, ...]:
    return row.get("repeat", ""), row.get("fold", ""), row["image_id"]


def _figures(rows: Sequence[Row], column: str) -> np.ndarray:
    import numpy as np

    return np.array([float(row[column]) for row in rows])
