import torch
from torch import nn

from cxrtool.models.network import count_parameters
from cxrtool.models.parts import networks
from cxrtool.models.unet_eduardomineo import EduardomineoUNet


def test_it_is_the_published_network():
    module = EduardomineoUNet()
    assert count_parameters(module)["parameters"] == 7_759_521
    assert sum(isinstance(part, nn.ConvTranspose2d) for part in module.modules()) == 4
    form = networks("lungs")["unet-eduardomineo"].form
    assert (form.size, form.crop_borders, form.equalise, form.invert) == (512, False, False, False)


def test_each_picture_is_answered_alone_and_at_its_own_size():
    torch.manual_seed(0)
    module, images = EduardomineoUNet().eval(), torch.rand(3, 1, 48, 48)
    with torch.inference_mode():
        together = module(images)
        assert together.shape == images.shape
        torch.testing.assert_close(module(images[1:2]), together[1:2], atol=1e-5, rtol=1e-4)
