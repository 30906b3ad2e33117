import pytest
import torch
from captum.attr import Occlusion as Oracle

from cxrtool.errors import UsageError
from cxrtool.explaining.occlusion import Occlusion
from cxrtool.models.architecture import Architecture
from cxrtool.models.registry import build


@pytest.fixture
def network():
    torch.manual_seed(1)
    return build(Architecture("covid-xnet", 3, size=32))[0].eval()


def test_it_is_captum_s_where_the_probability_falls(network):
    images = torch.randn((2, 1, 32, 32), generator=torch.Generator().manual_seed(2))
    targets = torch.tensor([1, 2])
    found = Occlusion(network, images)(images, lambda logits: targets)
    oracle = Oracle(lambda inputs: torch.softmax(network(inputs).double(), 1)).attribute(
        images,
        sliding_window_shapes=(1, 4, 4),
        strides=(1, 2, 2),
        baselines=images.mean((2, 3), keepdim=True).expand_as(images),
        target=targets,
    )[:, 0]
    assert found.values.shape == (2, 32, 32)
    assert (oracle < 0).any()
    torch.testing.assert_close(found.values.double(), oracle.double().relu(), atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(found.logits, network(images).detach())


@pytest.mark.parametrize("side", [32, 45, 7])
def test_every_pixel_is_covered(side):
    class Sum(torch.nn.Module):
        def forward(self, images):
            total = images.sum((1, 2, 3)) / images[0].numel()
            return torch.stack([total, -total], 1)

    # Bright in one pixel, which is the last one: only squares that cover it change the sum.
    images = torch.zeros((1, 1, side, side))
    images[..., -1, -1] = 100.0
    explainer = Occlusion(Sum(), images)
    values = explainer(images, lambda logits: logits.argmax(1)).values[0]
    assert values[-1, -1] == values.max() > 0
    assert values[: side - explainer.patch].abs().max() < values.max() / 10
    assert explainer.layer.shape.side == len(explainer.starts)


def test_it_has_no_layer(network):
    with pytest.raises(UsageError, match="occlusion covers the input"):
        Occlusion(network, torch.rand(2, 1, 32, 32), "body")
