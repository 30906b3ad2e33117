import pytest
import torch
from torch import nn

from cxrtool.errors import UsageError
from cxrtool.models.architecture import Architecture
from cxrtool.models.network import count_parameters
from cxrtool.models.pepx import BLOCKS, PEPX, WIDTHS, PEPXNet, Stage
from cxrtool.models.registry import check


def test_a_block_projects_expands_looks_projects_and_extends():
    convolutions = [layer for layer in PEPX(16, 32) if isinstance(layer, nn.Conv2d)]
    shapes = [(c.in_channels, c.out_channels, c.kernel_size[0], c.groups) for c in convolutions]
    assert shapes == [(16, 16, 1, 1), (16, 32, 1, 1), (32, 32, 3, 32), (32, 16, 1, 1), (16, 32, 1, 1)]


def test_four_stages_halve_the_picture():
    network = PEPXNet(2)
    stages = [layer for layer in network.body if isinstance(layer, Stage)]
    assert [len(stage.blocks) for stage in stages] == list(BLOCKS) == [3, 4, 6, 3]
    assert network.features(torch.rand(2, 3, 96, 96)).shape == (2, WIDTHS[-1], 3, 3)
    assert count_parameters(network)["parameters"] == 1_997_818


def test_a_block_sees_all_blocks_before_it_and_the_far_convolution():
    torch.manual_seed(0)
    stage = Stage(4, 8, 3).eval()
    maps = torch.rand(1, 4, 6, 6)
    far, first = stage.far(maps), stage.blocks[0](maps)
    second = stage.blocks[1](far + first)
    third = stage.blocks[2](far + first + second)
    torch.testing.assert_close(stage(maps), far + first + second + third)


def test_smaller_pictures_than_it_can_halve_are_refused():
    with pytest.raises(UsageError, match="--size: pepx needs 32 pixels or more, found 31"):
        check(Architecture("pepx", 2, size=31), "none")
    check(Architecture("pepx", 2, size=32), "none")
    assert PEPXNet(2).eval()(torch.rand(1, 3, 32, 32)).shape == (1, 2)


def test_values_keep_their_spread_through_the_body():
    torch.manual_seed(0)
    maps = PEPXNet(2).features(torch.randn(4, 3, 64, 64)).detach()
    assert 0.3 < float(maps.square().mean().sqrt()) < 10


def test_the_dense_layers_are_the_head():
    network = PEPXNet(3)
    network.freeze_backbone()
    assert count_parameters(network)["trained_parameters"] == (424 + 1) * 256 + (256 + 1) * 3
