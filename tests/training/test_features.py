import numpy as np
import pytest
import torch

from cxrtool.errors import StoppedError
from cxrtool.models.architecture import Architecture
from cxrtool.models.registry import build
from cxrtool.training.augment import Augmenter, parse
from cxrtool.training.features import FeatureSource, ImageSource, Normalisation, run_backbone
from cxrtool.training.randomness import image_keys
from cxrtool.training.store import Store

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def store_of(dtype=np.uint8, count=7, side=32):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (count, side, side), dtype, endpoint=True)
    return Store(values, [""] * count).to(CPU)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build(Architecture("resnet10t", 2, size=32))[0].eval()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_normalisation_takes_the_mean_and_divides_by_the_deviation(dtype):
    store = store_of(dtype)
    batch = ImageSource(store, None, Normalisation(MEAN, STD, CPU), CPU).batch(np.array([5, 2]), None)
    images = torch.from_numpy(store.images[[5, 2]].astype(np.float64) / np.iinfo(dtype).max)[:, None]
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
    expected = ((images - mean) / std).float()
    torch.testing.assert_close(batch, expected, atol=2e-6, rtol=0)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_one_channel_without_shift_stays_as_it_is():
    store = store_of()
    batch = ImageSource(store, None, Normalisation([0.0], [1.0], CPU), CPU).batch(np.arange(7), None)
    assert torch.equal(batch, torch.from_numpy(store.images.astype(np.float32)[:, None]) * np.float32(1 / 255))
    assert batch.min() >= 0.0
    assert batch.max() == 1.0


def test_a_batch_never_changes_the_store():
    store = store_of()
    before = store.images.copy()
    augmenter = Augmenter(parse("rotate=20,brightness=0.2"), image_keys("abcdefg"), 0, 32, CPU)
    ImageSource(store, augmenter, Normalisation([0.0], [1.0], CPU), CPU).batch(np.arange(7), 0).fill_(9)
    assert np.array_equal(store.images, before)


def test_only_training_images_are_augmented():
    store, keys = store_of(), image_keys([str(i) for i in range(7)])
    augmenter = Augmenter(parse("rotate=20"), keys, 0, 32, CPU)
    source = ImageSource(store, augmenter, Normalisation([0.0], [1.0], CPU), CPU)
    plain = ImageSource(store, None, Normalisation([0.0], [1.0], CPU), CPU)
    indices = np.arange(7)
    assert torch.equal(source.batch(indices, None), plain.batch(indices, None))
    assert not torch.equal(source.batch(indices, 0), plain.batch(indices, None))
    assert not torch.equal(source.batch(indices, 0), source.batch(indices, 1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_are_the_body_s_at_their_places(network, precision):
    store, indices = store_of(), np.array([6, 1, 3])
    images = ImageSource(store, None, Normalisation(MEAN, STD, CPU), CPU)
    seen = []
    source = run_backbone(network, images, indices, 2, precision, 7, between=lambda: seen.append(1))
    assert len(seen) == 2
    wanted = np.array([3, 6, 3])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        expected = network.features(images.batch(wanted, None)).float()
    tolerance = 1e-5 if precision == "fp32" else 0.05
    torch.testing.assert_close(source.batch(wanted, 4), expected, atol=tolerance, rtol=tolerance)
    assert source.features.dtype == (torch.float32 if precision == "fp32" else torch.bfloat16)
    # What was made in inference mode could not be trained on.
    assert not source.batch(wanted, 0).is_inference()


def test_a_place_without_features_is_an_error_and_not_another_image():
    source = FeatureSource(torch.rand(2, 3), np.array([0, -1, 1]))
    with pytest.raises((IndexError, RuntimeError)):
        source.batch(np.array([1]), 0)


def test_running_the_body_can_be_stopped(network):
    def stop():
        raise StoppedError("stop", 143)

    images = ImageSource(store_of(), None, Normalisation(MEAN, STD, CPU), CPU)
    with pytest.raises(StoppedError):
        run_backbone(network, images, np.arange(7), 2, "fp32", 7, between=stop)


def coloured(count=5, side=32, dtype=np.uint8):
    values = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (count, side, side, 3), dtype, endpoint=True)
    return Store(values, [""] * count).to(CPU)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_image_of_three_channels_keeps_them_and_one_channel_gets_their_mean(dtype):
    store, indices = coloured(dtype=dtype), np.array([3, 1])
    images = np.moveaxis(store.images[indices].astype(np.float64) / np.iinfo(dtype).max, -1, 1)
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    three = ImageSource(store, None, Normalisation(MEAN, STD, CPU), CPU).batch(indices, None)
    np.testing.assert_allclose(three, (images - mean) / std, atol=2e-6)
    one = ImageSource(store, None, Normalisation([0.5], [0.25], CPU), CPU).batch(indices, None)
    np.testing.assert_allclose(one, (images.mean(1, keepdims=True) - 0.5) / 0.25, atol=2e-6)


def test_three_channels_are_augmented_as_one_image():
    store, indices = coloured(), np.arange(5)
    recipe = "rotate=20,shear=0.1,zoom=0.2,flip=0.5,brightness=0.1,blur=1"
    keys = image_keys([str(i) for i in range(5)])
    normalise = Normalisation([0.0] * 3, [1.0] * 3, CPU)
    together = ImageSource(store, Augmenter(parse(recipe), keys, 0, 32, CPU), normalise, CPU).batch(indices, 2)
    for channel in range(3):
        alone = Store(np.ascontiguousarray(store.images[..., channel]), store.sha256).to(CPU)
        single = Normalisation([0.0], [1.0], CPU)
        made = ImageSource(alone, Augmenter(parse(recipe), keys, 0, 32, CPU), single, CPU).batch(indices, 2)
        torch.testing.assert_close(together[:, channel : channel + 1], made, atol=1e-6, rtol=0)
