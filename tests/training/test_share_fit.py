"""The map of shares: a known relation is found, its mean over a region is what ridge regression says of the region."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from cxrtool.models.opacity_unet import OpacityUNet, means_of
from cxrtool.training.share_fit import CLEAR, GAIN, HEALTHY, LEAST, RIDGE, TRUST, fit_shares
from cxrtool.training.store import Store

SIDE, COUNT = 64, 48


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return OpacityUNet().eval()


def masks(count):
    """Two lungs of different size; in every fifth mask one alone."""
    shown = np.zeros((count, SIDE, SIDE), np.uint8)
    shown[:, 8:56, 6:28] = 255
    shown[np.arange(count) % 5 > 0, 12:50, 36:60] = 255
    return shown


def sides(mask):
    parts = np.zeros((2, SIDE, SIDE), np.float32)
    parts[0, :, :32], parts[1, :, 32:] = mask[:, :32] > 0, mask[:, 32:] > 0
    return parts if parts[1].any() else parts[[0, 0]]


def features_of(network, images, lungs):
    shown = torch.from_numpy(images.astype(np.float32) / 255)[:, None]
    regions = torch.from_numpy(np.stack([sides(mask) for mask in lungs]))
    with torch.inference_mode():
        return [
            means_of(network.things.encode(one), where).mean(1).numpy().astype(np.float64)
            for one, where in ((shown, regions), (shown.flip(3), regions.flip(3)))
        ]


@pytest.fixture(scope="module")
def study(network):
    """Images with patches of noise, and the share of their lungs that these cover."""
    rng = np.random.default_rng(0)
    images, lungs, shares = np.full((COUNT, SIDE, SIDE), 60, np.uint8), masks(COUNT), rng.random(COUNT)
    for image, mask, share in zip(images, lungs, shares, strict=True):
        rough = (rng.random((SIDE // 4, SIDE // 4)) < share).repeat(4, 0).repeat(4, 1)
        image[...] = 60 + rng.integers(0, 9, image.shape)
        image[rough & (mask > 0)] += rng.integers(0, 120, np.count_nonzero(rough & (mask > 0)), np.uint8)
    return Store(images, [""] * COUNT), Store(lungs, [""] * COUNT), shares


def means_over(network, images, lungs):
    """The means over both lungs of each image, of the map of shares without the part of the probability."""
    shown = torch.from_numpy(images.astype(np.float32) / 255)[:, None]
    with torch.inference_mode():
        maps = network.shares(network.things.encode(shown), torch.zeros_like(shown))[:, 0].numpy()
    means = [[one[side > 0].mean() for side in sides(mask)] for one, mask in zip(maps, lungs, strict=True)]
    return np.mean(means, 1)


def fitted(network, study, rated, indices=None):
    images, lungs, shares = study
    chosen = np.arange(COUNT) if indices is None else indices
    changed = OpacityUNet().eval()
    changed.load_state_dict(network.state_dict())
    done = fit_shares(changed, images, lungs, chosen, np.where(rated, shares, 0)[chosen], rated[chosen])
    return changed, done


def test_shares_of_other_images_are_found(network, study):
    images, lungs, shares = study
    training = np.arange(COUNT) % 3 > 0
    changed, done = fitted(network, study, np.ones(COUNT, bool), np.flatnonzero(training))
    assert done
    assert float(changed.shares.own) == pytest.approx(GAIN * (1 - TRUST))
    found = means_over(changed, images.images, lungs.images)
    assert np.corrcoef(found[~training], shares[~training])[0, 1] > 0.8


def test_the_mean_over_the_lungs_is_what_ridge_regression_says(network, study):
    images, lungs, shares = study
    rated = np.arange(COUNT) % 2 == 0
    changed, _ = fitted(network, study, rated)
    both = features_of(network, images.images, lungs.images)
    seen = np.concatenate([one[rated] for one in both])
    mean, spread = seen.mean(0), seen.std(0) + 1e-6
    rows = np.concatenate([(one - mean) / spread for one in both])
    weights = np.tile(np.where(rated, 0.5, CLEAR / 2), 2)
    wanted = np.tile(np.where(rated, shares, 0.0), 2)
    model = Ridge(alpha=RIDGE * rated.sum()).fit(rows, wanted, sample_weight=weights)
    expected = model.predict((both[0] - mean) / spread)
    found = means_over(changed, images.images, lungs.images)
    assert found == pytest.approx(GAIN * (TRUST * expected - HEALTHY), abs=2e-3)


def test_few_rated_images_change_nothing(network, study):
    changed, done = fitted(network, study, np.arange(COUNT) < LEAST - 1)
    assert not done
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in changed.state_dict().items())
    assert fitted(network, study, np.arange(COUNT) < LEAST)[1]
