"""Statistics of batch normalisation computed anew: those of all images, and nothing else changes."""

import numpy as np
import pytest
import torch
from torch import nn

from cxrtool.errors import CxrtoolError
from cxrtool.training.norms import moments, norms_of, renew_norms

CPU = torch.device("cpu")


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).normal(3, 2, (70, 1, 9, 9)).astype(np.float32))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3)
    )


def renew(module, images, indices, batch_size=4):
    return renew_norms(
        module.train(), lambda chosen: images[torch.from_numpy(chosen)], indices, batch_size, CPU, "fp32"
    )


def test_they_are_the_mean_and_variance_of_all_images(images):
    module = network()
    indices = np.arange(60)
    assert renew(module, images, indices) == 2
    with torch.no_grad():
        first = module[0](images[:60])
        mean, variance = first.mean((0, 2, 3)), first.var((0, 2, 3), correction=0)
        scaled = (first - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + 1e-5).sqrt()
        # All fit one batch here, so that the second layer's are exact too; dropout is off.
        second = module[4](torch.relu(scaled))
    assert torch.allclose(module[1].running_mean, mean, atol=1e-5)
    assert torch.allclose(module[1].running_var, first.var((0, 2, 3)), rtol=1e-4)
    assert torch.allclose(module[5].running_mean, second.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(module[5].running_var, second.var((0, 2, 3)), rtol=1e-3)


def test_batches_of_any_size_give_the_same_for_the_first_layer(images, monkeypatch):
    whole = network()
    renew(whole, images, np.arange(70), 70)
    monkeypatch.setattr("cxrtool.training.norms.BATCH", 1)
    parts = network()
    renew(parts, images, np.arange(70), 8)
    assert torch.allclose(whole[1].running_mean, parts[1].running_mean, atol=1e-5)
    assert torch.allclose(whole[1].running_var, parts[1].running_var, rtol=1e-4)


def test_weights_counters_and_momentum_stay(images):
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    renew(module, images, np.arange(60))
    after = module.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {
        f"{layer}.running_{kind}" for layer in (1, 5) for kind in ("mean", "var")
    }
    assert module[1].momentum == 0.1
    assert not module.training


def test_frozen_normalisations_keep_theirs(images):
    module = network().train()
    module[1].eval()
    assert norms_of(module) == [module[5]]
    kept = module[1].running_mean.clone()
    assert renew_norms(module, lambda chosen: images[torch.from_numpy(chosen)], np.arange(60), 4, CPU, "fp32") == 1
    assert torch.equal(module[1].running_mean, kept)
    assert not torch.equal(module[5].running_mean, torch.zeros(3))


def test_a_network_without_them_is_left_alone(images):
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2))
    assert renew(module, images, np.arange(4)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 24, 13, 17), (64, 5), (3, 1, 40, 40), (2, 3000, 9)])
def test_moments_of_channels_are_those_of_torch(shape, dtype):
    generator = torch.Generator().manual_seed(len(shape))
    one_each = [1] * (len(shape) - 2)
    # Means that are far larger than the deviations, where a sum of squares alone would lose them.
    spread, centre = (torch.rand(shape[1], generator=generator).view(1, -1, *one_each) for _ in range(2))
    values = (torch.randn(shape, generator=generator) * spread + 1000 * centre).to(dtype)
    for layout in (values, values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values):
        count, mean, variance = moments(layout)
        expected, centre_of = torch.var_mean(values.float().transpose(0, 1).flatten(1), 1, correction=0)
        assert count == values.numel() // shape[1]
        # Both are exact in fp64; a mean that lies between two numbers of fp32 may be rounded either way.
        assert torch.allclose(mean, centre_of.double(), rtol=1.2e-7, atol=0)
        assert torch.allclose(variance, expected.double(), rtol=1.2e-7, atol=0)


def test_a_batch_that_does_not_fit_is_not_divided(images):
    module = network()
    module.insert(0, nn.Identity())

    def refuse(part, inputs):
        if len(inputs[0]) > 20:
            raise torch.OutOfMemoryError

    module[0].register_forward_pre_hook(refuse)
    with pytest.raises(CxrtoolError, match="with 35 images at once; 17 fit") as caught:
        renew(module, images, np.arange(70))
    assert "--bn-stats running" in caught.value.hint
    # Nothing is left in the network that would change its next pass.
    assert [part.momentum for part in module if isinstance(part, nn.BatchNorm2d)] == [0.1, 0.1]
