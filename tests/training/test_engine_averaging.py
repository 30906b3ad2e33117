import pytest
import torch
from torch import nn

from cxrtool.training.engine import Average


def step(module, value):
    with torch.no_grad():
        module.weight.fill_(value)


def test_it_is_the_running_mean_that_soon_forgets_the_start():
    module = nn.Linear(1, 1, bias=False)
    step(module, 0.0)
    average, expected = Average(module, 0.9), 0.0
    for count, value in enumerate([1.0, 3.0, 2.0] * 60):
        step(module, value)
        average.take()
        kept = min(0.9, (1 + count) / (10 + count))
        expected = kept * expected + (1 - kept) * value
    with average.shown():
        assert module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert module.weight.item() == 2.0


def test_hiding_within_gives_the_weights_back_and_the_end_of_the_block_leaves_them():
    module = nn.Linear(1, 1, bias=False)
    step(module, 0.0)
    average = Average(module, 0.5)
    step(module, 1.0)
    average.take()
    with average.shown():
        average.hide()
        assert module.weight.item() == 1.0
    assert module.weight.item() == 1.0


def test_frozen_weights_are_left_out():
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    assert len(Average(module, 0.9).state()["mean"]) == 1


def test_restored_it_goes_on_where_it_was():
    module = nn.Linear(1, 1, bias=False)
    one, other = Average(module, 0.9), Average(module, 0.9)
    step(module, 5.0)
    one.take()
    other.restore(one.state())
    for average in (one, other):
        average.take()
    assert torch.equal(one.state()["mean"][0], other.state()["mean"][0])
