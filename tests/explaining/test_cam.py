import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import nn

from cxrtool.errors import InputError, UsageError
from cxrtool.explaining.cam import Cam, GradCam, upsample
from cxrtool.models.architecture import Architecture
from cxrtool.models.network import Network
from cxrtool.models.registry import build

METHODS = {"grad-cam": GradCam, "cam": Cam}


def make(name, size=64, hidden=0, classes=3):
    torch.manual_seed(1)
    network, _ = build(Architecture(name, classes, hidden=hidden, size=size))
    return network.eval()


def pictures(name="", size=64, count=3):
    channels = 1 if name == "covid-xnet" else 3
    return torch.randn((count, channels, size, size), generator=torch.Generator().manual_seed(2))


def largest(logits):
    return logits.argmax(1)


def fixed(*classes):
    return lambda logits: torch.tensor(classes)


def captum(network, layer, images, targets, size):
    """The oracle: the same module of the same network, clipped and upsampled."""
    maps = LayerGradCam(network, network.get_submodule(layer)).attribute(images, targets, relu_attributions=True)
    return maps.detach()[:, 0], LayerAttribution.interpolate(maps, (size, size), "bilinear").detach()[:, 0]


def scaled(values):
    """By the largest value there is: untrained networks give maps of any magnitude."""
    return values / values.abs().max()


@pytest.mark.parametrize(
    ("name", "size", "hidden"),
    [
        ("covid-xnet", 64, 0),
        ("vgg11_bn", 64, 16),
        ("vgg16", 64, 8),
        ("resnet18", 64, 0),
        ("resnet50", 64, 16),
        ("densenet121", 64, 0),
        ("resnetv2_50", 64, 0),
        ("mobilenetv2_100", 64, 0),
    ],
)
def test_grad_cam_is_captum_s_on_the_same_module(name, size, hidden):
    network, images = make(name, size, hidden), pictures(name, size)
    method = GradCam(network, images)
    targets = torch.tensor([0, 2, 1])
    found = method(images, lambda logits: targets)
    assert (found.values > 0).any()
    small, large = captum(network, method.layer.name, images, targets, size)
    factor = small.abs().max()
    torch.testing.assert_close(found.values / factor, small / factor, atol=1e-6, rtol=0)
    torch.testing.assert_close(upsample(found.values, size) / factor, large / factor, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer", ["timm.conv1", "timm.maxpool", "timm.layer2.0.downsample", "timm.layer3.1"])
def test_any_layer_may_be_named(layer):
    network, images = make("resnet18"), pictures()
    found = GradCam(network, images, layer)(images, fixed(1, 1, 0))
    small, _ = captum(network, layer, images, torch.tensor([1, 1, 0]), 64)
    torch.testing.assert_close(scaled(found.values), scaled(small), atol=1e-6, rtol=0)
    assert GradCam(network, images, layer.removeprefix("timm.")).layer.name == layer


def test_what_an_inplace_rectifier_does_to_a_named_layer_is_not_its_output():
    network, images = make("vgg11_bn", hidden=8), pictures()
    method = GradCam(network, images, "timm.features.26")
    maps = method._look(images, method.layer, largest)[0]
    assert isinstance(network.timm.features[27], nn.ReLU)
    assert network.timm.features[27].inplace
    assert (maps < 0).any()


def test_a_frozen_network_in_training_mode_gives_the_same_and_is_left_as_it_was():
    network, images = make("resnet18"), pictures()
    expected = GradCam(network, images)(images, largest).values
    network.freeze_backbone()
    network.train()
    network.timm.layer1.eval()
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    modes = [module.training for module in network.modules()]
    statistics = network.timm.bn1.running_mean.clone()
    found = GradCam(network, images)(images, largest).values
    torch.testing.assert_close(found, expected)
    assert [parameter.requires_grad for parameter in network.parameters()] == wanted
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(network.timm.bn1.running_mean, statistics)
    assert not images.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_nothing_stays_hooked_whatever_happens(method):
    network, images = make("resnet18"), pictures()
    explainer = METHODS[method](network, images)
    explainer(images, largest)

    def fail(logits):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        explainer(images, fail)
    with pytest.raises(RuntimeError):
        explainer(images[:, :1], largest)
    assert all(not module._forward_hooks for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert torch.is_grad_enabled()


def test_images_of_a_batch_do_not_bear_on_each_other():
    network, images = make("densenet121"), pictures(count=4)
    method = GradCam(network, images)
    together = method(images, largest)
    for index in range(4):
        alone = method(images[index : index + 1], largest)
        torch.testing.assert_close(alone.values[0], together.values[index], atol=1e-5, rtol=1e-4)
        assert alone.targets[0] == together.targets[index]


@pytest.mark.parametrize("name", ["covid-xnet", "resnet18", "resnetv2_50", "swin_tiny_patch4_window7_224"])
def test_cam_is_the_weights_times_the_last_maps(name):
    size = 224 if "swin" in name else 64
    network, images = make(name, size), pictures(name, size, 2)
    found = Cam(network, images)(images, fixed(2, 0))
    with torch.no_grad():
        maps = network.features(images)
        maps = maps.permute(0, 3, 1, 2) if "swin" in name else maps
    head = network.head if name == "covid-xnet" else network.timm.get_classifier()
    weights = head.weight.detach().flatten(1).numpy()
    expected = np.maximum(np.einsum("bc,bchw->bhw", weights[[2, 0]], maps.numpy()), 0)
    np.testing.assert_allclose(found.values, expected, atol=1e-6 * expected.max())
    # Global average pooling makes every gradient the weight over the number of cells.
    by_gradient = GradCam(network, images)(images, fixed(2, 0)).values
    cells = expected.shape[1] * expected.shape[2]
    np.testing.assert_allclose(by_gradient * cells, expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("vgg11", 8),
        ("resnet18", 8),
        ("convnext_atto", 0),
        ("mobilenetv3_small_100", 0),
        ("vit_tiny_patch16_224", 0),
        ("thumbnail", 0),
    ],
)
def test_cam_is_refused_where_the_network_ends_in_something_else(name, hidden):
    network = make(name, hidden=hidden)
    images = pictures("covid-xnet" if name == "thumbnail" else "")
    with pytest.raises(InputError, match="expected a network that ends in global average pooling") as caught:
        Cam(network, images)
    assert "--method grad-cam" in caught.value.hint


class Squared(Network):
    """Has all that CAM needs but squares what it pools."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def features(self, images):
        return self.body(images)

    def classify(self, features):
        return self.head(features.mean((2, 3)) ** 2)

    def head_modules(self):
        return [self.head]


def test_the_logits_decide_whether_cam_is_exact():
    with pytest.raises(InputError, match="Squared with another head"):
        Cam(Squared(), pictures())


def test_cam_takes_no_layer():
    with pytest.raises(UsageError, match="only the last feature maps"):
        Cam(make("resnet18"), pictures(), "timm.layer3")


def test_a_map_of_one_cell_tells_of_no_place():
    with pytest.raises(InputError, match="1 x 1 at 32 pixels"):
        GradCam(make("resnet18", 32), pictures(size=32))
    with pytest.raises(InputError, match="1 x 1 at 32 pixels"):
        Cam(make("resnet18", 32), pictures(size=32))
    assert GradCam(make("resnet18", 32), pictures(size=32), "layer3").layer.shape.side == 2


def test_a_class_that_nothing_speaks_for_has_an_empty_map():
    network, images = make("covid-xnet"), pictures("covid-xnet")
    with torch.no_grad():
        network.head.weight[0] = -1.0
    for method in METHODS.values():
        assert not method(network, images)(images, fixed(0, 0, 0)).values.any()
