"""What the tests of all rooms share."""

import contextlib
import itertools
import json
import os
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side: threads that wait for one another by spinning take the processor from the others.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import hypothesis
import numpy as np
import pytest

from cxrtool.cli.main import run
from cxrtool.data.splitting.splits import COLUMNS as SPLIT_COLUMNS
from cxrtool.data.tables.manifest import Manifest, Row, read_manifest, read_table, write_manifest, write_table
from cxrtool.data.tables.predictions import Predictions, write_predictions
from cxrtool.flow.settings import Settings

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
        from cxrtool.flow.settings import Silent

        return Silent().progress(label, total)

    @contextlib.contextmanager
    def together(self):
        yield self


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


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk():
    """A process that is killed leaves what it wrote with the system: a test, which cuts no power, needs no `fsync`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


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


def forget_digests(folder: Path) -> None:
    """Make the folders of steps in `folder` as an earlier version wrote them, whose files may be edited."""
    for path in sorted(Path(folder).rglob("run.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("files", None) is not None:
            times = path.stat()
            path.write_text(json.dumps(content, indent=1), encoding="utf-8")
            # A file that is edited later is newer than it.
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def editable() -> Callable[[Path], None]:
    """What removes the digests of the files in a folder, before a test edits one of them."""
    return forget_digests


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


def _make_small_study(parent: Path) -> Study:
    study = _make_study(parent)
    rows = [row for row in read_table(study.splits).rows if row["repeat"] == "0" and row["fold"] != "2"]
    write_table(study.splits, list(rows[0]), rows)
    return study


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    return _make_study


@pytest.fixture(scope="session")
def make_small_study() -> Callable[[Path], Study]:
    """Lay a study of the first two folds alone."""
    return _make_small_study


@pytest.fixture(scope="session")
def make_masked_study() -> Callable[[Path], Study]:
    """Lay a study of two folds whose masks are the half of each image that tells its class."""

    def make(parent: Path) -> Study:
        side = 24
        study = _make_small_study(parent)
        manifest = read_manifest(study.folder)
        for row in manifest.rows:
            mask = np.zeros((side, side + 4), np.uint8)
            mask[:, slice(0, 12) if row["label"] == "covid" else slice(12, 24)] = 255
            row["mask"] = str(study.folder / f"{row['image_id']}_mask.png")
            cv2.imwrite(row["mask"], mask)
        write_manifest(study.folder / "manifest.csv", [*manifest.columns, "mask"], manifest.rows)
        return study

    return make


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return _make_study(tmp_path)


def _draw_chest(index: int, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A bright body with two dark ellipses, (side, side - 8) uint8, and their mask, 0 and 255; odd ones have grain."""
    rng = np.random.default_rng(index)
    height, width = side, side - 8
    pixels = np.full((height, width), 170 + int(rng.integers(0, 30)), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    middle, reach = width / 2 + rng.uniform(-3, 3), height * rng.uniform(0.26, 0.32)
    for way in (-1, 1):
        centre = round(middle + way * width * 0.2), round(height * rng.uniform(0.45, 0.5))
        cv2.ellipse(mask, centre, (round(width * 0.14), round(reach)), 0, 0, 360, 255, -1)
    pixels[mask > 0] = 60 + int(rng.integers(0, 30))
    grain = rng.normal(0, 25 if index % 2 else 4, pixels.shape)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8), mask


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the curves undrawn: they cost more than all the training of a tiny network."""
    monkeypatch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))


@pytest.fixture(scope="session")
def draw_chest() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return _draw_chest


@pytest.fixture(scope="session")
def lung_part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small lung network that has learnt to see the lungs of `draw_chest`."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as loss_of

    from cxrtool.imaging.fits import Form
    from cxrtool.imaging.view import see
    from cxrtool.models.parts import save_part
    from cxrtool.models.unet import UNet

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    form = Form(64)
    pairs = [_draw_chest(index) for index in range(100, 132)]
    images, masks = (
        torch.from_numpy(np.stack([see(pair[which], form).values for pair in pairs])[:, None]) for which in (0, 1)
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = UNet()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(60):
        chosen = [(8 * step + k) % len(images) for k in range(8)]
        optimizer.zero_grad()
        loss_of(network(images[chosen]), masks[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        # So short a training leaves it unsure of what it knows.
        network.head.weight *= 5
        network.head.bias *= 5
    torch.set_num_threads(threads)
    folder = tmp_path_factory.mktemp("lungs") / "part"
    save_part(folder, "lungs", "unet", network.eval(), form, {"about": "ellipses"})
    return folder


@pytest.fixture
def chests(tmp_path: Path) -> Manifest:
    """A manifest of 24 drawn chests of 12 patients and two classes, on disk; half of them have masks."""
    folder = tmp_path / "chests"
    folder.mkdir()
    rows = _make_rows()
    for index, row in enumerate(rows):
        # The class is the grain.
        pixels, mask = _draw_chest(2 * index + (row["label"] == "covid"))
        row["path"] = str(folder / f"{row['image_id']}.png")
        cv2.imwrite(row["path"], pixels)
        row["mask"] = str(folder / f"{row['image_id']}-mask.png") if index < 12 else ""
        if row["mask"]:
            cv2.imwrite(row["mask"], mask)
    write_manifest(folder / "manifest.csv", list(rows[0]), rows)
    return read_manifest(folder)


def _varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value) if value else b""


def _block(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Keys and values as LevelDB writes them: each key without what it shares with the one before."""
    written, before = b"", b""
    for key, value in pairs:
        shared = next(
            (i for i, (a, b) in enumerate(zip(key, before, strict=False)) if a != b), min(len(key), len(before))
        )
        written += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        before = key
    return written + struct.pack("<II", 0, 1)


def _write_checkpoint(stem: Path, arrays: Mapping[str, np.ndarray], *, shards: int = 1, big: bool = False) -> Path:
    """Write arrays as TensorFlow's tensor bundle of version 2, after its documentation and without TensorFlow."""
    from cxrtool.models.tensorflow_checkpoint import crc32c

    data, pairs = b"", [(b"", _field(1, shards) + _field(2, int(big)) + _field(3, _field(1, 1)))]
    for name in sorted(arrays):
        content = np.ascontiguousarray(arrays[name]).astype("<f4").tobytes()
        crc = crc32c(content)
        masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
        shape = b"".join(_field(2, _field(1, side)) for side in arrays[name].shape)
        place = _field(4, len(data)) + _field(5, len(content)) + _varint(6 << 3 | 5) + struct.pack("<I", masked)
        pairs.append((name.encode(), _field(1, 1) + _field(2, shape) + place))
        data += content
    table, handles = b"", []
    middle = max(1, len(pairs) // 2)
    for part in (pairs[:middle], pairs[middle:]):
        block = _block(part)
        handles.append((part[-1][0] + b"\xff", _varint(len(table)) + _varint(len(block))))
        table += block + b"\0" + bytes(4)
    for block in (_block([]), _block(handles)):
        handles.append((b"", _varint(len(table)) + _varint(len(block))))
        table += block + b"\0" + bytes(4)
    table += b"".join(handle for _, handle in handles[-2:]).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    stem.with_name(stem.name + ".index").write_bytes(table)
    stem.with_name(stem.name + ".data-00000-of-00001").write_bytes(data)
    return stem


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[..., Path]:
    return _write_checkpoint


@pytest.fixture(scope="session")
def rib_kernels() -> dict[str, np.ndarray]:
    """Kernels by the published names and in their order, whose answer is the picture, blurred and a little brighter."""
    rng = np.random.default_rng(0)
    smooth = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 128
    kernels = {}
    for layer, (before, after) in enumerate(itertools.pairwise((1, 16, 32, 64))):
        kernels[f"encoder/layer/{layer}/W"] = rng.normal(0, 0.001, (5, 5, before, after)).astype(np.float32)
        kernels[f"encoder/layer/{layer}/W"][:, :, 0, 0] += smooth
    return kernels


@pytest.fixture(scope="session")
def rib_part(tmp_path_factory: pytest.TempPathFactory, rib_kernels: dict[str, np.ndarray]) -> Path:
    """A rib part that answers with something like its picture; small, so that it is quick."""
    import torch

    from cxrtool.imaging.fits import Form
    from cxrtool.models.parts import save_part
    from cxrtool.models.rib_autoencoder import RibAutoencoder, kernels_of

    network = RibAutoencoder()
    state = kernels_of(rib_kernels, "made up")
    network.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
    folder: Path = tmp_path_factory.mktemp("ribs")
    save_part(folder, "ribs", "autoencoder", network, Form(64, "pad", invert=True), {})
    return folder


def _write_generators(
    run: Path,
    splits: Path,
    rows: Sequence[Row],
    *,
    size: int = 16,
    folds: Sequence[str] = ("r0f0",),
    classes: Sequence[str] = ("covid", "normal"),
    chain: Sequence[Mapping] = (),
) -> Path:
    """Write a run as `fit generators` does, without fitting: each generator passes its picture on, changed a little.

    That of the first class brightens, that of the last darkens, and each fold adds a pattern of its own.
    """
    import json

    import torch

    from cxrtool.flow.fold_training import FITTED_COLUMNS
    from cxrtool.imaging.fits import Form
    from cxrtool.models.class_inherent import Generators
    from cxrtool.models.parts import save_part

    run.mkdir(parents=True)
    (run / "splits.csv").write_bytes(splits.read_bytes())
    about = {"command": "fit", "run_digest": "d", "started": "2020-01-01T00:00:00Z", "chain": list(chain)}
    (run / "run.json").write_text(json.dumps(about))
    patients = {row["image_id"]: row for row in rows}
    with torch.random.fork_rng([]), torch.no_grad():
        for name in folds:
            torch.manual_seed(int(name[1]) * 100 + int(name[3:]))
            network = Generators(classes)
            for number, member in enumerate(network.members):
                for module in member.modules():
                    if isinstance(module, torch.nn.PReLU):
                        module.weight.fill_(1.0)
                    if isinstance(module, torch.nn.BatchNorm2d):
                        module.weight.fill_(0.02)
                first, last = member[0], member[-1]
                first.weight[0] = last.weight[:, 0] = 0
                first.weight[0, 0, 4, 4] = 1.0
                last.weight[:, 0, 1, 1] = 1.0
                last.bias += (len(classes) - 1) / 2 - number
            save_part(
                run / name,
                "generators",
                "fucitnet",
                network.eval(),
                Form(size),
                {"about": "a test"},
                built_with={"classes": list(classes)},
            )
            where = {"repeat": name[1], "fold": name[3:]}
            fitted = [
                {
                    **where,
                    "image_id": row["image_id"],
                    "subset": row["subset"],
                    "sha256": "",
                    "patient_id": patients.get(row["image_id"], {}).get("patient_id", ""),
                }
                for row in read_table(splits).rows
                if where.items() <= row.items() and row["subset"] != "test"
            ]
            write_table(run / name / "fitted_on.csv", FITTED_COLUMNS, fitted)
            (run / name / "run.json").write_text(json.dumps(about))
            (run / name / "classifier.safetensors").write_bytes(b"large")
            (run / name / "predictions.csv").write_text("image_id\n")
    return run


@pytest.fixture(scope="session")
def write_generators() -> Callable[..., Path]:
    return _write_generators


@pytest.fixture
def train_study(settings: Settings, tmp_path: Path, no_pictures: None) -> Callable[..., Path]:
    """Train a tiny network on a study, with --replace; keywords are those of `TrainOptions` or of `Settings`."""
    import torch

    from cxrtool.commands.train import train
    from cxrtool.commands.train.options import TrainOptions

    torch.set_num_threads(1)

    def call(study: Any, out: str = "run", **changes: Any) -> Path:
        shared = {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
        told: dict[str, Any] = {
            "manifest": study.folder,
            "splits": study.splits,
            "model": "covid-xnet",
            "size": 16,
            "epochs": 2,
            "batch_size": 8,
            "augment": "none",
            "only": "r0f0",
        }
        options = TrainOptions.of(**{**told, **changes})
        run: Path = tmp_path / out
        train(options, replace(settings, **{"out": run, "cache": tmp_path / "cache", "replace": True, **shared}))
        return run

    return call


def _write_run(folder: Path, rows: list[dict[str, str]], classes: list[str], splits: list[dict[str, str]]) -> Path:
    """A run as `train` leaves it, without models: rows have `image_id`, `repeat`, `fold`, `subset`, `label`, `p`."""
    folder.mkdir(parents=True)
    write_table(folder / "splits.csv", SPLIT_COLUMNS, splits)
    for repeat, fold in dict.fromkeys((row["repeat"], row["fold"]) for row in splits):
        own = [dict(row) for row in rows if (row["repeat"], row["fold"]) == (repeat, fold)]
        share = np.array([float(row.pop("p")) for row in own])
        values = np.stack([share, 1 - share], axis=1)
        place = folder / f"r{repeat}f{fold}"
        place.mkdir()
        write_predictions(place / "predictions.csv", Predictions(classes, own, values, columns=list(own[0])))
        seen = [row for row in splits if (row["repeat"], row["fold"]) == (repeat, fold) and row["subset"] != "test"]
        write_table(place / "fitted_on.csv", ["image_id", "patient_id", "sha256", "repeat", "fold", "subset"], seen)
    return folder


@pytest.fixture
def joint_runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of three folds, A of normal against the rest, B of covid against the rest, thinned out in training.

    30 images, ten of each of normal, pathological and covid.
    """
    rng = np.random.default_rng(1)
    truth = ["normal", "pathological", "covid"] * 10
    ids = [f"i{k:02}" for k in range(30)]
    splits, thinned, rows_a, rows_b = [], [], [], []
    for fold in range(3):
        for k, name in enumerate(ids):
            subset = "test" if k // 3 % 3 == fold else "validation" if k // 3 == (fold + 1) % 3 else "train"
            row = {"image_id": name, "repeat": "0", "fold": str(fold), "subset": subset}
            splits.append(row)
            # Every other normal or pathological image is left out of B's training.
            if subset == "test" or truth[k] == "covid" or k % 2:
                thinned.append(row)
            if subset != "train":
                a, b = rng.beta(2, 1 if truth[k] != "normal" else 4), rng.beta(2, 1 if truth[k] == "covid" else 4)
                shared = {**row, "path": f"/x/{name}.png", "patient_id": f"p{k}", "warning": "", "predicted": ""}
                rows_a.append({**shared, "label": "normal" if truth[k] == "normal" else "sick", "p": f"{1 - a:.6f}"})
                if row in thinned:
                    rows_b.append({**shared, "label": "covid" if truth[k] == "covid" else "rest", "p": f"{b:.6f}"})
    first = _write_run(tmp_path / "A", rows_a, ["normal", "sick"], splits)
    second = _write_run(tmp_path / "B", rows_b, ["covid", "rest"], thinned)
    manifest = [
        {"image_id": name, "path": f"/x/{name}.png", "label": "covid" if truth[k] == "covid" else "rest"}
        for k, name in enumerate(ids)
    ]
    write_table(second / "manifest.csv", list(manifest[0]), manifest)
    return first, second
