from dataclasses import replace

import numpy as np
import pytest
import torch

from cxrtool.errors import StoppedError, UsageError
from cxrtool.models.architecture import Architecture
from cxrtool.models.registry import BUILT_IN, build, input_form
from cxrtool.training import fitting
from cxrtool.training.augment import parse
from cxrtool.training.classifier_losses import cross_entropy, margin
from cxrtool.training.fitting import Design, Head, fit_fold
from cxrtool.training.store import Store

SIDE = 32
IDS = [f"im{i:02}" for i in range(20)]
TRAINING, VALIDATION, ASKED = np.arange(4, 16), np.arange(4), np.arange(14, 20)


@pytest.fixture(scope="module")
def pictures():
    labels = np.arange(20) % 2
    images = np.random.default_rng(1).integers(0, 120, (20, SIDE, SIDE), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, slice(0, SIDE // 2) if label else slice(SIDE // 2, SIDE)] += 120
    return Store(images, [""] * 20), labels


@pytest.fixture
def design(recipe):
    return Design(
        Architecture("covid-xnet", 2, size=SIDE),
        "none",
        replace(recipe, epochs=3, opt="adam", lr=0.003),
        parse("rotate=10,flip=0.5"),
        freeze=False,
        frozen_norms=True,
        normalize="native",
        seed=3,
        threads=1,
        device="cpu",
        precision="fp32",
    )


FROZEN = {"architecture": Architecture("resnet10t", 2, size=SIDE), "augmentation": parse("none"), "freeze": True}


def run(design, pictures, tmp_path, **more):
    store, labels = pictures
    return fit_fold(design, store, IDS, labels, TRAINING, VALIDATION, ASKED, tmp_path / "state", **more)


def head_of(fitted):
    return torch.cat([parameter.flatten() for parameter in fitted.network.head_parameters()])


def backbone_of(network):
    head = {id(value) for value in network.head_parameters()}
    return [value for value in network.parameters() if id(value) not in head] + list(network.buffers())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_fold_is_trained_and_asked(design, pictures, tmp_path, precision):
    fitted = run(replace(design, precision=precision, seed=1), pictures, tmp_path)
    assert fitted.weights_from == "drawn at random"
    assert len(fitted.history.rows) == 3
    assert not fitted.network.training
    assert 0 < fitted.notes.pop("seconds") < 60
    # A sixteenth of what 128 x 128 pixels take, but for the dense layer.
    macs = (149_160_448 - 512) // 16 + 512
    assert fitted.notes == {
        "parameters": 434_050,
        "trained_parameters": 434_050,
        "macs": macs,
        "device": "cpu",
        "precision": precision,
    }
    assert fitted.probabilities.dtype == np.float64
    np.testing.assert_allclose(fitted.probabilities.sum(1), 1, atol=1e-12)
    # The probabilities are those of the weights that are kept, in fp32.
    form = input_form("covid-xnet", "native")
    images = (pictures[0].images[ASKED].astype(np.float32) / 255 - form["mean"][0]) / form["std"][0]
    images = torch.from_numpy(images.astype(np.float32))[:, None]
    with torch.inference_mode():
        expected = torch.softmax(fitted.network(images).double(), 1)
    np.testing.assert_allclose(fitted.probabilities, expected.numpy(), atol=1e-6)


def test_the_same_design_gives_the_same_bits_whatever_was_drawn_before(design, pictures, tmp_path):
    torch.manual_seed(1)
    first = run(design, pictures, tmp_path / "a")
    torch.manual_seed(2)
    again = run(design, pictures, tmp_path / "b")
    assert torch.equal(head_of(first), head_of(again))
    assert np.array_equal(first.probabilities, again.probabilities)
    other = run(replace(design, seed=4), pictures, tmp_path / "c")
    assert not torch.equal(head_of(first), head_of(other))


def test_other_images_in_the_store_do_not_matter(design, pictures, tmp_path):
    whole = run(design, pictures, tmp_path / "a")
    store, labels = pictures
    # The same images at other places, strangers between them.
    order = np.random.default_rng(0).permutation(40)
    place = np.argsort(order)[:20]
    images = np.random.default_rng(2).integers(0, 255, (40, SIDE, SIDE), np.uint8)
    images[place] = store.images
    ids = [f"stranger{i}" for i in range(40)]
    other_labels = np.full(40, -1)
    for index, position in enumerate(place):
        ids[position], other_labels[position] = IDS[index], labels[index]
    moved = fit_fold(
        design,
        Store(images, [""] * 40),
        ids,
        other_labels,
        place[TRAINING],
        place[VALIDATION],
        place[ASKED],
        tmp_path / "b",
    )
    assert np.array_equal(moved.probabilities, whole.probabilities)


def count_images(monkeypatch):
    """The batch size of every call of a timm network's body."""
    sizes = []
    from cxrtool.models.backbones import TimmNetwork

    original = TimmNetwork.features

    def features(self, images):
        sizes.append(len(images))
        return original(self, images)

    monkeypatch.setattr(TimmNetwork, "features", features)
    return sizes


def test_a_frozen_backbone_is_run_once(design, pictures, tmp_path, monkeypatch):
    sizes = count_images(monkeypatch)
    run(replace(design, **FROZEN), pictures, tmp_path)
    # One blank image to try it out, every image once, and the images that are asked about.
    assert sum(sizes) == 1 + len(TRAINING) + len(VALIDATION) + len(ASKED)


def test_kept_features_give_what_training_through_the_backbone_gives(design, pictures, tmp_path, monkeypatch):
    frozen = replace(design, **FROZEN)
    kept = run(frozen, pictures, tmp_path / "a")
    monkeypatch.setattr(fitting, "_is_constant", lambda design: False)
    sizes = count_images(monkeypatch)
    through = run(frozen, pictures, tmp_path / "b")
    assert sum(sizes) > 3 * len(TRAINING)
    torch.testing.assert_close(head_of(kept), head_of(through), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(kept.probabilities, through.probabilities, atol=1e-5)
    for one, other in zip(kept.history.rows, through.history.rows, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


RESNET = {"architecture": Architecture("resnet10t", 2, dropout=0.5, size=SIDE), "recompute_norms": True}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("held_out", [0, 4])
@pytest.mark.parametrize(
    "changes",
    [{}, FROZEN, {**FROZEN, "frozen_norms": False}, {**FROZEN, "augmentation": parse("flip=0.5")}, RESNET],
    ids=["small", "frozen", "frozen-batch", "frozen-augmented", "recompute"],
)
def test_who_watches_test_images_gets_the_same_bits(design, pictures, tmp_path, changes, held_out, precision):
    design = replace(design, precision=precision, **changes)
    store, labels = pictures
    validation, tested = VALIDATION[:held_out], np.arange(16, 20)
    told = [
        fit_fold(design, store, IDS, labels, TRAINING, validation, tested, tmp_path / str(watched), watched=watched)
        for watched in (None, tested, tested[:0])
    ]
    alone, watching, nothing = told
    for other in (watching, nothing):
        assert np.array_equal(alone.probabilities, other.probabilities)
        for name, value in alone.network.state_dict().items():
            assert torch.equal(value, other.network.state_dict()[name]), name
        assert other.history.kept == alone.history.kept
        rows = [{name: row[name] for name in row if not name.startswith("test_")} for row in other.history.rows]
        assert rows == alone.history.rows
    assert "test_loss" not in alone.history.rows[0]
    assert [(row["test_loss"], row["test_accuracy"]) for row in nothing.history.rows] == [(None, None)] * 3
    # The row of the epoch that is kept is what the predictions say, up to the precision of training.
    row = watching.history.rows[watching.history.kept - 1]
    own = watching.probabilities[np.arange(4), labels[tested]]
    assert row["test_loss"] == pytest.approx(-np.log(own).mean(), abs=1e-4 if precision == "fp32" else 0.05)


@pytest.mark.parametrize("augmentation", ["none", "rotate=10"])
@pytest.mark.parametrize("hidden", [0, 8])
def test_a_frozen_backbone_does_not_change(design, pictures, tmp_path, augmentation, hidden):
    architecture = Architecture("resnet10t", 2, hidden=hidden, size=SIDE)
    frozen = replace(design, **{**FROZEN, "augmentation": parse(augmentation), "architecture": architecture})
    fitted = run(frozen, pictures, tmp_path)
    with fitting.local_randomness(design.seed, 1):
        drawn, _ = build(architecture)
    assert all(torch.equal(*pair) for pair in zip(backbone_of(drawn), backbone_of(fitted.network), strict=True))
    assert not all(
        torch.equal(*pair) for pair in zip(drawn.head_parameters(), fitted.network.head_parameters(), strict=True)
    )
    assert fitted.notes["trained_parameters"] < 0.01 * fitted.notes["parameters"]


def test_frozen_norms_that_follow_the_batch_are_not_run_once(design, pictures, tmp_path):
    fitted = run(replace(design, **FROZEN, frozen_norms=False), pictures, tmp_path)
    with fitting.local_randomness(design.seed, 1):
        drawn, _ = build(FROZEN["architecture"])
    assert not torch.equal(fitted.network.timm.bn1.running_mean, drawn.timm.bn1.running_mean)
    assert torch.equal(fitted.network.timm.conv1[0].weight, drawn.timm.conv1[0].weight)


@pytest.mark.parametrize("hidden", [0, 8])
def test_dropout_is_active_when_the_head_alone_is_trained(hidden):
    network, _ = build(Architecture("resnet10t", 2, hidden=hidden, dropout=0.5, size=SIDE))
    head, features = Head(network), torch.rand(4, 512, 1, 1)
    head.train()
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))
    assert torch.equal(head(features), network.eval().classify(features))


def test_what_normalises_behind_the_pooling_keeps_its_statistics():
    network, _ = build(Architecture("mobilenetv4_conv_small", 2, size=SIDE))
    head = Head(network)
    before = network.timm.norm_head.running_mean.clone()
    head.train()
    head(torch.rand(4, 960, 1, 1))
    assert torch.equal(network.timm.norm_head.running_mean, before)


def test_the_head_alone_is_what_a_head_trains():
    network, _ = build(Architecture("resnet10t", 2, size=SIDE))
    network.freeze_backbone()
    assert {id(p) for p in Head(network).parameters()} == {id(p) for p in network.head_parameters()}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopped_and_resumed_it_is_the_same_fold(design, pictures, tmp_path, frozen, precision):
    design = replace(design, precision=precision, **(FROZEN if frozen else {}))
    if frozen:
        design = replace(design, architecture=replace(design.architecture, hidden=8, dropout=0.5))
    straight = run(design, pictures, tmp_path / "a")
    for when in (6, 9, 11) if frozen else (2, 4, 9):
        to_predict = iter(range(10_000))

        def stop(to_predict=to_predict, when=when):
            return StoppedError("stop", 143) if next(to_predict) == when else None

        with pytest.raises(StoppedError):
            run(design, pictures, tmp_path / f"b{when}", stop=stop)
        resumed = run(design, pictures, tmp_path / f"b{when}")
        assert np.array_equal(straight.probabilities, resumed.probabilities)
        assert torch.equal(head_of(straight), head_of(resumed))
        assert straight.history == resumed.history


@pytest.mark.parametrize("frozen", [False, True])
def test_seconds_are_those_of_training_and_not_of_predicting(design, pictures, tmp_path, monkeypatch, frozen):
    design = replace(design, **(FROZEN if frozen else {}))

    class Clock:
        """A second for every look at it."""

        now = 0.0

        @classmethod
        def monotonic(cls):
            cls.now += 1
            return cls.now

    monkeypatch.setattr(fitting, "time", Clock)
    monkeypatch.setattr("cxrtool.training.engine.time", Clock)
    predicted = []

    def forward(*args):
        predicted.append(Clock.now)
        Clock.now += 1000
        return torch.zeros(len(ASKED), 2)

    monkeypatch.setattr(fitting, "forward", forward)
    fitted = run(design, pictures, tmp_path)
    assert 0 < fitted.notes["seconds"] < predicted[0]


def test_seconds_before_an_interruption_count(design, pictures, tmp_path, monkeypatch):
    slow = {"at": 1e6}

    class Clock:
        @staticmethod
        def monotonic():
            slow["at"] += 1
            return slow["at"]

    monkeypatch.setattr("cxrtool.training.engine.time", Clock)
    to_predict = iter(range(10_000))
    with pytest.raises(StoppedError):
        run(design, pictures, tmp_path, stop=lambda: StoppedError("stop", 143) if next(to_predict) == 4 else None)
    saved = slow["at"]
    fitted = run(design, pictures, tmp_path)
    # The clock began at 1e6: all looks at it before the state was saved, and those after, but not the pause between.
    assert saved - 1e6 - 4 <= fitted.history.seconds <= slow["at"] - 1e6
    assert slow["at"] - saved < fitted.history.seconds


@pytest.mark.parametrize(("name", "own"), [("inception_v3", 299), ("covid-xnet", 128)])
def test_a_picture_too_small_for_the_network_is_told(design, pictures, tmp_path, name, own, monkeypatch):
    if name in BUILT_IN:
        # Four poolings leave nothing of 16 pixels minus one.
        monkeypatch.setattr("cxrtool.models.registry.SIZES", range(1, 100))
    small = replace(design, architecture=Architecture(name, 2, size=15 if name in BUILT_IN else 32))
    with pytest.raises(UsageError, match=rf"--size \d+: {name} does not accept images of this size") as caught:
        fit_fold(small, pictures[0], IDS, pictures[1], TRAINING, VALIDATION, ASKED, tmp_path)
    assert str(own) in caught.value.hint


def test_without_images_to_ask_about_there_is_no_answer(design, pictures, tmp_path):
    store, labels = pictures
    nothing = np.array([], np.int64)
    fitted = fit_fold(design, store, IDS, labels, TRAINING, nothing, nothing, tmp_path / "state")
    assert len(fitted.probabilities) == 0
    assert fitted.history.kept == 3


def test_a_network_that_was_put_aside_answers_as_it_did(design, pictures, tmp_path):
    fitted = run(design, pictures, tmp_path)
    again, _ = build(design.architecture)
    again.load_state_dict(fitted.network.state_dict())
    probabilities = fitting.predict(design, again, pictures[0], IDS, ASKED)
    assert np.array_equal(probabilities, fitted.probabilities)
    assert not again.training
    with pytest.raises(StoppedError):
        fitting.predict(design, again, pictures[0], IDS, ASKED, stop=lambda: StoppedError("stop", 143))


def test_capsules_are_trained_and_validated_by_their_margin(design, pictures, tmp_path):
    caps = replace(design, architecture=Architecture("covid-caps", 2, size=SIDE), augmentation=parse("none"))
    caps = replace(caps, recipe=replace(design.recipe, epochs=1, checkpoint="last"))
    fitted = run(caps, pictures, tmp_path)
    store, labels = pictures
    images = torch.from_numpy(store.images[VALIDATION].astype(np.float32) / 255)[:, None].expand(-1, 3, -1, -1)
    with torch.inference_mode():
        logits = fitted.network(images)
    told, target = fitted.history.rows[-1]["validation_loss"], torch.from_numpy(labels[VALIDATION])
    assert told == pytest.approx(float(margin(logits, target, None)))
    assert told != pytest.approx(float(cross_entropy(logits, target, None)))
