import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cxrtool.errors import DivergedError, InputError, StoppedError, UsageError
from cxrtool.models.architecture import Architecture
from cxrtool.models.registry import build
from cxrtool.training.augment import parse
from cxrtool.training.class_inherent_fold import GeneratorDesign, Trial, build_generator_training, fit_generator_fold
from cxrtool.training.store import Store

SIDE, COUNT = 32, 9
LABELS = np.arange(COUNT) % 2
PLACES = np.arange(COUNT)


def store():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 90, (COUNT, SIDE, SIDE)).astype(np.uint8)
    images[LABELS == 1, : SIDE // 2] += 120
    return Store(images, [""] * COUNT)


@pytest.fixture
def small(monkeypatch):
    """Narrow generators, and timm's network for tests in the place of the ResNet-18."""
    monkeypatch.setattr("cxrtool.training.class_inherent_fold.CLASSIFIER", "test_resnet")
    monkeypatch.setattr("cxrtool.models.class_inherent.WIDTH", 8)


@pytest.fixture
def design(recipe):
    changed = replace(
        recipe, opt="adam", lr=1e-3, epochs=2, batch_size=3, class_weights="balanced", checkpoint="best-loss"
    )
    return GeneratorDesign(
        ("covid", "normal"),
        SIDE,
        "none",
        "none",
        "own",
        (0.05,),
        1e-3,
        changed,
        parse("rotate=10,shift=0.05,brightness=0.05,blur=0.5,p=0.7"),
        7,
        1,
        "cpu",
        "fp32",
    )


@pytest.fixture
def run(design, tmp_path):
    def call(state, stop=lambda: None, save_every=1e9, **changes):
        return fit_generator_fold(
            replace(design, **changes),
            store(),
            [f"i{k}" for k in PLACES],
            LABELS,
            PLACES[:6],
            PLACES[6:8],
            PLACES[6:],
            tmp_path / state,
            shown=[8],
            save_every=save_every,
            stop=stop,
        )

    return call


def equal(one, other):
    pairs = zip(one.module.state_dict().items(), other.module.state_dict().items(), strict=True)
    same = all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
    return same and np.array_equal(one.probabilities, other.probabilities) and one.history == other.history


class KilledError(Exception):
    pass


def test_stopped_or_killed_it_goes_on_to_the_same_bytes(run, small):
    straight = run("straight")
    assert straight.probabilities.shape == (3, 2)
    assert list(straight.predictions.pictures) == [8]
    count = itertools.count(1)
    # Two batches and one of validation an epoch: the first one, and the second batch of the second.
    with pytest.raises(StoppedError):
        run("stopped", lambda: StoppedError("stop", 143) if next(count) == 1 else None)
    assert equal(run("stopped"), straight)

    def die():
        if next(count) == 6:
            raise KilledError

    with pytest.raises(KilledError):
        run("killed", die, 1e-9)
    assert equal(run("killed"), straight)


def test_of_several_weights_the_best_on_validation_is_kept_and_none_is_fitted_twice(run, small):
    weights = (0.0, 5.0)
    alone = {weight: run(f"w{weight}", class_loss_weights=(weight,)) for weight in weights}
    count = itertools.count(1)
    # Two batches and one of validation an epoch: the second weight's first batch.
    with pytest.raises(StoppedError):
        run("both", lambda: StoppedError("stop", 143) if next(count) == 7 else None, class_loss_weights=weights)
    to_predict = itertools.count(1)
    both = run("both", lambda: next(to_predict) < 0 or None, class_loss_weights=weights)
    # What is left of the second weight, and the question in the end: nothing of the first weight.
    assert next(to_predict) - 1 == 5 + 1
    best = min(weights, key=lambda weight: alone[weight].trials[0].rank())
    assert both.chosen == best
    assert equal(both, alone[best])
    assert both.trials == [alone[weight].trials[0] for weight in weights]


def test_accuracy_counts_first_then_loss():
    trials = [Trial(1, 1, 0.8, 0.5), Trial(2, 1, 0.9, 0.9), Trial(3, 1, 0.9, 0.4), Trial(4, 1, 0.7, 0.1)]
    assert [trial.weight for trial in sorted(trials, key=Trial.rank)] == [3, 2, 1, 4]


def test_a_weight_whose_numbers_run_away_is_passed_over(run, small):
    found = run("fled", class_loss_weights=(math.inf, 0.05))
    assert [trial.epoch > 0 for trial in found.trials] == [False, True]
    assert found.chosen == 0.05
    with pytest.raises(DivergedError):
        run("alone", class_loss_weights=(math.inf,))


def test_of_given_weights_the_first_layers_stay_and_their_normalisations_count_on(run, tmp_path):
    torch.manual_seed(1)
    given, _ = build(Architecture("resnet18", 5))
    torch.save(given.timm.state_dict(), tmp_path / "r.pth")
    found = run("given", weights=str(tmp_path / "r.pth"))
    assert found.weights_from.startswith("r.pth")
    before = given.timm.state_dict()
    after = found.module.classifier.timm.state_dict()
    still = {name for name, value in before.items() if value.shape == after[name].shape and value.equal(after[name])}
    weights = {name for name in before if name.split(".")[-1] in ("weight", "bias") and not name.startswith("fc")}
    frozen = {name for name in weights if name.startswith(("conv1", "bn1", "layer1", "layer2"))}
    assert weights & still == frozen
    assert "layer1.0.bn1.running_mean" not in still
    assert "bn1.running_var" not in still
    assert found.notes["trained_parameters"] < found.notes["parameters"]


def test_random_layers_are_never_frozen(design):
    module, told = build_generator_training(design)
    assert told == "drawn at random"
    assert all(weight.requires_grad for weight in module.parameters())


def test_what_cannot_be_built_is_told(design, tmp_path):
    with pytest.raises(UsageError, match="expected 32 pixels or more, found 31"):
        build_generator_training(replace(design, size=31))
    with pytest.raises(InputError, match="no such file"):
        build_generator_training(replace(design, weights=str(tmp_path / "none.pth")))


def test_three_classes(run, small):
    found = run("three", classes=("a", "b", "c"))
    assert found.probabilities.shape == (3, 3)
    assert found.predictions.psnr.shape == (3, 3)
    np.testing.assert_allclose(found.probabilities.sum(1), 1.0)


def test_bf16_is_near_to_fp32(run, small):
    low, full = run("bf16", precision="bf16"), run("fp32")
    assert low.history.rows[0]["train_loss"] == pytest.approx(full.history.rows[0]["train_loss"], rel=0.05)
    assert low.module.generators.members[0][0].weight.dtype == torch.float32
