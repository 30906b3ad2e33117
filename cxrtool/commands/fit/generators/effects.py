"""What generators do to images that they were not fitted on, as the classifier beside them sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cxrtool.data.splitting.grouping import PATIENT, normalised
from cxrtool.data.tables.manifest import Manifest, Row
from cxrtool.flow.assignment import Assignment
from cxrtool.flow.fold_chains import radiograph_of

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.training.class_inherent import Answers

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
"""A row for each image and generator. Probabilities are the classifier's: `p_label` of the image's own class and
`p_before` of the generator's, both on the image as it is; `p_label_after` and `p_after` the same on what the generator
made, as `transform` writes it. `psnr` is in dB, of grey values."""

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
    answers: Answers,
    classes: Sequence[str],
) -> list[Row]:
    """The rows of `effects.csv` of one fold.

    Args:
        manifest: The images.
        assignment: The fold.
        asked: Place and subset of each image that was asked about, in the order of `answers`.
        answers: What the fold's contest says of them.
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
            "p_label": f"{answers.before[n, classes.index(row['label'])]:.6f}",
        }
        for k, name in enumerate(classes):
            probabilities = {
                "p_label_after": answers.after[k, n, classes.index(row["label"])],
                "p_before": answers.before[n, k],
                "p_after": answers.after[k, n, k],
            }
            shown = {key: f"{float(value):.6f}" for key, value in probabilities.items()}
            rows.append({**shared, "generator": name, **shown, "psnr": f"{float(answers.psnr[k, n]):.3f}"})
    return rows


def summarise(rows: Sequence[Row], classes: Sequence[str], subset: str, seed: int) -> tuple[list[str], list[list[str]]]:
    """For each class, what its own generator does to its images.

    An image that is tested in several repeats counts in each, and its patient is drawn with all of them.

    Args:
        rows: Of `effects.csv`, of all folds.
        classes: A line each.
        subset: Which rows to take.
        seed: Of the resampling.

    Returns:
        Header and rows of text: the mean probability of the class before and after, the difference with an interval
        from resampled patients, the share of images for which it rises and the mean change of its log odds, each with
        its interval: a classifier that is nearly sure has no room left in probability; the mean probability of the
        class on what the other generators made of the same images, and by how much its own does better; and the mean
        PSNR. The classifier has never seen an image as it is: the comparison of the generators is the fairer one.
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
    """The mean probability of its own class on what the other generators made of each image."""
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
