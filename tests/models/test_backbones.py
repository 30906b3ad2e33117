import pytest
import timm
import torch

from cxrtool.models.backbones import TimmNetwork, exists, nearest, normalisation
from cxrtool.models.network import count_parameters

NATIVE = [
    ("mobilenetv2_100", 32),
    ("resnet10t", 32),
    ("densenet121", 32),
    ("convnext_atto", 32),
    ("vit_tiny_patch16_224", 32),
]


def touched(network, size):
    """Names of the parameters that features and classify each depend on."""
    maps = network.eval().features(torch.rand(2, 3, size, size))
    maps.sum().backward()
    body = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    network.zero_grad(set_to_none=True)
    logits = network.classify(maps.detach().requires_grad_())
    assert logits.shape == (2, 3)
    logits.sum().backward()
    return body, {name for name, parameter in network.named_parameters() if parameter.grad is not None}


def head_of(network):
    head = {id(parameter) for parameter in network.head_parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) in head}


@pytest.mark.parametrize(("name", "size"), NATIVE)
def test_the_head_is_what_classify_touches_and_features_do_not(name, size):
    network = TimmNetwork(name, 3, size=size)
    body, behind = touched(network, size)
    assert head_of(network) == behind
    assert not body & behind
    assert body | behind == {name for name, _ in network.named_parameters()}


@pytest.mark.slow
def test_vgg_s_own_head_is_its_fully_connected_layers():
    network = TimmNetwork("vgg16", 3, size=32)
    body, behind = touched(network, 32)
    assert head_of(network) == behind
    assert not body & behind
    assert count_parameters(network)["parameters"] == 134_272_835


@pytest.mark.parametrize("hidden", [0, 8])
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "mobilenetv4_conv_small", "convnext_atto"])
def test_what_stands_between_pooling_and_classifier_works_too(name, hidden):
    network = TimmNetwork(name, 3, hidden=hidden, size=32)
    body, behind = touched(network, 32)
    assert head_of(network) <= behind
    assert not body & head_of(network)


@pytest.mark.parametrize(("name", "width"), [("mobilenetv2_100", 1280), ("resnet10t", 512)])
def test_a_hidden_head_takes_the_place_of_the_classifier(name, width):
    network = TimmNetwork(name, 3, hidden=16, dropout=0.5, size=32)
    body, behind = touched(network, 32)
    assert behind == head_of(network) == {"head.0.weight", "head.0.bias", "head.3.weight", "head.3.bias"}
    without = timm.create_model(name, num_classes=0)
    assert count_parameters(network)["parameters"] == count_parameters(without)["parameters"] + width * 16 + 16 + 51
    assert body == {f"timm.{name}" for name, _ in without.named_parameters()}


def test_a_hidden_head_drops_the_fully_connected_weights_of_vgg():
    network = TimmNetwork("vgg11", 3, hidden=8, size=32)
    assert count_parameters(network)["parameters"] == 9_220_480 + 512 * 8 + 8 + 8 * 3 + 3
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 3)
    network.freeze_backbone()
    assert count_parameters(network)["trained_parameters"] == 512 * 8 + 8 + 8 * 3 + 3


def test_without_a_head_of_ours_it_is_timm_s_network():
    network = TimmNetwork("resnet10t", 3, size=32).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(network(images), network.timm(images))


@pytest.mark.parametrize("hidden", [0, 16])
def test_dropout_is_active_in_training_alone(hidden):
    network = TimmNetwork("resnet10t", 3, hidden=hidden, dropout=0.5, size=32).eval()
    maps = network.features(torch.rand(2, 3, 32, 32))
    assert torch.equal(network.classify(maps), network.classify(maps))
    network.train()
    assert not torch.equal(network.classify(maps), network.classify(maps))


def test_a_network_with_a_fixed_grid_is_built_for_the_size():
    assert TimmNetwork("vit_tiny_patch16_224", 2, size=48).timm.pos_embed.shape[1] == 3 * 3 + 1


def test_names_and_tags():
    assert exists("resnet50")
    assert exists("resnet50.a1_in1k")
    assert not exists("resnet50.nonsense")
    assert not exists("covid-net")
    assert "resnet50.a1_in1k" in nearest("resnet50.a1_in1")
    assert "mobilenetv2_100" in nearest("mobilenetv2_10")


def test_the_form_of_the_input_is_timm_s():
    config = timm.get_pretrained_cfg("inception_v3")
    assert normalisation("inception_v3") == (config.mean, config.std, 299)
    assert normalisation("resnet18") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)
