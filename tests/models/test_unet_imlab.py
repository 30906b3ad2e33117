import torch
from torch import nn

from cxrtool.models.network import count_parameters
from cxrtool.models.parts import networks
from cxrtool.models.unet_imlab import ImlabUNet


def test_it_is_the_published_network():
    module = ImlabUNet()
    assert count_parameters(module)["parameters"] == 5_468_897
    assert sum(isinstance(part, nn.Conv2d) for part in module.modules()) == 22
    assert not any(isinstance(part, nn.ConvTranspose2d) for part in module.modules())
    form = networks("lungs")["unet-imlab"].form
    assert (form.size, form.crop_borders, form.equalise, form.invert) == (256, True, True, False)


def test_the_two_convolutions_stand_before_the_merge():
    # What comes from below passes two convolutions of the level's width; only the third one sees the encoder's.
    module = ImlabUNet()
    shapes = [
        (part.in_channels, part.out_channels)
        for block in (module.before, module.behind)
        for level in block
        for part in level.modules()
        if isinstance(part, nn.Conv2d)
    ]
    assert shapes == [
        (256, 256),
        (256, 256),
        (256, 256),
        (256, 256),
        (256, 128),
        (128, 128),
        (128, 64),
        (64, 64),
        (384, 256),
        (320, 256),
        (192, 128),
        (96, 64),
    ]


def test_dose_and_window_do_not_matter():
    torch.manual_seed(0)
    module, images = ImlabUNet().eval(), torch.rand(2, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(module(images), module(0.1 + 0.5 * images), atol=1e-4, rtol=1e-3)
        assert module(images).shape == images.shape
        assert torch.isfinite(module(torch.full((1, 1, 32, 32), 0.5))).all()
