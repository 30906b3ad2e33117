"""The rows of an evaluation: processor time and memory of `evaluate` and `compare` as the predictions grow.

A whole process each, on one thread, with all tables and plots. Time should grow as the rows do: the slope is the
exponent between two sizes. CXRTOOL_ROWS names other sizes, such as 10000,100000.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROWS = (10_000, 100_000, 1_000_000)
ROWS_A_PATIENT = 3
CLASSES = ("normal", "covid", "pneumonia")


def write(path: Path, rows: int, skill: float, batch: int = 10_000) -> None:
    """Predictions of three classes: one to five images a patient, alike, with severity, source, sex and age."""
    names = ["image_id", "path", "repeat", "fold", "subset", "label", "predicted"]
    names += [*(f"prob_{name}" for name in CLASSES), "warning", "patient_id", "severity", "source", "age", "sex"]
    left, number, patient = rows, 0, 0
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        while left:
            # The same patients and labels for every skill.
            rng = np.random.default_rng(number)
            sizes = rng.integers(1, 2 * ROWS_A_PATIENT, batch)
            own = np.repeat(np.arange(batch), sizes)[:left]
            label = rng.integers(0, len(CLASSES), batch)[own]
            logits = rng.normal(size=(batch, len(CLASSES)))[own] + rng.normal(size=(len(own), len(CLASSES)))
            logits[np.arange(len(own)), label] += skill
            values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            predicted, age = values.argmax(axis=1), rng.integers(1, 95, batch)
            severity, source = rng.integers(0, 3, batch), rng.integers(0, 4, batch)
            for i, (p, k, guess, scores) in enumerate(zip(own, label, predicted, values, strict=True), number):
                image, who = f"image-{i:07}", patient + p
                grade = ("mild", "moderate", "severe")[severity[p]] if k == 1 else ""
                cells = [image, f"images/source-{source[p]}/{image}.png", "0", "0", "test", CLASSES[k], CLASSES[guess]]
                cells += [*(f"{score:.9g}" for score in scores), "", f"clinic:{who:07}", grade, f"source-{source[p]}"]
                file.write(",".join([*cells, str(age[p]), "FM"[who % 2]]) + "\n")
            left, number, patient = left - len(own), number + len(own), patient + batch


def cost(arguments: list[object], folder: Path) -> tuple[float, float]:
    """Processor seconds and the peak of resident memory in MiB of one command."""
    command = [sys.executable, "-m", "cxrtool", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


@pytest.mark.bench
def test_rows_of_an_evaluation(tmp_path):
    given = os.environ.get("CXRTOOL_ROWS")
    sizes = [*map(int, given.split(","))] if given else ROWS
    before: dict[str, tuple[int, float]] = {}
    print(f"\n{'command':14}{'rows':>10}{'seconds':>10}{'MiB':>8}{'slope':>8}")
    for rows in sizes:
        first, second = tmp_path / f"a{rows}.csv", tmp_path / f"b{rows}.csv"
        write(first, rows, 1.5)
        write(second, rows, 1.7)
        calls = {
            "evaluate": ["evaluate", first],
            "evaluate --by": ["evaluate", first, "--by", "severity,source,sex,age:0,40,65", "--positive", "covid"],
            "compare": ["compare", first, second],
        }
        for name, call in calls.items():
            seconds, peak = cost([*call, "-o", tmp_path / f"{name.replace(' ', '')}{rows}"], tmp_path)
            slope = ""
            if name in before:
                fewer, less = before[name]
                slope = f"{math.log(seconds / less) / math.log(rows / fewer):.2f}"
            before[name] = rows, seconds
            print(f"{name:14}{rows:>10,}{seconds:>10.1f}{peak:>8.0f}{slope:>8}")
        first.unlink()
        second.unlink()
