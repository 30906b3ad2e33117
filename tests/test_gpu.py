"""What a GPU must do as a processor does: `pytest -m gpu` where there is one.

CXRTOOL_TEST_DEVICE=cpu runs the same tests on the processor, which shows that they work but for the device.
"""

import contextlib
import os
from dataclasses import replace

import cv2
import numpy as np
import pytest

from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.tables.manifest import read_manifest
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import StoppedError
from cxrtool.flow.settings import Settings
from cxrtool.training.options import FittingOptions

pytestmark = pytest.mark.gpu

SAME = 2e-3
"""Largest difference of a probability: both compute in fp32, but add in another order."""

TRAINED = 2e-2
"""After some steps of training, which enlarge it."""

SIDE, COUNT = 32, 40


@pytest.fixture(scope="module")
def device():
    import torch

    name = os.environ.get("CXRTOOL_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device (CXRTOOL_TEST_DEVICE=cpu runs these tests on the processor)")
    return torch.device(name)


def small_network(norm):
    import torch
    from torch import nn

    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.Flatten(), nn.LazyLinear(2)
    )


@pytest.fixture
def make_job(device, tmp_path):
    """A classifier on pictures in a store on the device, with augmentation, as `train` does it."""
    import torch
    from torch import nn

    from cxrtool.training.augment import Augmenter, parse
    from cxrtool.training.engine import Fit
    from cxrtool.training.features import ImageSource, Normalisation
    from cxrtool.training.randomness import image_keys
    from cxrtool.training.store import Store

    def make(state="state", norm=None, resident=True, precision="fp32", **recipe):
        generator = np.random.default_rng(0)
        images = generator.integers(0, 128, (COUNT, SIDE, SIDE), dtype=np.uint8)
        labels = np.arange(COUNT) % 2
        images[labels == 1, :, : SIDE // 2] += 100
        store = Store(images, [""] * COUNT)
        if resident:
            store.to(device)
        augmentation = parse("rotate=10,shift=0.05,zoom=0.1,flip=0.5,contrast=0.1,brightness=0.1,blur=0.5,noise=0.02")
        augmenter = Augmenter(augmentation, image_keys([f"im{k}" for k in range(COUNT)]), 0, SIDE, device)
        module = small_network(norm or nn.GroupNorm(4, 16))
        module(torch.zeros(2, 1, SIDE, SIDE))
        options = FittingOptions(**{"epochs": 3, "batch_size": 12, "opt": "adamw", "checkpoint": "last", **recipe})
        return Fit(
            module=module.to(device, memory_format=torch.channels_last),
            source=ImageSource(store, augmenter, Normalisation([0.5], [0.25], device), device),
            labels=labels,
            training=np.arange(8, COUNT),
            validation=np.arange(8),
            classes=2,
            recipe=options,
            device=device,
            precision=precision,
            seed=1,
            state=tmp_path / state,
            save_every=1e9,
        )

    return make


def assert_alike(one, other, tolerance):
    for name, value in one.module.state_dict().items():
        np.testing.assert_allclose(
            value.float().cpu().numpy(), other.module.state_dict()[name].float().cpu().numpy(), atol=tolerance
        )


@contextlib.contextmanager
def no_waiting(device):
    """Any call inside that waits for the GPU is an error."""
    import torch

    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("opt", ["sgd", "adamw", "rmsprop", "adadelta"])
def test_no_batch_waits_for_the_device(make_job, device, opt, precision, resident):
    from torch import nn

    from cxrtool.training.engine import Loop

    loop = Loop(make_job(norm=nn.BatchNorm2d(16), opt=opt, precision=precision, resident=resident), lambda text: None)
    # Libraries are loaded, and memory is reserved, in the first epoch.
    loop.train_epoch(lambda: None)
    loop.step, loop.epoch = 0, 1
    with no_waiting(device):
        loop.train_epoch(lambda: None)
    assert len(loop.losses) == 2 * 3


@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_a_training_that_was_stopped_goes_on(make_job, opt):
    from torch import nn

    from cxrtool.training.engine import fit

    whole = make_job("whole", nn.BatchNorm2d(16), opt=opt)
    expected = fit(whole)
    looks = iter(range(1000))
    job = make_job("parts", nn.BatchNorm2d(16), opt=opt)
    with pytest.raises(StoppedError):
        fit(job, stop=lambda: StoppedError("stop", 143) if next(looks) == 4 else None)
    again = make_job("parts", nn.BatchNorm2d(16), opt=opt)
    found = fit(again)
    assert [row["epoch"] for row in found.rows] == [row["epoch"] for row in expected.rows] == [1, 2, 3]
    for one, other in zip(found.rows, expected.rows, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-3)
    assert_alike(again, whole, 1e-3)


@pytest.fixture
def little_memory(device, monkeypatch):
    """Let the device hold less than a whole batch of `module`, but some images of it."""
    import torch

    def limit(module, few, shape):
        if device.type == "cuda":
            # What a few images need, measured; and a little less than what the whole batch does.
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            module(torch.zeros(few, *shape, device=device)).sum().backward()
            module.zero_grad(set_to_none=True)
            peak = torch.cuda.max_memory_reserved(device)
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(peak * 1.2 / torch.cuda.mem_get_info(device)[1], device)
            return

        def refuse(part, inputs):
            if len(inputs[0]) > few:
                raise torch.OutOfMemoryError

        module.register_forward_pre_hook(refuse)

    yield limit
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()


def test_a_batch_that_memory_does_not_hold_is_accumulated(device, little_memory, tmp_path):
    import torch
    from torch import nn

    from cxrtool.training.engine import Fit, fit

    class Pictures:
        def batch(self, indices, epoch):
            generator = torch.Generator().manual_seed(0)
            return torch.rand(64, 1, 256, 256, generator=generator)[torch.from_numpy(indices)].to(device)

    def job(state):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 64, 3, padding=1), nn.GroupNorm(4, 64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2),
        )  # fmt: skip
        return Fit(
            module=module.to(device), source=Pictures(), labels=np.arange(64) % 2, training=np.arange(64),
            validation=np.arange(0), classes=2, device=device, precision="fp32", seed=0, state=tmp_path / state,
            recipe=FittingOptions(epochs=1, batch_size=64, opt="sgd", lr=0.1, checkpoint="last"),
        )  # fmt: skip

    whole, parts, warned = job("a"), job("b"), []
    fit(whole)
    little_memory(parts.module, 24, (1, 256, 256))
    fit(parts, warn=warned.append)
    assert len(warned) == 1
    assert "its gradient is the sum of those of" in warned[0]
    assert_alike(parts, whole, 1e-4)


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_study, device):
    """A study, and the same run trained on the processor, on the device, and there with `--compile`."""
    folder = tmp_path_factory.mktemp("place")
    study = make_study(folder)
    told = TrainOptions.of(
        manifest=study.folder, splits=study.splits, model="covid-xnet", size=32, epochs=3, batch_size=8, only="r0f0"
    )
    settings = Settings(cache=folder / "cache", precision="fp32")
    for name in ("cpu", "device"):
        train(told, replace(settings, out=folder / name, device="cpu" if name == "cpu" else str(device)))
    compiled = replace(settings, out=folder / "compiled", device=str(device))
    train(replace(told, compile=True), compiled)
    return folder, study


def assert_same_predictions(one, other, tolerance):
    first, second = read_predictions(one), read_predictions(other)
    assert [row["image_id"] for row in first.rows] == [row["image_id"] for row in second.rows]
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=tolerance)


@pytest.mark.parametrize("other", ["device", "compiled"])
def test_training_gives_the_same_predictions(place, other):
    folder, _ = place
    assert_same_predictions(*(folder / name / "r0f0" / "predictions.csv" for name in ("cpu", other)), TRAINED)


def on_both(cxr, device, *line, out):
    """Run a command on the processor and on the device; returns both outputs."""
    made = []
    for name in ("cpu", str(device)):
        target = out.with_name(f"{out.stem}-{len(made)}{out.suffix}")
        outcome = cxr(*line, "--device", name, "--workers", 1, "-o", target)
        assert outcome.code == 0, outcome.err
        made.append(target)
    return made


def test_predicting_gives_the_same(place, cxr, device, tmp_path):
    folder, study = place
    line = ("predict", folder / "cpu" / "r0f0", study.folder, "--allow-leakage")
    assert_same_predictions(*on_both(cxr, device, *line, out=tmp_path / "p.csv"), SAME)


def pictures_of(folder, column="path"):
    return [cv2.imread(row[column], cv2.IMREAD_UNCHANGED).astype(np.float64) for row in read_manifest(folder).rows]


def test_segmenting_gives_the_same_masks(cxr, chests, lung_part, device, tmp_path):
    line = ("segment", chests.origin.parent, "--lungs", lung_part)
    masks = [pictures_of(made, "mask") for made in on_both(cxr, device, *line, out=tmp_path / "s")]
    different = np.mean([np.mean(one != other) for one, other in zip(*masks, strict=True)])
    assert different < 1e-3


def test_explaining_gives_the_same_maps(place, device):
    import torch

    from cxrtool.explaining.cam import GradCam
    from cxrtool.training.checkpoint import load_model

    folder, _ = place
    images = torch.from_numpy(np.random.default_rng(0).random((6, 1, 32, 32), np.float32))
    found = []
    for where in ("cpu", device):
        network, description = load_model(folder / "cpu" / "r0f0")
        given = images.expand(-1, len(description.normalization.mean), -1, -1).to(where)
        maps = GradCam(network.to(where), given)(given, lambda logits: logits.argmax(1))
        found.append((maps.values.cpu().numpy(), maps.logits.detach().cpu().numpy()))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=SAME * max(1.0, float(np.abs(one).max())))


def test_enhancing_gives_the_same_pictures(cxr, chests, rib_part, device, tmp_path):
    from cxrtool.commands.enhance import EnhanceOptions

    if "device" not in EnhanceOptions.SHARED:
        pytest.skip("`enhance` has no --device")
    line = ("enhance", chests.origin.parent, "--steps", "suppress-ribs", "--ribs", rib_part)
    pictures = [pictures_of(made) for made in on_both(cxr, device, *line, out=tmp_path / "e")]
    for one, other in zip(*pictures, strict=True):
        assert np.abs(one - other).max() <= 1 + 1e-4 * one.max()
