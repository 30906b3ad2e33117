import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cxrtool.models.architecture import Architecture
from cxrtool.models.complexity import count_macs, counting
from cxrtool.models.covid_xnet import CovidXNet
from cxrtool.models.registry import build


def on_paper(name, size, **options):
    """A network without weights: shapes are all that counting needs."""
    with torch.device("meta"):
        return timm.create_model(name, **options), torch.zeros(1, 3, size, size)


def test_covid_xnet_by_hand():
    layers = [(1, 16, 5, 128), (16, 32, 5, 64), (32, 64, 5, 32), (64, 128, 3, 16), (128, 256, 3, 8)]
    by_hand = sum(side**2 * maps * width * kernel**2 for width, maps, kernel, side in layers) + 256 * 2
    assert by_hand == 149_160_448
    assert count_macs(CovidXNet(2), torch.zeros(1, 1, 128, 128)) == by_hand


@pytest.mark.parametrize(
    ("name", "giga"),
    [("vgg16", 15.47), ("resnet50", 4.09), ("mobilenetv2_100", 0.30), ("vit_base_patch16_224", 17.56)],
)
def test_published_figures(name, giga):
    # VGG16 with its own three dense layers: 15.35 G of convolutions and 0.12 G behind them.
    assert count_macs(*on_paper(name, 224)) / 1e9 == pytest.approx(giga, abs=0.006)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnetv2_50", 224),
        ("densenet121", 224),
        ("inception_v3", 299),
        ("vit_tiny_patch16_224", 224),
        ("swin_tiny_patch4_window7_224", 224),
        ("convnext_tiny", 224),
    ],
)
def test_it_counts_what_torch_itself_counts(name, size):
    network, images = on_paper(name, size)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        network.eval()(images)
    assert count_macs(network, images) == flops.get_total_flops() // 2


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, (3, 5), stride=2, groups=2),
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
        nn.ConvTranspose1d(4, 2, 5),
        nn.Conv3d(4, 2, 3),
        nn.Linear(12, 7),
    ],
)
def test_single_layers(layer):
    shape = {nn.Conv3d: (2, 4, 5, 5, 5), nn.ConvTranspose1d: (2, 4, 9), nn.Linear: (2, 3, 12)}
    given = torch.zeros(shape.get(type(layer), (2, 4, 11, 12)))
    with FlopCounterMode(display=False) as flops:
        layer(given)
    assert 2 * len(given) * count_macs(layer, given) == flops.get_total_flops() > 0


def test_a_layer_that_is_called_twice_counts_twice():
    layer = nn.Linear(5, 5)
    assert count_macs(nn.Sequential(layer, layer), torch.zeros(3, 5)) == 50


def test_the_number_of_images_does_not_matter_and_nothing_is_left_behind():
    network, _ = build(Architecture("resnet10t", 3, hidden=8, size=64))
    network.train()
    one, three = (count_macs(network, torch.zeros(n, 3, 64, 64)) for n in (1, 3))
    assert one == three > 0
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_hooks_are_gone_after_an_error():
    layer = nn.Linear(5, 5)
    with pytest.raises(RuntimeError), counting(layer):
        layer(torch.zeros(1, 4))
    assert not layer._forward_hooks
