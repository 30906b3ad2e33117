import pytest
import torch
from torch import nn

from cxrtool.errors import InputError
from cxrtool.models import perceptual


@pytest.fixture(autouse=True)
def nothing_kept():
    perceptual.load.cache_clear()
    yield
    perceptual.load.cache_clear()


def vgg16_features():
    """VGG16's convolutions (Simonyan & Zisserman 2015, configuration D), with every layer's name."""
    layers, before = [], 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        before = width or before
    return nn.Sequential(*layers)


def test_a_files_convolutions_are_taken_and_stay(tmp_path):
    torch.manual_seed(4)
    expected = vgg16_features()
    torch.save({f"features.{name}": value for name, value in expected.state_dict().items()}, tmp_path / "v.pth")
    state = torch.get_rng_state()
    found, told = perceptual.load(str(tmp_path / "v.pth"))
    assert torch.equal(torch.get_rng_state(), state)
    assert told.startswith("v.pth (26 of ")
    assert len(list(found.features)) == perceptual.LAYERS
    pictures = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(found(pictures), expected(pictures))
    assert found(pictures).shape == (2, 512, 2, 2)
    assert not any(weight.requires_grad for weight in found.parameters())
    # Once in a process.
    assert perceptual.load(str(tmp_path / "v.pth"))[0] is found


def test_weights_that_are_not_at_hand_are_told_with_a_way_out(monkeypatch, tmp_path):
    def offline(*args, **options):
        raise InputError("--weights imagenet: the weights of vgg16 are not here", "or give a file: --weights FILE")

    monkeypatch.setattr(perceptual, "build", offline)
    with pytest.raises(InputError, match=r"^--perceptual imagenet: the weights of vgg16") as caught:
        perceptual.load("imagenet")
    assert caught.value.hint == ("or give a file: --perceptual FILE; --perceptual none omits this term of the loss")
    monkeypatch.undo()
    with pytest.raises(InputError, match="no such file"):
        perceptual.load(str(tmp_path / "none.pth"))
