import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from cxrtool.training import losses
from cxrtool.training.image_to_image_options import LOSSES
from cxrtool.training.losses import (
    SCALES,
    SMALLEST,
    cross_entropy_and_dice,
    hard_dice,
    mean_squares,
    ms_ssim,
    negative_dice,
    similarity_and_error,
    soft_dice,
)


@pytest.fixture
def masks():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 1, 16, 16, generator=generator)
    return logits, (torch.rand(3, 1, 16, 16, generator=generator) > 0.6).float()


def dice_by_hand(p, t):
    return (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


def test_dice_of_each_image_and_of_a_batch_as_one(masks):
    logits, target = masks
    p, t = (1 / (1 + np.exp(-logits.numpy().astype(float)))), target.numpy()
    each = [dice_by_hand(one, other) for one, other in zip(p, t, strict=True)]
    assert soft_dice(logits, target).numpy() == pytest.approx(each, rel=1e-5)
    assert float(negative_dice(logits, target)) == pytest.approx(-dice_by_hand(p, t), rel=1e-5)
    entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert float(cross_entropy_and_dice(logits, target)) == pytest.approx(entropy + 1 - np.mean(each), rel=1e-5)


def test_nothing_found_where_nothing_is_counts_as_right():
    nothing = torch.full((1, 1, 8, 8), -30.0)
    assert float(soft_dice(nothing, torch.zeros(1, 1, 8, 8))[0]) == pytest.approx(1.0)
    assert hard_dice(nothing, torch.zeros(1, 1, 8, 8)).tolist() == [1.0]
    assert hard_dice(-nothing, torch.zeros(1, 1, 8, 8)).tolist() == [0.0]


def test_hard_dice_counts_pixels():
    logits, target = torch.full((1, 1, 4, 4), -1.0), torch.zeros(1, 1, 4, 4)
    logits[..., :2, :], target[..., 1:3, :] = 1.0, 1.0
    assert hard_dice(logits, target).tolist() == [0.5]


def pictures(side=192):
    rng = np.random.default_rng(1)
    import cv2

    base = cv2.resize(rng.random((12, 12)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    other = (0.8 * base + 0.1 + 0.05 * rng.standard_normal((side, side))).clip(0, 1).astype(np.float32)
    return base, other


def ms_ssim_by_skimage(one, other):
    """Scale by scale with another library: with an enormous C1 its SSIM is contrast times structure alone."""
    product = 1.0
    for index, weight in enumerate(SCALES):
        last = index == len(SCALES) - 1
        term = structural_similarity(
            one,
            other,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            K1=0.01 if last else 1e6,
        )
        product *= term**weight
        one, other = (x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2] for x in (one, other))
        one, other = (x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).mean((1, 3)) for x in (one, other))
    return product


def test_ms_ssim_is_that_of_another_library():
    one, other = pictures()
    found = ms_ssim(torch.from_numpy(one)[None, None], torch.from_numpy(other)[None, None])
    assert float(found[0]) == pytest.approx(ms_ssim_by_skimage(one.astype(float), other.astype(float)), abs=2e-4)
    assert 0.2 < float(found[0]) < 0.95
    assert sum(SCALES) == pytest.approx(1.0, abs=1e-3)


def test_ms_ssim_of_equals_is_one_and_of_opposites_zero():
    one = torch.from_numpy(pictures(SMALLEST)[0])[None, None]
    assert float(ms_ssim(one, one)[0]) == pytest.approx(1.0)
    assert float(ms_ssim(one, 1 - one)[0]) == 0.0
    with pytest.raises(RuntimeError):
        ms_ssim(one[..., 1:, 1:], one[..., 1:, 1:])


def test_the_published_mixture():
    one, other = (torch.from_numpy(values)[None, None] for values in pictures())
    by_hand = 0.84 * (1 - float(ms_ssim(one, other)[0])) + 0.16 * float(((one - other) ** 2).mean())
    assert float(similarity_and_error(one, other)) == pytest.approx(by_hand, rel=1e-5)
    assert float(mean_squares(one, other)[0]) == pytest.approx(float(((one - other) ** 2).mean()))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in LOSSES for name in LOSSES[kind]])
def test_every_loss_falls_when_followed(kind, name):
    torch.manual_seed(0)
    target = torch.from_numpy(pictures()[0])[None, None]
    target = (target > 0.5).float() if kind == "lungs" else target
    values = torch.full_like(target, 0.3).requires_grad_()
    first = None
    for _ in range(30):
        loss = getattr(losses, LOSSES[kind][name])(values, target)
        first = float(loss.detach()) if first is None else first
        (gradient,) = torch.autograd.grad(loss, values)
        with torch.no_grad():
            values -= 0.02 * gradient / gradient.abs().mean()
    assert math.isfinite(loss.item())
    assert loss.item() < first - 0.05 * abs(first)
