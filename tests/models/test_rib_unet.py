import torch

from cxrtool.models.rib_unet import RibUNet
from cxrtool.models.ribs import NETWORKS


def trained():
    """A network whose head is not zero any more."""
    torch.manual_seed(0)
    module = RibUNet().eval()
    torch.nn.init.normal_(module.ribs.head.weight, std=0.05)
    return module


def test_it_starts_from_the_picture_as_it_is():
    images = torch.rand(2, 1, 64, 96)
    module = RibUNet()
    assert torch.equal(module(images), images)
    module(images).square().mean().backward()
    assert module.ribs.head.weight.grad.abs().max() > 0


@torch.inference_mode()
def test_contrast_does_not_matter():
    module, images = trained(), torch.rand(2, 1, 64, 64)
    taken = images - module(images)
    assert taken.abs().max() > 1e-3
    dim = images * 0.25 + 0.1
    assert torch.allclose(dim - module(dim), 0.25 * taken, atol=1e-4)


def test_it_is_the_default_and_small_enough_to_ship():
    assert next(iter(NETWORKS)) == "rib-unet"
    module = NETWORKS["rib-unet"].build()
    assert 2 * sum(weights.numel() for weights in module.parameters()) < 2 * 2**20
