import pytest
import torch

from cxrtool.errors import InputError, UsageError
from cxrtool.explaining.cam import GradCam
from cxrtool.explaining.layers import CHANNELS_LAST, CONVOLUTIONAL, TOKENS, Shape, named_layer, shape_of
from cxrtool.models.architecture import Architecture
from cxrtool.models.registry import build

FOUND = {
    "covid-xnet": ("body", CONVOLUTIONAL, 4),
    "vgg16": ("timm.features.29", CONVOLUTIONAL, 4),
    "vgg11_bn": ("timm.features.27", CONVOLUTIONAL, 4),
    "resnet50": ("timm.layer4", CONVOLUTIONAL, 2),
    "densenet121": ("timm.features", CONVOLUTIONAL, 2),
    "mobilenetv2_100": ("timm.bn2", CONVOLUTIONAL, 2),
    "mobilenetv3_small_100": ("timm.blocks", CONVOLUTIONAL, 2),
    "efficientnet_b0": ("timm.bn2", CONVOLUTIONAL, 2),
    "convnext_atto": ("timm.norm_pre", CONVOLUTIONAL, 2),
    "resnetv2_50": ("timm.norm", CONVOLUTIONAL, 2),
    "pvt_v2_b0": ("timm.stages", CONVOLUTIONAL, 2),
    "vit_tiny_patch16_224": ("timm.blocks.11.norm1", TOKENS, 4),
    "deit_tiny_distilled_patch16_224": ("timm.blocks.11.norm1", TOKENS, 4),
    "cait_xxs24_224": ("timm.blocks_token_only.1.norm1", TOKENS, 4),
}


def make(name, size):
    torch.manual_seed(1)
    # Without a head of ours VGG has 120 million fully connected weights.
    return build(Architecture(name, 2, hidden=8 if "vgg" in name else 0, size=size))[0].eval()


def pictures(name, size):
    channels = 1 if name in ("covid-xnet", "thumbnail") else 3
    return torch.randn((2, channels, size, size), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", FOUND)
def test_the_last_map_on_which_the_answer_depends_is_found(name):
    images = pictures(name, 64)
    method = GradCam(make(name, 64), images)
    layer, layout, side = FOUND[name]
    assert (method.layer.name, method.layer.shape.layout, method.layer.shape.side) == (layer, layout, side)
    found = method(images, lambda logits: logits.argmax(1))
    assert found.values.shape == (2, side, side)
    assert (method._look(images, method.layer, lambda logits: logits.argmax(1))[1] != 0).any()


def test_swin_keeps_its_channels_last():
    images = pictures("", 224)[:1]
    method = GradCam(make("swin_tiny_patch4_window7_224", 224), images)
    assert (method.layer.name, method.layer.shape) == ("timm.norm", Shape(CHANNELS_LAST, 768, 7))
    assert method(images, lambda logits: logits.argmax(1)).values.shape == (1, 7, 7)


def test_tokens_lie_where_their_patches_lay():
    network, images = make("vit_tiny_patch16_224", 64), pictures("", 64)
    with torch.no_grad():
        tokens = network.timm.patch_embed(images)
        grid = network.timm.patch_embed.proj(images)
        with_class = torch.cat([torch.zeros(2, 1, tokens.shape[2]), tokens], 1)
    shape = shape_of(with_class, network)
    assert shape == Shape(TOKENS, 192, 4, 1)
    torch.testing.assert_close(shape.to_map(with_class), grid)
    torch.testing.assert_close(shape_of(tokens, network).to_map(tokens), grid)


def test_layouts_are_told_apart_by_the_square():
    network = make("covid-xnet", 64)
    assert shape_of(torch.zeros(2, 5, 7, 7), network) == Shape(CONVOLUTIONAL, 5, 7)
    assert shape_of(torch.zeros(2, 7, 7, 5), network) == Shape(CHANNELS_LAST, 5, 7)
    assert shape_of(torch.zeros(2, 7, 7, 7), network) == Shape(CONVOLUTIONAL, 7, 7)
    assert shape_of(torch.zeros(2, 7, 5, 3), network) is None
    assert shape_of(torch.zeros(2, 49, 5), network) == Shape(TOKENS, 5, 7)
    assert shape_of(torch.zeros(2, 48, 5), network) is None
    assert shape_of(torch.zeros(2, 1, 5), network) is None
    assert shape_of(torch.zeros(2, 5), network) is None
    assert shape_of((torch.zeros(2, 5, 7, 7),), network) is None


def test_the_choice_does_not_depend_on_the_pictures():
    network = make("vit_tiny_patch16_224", 64)
    assert GradCam(network, torch.zeros(1, 3, 64, 64)).layer == GradCam(network, pictures("", 64)).layer


@pytest.mark.parametrize("name", ["thumbnail", "crossvit_tiny_240"])
def test_a_network_without_a_map_is_told(name):
    size = 240 if "crossvit" in name else 64
    with pytest.raises(InputError, match="no feature map of the image"):
        GradCam(make(name, size), pictures(name, size))


def test_a_layer_that_is_not_there_names_the_nearest():
    network, images = make("resnet50", 64), pictures("", 64)
    with pytest.raises(UsageError, match=r"has no module 'layr4'; nearest: .*layer4"):
        named_layer(network, "layr4", images)
    with pytest.raises(UsageError, match="has no module ''"):
        named_layer(network, "", images)


@pytest.mark.parametrize("name", ["timm.fc", "timm.global_pool", "timm.layer4.2.downsample"])
def test_a_layer_without_a_map_is_told(name):
    with pytest.raises(UsageError, match=r"expected a module whose output is a map|has no module"):
        named_layer(make("resnet50", 64), name, pictures("", 64))
