import numpy as np
import pytest
import torch

from cxrtool.training import opacify as module
from cxrtool.training.opacify import COUNT, Opacify
from cxrtool.training.randomness import image_keys

CPU = torch.device("cpu")
SIDE, N = 96, 24
KEYS = image_keys([f"i{k}" for k in range(N)])
EVERY = np.arange(N)


def chests():
    """Dark lungs in grey tissue on a black ground, with some grain; and the lungs."""
    lungs = torch.zeros(N, 1, SIDE, SIDE)
    lungs[:, :, 24:72, 20:42] = lungs[:, :, 24:72, 54:76] = 1
    images = torch.full((N, 1, SIDE, SIDE), 0.05)
    images[:, :, 8:88, 8:88] = 0.7
    images = torch.where(lungs > 0, 0.3, images)
    return images + 0.03 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0)), lungs


def changed(share=1.0, seed=0, epoch=0, chosen=EVERY):
    images, lungs = chests()
    return Opacify(share, KEYS, seed, SIDE, CPU)(images[chosen].clone(), lungs[chosen], chosen, epoch)


def test_lungs_become_as_bright_as_the_tissue_around_them_in_many_extents():
    images, lungs = chests()
    before, after = ((x * lungs).sum((1, 2, 3)) / lungs.sum((1, 2, 3)) for x in (images, changed()))
    gained = (after - before) / (0.7 - 0.3)
    assert gained.min() >= -0.02
    assert gained.max() > 0.8
    assert gained.max() - gained.min() > 0.5


def test_away_from_the_lungs_nothing_changes():
    images, _ = chests()
    assert torch.equal(changed()[:, :, :8], images[:, :, :8])


def test_the_edge_of_a_white_lung_cannot_be_seen():
    images, _ = chests()
    after = changed()
    # Across the outer edge of one lung: a step of 0.4 before.
    step = (after[:, 0, 40:56, 16:20].mean((1, 2)) - after[:, 0, 40:56, 22:26].mean((1, 2))).abs()
    assert step.min() < 0.15
    assert (images[:, 0, 40:56, 16:20].mean((1, 2)) - images[:, 0, 40:56, 22:26].mean((1, 2))).min() > 0.35


def test_the_share_of_the_images():
    images, _ = chests()
    hazy = [changed(share=share) for share in (0, 0.5, 1)]
    counts = [sum(not torch.equal(a, b) for a, b in zip(found, images, strict=True)) for found in hazy]
    assert counts[0] == 0
    assert 5 <= counts[1] <= 19
    assert counts[2] == N


def test_an_image_is_changed_alike_in_any_batch():
    some = np.array([6, 2])
    assert torch.allclose(changed(chosen=some), changed()[some], atol=1e-6)


@pytest.mark.parametrize("other", [{"epoch": 6}, {"seed": 4}])
def test_epochs_and_seeds_differ(other):
    assert (changed() - changed(**other)).abs().mean() > 0.01


def test_without_lungs_nothing_changes():
    images, lungs = chests()
    assert torch.equal(Opacify(1.0, KEYS, 0, SIDE, CPU)(images.clone(), lungs * 0, EVERY, 0), images)


def test_every_number_is_used_once(draws_of):
    taken = draws_of(module)
    changed()
    assert taken[0]._next == COUNT
