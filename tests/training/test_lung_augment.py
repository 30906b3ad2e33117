import numpy as np
import pytest
import torch

from cxrtool.training import lung_augment as module
from cxrtool.training.lung_augment import COUNT, Exposure
from cxrtool.training.randomness import image_keys

CPU = torch.device("cpu")
KEYS = image_keys([f"i{k}" for k in range(8)])


def images(count=8, size=64):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))


def test_values_stay_in_range_and_change():
    before = images()
    after = Exposure(KEYS, 0, 64, CPU)(before.clone(), np.arange(8), 0)
    assert after.shape == before.shape
    assert 0 <= after.min() <= after.max() <= 1
    assert all((a - b).abs().mean() > 0.02 for a, b in zip(after, before, strict=True))


def test_an_image_is_changed_alike_in_any_batch():
    change, before = Exposure(KEYS, 3, 64, CPU), images()
    whole = change(before.clone(), np.arange(8), 5)
    some = np.array([6, 2])
    assert torch.allclose(change(before[some].clone(), some, 5), whole[some], atol=1e-6)


@pytest.mark.parametrize("other", [{"epoch": 6}, {"seed": 4}])
def test_epochs_and_seeds_differ(other):
    def draw(seed=3, epoch=5):
        return Exposure(KEYS, seed, 64, CPU)(images(), np.arange(8), epoch)

    assert (draw() - draw(**other)).abs().mean() > 0.05


def test_every_number_is_used_once(draws_of):
    taken = draws_of(module)
    Exposure(KEYS, 0, 32, CPU)(images(size=32), np.arange(8), 0)
    assert taken[0]._next == COUNT


def test_an_outline_stays_where_it_is():
    # A bright square on a dark ground: wherever it can still be told from the ground, it lies where it lay.
    square = torch.full((8, 1, 64, 64), 0.2)
    square[:, :, 16:48, 16:48] = 0.8
    inside = (square[0, 0] > 0.5).numpy()
    for changed in Exposure(KEYS, 1, 64, CPU)(square.clone(), np.arange(8), 2)[:, 0].numpy():
        likeness = np.corrcoef(changed.ravel(), inside.ravel())[0, 1]
        shifted = np.corrcoef(changed.ravel(), np.roll(inside, 12, 1).ravel())[0, 1]
        assert likeness > shifted + 0.1
