import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from cxrtool.models.architecture import Architecture
from cxrtool.models.network import count_parameters
from cxrtool.models.registry import build
from cxrtool.models.thumbnail import Thumbnail


def test_it_is_one_layer_on_the_pixels():
    network, _ = build(Architecture("thumbnail", 3, size=64))
    assert count_parameters(network)["parameters"] == 3 * (64 * 64 + 1)
    one, other = torch.rand(2, 2, 1, 64, 64)
    summed = network(one + other) + network(0 * one)
    torch.testing.assert_close(summed, network(one) + network(other), rtol=1e-4, atol=1e-4)


def test_fitted_to_the_end_it_is_scikit_learn_s_logistic_regression():
    generator = np.random.default_rng(0)
    pixels = generator.normal(size=(90, 16))
    labels = (pixels[:, :3] + generator.normal(0, 1.5, (90, 3))).argmax(1)
    oracle = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(pixels, labels)
    network = Thumbnail(3, 4).double()
    images, target = torch.from_numpy(pixels).reshape(90, 1, 4, 4), torch.from_numpy(labels)
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14)

    def loss():
        optimizer.zero_grad()
        # scikit-learn's C weighs the sum over the images against half the squared weights, the constant left free.
        value = 0.5 * torch.nn.functional.cross_entropy(network(images), target, reduction="sum")
        value = value + 0.5 * network.head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    found = torch.softmax(network(images), 1).detach().numpy()
    assert found == pytest.approx(oracle.predict_proba(pixels), abs=1e-4)
