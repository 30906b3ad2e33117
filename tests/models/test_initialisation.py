import math

import pytest
import torch
from torch import nn

from cxrtool.models.initialisation import draw_as_keras
from cxrtool.models.unet_eduardomineo import EduardomineoUNet
from cxrtool.models.unet_imlab import ImlabUNet


def test_kernels_fill_glorot_s_interval_and_biases_are_zero():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(32, 64, 3), nn.ConvTranspose2d(64, 32, 2, 2), nn.BatchNorm2d(32))
    draw_as_keras(module)
    for part, area in ((module[0], 9), (module[1], 4)):
        limit = math.sqrt(6 / (area * (32 + 64)))
        assert 0.99 * limit < part.weight.abs().max() <= limit
        assert float(part.weight.detach().std()) == pytest.approx(limit / math.sqrt(3), rel=0.05)
        assert not part.bias.any()


@pytest.mark.parametrize("build", [ImlabUNet, EduardomineoUNet])
def test_a_signal_comes_through_all_layers(build):
    torch.manual_seed(0)
    with torch.inference_mode():
        logits = build()(torch.rand(1, 1, 64, 64))
    assert 0.005 < float(logits.std()) < 5
