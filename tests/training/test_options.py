import math
from dataclasses import replace

import pytest
import torch

from cxrtool.errors import UsageError
from cxrtool.training.options import OPTIMIZERS, SCHEDULES


def rates(recipe, losses=()):
    return [recipe.rate(epoch, losses[:epoch]) for epoch in range(recipe.epochs)]


def test_constant(recipe):
    assert rates(replace(recipe, lr=0.3, sched="constant")) == [0.3] * 4


def test_step_decays_every_so_many_epochs(recipe):
    found = rates(replace(recipe, epochs=6, lr=1.0, sched="step", decay_epochs=2, decay_rate=0.1))
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_falls_along_half_a_wave(recipe):
    found = rates(replace(recipe, epochs=4, lr=1.0, sched="cosine"))
    assert found == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    floor = rates(replace(recipe, epochs=4, lr=1.0, sched="cosine", min_lr=0.2))
    assert floor == pytest.approx([0.2 + 0.8 * value for value in found])


def test_plateau_decays_after_epochs_without_a_better_loss(recipe):
    plan = replace(recipe, epochs=9, lr=1.0, sched="plateau", decay_epochs=2, decay_rate=0.5)
    losses = [0.9, 0.8, 0.8, 0.85, 0.7, 0.71, 0.72, 0.73, 0.74]
    assert rates(plan, losses) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_the_rate_rises_in_the_warm_up_and_never_falls_below_the_floor(recipe):
    plan = replace(recipe, epochs=8, lr=1.0, sched="step", decay_epochs=2, warmup_epochs=4, min_lr=0.05)
    assert rates(plan) == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.05, 0.05, 0.05, 0.05])
    warm = rates(replace(recipe, epochs=8, lr=1.0, sched="cosine", warmup_epochs=4))
    assert warm == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_depends_only_on_epoch_and_losses(recipe, name):
    plan, losses = replace(recipe, epochs=6, sched=name), [0.9, 0.8, 0.9, 0.9, 0.9, 0.9]
    assert rates(plan, losses) == rates(plan, losses)


def one_step(recipe, gradients):
    """Where a weight of 1 goes under these gradients."""
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = OPTIMIZERS[recipe.opt].build([weight], recipe)
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return float(weight.detach())


def test_adadelta_with_the_constants_of_covid_xnet(recipe):
    plan = replace(recipe, opt="adadelta", lr=1.0, opt_rho=0.95, opt_eps=1e-7)
    weight, squares, steps = 1.0, 0.0, 0.0
    for gradient in (0.3, -0.2):
        # Zeiler 2012, algorithm 1.
        squares = 0.95 * squares + 0.05 * gradient**2
        step = -math.sqrt(steps + 1e-7) / math.sqrt(squares + 1e-7) * gradient
        steps = 0.95 * steps + 0.05 * step**2
        weight += step
    assert one_step(plan, (0.3, -0.2)) == pytest.approx(weight, rel=1e-12)


def test_sgd_with_momentum_and_decay(recipe):
    plan = replace(recipe, opt="sgd", lr=0.1, momentum=0.9, weight_decay=0.01)
    velocity = 0.5 + 0.01
    first = 1 - 0.1 * velocity
    assert one_step(plan, (0.5, 0.5)) == pytest.approx(first - 0.1 * (0.9 * velocity + 0.5 + 0.01 * first))


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_moves_by_the_rate_first(recipe, name):
    # Kingma and Ba 2015: the first step is the rate, whatever the gradient.
    assert one_step(replace(recipe, opt=name, lr=0.01), (123.0,)) == pytest.approx(0.99)
    shrunk = one_step(replace(recipe, opt=name, lr=0.01, opt_eps=123.0), (123.0,))
    assert shrunk == pytest.approx(0.995)


def test_rmsprop_has_its_memory_and_floor(recipe):
    plan = replace(recipe, opt="rmsprop", lr=0.01, momentum=0.0, opt_rho=0.75, opt_eps=0.5)
    assert one_step(plan, (2.0,)) == pytest.approx(1 - 0.01 * 2 / (math.sqrt(0.25 * 4) + 0.5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opt": "lion"}, "--opt: expected one of sgd, adam, .* found 'lion'"),
        ({"sched": "poly"}, "--sched: expected one of constant"),
        ({"checkpoint": "best"}, "--checkpoint: expected one of best-loss"),
        ({"class_weights": "heavy"}, "--class-weights: expected one of none, balanced"),
        ({"epochs": 0}, "--epochs: expected a number above 0, found 0"),
        ({"batch_size": -1}, "--batch-size"),
        ({"lr": 0.0}, "--lr"),
        ({"lr": math.nan}, "--lr"),
        ({"lr": math.inf}, "--lr"),
        ({"decay_epochs": 0}, "--decay-epochs"),
        ({"decay_rate": 0.0}, "--decay-rate"),
        ({"momentum": -0.1}, "--momentum: expected 0 or a number above it"),
        ({"weight_decay": -1.0}, "--weight-decay"),
        ({"weight_decay": math.nan}, "--weight-decay"),
        ({"opt_eps": -1e-8}, "--opt-eps"),
        ({"warmup_epochs": -1}, "--warmup-epochs"),
        ({"min_lr": -1.0}, "--min-lr"),
        ({"patience": -1}, "--patience"),
        ({"opt_rho": 1.0}, "--opt-rho"),
    ],
)
def test_what_no_optimizer_takes_is_refused_by_its_flag(recipe, changes, message):
    recipe.check_numbers()
    with pytest.raises(UsageError, match=message):
        replace(recipe, **changes).check_numbers()
