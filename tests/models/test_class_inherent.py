import pytest
import torch

from cxrtool.models.class_inherent import MEAN, STD, Generator, Generators, standardise, to_pictures
from cxrtool.models.parts import load_network, networks, read_part, save_part


def test_a_generator_has_the_weights_of_the_reference():
    counted = sum(parameter.numel() for parameter in Generator().parameters())
    assert counted == 387_913
    assert sum(isinstance(module, torch.nn.PReLU) for module in Generator().modules()) == 6
    assert sum(module.num_parameters for module in Generator().modules() if isinstance(module, torch.nn.PReLU)) == 6


def test_generators_keep_the_size_and_stay_between_black_and_white():
    torch.manual_seed(0)
    generators = Generators(["covid", "normal", "pneumonia"]).eval()
    for parameter in generators.parameters():
        parameter.data.mul_(3)
    made = generators(torch.rand(2, 1, 24, 40))
    assert made.shape == (3, 2, 3, 24, 40)
    assert made.min() >= 0
    assert made.max() <= 1
    assert (made == 0).any() or (made == 1).any()


def test_standardised_and_back_is_what_it_was_in_every_channel():
    images = torch.rand(2, 1, 8, 8)
    given = standardise(images)
    assert given.shape == (2, 3, 8, 8)
    assert given[0, 0, 0, 0].item() == pytest.approx((images[0, 0, 0, 0].item() - MEAN) / STD, abs=1e-5)
    torch.testing.assert_close(to_pictures(given), images.expand(2, 3, 8, 8))


def test_the_channels_of_a_generator_are_kept_apart():
    torch.manual_seed(0)
    generators = Generators(["a", "b"]).eval()
    images = torch.rand(2, 1, 16, 16)
    with torch.inference_mode():
        made = generators(images)
        for k, member in enumerate(generators.members):
            expected = (member(((images - MEAN) / STD).repeat(1, 3, 1, 1)) * STD + MEAN).clamp(0, 1)
            torch.testing.assert_close(made[k], expected)
    assert (made[:, :, 0] - made[:, :, 1]).abs().max() > 1e-3


def test_the_order_of_the_classes_is_part_of_what_a_set_is_known_by(tmp_path):
    known = networks("generators")["fucitnet"]
    torch.manual_seed(0)
    module = Generators(["a", "b"])
    for folder, classes in (("one", ["a", "b"]), ("other", ["b", "a"])):
        save_part(tmp_path / folder, "generators", "fucitnet", module, known.form, {}, built_with={"classes": classes})
    assert read_part(tmp_path / "one", "generators").sha256 != read_part(tmp_path / "other", "generators").sha256
    loaded = load_network(tmp_path / "other", "generators")
    assert loaded.classes == ["b", "a"]
    images = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(loaded(images), module.eval()(images))
