import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cxrtool.models.class_inherent import MEAN, STD, Generators
from cxrtool.models.network import Network
from cxrtool.models.perceptual import Perceptual
from cxrtool.training.class_inherent import (
    GeneratorFit,
    GeneratorTraining,
    class_cross_entropy,
    decide,
    predict,
    term_of,
    total_variation,
)
from cxrtool.training.engine import fit

CPU = torch.device("cpu")
SIDE = 8
ADAM = {"opt": "adam", "lr": 1e-3, "weight_decay": 1e-2, "batch_size": 4, "epochs": 2}


class Small(Network):
    """A classifier with a normalisation, by which the images of a batch know of one another."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Linear(16, classes)

    def features(self, images):
        return self.body(images)

    def classify(self, features):
        return self.head(features.flatten(1))

    def head_modules(self):
        return [self.head]


class Grey:
    """Grey pictures in memory."""

    def __init__(self, images):
        self.images = images

    def batch(self, indices, epoch):
        return self.images[torch.from_numpy(np.asarray(indices))]


@pytest.fixture
def make_contest(recipe, tmp_path):
    def make(classes=2, count=10, state="state", perceptual=True, changes=None, **fields):
        torch.manual_seed(3)
        names = ["covid", "normal", "pneumonia"][:classes]
        module = GeneratorTraining(Generators(names), Small(classes))
        see = Perceptual(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())) if perceptual else None
        labels = np.arange(count) % classes
        images = torch.rand(count, 1, SIDE, SIDE) * 0.4 + 0.5 * torch.from_numpy(labels)[:, None, None, None] / classes
        indices = np.arange(count)
        told = {
            "module": module,
            "training": indices[:-3],
            "validation": indices[-3:],
            "device": CPU,
            "precision": "fp32",
            "recipe": replace(recipe, **{**ADAM, **(changes or {})}),
            "seed": 1,
            "state": tmp_path / state,
            "save_every": 1e9,
            "perceptual": see,
            "source": Grey(images.float()),
            "labels": labels,
            "class_loss": "own",
            "class_loss_weight": 0.5,
            "classifier_lr": 1e-2,
        }
        return GeneratorFit(**{**told, **fields})

    return make


def brute_force(job, items, own, which):
    """The gradient of one loss alone, written out image by image on a copy that nobody else touches."""
    module = copy.deepcopy(job.module).train()
    x = ((job.source.batch(items, 0) - MEAN) / STD).repeat(1, 3, 1, 1)
    target, classes = job.labels[items], len(module.generators.members)
    versions = [member(x) for member in module.generators.members]
    logits = module.classifier(torch.cat(versions))
    predictions = [
        [torch.log_softmax(logits[k * len(items) + b], 0) for b in range(len(items))] for k in range(classes)
    ]
    counts = np.bincount(job.labels[job.training], minlength=classes)
    weighted = [
        -predictions[k][b][target[b]] * len(job.training) / (classes * counts[target[b]])
        for k in range(classes)
        for b in range(len(items))
    ]
    judged = sum(weighted) / len(weighted)
    if which == classes:
        judged.backward()
        return [weight.grad for weight in module.classifier.parameters() if weight.requires_grad]
    mine = [-predictions[k][b][which] for k in range(classes) for b in range(len(items)) if target[b] == which]
    of_class = judged if not own else sum(mine) / len(mine) if mine else torch.zeros(())
    made = versions[which]
    variation = 2 * (
        ((made[:, :, 1:] - made[:, :, :-1]) ** 2).mean() + ((made[:, :, :, 1:] - made[:, :, :, :-1]) ** 2).mean()
    )
    loss = ((made - x) ** 2).mean() + 2e-8 * variation + job.class_loss_weight * of_class
    if job.perceptual is not None:
        loss = loss + 0.006 * ((job.perceptual(made) - job.perceptual(x)) ** 2).mean()
    loss.backward()
    return [weight.grad for weight in module.generators.members[which].parameters()]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("classes", "items"), [(2, [0, 1, 2, 5]), (3, [0, 3, 4, 1]), (2, [1, 3, 5])])
def test_gradients_are_those_of_as_many_separate_passes(make_contest, classes, items, own):
    job = make_contest(classes, class_loss="own" if own else "all")
    items = np.array(items)
    job.module.train()
    before = copy.deepcopy(job.module.state_dict())
    expected = [brute_force(job, items, own, which) for which in range(classes + 1)]
    loss, _, terms = job.learn(items, 0)
    players = [*job.module.generators.members, job.module.classifier]
    for player, gradients in zip(players, expected, strict=True):
        for weight, gradient in zip(player.parameters(), gradients, strict=True):
            torch.testing.assert_close(weight.grad, gradient, rtol=2e-3, atol=2e-6)
    # No weight has moved on the way; running statistics have.
    moved = {name for name, value in job.module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all("running" in name or "num_batches" in name for name in moved)
    assert set(terms) == set(job.terms)
    parts = {part: float(terms[term_of(part, "covid")]) for part in ("mse", "perceptual", "tv", "class", "total")}
    weighted = parts["mse"] + 0.006 * parts["perceptual"] + 2e-8 * parts["tv"] + 0.5 * parts["class"]
    assert parts["total"] == pytest.approx(weighted, rel=1e-5)
    assert own or parts["class"] == pytest.approx(float(loss))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_little_memory_the_step_is_the_same(make_contest, monkeypatch, precision):
    steps, passes = [], []
    for room in (math.inf, 0):
        job = make_contest(2)
        job.precision = precision
        job.module.train()
        calls = []
        for layer in job.module.generators.members[0].children():
            layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        monkeypatch.setattr(job, "room", lambda room=room: room)
        loss, right, terms = job.learn(np.array([0, 1, 2, 5]), 0)
        gradients = {f"gradient of {name}": weight.grad for name, weight in job.module.named_parameters()}
        steps.append({**job.module.state_dict(), **gradients, **terms, "loss": loss, "right": right})
        passes.append(len(calls))
    assert passes[1] == 2 * passes[0]
    assert steps[0].keys() == steps[1].keys()
    assert [name for name in steps[0] if not torch.equal(steps[0][name], steps[1][name])] == []
    # Every image was seen once.
    assert {int(value) for name, value in steps[1].items() if "members" in name and "tracked" in name} == {1}


def test_a_class_that_a_batch_lacks_adds_nothing():
    logits, target = torch.randn(2, 3, 2), torch.tensor([1, 1, 1])
    assert float(class_cross_entropy(logits, target, 0)) == 0.0
    by_hand = -sum(math.log(math.exp(a[1]) / (math.exp(a[0]) + math.exp(a[1]))) for g in logits.tolist() for a in g) / 6
    assert float(class_cross_entropy(logits, target, 1)) == pytest.approx(by_hand, rel=1e-5)


def test_total_variation_step_by_step():
    pictures = torch.rand(2, 3, 4, 5)
    values = pictures.tolist()
    down = [
        (values[b][c][i + 1][j] - values[b][c][i][j]) ** 2
        for b in range(2)
        for c in range(3)
        for i in range(3)
        for j in range(5)
    ]
    right = [
        (values[b][c][i][j + 1] - values[b][c][i][j]) ** 2
        for b in range(2)
        for c in range(3)
        for i in range(4)
        for j in range(4)
    ]
    by_hand = 2 * (sum(down) / len(down) + sum(right) / len(right))
    assert float(total_variation(pictures)) == pytest.approx(by_hand, rel=1e-5)


def test_the_answer_is_the_argmax_of_all_logits_modulo_the_classes():
    logits = torch.randn(3, 50, 3)
    lines = logits.permute(1, 0, 2).reshape(50, 9)
    assert torch.equal(decide(logits).argmax(1), lines.argmax(1) % 3)


def test_the_classifier_slows_down_and_the_generators_do_not(make_contest):
    job = make_contest(changes={"sched": "step", "decay_epochs": 5, "decay_rate": 0.1})
    assert [job.rates(epoch, []) for epoch in (0, 4)] == [(1e-3, 1e-2)] * 2
    assert job.rates(5, []) == (1e-3, pytest.approx(1e-3))
    generators, classifier = job.optimizer().param_groups
    assert (generators["weight_decay"], classifier["weight_decay"]) == (1e-2, 0.0)
    assert (generators["lr"], classifier["lr"]) == (1e-3, 1e-2)
    held = {id(weight) for group in (generators, classifier) for weight in group["params"]}
    assert held == {id(weight) for weight in job.module.parameters()}


def test_without_the_perceptual_term_there_is_no_such_column(make_contest):
    history = fit(make_contest(perceptual=False))
    assert not [name for name in history.rows[0] if "perceptual" in name]
    assert "train_perceptual normal" in fit(make_contest(state="other")).rows[0]


def test_validation_is_the_classifiers_loss_over_all_versions(make_contest):
    job = make_contest()
    loss, accuracy = job.validate(lambda: None)
    x = ((job.source.batch(job.validation, None) - MEAN) / STD).repeat(1, 3, 1, 1)
    target = job.labels[job.validation]
    counts = np.bincount(job.labels[job.training])
    with torch.inference_mode():
        made = [member(x) for member in job.module.eval().generators.members]
        predictions = [job.module.classifier(version) for version in made]
    losses = [
        -float(torch.log_softmax(each[b], 0)[target[b]]) * len(job.training) / (2 * counts[target[b]])
        for each in predictions
        for b in range(3)
    ]
    assert loss == pytest.approx(sum(losses) / 6, rel=1e-5)
    named = [int(torch.stack([each[b] for each in predictions]).amax(0).argmax()) for b in range(3)]
    assert accuracy == pytest.approx(np.mean(named == target))


def test_each_generator_learns_to_keep_the_picture_and_to_please_the_classifier(make_contest):
    job = make_contest(count=19, changes={"epochs": 12})
    rows = fit(job).rows
    for name in ("covid", "normal"):
        assert rows[-1][f"train_mse {name}"] < 0.5 * rows[0][f"train_mse {name}"]
        assert rows[-1][f"train_class {name}"] < rows[0][f"train_class {name}"]


def test_answers_are_those_of_one_picture_after_the_other(make_contest):
    job = make_contest(3)
    module, indices = job.module, np.array([4, 0, 7, 2, 9])
    found = predict(module, job.source, indices, 2, shown=[7])
    with torch.inference_mode():
        for n, place in enumerate(indices):
            grey = job.source.batch([place], None)
            x = ((grey - MEAN) / STD).repeat(1, 3, 1, 1)
            made = [member(x) for member in module.generators.members]
            best = torch.cat([module.classifier(version) for version in made]).amax(0)
            np.testing.assert_allclose(found.probabilities[n], torch.softmax(best, 0), rtol=1e-4)
            np.testing.assert_allclose(found.before[n], torch.softmax(module.classifier(x)[0], 0), rtol=1e-4)
            for k, picture in enumerate(module.generators(grey)):
                again = (picture - MEAN) / STD
                after = torch.softmax(module.classifier(again)[0], 0)
                np.testing.assert_allclose(found.after[k, n], after, rtol=1e-4)
                error = float(((picture - grey) ** 2).mean())
                assert found.psnr[k, n] == pytest.approx(-10 * math.log10(error), rel=1e-4)
    assert list(found.pictures) == [7]
    np.testing.assert_allclose(
        found.pictures[7], module.generators(job.source.batch([7], None))[:, 0].detach().movedim(1, -1), atol=1e-5
    )


def test_nobody_asked_is_an_empty_answer(make_contest):
    job = make_contest()
    found = predict(job.module, job.source, np.empty(0, np.int64), 2)
    assert found.probabilities.shape == (0, 2)
    assert found.after.shape == (2, 0, 2)
    assert found.psnr.shape == (2, 0)
