"""Whether phantoms can be told apart by what is no lung: a network through the whole chain, and probes beside it.

Probes are logistic regressions on the same divisions: on the border of the picture alone, on its shape, on its file, on
the table. A set that was drawn well leaves these at chance, 1/K; the thumbnail and its grey levels do see lungs, and
say how far one gets without a network. `python bench_phantom_shortcuts.py FOLDER` does the same for a folder.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrtool.cli.main import run
from cxrtool.data.reading.headers import sniff
from cxrtool.data.reading.images import read_image
from cxrtool.data.splitting.splits import read_splits
from cxrtool.data.tables.manifest import Row, read_manifest
from cxrtool.evaluation.resampling.intervals import RESAMPLES, draw_patients

COUNT = 1200
EPOCHS = 30
SIZE = 128
SIDE = 64
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse penalties to choose from: a probe that is too weak, or learns by heart, would say that nothing is there."""
NO_LUNG = ("border", "shape", "file", "metadata", "shape, file and metadata")
"""Probes that should stay at chance."""


@dataclass(frozen=True)
class Cost:
    """How much to spend on the network.

    Attributes:
        size: Side of its input.
        epochs: Passes over the training images.
        division: `--folds 3`, or `--from-column subset`.
        threads: Of the numeric libraries; 0 leaves the choice to the tool.
    """

    size: int = SIZE
    epochs: int = EPOCHS
    division: tuple[str, ...] = ("--folds", "3")
    threads: int = 0


def call(*arguments: object) -> str:
    """Run a command of the tool, and give back what it printed.

    Raises:
        RuntimeError: It failed.
    """
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = run([str(argument) for argument in arguments])
    if code:
        raise RuntimeError(f"cxrtool {arguments[0]}: exit code {code}")
    print(f"  cxrtool {arguments[0]}: {time.perf_counter() - start:.0f} s", flush=True)
    return printed.getvalue()


def chain(folder: Path, target: Path, cost: Cost) -> dict[str, Any]:
    """From raw phantoms to figures; what is in between stays in `target`."""
    prepared, splits, trained = target / "prepared", target / "splits.csv", target / "run"
    workers = ("--workers", cost.threads) if cost.threads else ()
    threads = ("--threads", cost.threads) if cost.threads else ()
    call("prepare", folder / "metadata.csv", "--size", 128, *workers, "-q", "-o", prepared)
    call("split", prepared, *cost.division, "-q", "-o", splits)
    call(
        "train", prepared, "--splits", splits, "--preset", "covid-xnet", "--size", cost.size, "--epochs", cost.epochs,
        *workers, *threads, "-q", "-o", trained,
    )  # fmt: skip
    return json.loads(call("evaluate", trained, "--by", "severity", "--format", "json", "-q"))


def told(measure: dict[str, Any]) -> str:
    """A figure of `metrics.json` with its interval."""
    if measure["value"] is None:
        return f"undefined ({measure['reason']})"
    ends = "" if measure["low"] is None else f" [{measure['low']:.3f}, {measure['high']:.3f}]"
    return f"{measure['value']:.3f}{ends}"


def report_network(figures: dict[str, Any]) -> None:
    classes, confusion = figures["classes"], np.array(figures["confusion"], float)
    commonest = confusion.sum(1).max() / confusion.sum()
    print(f"\nnetwork: {figures['images']} images of {figures['patients']} patients, {', '.join(classes)}")
    print(f"  accuracy {told(figures['overall']['accuracy'])} (always the commonest class: {commonest:.3f})")
    print(f"  balanced accuracy {told(figures['overall']['balanced_accuracy'])} (chance {1 / len(classes):.3f})")
    for name, measures in figures["per_class"].items():
        print(f"  {name}: sensitivity {told(measures['sensitivity'])}, AUC {told(measures['auc'])}")
    for name, measures in figures["per_group"].get("severity", {}).items():
        if measures["accuracy"]["value"] is not None:
            print(f"  severity {name}: accuracy {told(measures['accuracy'])}, {measures['images']} images")
    trend = figures.get("trend", {}).get("severity", {})
    print(f"  accuracy a step of severity: {trend.get('slope')}, p {trend.get('p')}")


def one_hot(values: Sequence[str]) -> NDArray[np.float64]:
    return (np.array(values)[:, None] == np.unique(values)).astype(float)


def numbers(values: Sequence[str]) -> NDArray[np.float64]:
    """A column of numbers, and beside it whether there is none."""
    known = np.array([bool(value) for value in values])
    parsed = np.array([float(value) if value else np.nan for value in values])
    return np.stack([np.where(known, parsed, np.nanmean(parsed) if known.any() else 0), ~known], 1)


def features(folder: Path, rows: Sequence[Row]) -> dict[str, NDArray[np.float64]]:
    """What each probe sees of the files that the rows were prepared from: (N, D) each."""
    pictures, shapes, files, kinds, histograms = [], [], [], [], []
    for row in rows:
        path = folder / row["original"]
        pixels = read_image(path).pixels
        grey = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
        pictures.append(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        histograms.append(np.sqrt(np.histogram(grey, 32, (0, 1))[0] / grey.size))
        height, width = pixels.shape
        shapes.append((width, height, width / height, width * height))
        weight = path.stat().st_size
        files.append((weight, np.log(weight), weight / pixels.size, pixels.size))
        with path.open("rb") as file:
            kinds.append(f"{sniff(file.read(1024))} {pixels.dtype} {path.suffix}")
    stack = np.array(pictures, float)
    edge = SIDE // 10
    border = np.ones((SIDE, SIDE), bool)
    border[edge:-edge, edge:-edge] = False
    shape, file = np.array(shapes, float), np.hstack([np.array(files), one_hot(kinds)])
    columns = [one_hot([row.get(name, "") for row in rows]) for name in ("sex", "view", "source")]
    table = np.hstack([numbers([row.get("age", "") for row in rows]), *columns])
    return {
        "border": stack[:, border],
        "shape": shape,
        "file": file,
        "metadata": table,
        "shape, file and metadata": np.hstack([shape, file, table]),
        "grey levels": np.array(histograms),
        "thumbnail": stack.reshape(len(stack), -1),
    }


def fit(inputs: NDArray[np.float64], labels: NDArray[np.str_], strength: float) -> Callable[..., NDArray[np.str_]]:
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), model).fit(inputs, labels).predict


def probe(
    inputs: NDArray[np.float64], labels: NDArray[np.str_], runs: Sequence[NDArray[np.str_]]
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """What logistic regression says of the test images of all runs: their indices, and the classes it gives them.

    The penalty is chosen on each run's validation images, and the model then fitted to these too.
    """
    tested, given = [], []
    for subsets in runs:
        training, validation, test = (np.flatnonzero(subsets == name) for name in ("train", "validation", "test"))
        strength = STRENGTHS[2]
        if len(validation):
            scores = [
                balanced_accuracy_score(
                    labels[validation], fit(inputs[training], labels[training], c)(inputs[validation])
                )
                for c in STRENGTHS
            ]
            strength = STRENGTHS[int(np.argmax(scores))]
        everything = np.concatenate([training, validation])
        tested.append(test)
        given.append(fit(inputs[everything], labels[everything], strength)(inputs[test]))
    return np.concatenate(tested), np.concatenate(given)


def balanced(
    labels: NDArray[np.str_], given: NDArray[np.str_], patients: NDArray[np.str_], seed: int = 0
) -> tuple[float, float, float]:
    """Balanced accuracy, and the ends of its 95 % interval over resampled patients."""
    names, owner = np.unique(patients, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    strata = np.zeros(len(names), np.int64)
    strata[owner] = label
    hits, totals = np.zeros((2, len(names), len(classes)))
    np.add.at(totals, (owner, label), 1)
    np.add.at(hits, (owner, label), labels == given)
    drawn = draw_patients(strata, RESAMPLES, np.random.default_rng(seed)).T.astype(float)
    low, high = np.nanpercentile(((drawn @ hits) / (drawn @ totals)).mean(1), (2.5, 97.5))
    return float((hits.sum(0) / totals.sum(0)).mean()), float(low), float(high)


def report_probes(folder: Path, target: Path) -> None:
    rows = read_manifest(target / "prepared").rows
    labels, patients = (np.array([row[name] for row in rows]) for name in ("label", "patient_id"))
    runs = [
        np.array([subsets.get(row["image_id"], "") for row in rows])
        for subsets in read_splits(target / "splits.csv").runs.values()
    ]
    chance = 1 / len(set(labels))
    print(f"\nlogistic regression on the same divisions, balanced accuracy, chance {chance:.3f}:")
    for name, inputs in features(folder, rows).items():
        tested, given = probe(inputs, labels, runs)
        value, low, high = balanced(labels[tested], given, patients[tested])
        verdict = "at chance" if low <= chance <= high else "above chance" if low > chance else "below chance"
        aim = " (wanted at chance)" if name in NO_LUNG else ""
        print(f"  {name:<26}{value:.3f} [{low:.3f}, {high:.3f}] {verdict}{aim}, {inputs.shape[1]} numbers", flush=True)


@pytest.mark.bench
def test_shortcuts(phantoms, tmp_path):
    folder = phantoms(COUNT)
    report_network(chain(folder, tmp_path, Cost()))
    report_probes(folder, tmp_path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--folds", type=int, default=3, help="0: as the column subset says")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, help="keep prepared images, run and evaluation here")
    wanted = parser.parse_args()
    split = ("--folds", str(wanted.folds)) if wanted.folds else ("--from-column", "subset")
    with tempfile.TemporaryDirectory() as scratch:
        place = wanted.out or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        found = chain(wanted.phantoms, place, Cost(wanted.size, wanted.epochs, split, wanted.threads))
        report_network(found)
        report_probes(wanted.phantoms, place)
