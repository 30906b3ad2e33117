import math

import torch
from torch import nn

from cxrtool.models.covid_xnet import CovidXNet
from cxrtool.models.network import count_parameters


def test_parameters_and_last_map_are_those_of_the_paper_s_layout():
    network = CovidXNet(2)
    assert count_parameters(network)["parameters"] == 434_050
    maps = network.features(torch.rand(2, 1, 128, 128))
    assert maps.shape == (2, 256, 8, 8)
    assert network.classify(maps).shape == (2, 2)


def test_layers_follow_one_another_as_stated():
    layers = list(CovidXNet(2).body)
    kernels = [layer.kernel_size[0] for layer in layers if isinstance(layer, nn.Conv2d)]
    assert kernels == [5, 5, 5, 3, 3]
    kinds = "".join(type(layer).__name__[0] for layer in layers)
    assert kinds == "CRM" * 4 + "CR"


def test_convolutions_keep_the_size():
    network = CovidXNet(2, kernels=(3, 11), filters=(4, 8))
    assert network.features(torch.rand(1, 1, 20, 30)).shape == (1, 8, 10, 15)


def test_logits_are_the_mean_of_the_class_activation_map():
    # What makes the map of Zhou et al. 2016 exact: pooling and weighing change places.
    network = CovidXNet(3).double()
    maps = network.features(torch.rand(2, 1, 32, 32, dtype=torch.float64))
    cam = torch.einsum("kc,bchw->bkhw", network.head.weight, maps)
    expected = cam.mean((2, 3)) + network.head.bias
    torch.testing.assert_close(network.classify(maps), expected, rtol=1e-12, atol=1e-12)


def test_convolutions_start_as_he_drew_them():
    for module in CovidXNet(2).body:
        if isinstance(module, nn.Conv2d):
            bound = math.sqrt(6 / module.weight[0].numel())
            assert 0.8 * bound < module.weight.abs().max() <= bound
            assert not module.bias.any()


def test_values_keep_their_spread_through_the_body():
    torch.manual_seed(0)
    maps = CovidXNet(2).features(torch.randn(4, 1, 64, 64))
    assert 0.3 < float(maps.detach().square().mean().sqrt()) < 5


def test_the_head_is_the_output_layer():
    network = CovidXNet(2)
    network.freeze_backbone()
    assert count_parameters(network)["trained_parameters"] == 256 * 2 + 2
