import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cxrtool import processors
from cxrtool.errors import CxrtoolError, StoppedError, UsageError
from cxrtool.models.architecture import Architecture
from cxrtool.training.augment import Augmenter, parse
from cxrtool.training.fitting import Design, check_divisible
from cxrtool.training.randomness import image_keys
from cxrtool.training.ranks import DropoutOfBatch, LostError, Ranks


def ranks(rank=0, count=2):
    return Ranks(rank, count, "cpu", None)


@pytest.mark.parametrize("count", [1, 2, 7, 16])
@pytest.mark.parametrize("processes", [2, 3, 8])
def test_shares_are_nearly_equal_and_make_up_the_batch(count, processes):
    shares = [ranks(rank, processes).share(count) for rank in range(processes)]
    assert [i for share in shares for i in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(9, 5), (9, 4, 6, 6)])
def test_dropout_of_shares_is_that_of_the_batch(shape, form):
    network = nn.Dropout(0.4)
    images = torch.rand(shape)
    images = images.to(memory_format=form) if len(shape) == 4 else images
    torch.manual_seed(3)
    whole = network(images)
    found = []
    for rank in range(2):
        torch.manual_seed(3)
        own = ranks(rank).share(len(images))
        with DropoutOfBatch(own.start, len(images)):
            found.append(network(images[own.start : own.stop]))
    assert torch.equal(torch.cat(found), whole)
    assert (whole == 0).any()
    with DropoutOfBatch(0, 9):
        assert functional.dropout(images, 0.4, training=False) is images


def test_augmentation_does_not_depend_on_the_rank():
    keys, images = image_keys([f"im{i}" for i in range(9)]), torch.rand(9, 1, 12, 12)
    augmenter = Augmenter(parse("rotate=20,shift=0.1,noise=0.1,contrast=0.2"), keys, 5, 12, torch.device("cpu"))
    order = np.array([4, 1, 7, 0, 8, 2])
    whole = augmenter(images[order], order, 3)
    for rank in range(2):
        own = ranks(rank).share(len(order))
        part = order[own.start : own.stop]
        torch.testing.assert_close(augmenter(images[part], part, 3), whole[own.start : own.stop])


def test_what_a_following_rank_says(capsys, monkeypatch):
    import io
    import sys

    told = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", told)

    def failing(error):
        def work():
            raise error

        return ranks(1).following(work)

    assert ranks(1).following(lambda: None) == 0
    assert failing(LostError("gone")) == 1
    assert failing(StoppedError("stopped", 143)) == 143
    assert told.getvalue() == ""
    assert failing(CxrtoolError("no memory")) == 1
    assert told.getvalue() == "cxrtool train, process 1 of 2: no memory\n"
    assert failing(ZeroDivisionError("x")) == 1
    assert "ZeroDivisionError" in told.getvalue()


@pytest.mark.parametrize(("environment", "expected"), [({}, (1, 0)), ({"WORLD_SIZE": "4"}, (1, 0))])
def test_without_the_variables_of_torchrun_there_is_one_process(monkeypatch, environment, expected):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (processors.ranks(), processors.rank()) == expected


def test_with_them_there_are_several(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert (processors.ranks(), processors.rank()) == (4, 3)


def _design(model, recipe, *, freeze=False):
    return Design(
        Architecture(model, 2, size=32),
        "none",
        recipe,
        parse("none"),
        freeze=freeze,
        frozen_norms=True,
        normalize="native",
        seed=0,
        threads=1,
        device="cpu",
        precision="fp32",
    )


def test_a_network_that_normalises_over_the_batch_is_refused_on_cpus(recipe):
    cpu = torch.device("cpu")
    with pytest.raises(UsageError, match="expected a network without batch normalisation"):
        check_divisible(_design("resnet10t", recipe), cpu)
    check_divisible(_design("resnet10t", recipe, freeze=True), cpu)
    check_divisible(_design("resnet10t", recipe), torch.device("cuda"))
    check_divisible(_design("covid-xnet", recipe), cpu)
