import gc
import itertools
import math
import random
import time

import numpy as np
import pytest
import torch
from torch import nn

from cxrtool.errors import CxrtoolError, StoppedError
from cxrtool.training import engine
from cxrtool.training.checkpoint import load_state
from cxrtool.training.classifier_losses import class_weights, cross_entropy
from cxrtool.training.engine import fit, forward
from cxrtool.training.options import OPTIMIZERS

CPU = torch.device("cpu")


class KilledError(Exception):
    """Stands for a SIGKILL: nothing is saved on the way out."""


def complain(text):
    raise AssertionError(f"nothing should be told, but: {text}")


def in_full(job, **more):
    """Fit without being disturbed; return the weights and the history."""
    history = fit(job, warn=complain, **more)
    return {name: value.clone() for name, value in job.module.state_dict().items()}, history


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def stopper(*calls):
    """Asks to stop at the given questions, counted from 0."""
    count = itertools.count()
    return lambda: StoppedError("stop", 143) if next(count) in calls else None


def test_the_loss_goes_down_and_the_toy_is_learnt(make_job):
    _, history = in_full(make_job(epochs=25, opt="adam", lr=0.02))
    assert [row["epoch"] for row in history.rows] == list(range(1, 26))
    assert history.rows[-1]["train_loss"] < 0.3 * history.rows[0]["train_loss"]
    assert history.rows[-1]["validation_accuracy"] == 1.0


def test_the_same_job_twice_gives_the_same_bits_and_another_seed_others(make_job):
    first, history = in_full(make_job("a"))
    again, same = in_full(make_job("b"))
    assert equal(first, again)
    assert history.rows == same.rows
    other, _ = in_full(make_job("c", seed=6))
    assert not equal(first, other)


def test_numbers_of_a_row_are_those_of_the_batches(make_job):
    job = make_job(epochs=1, module=nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), lr=1e-12, class_weights="balanced")
    _, history = in_full(job)
    with torch.no_grad():
        logits = job.module(job.source.images)
    weights = class_weights(job.labels[job.training], 2, "balanced")
    target = torch.from_numpy(job.labels)
    for part, indices in (("train", job.training), ("validation", job.validation)):
        losses = (
            nn.functional.cross_entropy(logits[indices], target[indices], reduction="none") * weights[target[indices]]
        )
        assert history.rows[0][f"{part}_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
        right = (logits[indices].argmax(1) == target[indices]).float().mean()
        assert history.rows[0][f"{part}_accuracy"] == pytest.approx(float(right))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_stopped_anywhere_and_resumed_it_is_the_same_run(make_job, opt, precision):
    told = {
        "opt": opt,
        "precision": precision,
        "sched": "plateau",
        "decay_epochs": 1,
        "checkpoint": "best-loss",
        "lr": 1.0 if opt == "adadelta" else 0.01,
        "weight_decay": 0.01,
    }
    straight, expected = in_full(make_job("straight", **told))
    # 4 epochs of 3 batches, with 2 questions while validating after each.
    chance = random.Random(f"{opt} {precision}")
    for attempt in range(3):
        stops, left = 0, True
        while left:
            # Another process begins with another state of torch's generator.
            job = make_job(f"stopped{attempt}", torch_seed=attempt + stops + 100, **told)
            torch.manual_seed(0)
            job.module.load_state_dict(make_job("unused", **told).module.state_dict())
            try:
                weights, history = in_full(job, stop=stopper(chance.randrange(1, 9)))
                left = False
            except StoppedError:
                stops += 1
        assert stops
        assert equal(weights, straight)
        assert history == expected


TOLD = {"opt": "adam", "sched": "plateau", "decay_epochs": 1, "checkpoint": "best-loss", "patience": 2, "epochs": 8}


@pytest.mark.parametrize("recompute_norms", [True, False])
@pytest.mark.parametrize("held_out", [0, 6])
def test_watched_images_are_only_looked_at(make_job, held_out, recompute_norms):
    told = {**TOLD, "training": np.arange(held_out, 18), "held_out": held_out, "recompute_norms": recompute_norms}
    straight, expected = in_full(make_job("straight", **told))
    random_after = torch.get_rng_state()
    job = make_job("watching", watched=np.arange(18, 23), **told)
    weights, history = in_full(job)
    assert torch.equal(torch.get_rng_state(), random_after)
    assert equal(weights, straight)
    assert history.kept == expected.kept
    assert [{k: v for k, v in row.items() if not k.startswith("test_")} for row in history.rows] == expected.rows
    assert all(0 <= row["test_accuracy"] <= 1 for row in history.rows)
    # In evaluation mode and without augmentation, and never in a batch with others.
    batches = [epoch for epoch, indices in job.source.to_predict if 18 in indices]
    assert batches == [None] * len(history.rows)
    with torch.no_grad():
        logits = job.module(job.source.images[18:])
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(job.labels[18:]))
    assert history.rows[history.kept - 1]["test_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_stopped_while_it_watches_it_is_the_same_run(make_job):
    told = {"training": np.arange(18), "held_out": 0, "recompute_norms": True, "opt": "adam", "batch_size": 2}
    told["watched"] = np.arange(18, 23)
    straight, expected = in_full(make_job("straight", **told))
    chance = random.Random(0)
    for attempt in range(4):
        left, stops = True, 0
        while left:
            job = make_job(f"stopped{attempt}", torch_seed=attempt + stops + 100, **told)
            job.module.load_state_dict(make_job("unused", **told).module.state_dict())
            try:
                weights, history = in_full(job, stop=stopper(chance.randrange(3, 14)))
                left = False
            except StoppedError:
                stops += 1
        assert stops
        assert equal(weights, straight)
        assert history == expected


def test_a_loss_of_watched_images_that_is_no_number_stops_nothing(make_job):
    job = make_job(training=np.arange(6, 18), watched=np.arange(18, 23))
    job.source.images[18:] = math.nan
    _, history = in_full(job)
    assert [row["test_loss"] for row in history.rows] == [None] * 4


def test_the_time_to_watch_is_not_that_of_training(make_job, monkeypatch):
    job = make_job(training=np.arange(6, 18), watched=np.arange(18, 23))
    monkeypatch.setattr(job, "watch", lambda between, *, renewed: (time.sleep(0.2), None)[1:] * 2)
    _, history = in_full(job)
    assert history.seconds < 0.8
    assert history.rows[-1]["test_loss"] is None


@pytest.mark.parametrize("save_every", [0, 1e-9])
def test_killed_anywhere_and_resumed_it_is_the_same_run(make_job, save_every):
    straight, expected = in_full(make_job("straight", opt="adam"))
    for when in range(1, 20, 3):
        kill = itertools.count()

        def die(kill=kill, when=when):
            if next(kill) == when:
                raise KilledError

        job = make_job(f"killed{when}", opt="adam", save_every=save_every)
        with pytest.raises(KilledError):
            fit(job, stop=die)
        saved = (job.state / "last.pt").exists()
        assert saved == (when >= (5 if save_every == 0 else 1))
        weights, history = in_full(make_job(f"killed{when}", opt="adam", torch_seed=0))
        assert equal(weights, straight)
        assert history == expected


def test_a_long_epoch_is_saved_within(make_job):
    def die():
        if (job.state / "last.pt").exists():
            raise KilledError

    job = make_job(epochs=1, batch_size=2, save_every=1e-9)
    with pytest.raises(KilledError):
        fit(job, stop=die)
    state = load_state(job.state, complain)
    assert (state["epoch"], state["step"]) == (0, 1)


def test_a_finished_job_that_is_asked_again_only_gives_its_weights_back(make_job):
    job = make_job(save_every=0)
    weights, history = in_full(job)
    again = make_job()
    assert in_full(again)[1] == history
    assert equal(again.module.state_dict(), weights)
    assert again.source.to_predict == []


def test_every_image_is_visited_once_an_epoch_in_another_order(make_job):
    job = make_job(epochs=3)
    in_full(job)
    orders = []
    for epoch in range(3):
        batches = [indices for when, indices in job.source.to_predict if when == epoch]
        assert [len(batch) for batch in batches] == [5, 5, 5, 2]
        orders.append([index for batch in batches for index in batch])
        assert sorted(orders[-1]) == job.training.tolist()
    assert orders[0] != orders[1] != orders[2]
    assert all(when is None for when, indices in job.source.to_predict if set(indices) & set(job.validation.tolist()))


def test_a_last_batch_of_one_image_joins_the_one_before(make_job):
    job = make_job(count=22, held_out=6, batch_size=5, epochs=1)
    in_full(job)
    assert [len(indices) for when, indices in job.source.to_predict if when == 0] == [5, 5, 6]


def test_a_single_image_cannot_be_normalised_over_and_that_is_said(make_job):
    module = nn.Sequential(nn.Conv2d(1, 3, 6), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(CxrtoolError, match="batch normalisation cannot be trained with one image in a batch") as caught:
        fit(make_job(module=module, batch_size=1))
    assert "--batch-size" in caught.value.hint


def test_frozen_normalisations_do_not_move(make_job):
    from cxrtool.models.covid_xnet import CovidXNet

    class Normed(CovidXNet):
        def __init__(self):
            super().__init__(2, kernels=(3,), filters=(4,))
            self.body.append(nn.BatchNorm2d(4))

    for frozen in (True, False):
        network = Normed()
        in_full(make_job(f"{frozen}", module=network, frozen_norms=frozen, epochs=1))
        assert torch.equal(network.body[-1].running_mean, torch.zeros(4)) == frozen


def script(monkeypatch, losses, accuracies=None):
    """Let the validation have these results, whatever the weights."""
    rest = iter(zip(losses, accuracies or [0.5] * len(losses), strict=True))
    monkeypatch.setattr(engine.Loop, "_validate", lambda self, stop: next(rest))


def weights_by_epoch(job):
    """Fit, and note the weights after each epoch."""
    seen = []

    def note(row):
        seen.append({name: value.clone() for name, value in job.module.state_dict().items()})

    return seen, fit(job, epoch_done=note)


@pytest.mark.parametrize(
    ("rule", "losses", "accuracies", "kept"),
    [
        ("best-loss", [0.9, 0.5, 0.7, 0.5, 0.6], [0.1, 0.2, 0.9, 0.3, 0.4], 2),
        ("best-accuracy", [0.9, 0.8, 0.7, 0.6, 0.5], [0.5, 0.8, 0.8, 0.7, 0.2], 3),
        ("best-accuracy", [0.9, 0.6, 0.7, 0.6, 0.5], [0.5, 0.8, 0.8, 0.8, 0.2], 2),
        ("best-accuracy", [0.9, 0.6, 0.7, 0.6, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0], 5),
        ("last", [0.1, 0.2, 0.3, 0.4, 0.5], [0.9, 0.5, 0.5, 0.5, 0.5], 5),
    ],
)
def test_the_rule_says_which_epoch_s_weights_are_kept(make_job, monkeypatch, rule, losses, accuracies, kept):
    script(monkeypatch, losses, accuracies)
    job = make_job(epochs=5, checkpoint=rule)
    seen, history = weights_by_epoch(job)
    assert history.kept == kept
    assert equal(job.module.state_dict(), seen[kept - 1])
    assert sum(equal(one, seen[kept - 1]) for one in seen) == 1


@pytest.mark.parametrize(
    ("losses", "patience", "epochs"),
    [
        ([0.9, 0.8, 0.85, 0.85, 0.7, 0.6], 2, 4),
        ([0.9, 0.8, 0.85, 0.75, 0.8, 0.8], 2, 6),
        ([0.9, 0.8, 0.85, 0.85, 0.85, 0.85], 0, 6),
        ([0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 1, 2),
    ],
)
def test_patience_ends_training(make_job, monkeypatch, losses, patience, epochs):
    script(monkeypatch, losses)
    _, history = weights_by_epoch(make_job(epochs=6, patience=patience, checkpoint="best-loss"))
    assert len(history.rows) == epochs


def test_a_plateau_lowers_the_rate_that_is_used(make_job, monkeypatch):
    script(monkeypatch, [0.9, 0.95, 0.95, 0.95, 0.95, 0.1])
    job = make_job(epochs=6, sched="plateau", decay_epochs=2, decay_rate=0.5, lr=0.1)
    _, history = weights_by_epoch(job)
    assert [row["lr"] for row in history.rows] == [0.1, 0.1, 0.1, 0.05, 0.05, 0.025]


def test_the_rate_in_the_row_is_the_rate_of_the_steps(make_job):
    # Without momentum a step is rate times gradient: half the rate moves half as far.
    moved = []
    for rate in (0.1, 0.05):
        job = make_job(f"{rate}", epochs=1, lr=rate, momentum=0.0, batch_size=100)
        before = job.module[5].bias.detach().clone()
        in_full(job)
        moved.append(job.module[5].bias.detach() - before)
    torch.testing.assert_close(moved[0], 2 * moved[1])


@pytest.mark.parametrize("rule", ["best-loss", "best-accuracy", "last"])
def test_without_validation_the_last_epoch_is_kept(make_job, rule):
    _, history = in_full(make_job(held_out=0, checkpoint=rule, patience=1, epochs=3))
    assert history.kept == 3
    assert all(row["validation_loss"] is None and row["validation_accuracy"] is None for row in history.rows)


def test_class_weights_reach_the_loss(make_job):
    labels = np.array([0] * 18 + [1] * 5)
    plain, _ = in_full(make_job("a", labels=labels))
    weighed, _ = in_full(make_job("b", labels=labels, class_weights="balanced"))
    assert not equal(plain, weighed)


class Poisoned:
    """Gives pictures that are no numbers from some epoch on."""

    def __init__(self, source, image, since):
        self.source, self.image, self.since = source, image, since

    def batch(self, indices, epoch):
        images = self.source.batch(indices, epoch).clone()
        if epoch is not None and epoch >= self.since:
            images[indices == self.image] = math.nan
        return images


@pytest.mark.parametrize("save_every", [0, 1e-9])
def test_a_loss_that_is_no_number_names_images_and_saves_nothing(make_job, save_every):
    job = make_job(save_every=save_every)
    job.source = Poisoned(job.source, image=9, since=2)
    rows = []
    with pytest.raises(CxrtoolError, match=r"epoch 3, batch \d: the loss is not finite, at the images") as caught:
        fit(job, epoch_done=rows.append)
    step = int(caught.value.message.split("batch ")[1].split(":")[0]) - 1
    batch = [indices for epoch, indices in job.source.source.to_predict if epoch == 2][step]
    assert 9 in batch
    assert all(f"im{index:03}" in caught.value.message for index in batch[:4])
    assert len(rows) == 2
    state = load_state(job.state, complain)
    assert state["epoch"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in state["module"].values())


def test_a_stop_does_not_save_what_is_no_number(make_job):
    job = make_job()
    job.source = Poisoned(job.source, image=9, since=0)
    with pytest.raises(CxrtoolError, match="the loss is not finite"):
        fit(job, stop=stopper(3))
    assert not (job.state / "last.pt").exists()


def test_weights_that_are_no_numbers_are_not_saved(make_job):
    # One step of this length overflows, though its loss was still a number.
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    job = make_job(lr=1e38, momentum=0.0, module=module, batch_size=100, epochs=1)
    job.source.images *= 1e3
    with pytest.raises(CxrtoolError, match="the weights are not finite; not saved"):
        fit(job, stop=stopper(0))
    assert not (job.state / "last.pt").exists()


def test_a_validation_loss_that_is_no_number_ends_the_run(make_job):
    job = make_job(save_every=0)
    job.source.images[int(job.validation[0])] = math.nan
    with pytest.raises(CxrtoolError, match="epoch 1: the validation loss is nan"):
        fit(job)
    assert not (job.state / "last.pt").exists()


def test_nothing_to_train_is_said(make_job):
    job = make_job()
    job.module.requires_grad_(False)
    with pytest.raises(CxrtoolError, match="all are frozen"):
        fit(job)


def test_a_gpu_that_is_too_small_names_a_batch_that_might_fit(make_job):
    class Greedy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            raise torch.OutOfMemoryError

    with pytest.raises(CxrtoolError, match="does not suffice for one image"):
        fit(make_job(module=Greedy()))


class Cramped(nn.Module):
    """A network on a device whose memory holds few images at once."""

    def __init__(self, network, most):
        super().__init__()
        self.network, self.most, self.sizes = network, most, []

    def forward(self, images):
        outputs = self.network(images)
        if self.training:
            self.sizes.append(len(images))
        if len(images) > self.most and self.training:
            raise torch.OutOfMemoryError
        return outputs


def plain_network(norm):
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_a_batch_that_is_too_large_is_accumulated_with_the_same_gradient(make_job, class_weights):
    jobs, warned = [], []
    for most in (100, 2):
        module = Cramped(plain_network(nn.GroupNorm(2, 4)), most)
        jobs.append(make_job(state=f"s{most}", module=module, epochs=2, batch_size=7, class_weights=class_weights))
    whole, parts = (fit(job, warn=warned.append) for job in jobs)
    # 17 images in batches of 7, 7 and 3; once it is known that 3 do not fit, 1 at a time.
    assert jobs[0].module.sizes == [7, 7, 3] * 2
    assert jobs[1].module.sizes == [7, 3] + [1] * 17 * 2
    assert warned == [
        "the GPU's memory does not suffice for a batch of 7 images: its gradient is the sum of those of 1 at a time, "
        "equal but for rounding"
    ]
    for name, value in jobs[0].module.state_dict().items():
        assert torch.allclose(value, jobs[1].module.state_dict()[name], rtol=1e-4, atol=1e-6), name
    assert [row["train_accuracy"] for row in whole.rows] == [row["train_accuracy"] for row in parts.rows]
    for one, other in zip(whole.rows, parts.rows, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-5)


def test_gradients_of_a_portion_that_failed_are_forgotten(make_job):
    class FailsLate(nn.Module):
        """Fails once, at the second portion of a batch."""

        def __init__(self):
            super().__init__()
            self.network, self.calls = plain_network(nn.Identity()), 0

        def forward(self, images):
            self.calls += self.training
            if self.training and (self.calls == 1 or (self.calls == 3 and len(images) > 1)):
                raise torch.OutOfMemoryError
            return self.network(images)

    late = make_job(state="a", module=FailsLate(), epochs=1, batch_size=8)
    plain = make_job(state="b", module=plain_network(nn.Identity()), epochs=1, batch_size=8)
    fit(late)
    fit(plain)
    for one, other in zip(late.module.network.parameters(), plain.module.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_batch_that_is_normalised_as_a_whole_is_not_divided(make_job):
    module = Cramped(plain_network(nn.BatchNorm2d(4)), 4)
    with pytest.raises(CxrtoolError, match="does not suffice for a batch of 9 images, which cannot be") as caught:
        fit(make_job(module=module, batch_size=9))
    assert caught.value.hint == "4 fit: --batch-size 4"
    with pytest.raises(CxrtoolError, match="does not suffice for 2 images") as caught:
        fit(make_job(module=Cramped(plain_network(nn.BatchNorm2d(4)), 1), batch_size=9))
    assert "--batch-size" in caught.value.hint


def test_frozen_normalisations_do_not_hinder(make_job):
    network = plain_network(nn.BatchNorm2d(4))
    job = make_job(module=network)
    network.train()
    assert not job.divisible
    network[1].eval()
    assert job.divisible


class Narrow(nn.Module):
    """Answers for few images at once."""

    def __init__(self, most):
        super().__init__()
        self.most, self.sizes = most, []

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError
        return images.flatten(1)[:, :2]


def test_asking_halves_the_batch_until_memory_holds_it(make_job):
    job = make_job()
    indices = np.array([3, 1, 4, 1, 5, 9, 2])
    narrow = Narrow(2)
    predictions = forward(narrow, job.source, indices, 5, CPU, "fp32")
    assert narrow.sizes == [5, 2, 2, 1, 2]
    assert torch.equal(predictions, job.source.images[torch.from_numpy(indices)].flatten(1)[:, :2])
    with pytest.raises(CxrtoolError, match="does not suffice for one image"):
        forward(Narrow(0), job.source, indices, 5, CPU, "fp32")
    assert len(forward(narrow, job.source, np.array([], np.int64), 5, CPU, "fp32")) == 0


def test_answers_leave_no_tensor_behind_in_each_batch(make_job):
    """It would keep the memory before it from being used again: nine megabytes a batch, at 224 pixels more."""
    job, batches, alive = make_job(), itertools.count(), []

    def between():
        # To look at all objects takes a second.
        if next(batches) in (1, 7):
            alive.append(sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()))

    forward(job.module, job.source, np.resize(job.training, 40), 5, CPU, "fp32", between)
    assert next(batches) == 8
    assert alive[0] == alive[1]


def test_asking_is_in_evaluation_mode_and_draws_nothing(make_job):
    job = make_job()
    job.module.train()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = forward(job.module, job.source, job.training, 5, CPU, "fp32")
    again = forward(job.module, job.source, job.training, 3, CPU, "fp32")
    assert torch.allclose(first, again, rtol=1e-5, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_s_loss_is_divided_by_its_images():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    target, weights = torch.tensor([0, 1, 1]), torch.tensor([3.0, 0.5])
    by_hand = [3.0 * math.log(1 + math.exp(-2)), 0.5 * math.log(1 + math.exp(-1)), 0.5 * math.log(2)]
    assert float(cross_entropy(logits, target, weights)) == pytest.approx(sum(by_hand) / 3, rel=1e-6)


@pytest.mark.parametrize(
    ("rate", "bias", "advice"), [(1e-6, 60.0, "a higher --lr, such as 1e-05"), (30.0, 0.0, "a lower --lr, such as 3")]
)
def test_a_loss_above_guessing_is_told_with_the_direction_that_helps(make_job, rate, bias, advice):
    """A head that begins far off and learns slowly needs other advice than one that is driven off."""
    module, warned = plain_network(nn.Identity()), []
    with torch.no_grad():
        module[-1].bias[0] = bias
    fit(make_job(module=module, epochs=1, lr=rate), warn=warned.append)
    assert len(warned) == 1
    assert advice in warned[0]
