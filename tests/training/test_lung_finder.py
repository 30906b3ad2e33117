import numpy as np
import pytest
import torch

from cxrtool.errors import CxrtoolError
from cxrtool.imaging.view import see
from cxrtool.models.parts import load_network, read_part
from cxrtool.training.lung_finder import LungFinder


@pytest.fixture
def values(draw_chest, lung_part):
    form = read_part(lung_part, "lungs").form
    return np.stack([see(draw_chest(index)[0], form).values for index in range(5)])


def test_answers_are_the_network_s_probabilities(values, lung_part):
    network = load_network(lung_part, "lungs")
    with torch.inference_mode():
        expected = torch.sigmoid(network(torch.from_numpy(values)[:, None]))[:, 0].numpy()
    found = LungFinder(lung_part)(values)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(LungFinder(lung_part, precision="bf16")(values), expected, atol=0.2)


def test_the_mirror_image_is_averaged_in(values, lung_part):
    plain, both = LungFinder(lung_part), LungFinder(lung_part, mirrored=True)
    flipped = np.ascontiguousarray(values[:, :, ::-1])
    np.testing.assert_allclose(both(values), (plain(values) + plain(flipped)[:, :, ::-1]) / 2, atol=1e-6)
    np.testing.assert_allclose(both(flipped)[:, :, ::-1], both(values), atol=1e-6)


class Two(torch.nn.Module):
    """A logit, and a map that is no probability."""

    def forward(self, images):
        return torch.cat((8 * images - 4, 3 * images - 1), 1)


def test_a_second_channel_stays_as_it_is(values, lung_part, monkeypatch):
    finder = LungFinder(lung_part, mirrored=True)
    monkeypatch.setattr(finder, "network", Two())
    found = finder(values)
    assert found.shape == (len(values), 2, *values.shape[1:])
    np.testing.assert_allclose(found[:, 1], 3 * values - 1, atol=1e-6)
    np.testing.assert_allclose(found[:, 0], 1 / (1 + np.exp(4 - 8 * values)), atol=1e-6)


def test_in_a_picture_of_one_value_there_is_nothing(lung_part):
    values = np.stack([np.zeros((64, 64)), np.full((64, 64), 0.7)]).astype(np.float32)
    assert not LungFinder(lung_part)(values).any()


def test_a_full_gpu_halves_the_batch(values, lung_part, monkeypatch):
    finder = LungFinder(lung_part)
    expected, sizes, network = finder(values), [], finder.network

    def small(images):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("no")
        return network(images)

    monkeypatch.setattr(finder, "network", small)
    np.testing.assert_allclose(finder(values), expected, atol=1e-5)
    assert sizes == [5, 2, 2, 1]

    def full(images):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(finder, "network", full)
    with pytest.raises(CxrtoolError, match="does not suffice for one image"):
        finder(values)
