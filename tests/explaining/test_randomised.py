import numpy as np
import pytest
import torch
from scipy import stats
from skimage.metrics import structural_similarity

from cxrtool.explaining import randomised
from cxrtool.explaining.randomised import ALL, HEAD, Likeness, compare, redraw, verdict
from cxrtool.models.architecture import Architecture
from cxrtool.models.registry import build

ARCHITECTURE = Architecture("resnet18", 2, hidden=8, size=64)


def make():
    return build(ARCHITECTURE)[0]


def trained():
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(0.5)
    return network


@pytest.mark.parametrize("stage", randomised.STAGES)
def test_what_a_stage_names_is_drawn_anew_and_nothing_else(stage):
    network, before = trained(), trained().state_dict()
    redraw(network, make, stage)
    for name, value in network.state_dict().items():
        drawn = value.is_floating_point() and (stage == ALL or name.startswith("head."))
        assert torch.equal(value, before[name]) != drawn, name


def test_what_starts_from_a_constant_is_drawn_with_the_trained_spread():
    def zero():
        network = make()
        torch.nn.init.zeros_(network.head[3].weight)
        return network

    network = make()
    torch.nn.init.normal_(network.head[3].weight, std=7.0)
    before = network.head[3].weight.detach().clone()
    redraw(network, zero, HEAD)
    assert not torch.equal(network.head[3].weight, before)
    assert 3 < float(network.head[3].weight.detach().std()) < 14


def test_likeness_is_scipy_s_and_scikit_image_s():
    one, other = np.random.default_rng(0).random((2, 20, 20))
    found = compare(one, other * 9)
    assert found.rank_correlation == pytest.approx(stats.spearmanr(one.ravel(), other.ravel())[0])
    scaled = [(values - values.min()) / (values.max() - values.min()) for values in (one, other)]
    assert found.ssim == pytest.approx(structural_similarity(*scaled, data_range=1.0))
    assert compare(one, one * 3 + 1) == Likeness(pytest.approx(1.0), pytest.approx(1.0))


def test_maps_that_cannot_be_compared_are_not():
    one = np.eye(9)
    for other in (np.zeros((9, 9)), np.full((9, 9), np.nan), np.full((9, 9), np.inf)):
        assert compare(one, other) == compare(other, one) == Likeness(None, None)


def test_the_verdict_is_in_words():
    change = [
        (HEAD, Likeness(0.2, 0.1)),
        (HEAD, Likeness(0.4, 0.3)),
        (ALL, Likeness(0.1, 0.1)),
        (ALL, Likeness(None, None)),
    ]
    assert verdict(change) == [
        "with the head randomised: rank correlation 0.30, SSIM 0.20",
        "with all parameters randomised: rank correlation 0.10, SSIM 0.10 (1 of 2 maps are empty)",
        "the maps change: the heatmap depends on what the network learned",
    ]
    alike = [(HEAD, Likeness(0.9, 0.9)), (ALL, Likeness(0.8, 0.9))]
    assert "does NOT depend on what the network learned" in verdict(alike)[-1]
    nothing = verdict([(HEAD, Likeness(None, None)), (ALL, Likeness(None, None))])
    assert len(nothing) == 2
    assert all("no map can be compared" in line for line in nothing)
