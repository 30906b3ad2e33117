import json
import shutil

import pytest
import torch

from cxrtool.errors import InputError, UsageError
from cxrtool.imaging.fits import Form
from cxrtool.models import parts
from cxrtool.models.lungs import NETWORKS


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    module = NETWORKS["unet"].build().eval()
    parts.save_part(tmp_path / "part", "lungs", "unet", module, Form(64), {"trained": {"images": 3}})
    return tmp_path / "part", module


def test_a_part_comes_back_as_it_was_saved(saved):
    folder, module = saved
    part = parts.read_part(folder, "lungs")
    assert (part.kind, part.network, part.form) == ("lungs", "unet", Form(64))
    assert part.description["trained"] == {"images": 3}
    assert not part.shipped
    assert part.identity() == {"kind": "lungs", "network": "unet", "sha256": part.sha256}
    images = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(parts.load_network(folder, "lungs")(images), module(images))


@pytest.mark.parametrize(("bits", "size", "reach"), [(16, 0.52, 0.02), (8, 0.27, 0.2)])
def test_fewer_bits_make_the_file_smaller_and_change_little(saved, tmp_path, bits, size, reach):
    folder, module = saved
    parts.save_part(tmp_path / "small", "lungs", "unet", module, Form(64), {}, bits=bits)
    sizes = [(place / parts.PART_WEIGHTS).stat().st_size for place in (folder, tmp_path / "small")]
    assert sizes[1] < size * sizes[0]
    loaded = parts.load_network(tmp_path / "small", "lungs")
    assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
    images = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(loaded(images), module(images), atol=reach)


def test_what_is_done_around_the_weights_is_part_of_the_identity(saved, tmp_path):
    folder, module = saved
    parts.save_part(tmp_path / "other", "lungs", "unet", module, Form(128), {})
    assert parts.read_part(tmp_path / "other", "lungs").sha256 != parts.read_part(folder, "lungs").sha256
    parts.save_part(tmp_path / "same", "lungs", "unet", module, Form(64), {"told": "otherwise"})
    assert parts.read_part(tmp_path / "same", "lungs").sha256 == parts.read_part(folder, "lungs").sha256


def damage_weights(folder):
    data = bytearray((folder / parts.PART_WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / parts.PART_WEIGHTS).write_bytes(bytes(data))


def change_form(folder):
    content = json.loads((folder / parts.PART).read_text())
    content["form"]["size"] = 128
    (folder / parts.PART).write_text(json.dumps(content))


def cut(folder):
    (folder / parts.PART).write_text("{")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (damage_weights, "damaged"),
        (change_form, "damaged"),
        (cut, "not readable JSON"),
        (lambda folder: (folder / parts.PART_WEIGHTS).unlink(), "found none"),
        (lambda folder: (folder / parts.PART).write_text("[]"), "expected a part for lungs"),
    ],
)
def test_a_damaged_part_is_refused(saved, tmp_path, harm, told):
    folder = shutil.copytree(saved[0], tmp_path / "harmed")
    harm(folder)
    with pytest.raises(InputError, match=told):
        parts.read_part(folder, "lungs")


def test_a_part_of_another_kind_is_refused(saved):
    with pytest.raises(InputError, match="expected a part for ribs of schema 1, found one for 'lungs'"):
        parts.read_part(saved[0], "ribs")


def test_an_unknown_kind_and_network_are_named(saved, tmp_path):
    with pytest.raises(UsageError, match="expected one of lungs, opacities, ribs, generators, found 'hearts'"):
        parts.networks("hearts")
    parts.save_part(tmp_path / "future", "lungs", "unet-of-tomorrow", saved[1], Form(64), {})
    with pytest.raises(InputError, match="found 'unet-of-tomorrow'"):
        parts.load_network(tmp_path / "future", "lungs")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    parts.save_part(tmp_path / "part", "lungs", "unet", torch.nn.Linear(2, 2), Form(64), {})
    with pytest.raises(InputError, match="cannot be loaded"):
        parts.load_network(tmp_path / "part", "lungs")
