import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cxrtool.errors import UsageError
from cxrtool.training import augment
from cxrtool.training.augment import DRAWS, LIMITS, Augmentation, Augmenter, matrices, parse
from cxrtool.training.randomness import image_keys, uniforms

SIZE = 16
CPU = torch.device("cpu")


def pictures(count=4, size=SIZE, low=0.0, high=1.0):
    """Noise: the hardest of pictures to resample."""
    generator = np.random.default_rng(5)
    return torch.from_numpy(generator.uniform(low, high, (count, 1, size, size)).astype(np.float32))


def augmenter(text, count=4, seed=3, size=SIZE):
    return Augmenter(parse(text), image_keys([f"im{i}" for i in range(count)]), seed, size, CPU)


def apply(text, images, epoch=0, seed=3):
    count, size = len(images), images.shape[-1]
    return augmenter(text, count, seed, size)(images, np.arange(count), epoch)


def draw(monkeypatch, **chosen):
    """Let every random number be 0.5, which is neutral, but for those chosen."""
    row = np.array([[chosen.get(name, 0.5) for name in DRAWS]])
    monkeypatch.setattr(augment, "uniforms", lambda keys, *more, **other: np.repeat(row, len(keys), 0))


def oracle(image, angle=0.0, shift=(0.0, 0.0), shear=0.0, magnification=1.0, flip=False, cut=0.0, place=(0.5, 0.5)):
    """The same map in pixels and matrices, sampled by scipy."""
    size = image.shape[-1]
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    slant = np.array([[1.0, shear], [0.0, 1.0]])
    mirror = np.diag([-1.0 if flip else 1.0, 1.0])
    matrix = rotation @ slant @ mirror * (1 - cut) / magnification
    centre = np.full(2, (size - 1) / 2)
    moved = size * np.array(shift) + size * cut * (np.array(place) - 0.5)
    offset = centre + moved - matrix @ centre
    # scipy counts rows first.
    return ndimage.affine_transform(image, matrix[::-1, ::-1], offset[::-1], order=1, mode="nearest")


@pytest.mark.parametrize("text", ["", "none", "rotate=0,noise=0", "p=0.3"])
def test_nothing_asked_nothing_done(text):
    images = pictures()
    assert apply(text, images) is images
    assert str(parse(text)) == "none"


def test_a_shut_gate_leaves_an_image_as_it_is():
    images = pictures()
    changed = apply("rotate=90,shift=0.5,shear=1,zoom=0.5,crop=0.5,brightness=0.5,contrast=0.5,noise=0.5,p=0", images)
    torch.testing.assert_close(changed, images, atol=1e-5, rtol=0)


def test_a_flip_mirrors_left_and_right():
    images = pictures()
    torch.testing.assert_close(apply("flip=1", images), images.flip(3), atol=1e-6, rtol=0)


def test_a_quarter_turn(monkeypatch):
    images = pictures()
    draw(monkeypatch, angle=1.0)
    torch.testing.assert_close(apply("rotate=90", images), torch.rot90(images, 1, (2, 3)), atol=1e-5, rtol=0)
    draw(monkeypatch, angle=0.0)
    torch.testing.assert_close(apply("rotate=90", images), torch.rot90(images, -1, (2, 3)), atol=1e-5, rtol=0)


def test_a_shift_is_a_share_of_the_side_and_repeats_the_border(monkeypatch):
    images = pictures()
    draw(monkeypatch, shift_x=1.0)
    expected = torch.cat([images[..., 4:], images[..., -1:].expand(-1, -1, -1, 4)], 3)
    torch.testing.assert_close(apply("shift=0.25", images), expected, atol=1e-5, rtol=0)
    draw(monkeypatch, shift_y=0.0)
    expected = torch.cat([images[:, :, :1].expand(-1, -1, 2, -1), images[:, :, :-2]], 2)
    torch.testing.assert_close(apply("shift=0.125", images), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("chosen", "factor"), [(1.0, 2.0), (0.0, 0.5)])
def test_zoom_magnifies_about_the_centre(monkeypatch, chosen, factor):
    image = torch.zeros(1, 1, 64, 64)
    image[..., 24:40, 24:40] = 1.0
    # A magnification of 2 needs a reach of 1; of 0.5, one of 0.5.
    recipe = Augmentation(zoom=1.0 if chosen else 0.5)
    draw(monkeypatch, zoom=chosen)
    changed = Augmenter(recipe, image_keys(["a"]), 0, 64, CPU)(image, np.arange(1), 0)
    assert float(changed.sum()) == pytest.approx(256 * factor**2, rel=0.01)
    assert changed[0, 0, 32, 32] == 1.0


def test_a_crop_enlarges_a_window_at_the_place_that_was_drawn(monkeypatch):
    images = pictures()
    draw(monkeypatch, crop=1.0, crop_x=1.0, crop_y=0.0)
    changed = apply("crop=0.5", images)
    # The window is the upper right quarter; its pixels' centres are sampled at quarters.
    expected = oracle(images[0, 0].numpy(), cut=0.5, place=(1.0, 0.0))
    np.testing.assert_allclose(changed[0, 0].numpy(), expected, atol=1e-5)
    quarter = torch.nn.functional.interpolate(images[..., :8, 8:], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(changed[..., :15, 1:], quarter[..., :15, 1:], atol=1e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_composed_map_equals_an_independent_one(data):
    share = st.floats(0, 1, exclude_max=True, width=32)
    values = {name: data.draw(share, name) for name in DRAWS}
    recipe = Augmentation(
        rotate=data.draw(st.floats(0, 180)),
        shift=data.draw(st.floats(0, 0.5)),
        shear=data.draw(st.floats(0, 1)),
        zoom=data.draw(st.floats(0, 0.9)),
        crop=data.draw(st.floats(0, 0.9)),
        flip=data.draw(st.floats(0, 1)),
        p=data.draw(st.sampled_from([1.0, 0.5])),
    )

    def drawn(name, reach, gate):
        return (2 * values[name] - 1) * reach if values[f"gate_{gate}"] < recipe.p else 0.0

    image = ndimage.gaussian_filter(pictures(1)[0, 0].numpy(), 1.0)
    expected = oracle(
        image,
        angle=drawn("angle", recipe.rotate, "rotate"),
        shift=(drawn("shift_x", recipe.shift, "shift"), drawn("shift_y", recipe.shift, "shift")),
        shear=drawn("shear", recipe.shear, "shear"),
        magnification=1 + drawn("zoom", recipe.zoom, "zoom"),
        flip=values["flip"] < recipe.flip,
        cut=values["crop"] * recipe.crop if values["gate_crop"] < recipe.p else 0.0,
        place=(values["crop_x"], values["crop_y"]),
    )
    row = np.array([[values[name] for name in DRAWS]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "uniforms", lambda keys, *more, **other: row)
        maker = Augmenter(recipe, image_keys(["a"]), 0, SIZE, CPU)
        changed = maker(torch.from_numpy(image)[None, None], np.arange(1), 0)
    np.testing.assert_allclose(changed[0, 0].numpy(), expected, atol=2e-5)


def keras_map(size, theta, tx, ty, shear, zx, zy, mirrored):
    """What Keras' ImageDataGenerator gives `affine_transform` (angles in degrees, rows first), and its flip."""
    theta, shear = np.deg2rad((theta, shear))
    rotation = [[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]]
    shift = [[1, 0, tx * size], [0, 1, ty * size], [0, 0, 1]]
    shearing = [[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]]
    zoom = np.diag([zx, zy, 1.0])
    centre = size / 2 - 0.5
    there, back = ([[1, 0, s * centre], [0, 1, s * centre], [0, 0, 1]] for s in (1, -1))
    whole = np.linalg.multi_dot(list(map(np.array, (there, rotation, shift, shearing, zoom, back))))
    # Keras flips the result, which is to read it from its last column.
    flip = np.array([[1, 0, 0], [0, -1, size - 1], [0, 0, 1]]) if mirrored else np.eye(3)
    return whole @ flip


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_keras_maps_are_those_of_its_generator(data):
    share = st.floats(0, 1, exclude_max=True, width=32)
    values = {name: data.draw(share, name) for name in DRAWS}
    reach = {
        "rotate": data.draw(st.floats(0, 90)),
        "shift": data.draw(st.floats(0, 0.4)),
        "shear": data.draw(st.floats(0, 1)),
        "zoom": data.draw(st.floats(0, 0.5)),
        "flip": data.draw(st.floats(0, 1)),
    }

    def drawn(name, largest):
        return (2 * values[name] - 1) * largest

    matrix = keras_map(
        SIZE,
        theta=drawn("angle", reach["rotate"]),
        tx=drawn("shift_y", reach["shift"]),
        ty=drawn("shift_x", reach["shift"]),
        shear=drawn("shear", np.rad2deg(np.arctan(reach["shear"]))),
        zx=1 + drawn("zoom", reach["zoom"]),
        zy=1 + drawn("zoom_x", reach["zoom"]),
        mirrored=values["flip"] < reach["flip"],
    )
    image = ndimage.gaussian_filter(pictures(1)[0, 0].numpy(), 1.0)
    expected = ndimage.affine_transform(image, matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest")
    with pytest.MonkeyPatch.context() as patch:
        draw(patch, **values)
        maker = Augmenter(Augmentation(**reach, keras=1), image_keys(["a"]), 0, SIZE, CPU)
        changed = maker(torch.from_numpy(image)[None, None], np.arange(1), 0)
    np.testing.assert_allclose(changed[0, 0].numpy(), expected, atol=2e-5)


def test_keras_zooms_each_axis_by_itself_and_moves_columns():
    draws = {name: np.full(1, 0.5) for name in DRAWS}
    zoomed = matrices(parse("zoom=0.2,keras=1"), draws | {"zoom": np.ones(1), "zoom_x": np.zeros(1)})[0]
    np.testing.assert_allclose(zoomed, [[0.8, 0, 0], [0, 1.2, 0]], atol=1e-12)
    sheared = matrices(parse("shear=0.2,keras=1"), draws | {"shear": np.ones(1)})[0]
    # 0.2 is the tangent of the angle, not degrees: a column is moved by a fifth of its distance from the centre.
    assert -sheared[1, 0] / sheared[0, 0] == pytest.approx(0.2)
    np.testing.assert_allclose(sheared[:, 1:], [[0, 0], [1, 0]], atol=1e-12)


EVERYTHING = "rotate=30,shift=0.1,shear=0.2,zoom=0.2,crop=0.1,flip=0.5,brightness=0.1,contrast=0.2,blur=1,noise=0.05"


@pytest.mark.parametrize("text", [EVERYTHING, EVERYTHING + ",p=0.5", EVERYTHING + ",keras=1"])
def test_a_picture_depends_on_seed_epoch_and_image_alone(text):
    images = pictures(12)
    maker = augmenter(text, 12)
    whole = maker(images, np.arange(12), 5)
    order = np.array([7, 0, 11, 3])
    some = augmenter(text, 12)(images[torch.from_numpy(order)], order, 5)
    torch.testing.assert_close(some, whole[torch.from_numpy(order)], atol=1e-6, rtol=0)
    # Back from another epoch, it is the same again.
    maker(images, np.arange(12), 6)
    assert torch.equal(maker(images, np.arange(12), 5), whole)
    # In a manifest with other neighbours, too.
    fewer = Augmenter(parse(text), image_keys(["stranger", "im7"]), 3, SIZE, CPU)
    torch.testing.assert_close(fewer(images[7:8], np.array([1]), 5), whole[7:8], atol=1e-6, rtol=0)


@pytest.mark.parametrize("text", ["rotate=30", "shift=0.3", "flip=0.5", "brightness=0.2", "noise=0.1", "contrast=0.5"])
def test_epochs_seeds_and_images_differ(text):
    images = pictures(1, low=0.3, high=0.6).expand(12, -1, -1, -1).contiguous()
    first = apply(text, images)
    assert len({first[i].numpy().tobytes() for i in range(12)}) > 1
    assert not torch.equal(first, apply(text, images, epoch=1))
    assert not torch.equal(first, apply(text, images, seed=4))


def test_switching_one_option_on_does_not_move_another():
    images = pictures(8, low=0.3, high=0.7)
    turned, brightened = apply("rotate=30", images), apply("brightness=0.1", images)
    both = apply("rotate=30,brightness=0.1,p=1", images)
    torch.testing.assert_close(both - turned, brightened - images, atol=1e-6, rtol=0)
    assert len(set((brightened - images).mean((1, 2, 3)).tolist())) == 8
    mirrored = apply("rotate=30,flip=1", images)
    torch.testing.assert_close(mirrored, turned.flip(3), atol=1e-5, rtol=0)
    some = apply("flip=0.5", images), apply("flip=0.5,noise=0.000001", images)
    torch.testing.assert_close(*some, atol=1e-4, rtol=0)


def test_contrast_keeps_the_mean_and_brightness_moves_it(monkeypatch):
    images = pictures(low=0.4, high=0.6)
    draw(monkeypatch, contrast=1.0, brightness=0.0)
    stronger = apply("contrast=0.5", images)
    mean = images.mean((2, 3), keepdim=True)
    torch.testing.assert_close(stronger, (images - mean) * 1.5 + mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(apply("brightness=0.2", images), images - 0.2, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_blur_is_opencv_s_9_by_9(sigma):
    images = pictures(2)
    expected = [cv2.GaussianBlur(i[0], (9, 9), sigma, borderType=cv2.BORDER_REPLICATE) for i in images.numpy()]
    np.testing.assert_allclose(apply(f"blur={sigma}", images)[:, 0].numpy(), expected, atol=1e-5)


def test_noise_has_its_deviation_and_is_each_image_s_own():
    images = torch.full((20, 1, 32, 32), 0.5)
    noise = apply("noise=0.05", images) - images
    assert float(noise.std()) == pytest.approx(0.05, rel=0.03)
    assert abs(float(noise.mean())) < 0.002
    flat = noise.view(20, -1).numpy()
    assert np.abs(np.corrcoef(flat) - np.eye(20)).max() < 0.2


def test_p_is_the_share_of_images_that_are_changed():
    images = pictures(1, low=0.3, high=0.6).expand(400, -1, -1, -1).contiguous()
    for text in ("brightness=0.2", "noise=0.1", "blur=2", "contrast=0.5"):
        changed = (apply(f"{text},p=0.3", images) - images).abs().amax((1, 2, 3)) > 1e-6
        assert 0.2 < float(changed.float().mean()) < 0.4, text


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(LIMITS)), st.floats(0, 1), min_size=1), st.integers(0, 5))
def test_values_stay_between_black_and_white(shares, epoch):
    recipe = Augmentation(**{name: share * LIMITS[name] for name, share in shares.items()})
    images = pictures(3)
    changed = Augmenter(recipe, image_keys(["a", "b", "c"]), 1, SIZE, CPU)(images, np.arange(3), epoch)
    assert changed.shape == images.shape
    assert torch.isfinite(changed).all()
    assert changed.min() >= -1e-6
    assert changed.max() <= 1 + 1e-6


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(LIMITS)), st.floats(0, 1)))
def test_an_augmentation_survives_as_text(shares):
    values = {name: share * LIMITS[name] for name, share in shares.items()}
    recipe = Augmentation(**(values | ({"keras": 1.0} if values.get("keras") else {})))
    assert parse(str(recipe)) == (recipe if recipe.active else Augmentation())


def test_text_is_read_with_spaces():
    assert parse(" rotate=15 , flip=0.5,") == Augmentation(rotate=15, flip=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spin=3", "--augment: expected rotate, shift, .*, found 'spin'"),
        ("rotate", "--augment rotate: expected a number from 0 to 180, found ''"),
        ("rotate=fast", "--augment rotate: .* found 'fast'"),
        ("rotate=-5", "--augment rotate: .* found '-5'"),
        ("flip=1.5", "--augment flip: expected a number from 0 to 1, found '1.5'"),
        ("zoom=1", "--augment zoom: expected a number from 0 to 0.95"),
        ("noise=nan", "--augment noise"),
        ("shift=inf", "--augment shift"),
        ("p=2", "--augment p"),
        ("keras=0.5", "--augment keras: expected 0 or 1, found '0.5'"),
    ],
)
def test_a_wrong_text_is_refused_with_the_option(text, message):
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_the_numbers_of_older_names_stay_where_they_were():
    # Appended names only: an augmentation gives the same bytes as before.
    assert DRAWS[-5:] == ("stretch", "gate_stretch", "pad", "gate_pad", "zoom_x")
    assert DRAWS.index("stretch") == 21


def test_stretch_and_pad_leave_the_other_draws_where_they_were():
    draws = dict(zip(DRAWS, uniforms(image_keys(["a", "b"]), 3, len(DRAWS), 1, stream=1).T, strict=True))
    before = uniforms(image_keys(["a", "b"]), 3, DRAWS.index("stretch"), 1, stream=1)
    assert all(np.array_equal(draws[name], before[:, k]) for k, name in enumerate(DRAWS[: before.shape[1]]))
    plain, more = Augmentation(rotate=10, zoom=0.2), Augmentation(rotate=10, zoom=0.2, stretch=0.3)
    one, other = matrices(plain, draws), matrices(more, draws)
    assert np.array_equal(one[:, :, 0], other[:, :, 0])
    factor = 1 / (1 + 0.3 * (2 * draws["stretch"] - 1))
    np.testing.assert_allclose(other[:, :, 1], one[:, :, 1] * factor[:, None])


def test_a_border_is_added_at_every_edge():
    draws = {name: np.full(1, 0.5) for name in DRAWS} | {"pad": np.ones(1)}
    matrix = matrices(Augmentation(pad=0.25), draws)[0]
    # A quarter of the side on each edge: the picture fills the inner two thirds.
    np.testing.assert_allclose(matrix, [[1.5, 0, 0], [0, 1.5, 0]], atol=1e-12)
