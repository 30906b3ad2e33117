"""What the tests of all rooms share."""

import itertools
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import pytest

from cxrtool.cli.main import run
from cxrtool.data.manifest import Manifest, Row, read_manifest, read_table, write_manifest, write_table
from cxrtool.data.predictions import Predictions
from cxrtool.steps.settings import Settings

ROOT = Path(__file__).resolve().parents[1]

# A busy machine is slow, not wrong; and what guards the main branch must not draw other examples each time.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


@dataclass
class Listener:
    """A reporter that remembers what was said."""

    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    def note(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def progress(self, label: str, total: int):
        from cxrtool.steps.settings import Silent

        return Silent().progress(label, total)


@dataclass
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real radiographs that lie beside some checkouts, never in the repository."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no real radiographs at {path}")
    return path


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def settings(listener: Listener) -> Settings:
    return Settings(report=listener)


@pytest.fixture
def cxr(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call `cxrtool` in this process."""

    def call(*args: object) -> Outcome:
        capsys.readouterr()
        code = run([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def _make_rows(images: int = 24, classes: Sequence[str] = ("covid", "normal"), per_patient: int = 2) -> list[Row]:
    """Rows of a manifest, without any file behind them."""
    rows = []
    for index in range(images):
        patient = index // per_patient
        rows.append(
            {
                "image_id": f"im{index:03}",
                "path": f"/nowhere/im{index:03}.png",
                "label": classes[patient % len(classes)],
                "patient_id": f"p:{patient:03}",
                "severity": ("mild", "severe", "")[patient % 3],
                "source": ("a", "b")[patient // len(classes) % 2],
                "view": ("PA", "AP")[index % 2],
                "age": str(20 + patient),
                "sex": "FM"[patient % 2],
            }
        )
    return rows


def _shuffled(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """The same rows in another order."""
    result = list(rows)
    random.Random(seed).shuffle(result)
    return result


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[Row]]:
    return _make_rows


@pytest.fixture(scope="session")
def shuffled() -> Callable[..., list[Row]]:
    return _shuffled


@pytest.fixture
def tiny(tmp_path: Path) -> Manifest:
    """A manifest of 24 grey pictures of 12 patients and two classes, on disk."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    rows = _make_rows()
    for index, row in enumerate(rows):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 20), np.uint8)
        row["path"] = str(folder / f"{row['image_id']}.png")
        cv2.imwrite(row["path"], pixels)
    write_manifest(folder / "manifest.csv", list(rows[0]), rows)
    return read_manifest(folder)


def _make_predictions(
    images: int = 120,
    classes: Sequence[str] = ("covid", "normal", "pneumonia"),
    *,
    repeats: int = 1,
    folds: int = 1,
    per_patient: int = 2,
    skill: float = 1.5,
    seed: int = 0,
) -> Predictions:
    """Predictions of a model that knows something: repeats, folds of patients, severities, several images a patient."""
    rng = np.random.default_rng(seed)
    rows, scores = [], []
    for repeat in range(repeats):
        for index in range(images):
            patient = index // per_patient
            label = patient % len(classes)
            logits = rng.normal(size=len(classes))
            logits[label] += skill
            values = np.exp(logits) / np.exp(logits).sum()
            scores.append(values)
            rows.append(
                {
                    "image_id": f"im{index:04}",
                    "path": f"/nowhere/im{index:04}.png",
                    "repeat": str(repeat),
                    "fold": str((patient // len(classes) + repeat) % folds),
                    "subset": "test",
                    "label": classes[label],
                    "predicted": classes[int(values.argmax())],
                    "warning": "",
                    "patient_id": f"p:{patient:04}",
                    "severity": ("mild", "moderate", "severe")[patient // len(classes) % 3] if label == 0 else "",
                    "source": ("a", "b")[patient // len(classes) % 2],
                    "age": str(20 + patient % 60),
                }
            )
    return Predictions(list(classes), rows, np.array(scores), "synthetic", list(rows[0]))


@pytest.fixture(scope="session")
def make_predictions() -> Callable[..., Predictions]:
    return _make_predictions


@dataclass
class Study:
    """A manifest on disk with splits of 2 repeats and 3 folds that separate its patients."""

    folder: Path
    splits: Path

    def assigned(self, repeat: int, fold: int, subset: str) -> list[str]:
        """The image ids that the splits put there, in the splits' order."""
        wanted = {"repeat": str(repeat), "fold": str(fold), "subset": subset}
        rows = read_table(self.splits).rows
        return [row["image_id"] for row in rows if wanted.items() <= row.items()]


def _make_study(parent: Path, side: int = 24) -> Study:
    """Write 24 pictures of 12 patients; the class is the half that is brighter, which a small network learns."""
    folder = parent / "study"
    folder.mkdir(parents=True)
    rows = _make_rows()
    splits = []
    for index, row in enumerate(rows):
        pixels = np.random.default_rng(index).integers(0, 100, (side, side + 4), np.uint8)
        half = slice(0, side // 2) if row["label"] == "covid" else slice(side // 2, side)
        pixels[:, half] += 120
        row["path"] = str(folder / f"{row['image_id']}.png")
        cv2.imwrite(row["path"], pixels)
    for repeat, fold in itertools.product(range(2), range(3)):
        tested = [pair for pair in range(6) if (pair % 3 if repeat == 0 else pair // 2) == fold]
        held = [pair for pair in range(6) if pair not in tested][fold]
        for index, row in enumerate(rows):
            pair = index // 4
            subset = "test" if pair in tested else "validation" if pair == held else "train"
            splits.append({"image_id": row["image_id"], "repeat": str(repeat), "fold": str(fold), "subset": subset})
    write_manifest(folder / "manifest.csv", list(rows[0]), rows)
    write_table(parent / "splits.csv", list(splits[0]), splits)
    return Study(folder, parent / "splits.csv")


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    return _make_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return _make_study(tmp_path)
