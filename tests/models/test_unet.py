import torch

from cxrtool.models.lungs import NETWORKS
from cxrtool.models.unet import UNet


def network():
    torch.manual_seed(0)
    return UNet().eval()


@torch.inference_mode()
def test_logits_have_the_shape_of_the_picture():
    assert network()(torch.rand(2, 1, 128, 192)).shape == (2, 1, 128, 192)


@torch.inference_mode()
def test_dose_and_window_do_not_matter():
    module, images = network(), torch.rand(2, 1, 64, 64)
    logits = module(images)
    assert torch.allclose(module(images * 0.3 + 0.2), logits, atol=1e-3)
    assert not torch.allclose(module(1 - images), logits, atol=1e-1)


@torch.inference_mode()
def test_a_picture_is_answered_alike_in_any_company():
    module, images = network(), torch.rand(3, 1, 64, 64)
    alone = torch.cat([module(image[None]) for image in images])
    assert torch.allclose(module(images), alone, atol=1e-4)


@torch.inference_mode()
def test_a_flat_picture_gives_numbers():
    assert torch.isfinite(network()(torch.full((1, 1, 64, 64), 0.5))).all()


def test_it_is_the_default_and_small_enough_to_ship():
    assert next(iter(NETWORKS)) == "unet"
    module = NETWORKS["unet"].build()
    assert NETWORKS["unet"].form.size % 64 == 0
    # In half precision, as it ships, within 4 MiB.
    assert 2 * sum(weights.numel() for weights in module.parameters()) < 4 * 2**20
