import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cxrtool.errors import CxrtoolError, StoppedError, UsageError
from cxrtool.imaging.fits import Form
from cxrtool.training.augment import Augmentation, Augmenter, parse
from cxrtool.training.image_to_image import (
    ImageToImageDesign,
    ImageToImageFit,
    Pairs,
    draw_evenly,
    fit_image_to_image,
    occurrences,
    predict,
)
from cxrtool.training.opacify import Opacify
from cxrtool.training.randomness import image_keys
from cxrtool.training.store import Store

SIDE = 64
IDS = [f"im{k:02}" for k in range(10)]
CPU = torch.device("cpu")


def stores(count=10, dtype=np.uint8):
    """Bright ellipses on noise, and where they are."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    masks = np.stack(
        [(((x - 0.3 - 0.04 * k) / 0.18) ** 2 + ((y - 0.5) / (0.2 + 0.02 * k)) ** 2 < 1) for k in range(count)]
    )
    noise = np.random.default_rng(0).integers(0, 60, masks.shape)
    images = (noise + 150 * masks).astype(dtype)
    sha = [str(k) for k in range(count)]
    return Store(images, sha), Store(masks.astype(np.uint8) * 255, sha)


@pytest.fixture
def design(recipe):
    return ImageToImageDesign(
        "lungs",
        "unet",
        Form(SIDE),
        replace(recipe, epochs=3, batch_size=4, opt="adamw", lr=3e-3, checkpoint="best-loss"),
        parse("rotate=10,shift=0.05,flip=0.5"),
        "none",
        0.0,
        "bce+dice",
        "",
        0.9,
        1,
        7,
        1,
        "cpu",
        "fp32",
    )


@pytest.fixture
def run(design, tmp_path):
    def call(state="state", groups=None, stop=lambda: None, **changes):
        images, targets = stores()
        more = {"save_every": changes.pop("save_every", 1e9), "stop": stop}
        return fit_image_to_image(
            replace(design, **changes),
            images,
            targets,
            IDS,
            np.arange(2, 10),
            np.arange(2),
            groups,
            tmp_path / state,
            **more,
        )

    return call


def equal(one, other):
    first, second = one.module.state_dict(), other.module.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns_where_the_bright_parts_are(run, design):
    fitted = run(recipe=replace(design.recipe, epochs=18), augmentation=Augmentation())
    rows = fitted.history.rows
    assert list(rows[0]) == ["epoch", "lr", "train_loss", "train_dice", "validation_loss", "validation_dice"]
    assert rows[-1]["validation_dice"] > 0.85
    images, targets = stores()
    for k, found in enumerate(predict(design, fitted.module, images, np.arange(10))):
        truth = targets.images[k] > 0
        assert 2 * ((found > 0.5) & truth).sum() / ((found > 0.5).sum() + truth.sum()) > 0.85


def test_stopped_anywhere_and_resumed_it_is_the_same_run(run):
    groups = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    straight = run("straight", groups)
    for when in (1, 3, 4, 5):
        # Two batches an epoch and one of validation, in which the network holds the average of its weights.
        count = itertools.count(1)
        with pytest.raises(StoppedError):
            run(f"stopped{when}", groups, lambda c=count, w=when: StoppedError("stop", 143) if next(c) == w else None)
        resumed = run(f"stopped{when}", groups)
        assert equal(resumed, straight)
        assert resumed.history == straight.history


def test_killed_and_resumed_it_is_the_same_run(run):
    class KilledError(Exception):
        pass

    straight, count = run("straight"), itertools.count(1)

    def die():
        if next(count) == 5:
            raise KilledError

    with pytest.raises(KilledError):
        run("killed", stop=die, save_every=1e-9)
    assert equal(run("killed"), straight)


def test_the_average_is_what_is_validated_and_kept(run):
    plain, averaged = run("plain", average=0.0), run("averaged")
    # Steps are the same; what is kept of them is not.
    assert [row["train_loss"] for row in plain.history.rows] == [row["train_loss"] for row in averaged.history.rows]
    assert plain.history.rows[0]["validation_loss"] != averaged.history.rows[0]["validation_loss"]
    assert not equal(plain, averaged)


def test_picture_and_target_move_by_the_same_map():
    images, _ = stores(4)
    recipe = parse("rotate=20,shift=0.1,shear=0.1,zoom=0.2,stretch=0.2,pad=0.1,flip=0.5")
    pairs = Pairs(images, images, CPU, Augmenter(recipe, image_keys(IDS), 3, SIDE, CPU))
    moved, target = pairs.batch(np.array([0, 1, 2, 0]), np.array([5, 5, 5, 6]))
    assert torch.equal(moved, target)
    still = pairs.batch(np.array([0, 1, 2, 0]), None)[0]
    assert not torch.equal(moved, still)
    # The same image with another number is changed in another way.
    assert not torch.equal(moved[0], moved[3])
    again = pairs.batch(np.array([2, 0]), np.array([5, 5]))[0]
    assert torch.equal(again[1], moved[0])


def test_grey_values_of_the_picture_alone_are_changed():
    images, targets = stores(4)

    class Exposure:
        def __call__(self, pictures, indices, numbers):
            self.to_predict = indices.tolist(), numbers.tolist()
            return pictures * 0

    exposure = Exposure()
    augmenter = Augmenter(parse("contrast=0.3,brightness=0.2,noise=0.1"), image_keys(IDS), 3, SIDE, CPU)
    changed, target = Pairs(images, targets, CPU, augmenter, exposure).batch(np.array([1, 2]), np.array([0, 65536]))
    assert exposure.to_predict == ([1, 2], [0, 65536])
    assert not changed.any()
    assert torch.equal(target[:, 0], torch.from_numpy(targets.images[1:3] / np.float32(255)))
    plain = Pairs(images, targets, CPU, augmenter, exposure).batch(np.array([1, 2]), None)[0]
    torch.testing.assert_close(plain[:, 0], torch.from_numpy(images.images[1:3]).float() / 255)


def test_deep_pictures_beside_masks_of_eight_bits():
    images, targets = stores(2, np.uint16)
    images.images *= 257
    values, target = Pairs(images.to(CPU), targets.to(CPU), CPU).batch(np.array([0, 1]), None)
    assert values.max() <= 1.0
    torch.testing.assert_close(values[:, 0], torch.from_numpy(stores(2)[0].images / np.float32(255)))
    assert target.max() == 1.0


def job(copies=1, groups=None, training=8):
    return ImageToImageFit(
        module=torch.nn.Identity(),
        training=np.arange(100, 100 + training),
        validation=np.arange(0),
        recipe=None,
        device=CPU,
        precision="fp32",
        seed=3,
        state=None,
        kind="lungs",
        pairs=None,
        criterion="bce",
        copies=copies,
        groups=groups,
    )


def test_every_copy_of_an_image_comes_once_with_its_own_number():
    items = job(copies=3).order(2)
    assert sorted(map(tuple, items.tolist())) == [(100 + k, p) for k in range(8) for p in range(3)]
    assert not np.array_equal(items, job(copies=3).order(1))
    assert np.array_equal(items, job(copies=3).order(2))


def test_each_group_gives_as_many_and_none_of_its_members_is_excluded():
    groups = np.array(["real"] * 2 + ["drawn"] * 6)
    taken = np.zeros(200, int)
    for epoch in range(6):
        items = job(groups=groups).order(epoch)
        assert len(items) == 8
        assert (items[:, 0] < 102).sum() == 4
        for place in (100, 101):
            assert sorted(items[items[:, 0] == place, 1].tolist()) == [0, 1]
        np.add.at(taken, items[:, 0], 1)
    # Four a time out of six: after three epochs everybody was there twice, and after six four times.
    assert taken[102:108].tolist() == [4] * 6


def test_a_count_that_does_not_divide_is_given_to_the_first_groups():
    groups = np.array([0, 1, 1, 2])
    chosen = draw_evenly(groups, 5, 0, 1)
    assert np.bincount(groups[chosen]).tolist() == [2, 2, 1]
    assert occurrences(chosen).max() == 1


def test_a_size_that_the_network_cannot_take_is_told(run):
    with pytest.raises(UsageError, match="--size 60: unet cannot take it"):
        run(form=Form(60))


def test_a_loss_that_is_no_number_names_the_images(run, design, monkeypatch):
    monkeypatch.setattr(
        "cxrtool.training.losses.cross_entropy_and_dice", lambda outputs, target: outputs.mean() * math.nan
    )
    with pytest.raises(CxrtoolError, match=r"the loss is not finite, at the images im\d\d, im"):
        run(recipe=replace(design.recipe, checkpoint="last"))


def test_ribs_are_fitted_by_grey_values(design, tmp_path):
    images, _ = stores()
    wanted = Store(np.minimum(images.images, 120).astype(np.uint8), images.sha256)
    told = replace(
        design,
        kind="ribs",
        network="autoencoder",
        loss="mse",
        copies=2,
        average=0.0,
        recipe=replace(design.recipe, epochs=4, lr=1e-2),
    )
    fitted = fit_image_to_image(told, images, wanted, IDS, np.arange(2, 10), np.arange(2), None, tmp_path / "state")
    assert fitted.history.rows[-1]["validation_mse"] < fitted.history.rows[0]["validation_mse"]
    values = next(predict(told, fitted.module, images, np.array([0])))
    assert 0.0 <= values.min() <= values.max() <= 1.0


def test_lungs_are_made_opaque_in_training_alone():
    images, lungs = stores(8)
    opacify = Opacify(1.0, image_keys(IDS), 3, SIDE, CPU)
    augmenter = Augmenter(parse("rotate=20,flip=0.5"), image_keys(IDS), 3, SIDE, CPU)
    indices = np.arange(8)
    plain, outlined = Pairs(images, lungs, CPU, augmenter).batch(indices, indices)
    hazy, same = Pairs(images, lungs, CPU, augmenter, opacify=opacify).batch(indices, indices)
    assert torch.equal(outlined, same)
    assert (hazy - plain).abs()[outlined > 0.9].mean() > 3 * (hazy - plain).abs()[outlined == 0].mean()
    measured = Pairs(images, lungs, CPU, augmenter, opacify=opacify).batch(indices, None)
    assert all(torch.equal(a, b) for a, b in zip(measured, Pairs(images, lungs, CPU).batch(indices, None), strict=True))
