"""Commands on tables of many rows: processor seconds, largest memory, and how both grow with the number of rows."""

import csv
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = tuple(int(count) for count in os.environ.get("CXRTOOL_ROWS", "10000,100000,1000000").split(","))
CXRTOOL = str(Path(sys.executable).with_name("cxrtool"))

COMMANDS = {
    "select": ["select", "{}", "--where", "age >= 18", "--one-per", "patient_id", "--per-class", "smallest"],
    "split": ["split", "{}", "--folds", "5"],
    "audit": ["audit", "{}", "--quick"],
    "table 1": ["info", "{}", "--table1"],
    "to Parquet": ["select", "{}", "-o", "{}.parquet"],
    "of Parquet": ["select", "{}.parquet", "-o", "{}.again.csv"],
    "train, to the first image": (
        ["train", "{}", "--splits", "{}.splits", "--preset", "covid-xnet", "-o", "{}.run", "--dry-run"]
    ),
}
BEFORE = {
    "of Parquet": COMMANDS["to Parquet"],
    "train, to the first image": ["split", "{}", "--folds", "5", "-o", "{}.splits"],
}
"""What a command needs."""


def draw(target: Path, count: int) -> None:
    """A manifest as `prepare` writes it, of patients with one to five images, some without an age; a few are copies."""
    draw = random.Random(count)
    columns = "image_id path label patient_id severity source view age sex width height sha256 dhash warning original"
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns.split())
        index = patient = bits = 0
        while index < count:
            patient += 1
            source, sex = draw.choice(["north", "south", "east", "west"]), draw.choice(["F", "M", ""])
            age = "" if draw.random() < 0.15 else str(draw.randint(0, 95))
            for _ in range(min(draw.choice([1, 1, 1, 2, 2, 3, 4, 5]), count - index)):
                copy = index and draw.random() < 0.002
                bits = bits ^ (1 << draw.randrange(256)) if copy else draw.getrandbits(256)
                label = draw.choices(["covid", "normal", "pneumonia"], [2, 5, 3])[0]
                severity = draw.choice(["mild", "moderate", "severe"]) if label == "covid" else ""
                name, height = f"im{index:07}", draw.choice(["896", "1024"])
                first = [name, f"images/{name}.png", label, f"{source}:{patient}", severity, source]
                hashes = [f"{draw.getrandbits(256):064x}", f"{bits:064x}"]
                rest = [draw.choice(["PA", "AP"]), age, sex, "1024", height, *hashes, "", f"{source}/{name}.dcm"]
                writer.writerow(first + rest)
                index += 1


def measured(arguments: list[str]) -> tuple[float, float]:
    """Processor seconds and the largest resident memory in MiB of one command."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [CXRTOOL, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


@pytest.mark.bench
@pytest.mark.parametrize("name", COMMANDS)
def test_many_rows(name, tmp_path):
    """The slope is the power of the number of rows with which the seconds grow, between the two largest tables."""
    seconds = []
    for count in ROWS:
        table = tmp_path / f"{count}.csv"
        draw(table, count)
        if name in BEFORE:
            measured([word.format(table) for word in BEFORE[name]])
        took, memory = measured([word.format(table) for word in COMMANDS[name]])
        seconds.append(took)
        print(f"\n{name}, {count:,} rows: {took:.1f} s of processor time, {memory:,.0f} MiB", end="")
    if len(ROWS) > 1:
        slope = math.log(seconds[-1] / seconds[-2]) / math.log(ROWS[-1] / ROWS[-2])
        print(f"\n{name}: seconds grow with rows to the power of {slope:.2f}")
