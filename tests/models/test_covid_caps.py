import math

import pytest
import torch
from torch import nn

from cxrtool.models.covid_caps import EPSILON, Capsules, CovidCaps, squash
from cxrtool.models.network import count_parameters


def squash_by_hand(vector):
    squared = sum(x * x for x in vector) + EPSILON
    return [x * math.sqrt(squared) / (1 + squared) for x in vector]


def route_by_hand(inputs, weight):
    """Routing of one picture as the paper tells it: every prediction written out, capsule by capsule."""
    places, (channels, count, dimension) = len(inputs), weight.shape
    predicted = [
        [
            [sum(float(inputs[n][c]) * float(weight[c, k, d]) for c in range(channels)) for d in range(dimension)]
            for k in range(count)
        ]
        for n in range(places)
    ]
    logits = [[0.0] * count for _ in range(places)]
    for turn in range(3):
        outputs = []
        for k in range(count):
            total = [0.0] * dimension
            for n in range(places):
                share = math.exp(logits[n][k]) / sum(math.exp(value) for value in logits[n])
                for d in range(dimension):
                    total[d] += share * predicted[n][k][d]
            outputs.append(total)
        if turn == 2:
            return outputs
        for n in range(places):
            for k in range(count):
                # In the place of the logits before, not added to them.
                logits[n][k] = sum(p * o for p, o in zip(predicted[n][k], squash_by_hand(outputs[k]), strict=True))
    return outputs


def test_numbers_of_weights_are_those_of_the_reference_implementation():
    network = CovidCaps(2)
    assert count_parameters(network)["trained_parameters"] == 295_360
    running = [value for name, value in network.named_buffers() if "running" in name]
    assert 295_360 + sum(value.numel() for value in running) == 295_488
    assert [tuple(layer.weight.shape) for layer in network.head] == [(128, 32, 8), (8, 32, 8), (8, 2, 16)]


def test_the_last_map_of_224_pixels_has_11_236_capsules():
    with torch.device("meta"):
        assert CovidCaps(2).features(torch.zeros(1, 3, 224, 224)).shape == (1, 128, 106, 106)


def test_layers_follow_one_another_as_stated():
    kinds = [type(layer) for layer in CovidCaps(2).body]
    pair = [nn.Conv2d, nn.ReLU]
    assert kinds == [*pair, nn.BatchNorm2d, *pair, nn.AvgPool2d, *pair, *pair]
    assert all(layer.padding == (0, 0) for layer in CovidCaps(2).body if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize("seed", range(3))
def test_routing_is_that_of_the_paper_written_out_in_loops(seed):
    torch.manual_seed(seed)
    layer = Capsules(4, 3, 2).double()
    # Large enough that the coupling moves far from even shares.
    inputs = 3 * torch.randn(2, 5, 4, dtype=torch.float64)
    layer.weight.data.mul_(3)
    by_hand = [route_by_hand(picture.tolist(), layer.weight.detach()) for picture in inputs]
    expected = torch.tensor(by_hand, dtype=torch.float64)
    torch.testing.assert_close(layer(inputs), expected, rtol=1e-9, atol=1e-9)
    even = torch.einsum("bnc,ckd->bkd", inputs, layer.weight) / 3
    assert not torch.allclose(expected, even, rtol=0.05)


def test_gradients_go_through_the_routing():
    torch.manual_seed(0)
    layer = Capsules(3, 2, 2).double()
    inputs = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: squash(layer(x)), (inputs,))


def test_squash_keeps_the_direction_and_shortens():
    vectors = torch.tensor([[3.0, 4.0], [0.03, 0.04]])
    found = squash(vectors)
    lengths = found.norm(dim=1)
    assert lengths.tolist() == pytest.approx([25 / 26, 0.0025 / 1.0025], rel=1e-4)
    torch.testing.assert_close(found / lengths[:, None], vectors / vectors.norm(dim=1, keepdim=True))
    assert squash(torch.zeros(1, 2, requires_grad=True)).isfinite().all()


def test_logits_are_logarithms_of_lengths_and_softmax_is_their_share():
    torch.manual_seed(0)
    network = CovidCaps(3).eval()
    for layer in network.head:
        layer.weight.data.normal_(0, 1.5)
    images = torch.rand(2, 3, 24, 24)
    capsules = network.features(images).flatten(2).transpose(1, 2)
    for layer in network.head:
        capsules = squash(layer(capsules))
    lengths = capsules.norm(dim=2)
    logits = network(images)
    assert lengths.shape == (2, 3)
    assert 0.05 < lengths.min() < lengths.max() < 1
    torch.testing.assert_close(logits.exp(), lengths, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(torch.softmax(logits, 1), lengths / lengths.sum(1, keepdim=True), rtol=1e-3, atol=1e-5)


def test_a_class_without_any_length_is_no_bug():
    network = CovidCaps(2)
    features = torch.zeros(1, 128, 2, 2, requires_grad=True)
    logits = network.classify(features)
    logits.sum().backward()
    assert torch.softmax(logits, 1).tolist() == [[0.5, 0.5]]
    assert features.grad.isfinite().all()


def test_half_precision_stops_before_the_capsules():
    torch.manual_seed(0)
    network = CovidCaps(2).eval()
    images = torch.rand(1, 3, 24, 24)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, network(images), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("size", [16, 17, 33])
def test_other_sizes_go_through(size):
    side = (size - 4) // 2 - 4
    network = CovidCaps(2)
    maps = network.features(torch.rand(2, 3, size, size))
    assert maps.shape == (2, 128, side, side)
    assert network.classify(maps).shape == (2, 2)


def test_the_capsules_are_the_head():
    network = CovidCaps(2)
    network.freeze_backbone()
    assert count_parameters(network)["trained_parameters"] == 128 * 256 + 8 * 256 + 8 * 32
