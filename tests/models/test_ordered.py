import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrtool.errors import UsageError
from cxrtool.models.architecture import Architecture
from cxrtool.models.network import count_parameters
from cxrtool.models.ordered import CumulativeLogits, OrderedNetwork
from cxrtool.models.registry import build
from cxrtool.training.classifier_losses import class_shares, cross_entropy


def by_hand(thresholds, score):
    """Probabilities (B, K) of the proportional-odds model, as differences of cumulative ones."""
    below = 1 / (1 + np.exp(-(thresholds[None] - score[:, None])))
    return np.diff(np.concatenate([np.zeros((len(score), 1)), below, np.ones((len(score), 1))], 1), axis=1)


def drawn(classes, seed=0, scale=1.0):
    layer = CumulativeLogits(classes).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.values.copy_(scale * torch.randn(classes - 1, generator=generator, dtype=torch.float64))
    return layer


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 7), st.integers(0, 100), st.floats(0.1, 10))
def test_thresholds_rise_and_probabilities_are_those_of_the_model(classes, seed, scale):
    layer = drawn(classes, seed, scale)
    score = np.random.default_rng(seed).normal(0, 3, 20)
    thresholds = layer.thresholds().detach().numpy()
    assert (np.diff(thresholds) > 0).all()
    found = layer(torch.tensor(score)[:, None]).detach()
    np.testing.assert_allclose(found.exp().numpy(), by_hand(thresholds, score), rtol=1e-7, atol=1e-12)
    # Every consumer of logits takes their softmax.
    np.testing.assert_allclose(torch.softmax(found, 1).numpy(), found.exp().numpy(), rtol=1e-9)


def test_the_loss_is_the_negative_log_likelihood_and_its_gradients_are_right():
    layer, score = drawn(4), torch.randn(9, 1, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 3])
    probabilities = by_hand(layer.thresholds().detach().numpy(), score.detach().numpy()[:, 0])
    expected = -np.log(probabilities[np.arange(9), target.numpy()]).mean()
    assert float(cross_entropy(layer(score.detach()).detach(), target, None)) == pytest.approx(expected, rel=1e-6)

    def loss(values, score):
        outputs = torch.func.functional_call(layer, {"values": values}, (score,))
        return torch.nn.functional.nll_loss(outputs, target)

    values = layer.values.detach().requires_grad_()
    assert torch.autograd.gradcheck(loss, (values, score))


def test_two_classes_are_logistic_regression():
    layer, score = drawn(2), torch.randn(50, 1, dtype=torch.float64)
    logits = score[:, 0] - layer.values.detach()
    target = (torch.rand(50) < 0.5).long()
    found = torch.nn.functional.nll_loss(layer(score).detach(), target)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target.double())
    assert float(found) == pytest.approx(float(expected), rel=1e-12)


def test_a_score_far_away_keeps_finite_losses_and_gradients():
    layer = CumulativeLogits(4)
    score = torch.tensor([[-200.0], [0.0], [200.0]], requires_grad=True)
    outputs = layer(score)
    assert torch.isfinite(outputs).all()
    # The neighbour of the first class is as unlikely there as the score is far, not impossible.
    assert float((outputs[0, 1] - outputs[0, 0]).detach()) == pytest.approx(-200, rel=0.02)
    outputs.sum().backward()
    assert torch.isfinite(score.grad).all()
    assert torch.isfinite(layer.values.grad).all()


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_it_starts_with_the_shares_of_the_classes(weights):
    labels = np.array([0] * 9 + [1] * 36 + [2] * 35 + [3] * 30)
    layer = CumulativeLogits(4)
    np.testing.assert_allclose(layer(torch.zeros(1, 1)).exp().detach().numpy(), [[0.25] * 4], rtol=1e-5)
    layer.start(class_shares(labels, 4, weights))
    expected = np.bincount(labels) / len(labels) if weights == "none" else np.full(4, 0.25)
    np.testing.assert_allclose(layer(torch.zeros(1, 1)).exp().detach().numpy()[0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["covid-xnet", "thumbnail", "pepx", "resnet10t", "test_efficientnet"])
def test_any_network_gives_one_score_and_its_head_has_the_thresholds(name):
    torch.manual_seed(0)
    network, _ = build(Architecture(name, 4, size=32, ordered=True))
    assert isinstance(network, OrderedNetwork)
    one, _ = build(Architecture(name, 1, size=32))
    assert count_parameters(network)["parameters"] == count_parameters(one)["parameters"] + 3
    images = torch.randn(2, 1 if name in ("covid-xnet", "thumbnail") else 3, 32, 32)
    outputs = network.eval()(images)
    assert torch.allclose(outputs.exp().sum(1), torch.ones(2))
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])
    network.start(shares)
    assert torch.allclose(network(images).exp(), shares.expand(2, 4), atol=1e-5)
    assert any(parameter is network.cumulative.values for parameter in network.head_parameters())
    network.freeze_backbone()
    assert network.cumulative.values.requires_grad


def test_the_order_is_in_the_description_only_where_there_is_one():
    plain = Architecture("covid-xnet", 4, size=32)
    assert "ordered" not in plain.to_json()
    ordered = Architecture("covid-xnet", 4, size=32, ordered=True)
    assert Architecture(**ordered.to_json()) == ordered


def test_a_backbone_goes_from_an_ordered_network_to_a_plain_one_and_back(tmp_path):
    ordered, _ = build(Architecture("covid-xnet", 4, size=32, ordered=True))
    torch.save(ordered.state_dict(), tmp_path / "ordered.pt")
    plain, _ = build(Architecture("covid-xnet", 2, size=32), weights=str(tmp_path / "ordered.pt"))
    assert torch.equal(plain.body[0].weight, ordered.scorer.body[0].weight)
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    again, _ = build(Architecture("covid-xnet", 3, size=32, ordered=True), weights=str(tmp_path / "plain.pt"))
    assert torch.equal(again.scorer.body[0].weight, ordered.scorer.body[0].weight)


def test_a_network_with_a_loss_of_its_own_is_refused():
    with pytest.raises(UsageError, match="covid-caps, which has a margin loss"):
        build(Architecture("covid-caps", 3, size=32, ordered=True))
