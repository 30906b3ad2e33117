import numpy as np
import pytest
import torch

from cxrtool.errors import CxrtoolError, InputError
from cxrtool.imaging.fits import Form
from cxrtool.models.class_inherent import Generators
from cxrtool.models.parts import save_part
from cxrtool.training.twin_maker import AT_ONCE, TwinMaker, minimal_depth, quantise

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("generators")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = Generators(["b", "a", "c"])
    save_part(place, "generators", "fucitnet", network, Form(16), {}, built_with={"classes": ["b", "a", "c"]})
    return place


def pictures(count, dtype=np.uint8):
    return list(np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (count, 16, 16), dtype, endpoint=True))


def test_each_picture_has_a_twin_of_every_generator_in_their_order(folder):
    maker = TwinMaker(folder, CPU)
    assert (maker.names, maker.form.size) == (["b", "a", "c"], 16)
    given = pictures(3)
    with torch.no_grad():
        expected = maker.network(torch.from_numpy(np.stack(given)[:, None] / np.float32(255)))
    for k, twins in enumerate(maker.make(given)):
        for g, twin in enumerate(twins):
            assert twin.dtype == np.uint8
            assert twin.shape == (16, 16, 3)
            np.testing.assert_allclose(twin / 255, expected[g, k].movedim(0, -1), atol=0.5 / 255 + 1e-4)


def test_a_twin_does_not_depend_on_what_is_beside_its_picture(folder):
    maker = TwinMaker(folder, CPU)
    given = pictures(AT_ONCE + 3)
    whole = maker.make(given)
    for k in (0, AT_ONCE - 1, AT_ONCE, AT_ONCE + 2):
        alone = maker.make(given[k : k + 1])[0]
        assert all((one == other).all() for one, other in zip(alone, whole[k], strict=True))


def test_depths_may_be_mixed_and_a_deepened_picture_is_as_the_shallow_one(folder):
    maker = TwinMaker(folder, CPU)
    shallow, deep = pictures(1)[0], pictures(1, np.uint16)[0]
    one, other, again = maker.make([shallow, deep, shallow.astype(np.uint16) * 257])
    assert all(twin.dtype == np.uint8 for twin in (*one, *again))
    assert all(twin.dtype == np.uint16 and (twin % 257).any() for twin in other)
    assert all((first == second).all() for first, second in zip(one, again, strict=True))


def test_levels_are_rounded_and_cut_off_not_wrapped():
    values = np.array([-3.0, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 1.01, 700.0], np.float32)
    assert quantise(values, np.uint8).tolist() == [0, 0, 0, 1, 255, 255, 255]
    assert quantise(values, np.uint16).tolist() == [0, 0, 103, 154, 65535, 65535, 65535]
    assert minimal_depth(np.zeros((2, 2), np.uint16)).dtype == np.uint8


def test_too_little_memory_halves_the_batch_and_then_says_so(folder, monkeypatch):
    maker = TwinMaker(folder, CPU)
    given = pictures(4)
    whole = maker.make(given)
    sizes = []

    def scarce(limit):
        original = maker.network.forward

        def forward(images):
            sizes.append(len(images))
            if len(images) > limit:
                raise torch.OutOfMemoryError
            return original(images)

        return forward

    with monkeypatch.context() as patch:
        patch.setattr(maker.network, "forward", scarce(1))
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
        halved = maker.make(given)
        assert sizes == [8, 4, 2] + [1] * 8
        assert all(
            (a == b).all() for one, other in zip(whole, halved, strict=True) for a, b in zip(one, other, strict=True)
        )
    with monkeypatch.context() as patch:
        patch.setattr(maker.network, "forward", scarce(0))
        with pytest.raises(CxrtoolError, match="does not suffice for one image"):
            maker.make(given[:1])


def test_a_part_of_another_kind_is_refused(folder, lung_part):
    with pytest.raises(InputError, match="expected a part for generators"):
        TwinMaker(lung_part, CPU)
