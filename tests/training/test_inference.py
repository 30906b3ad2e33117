import numpy as np
import pytest
import torch
from torch import nn

from cxrtool.errors import CxrtoolError, InputError
from cxrtool.models.architecture import Architecture
from cxrtool.models.description import ModelDescription
from cxrtool.models.registry import build, input_form
from cxrtool.training.checkpoint import save_model
from cxrtool.training.inference import Ensemble

CPU = torch.device("cpu")
SIDE = 32


def model(folder, seed=0, name="covid-xnet", **changes):
    torch.manual_seed(seed)
    architecture = Architecture(name, 2, size=SIDE)
    network, _ = build(architecture)
    description = {
        "classes": ["a", "b"],
        "architecture": architecture.to_json(),
        "chain": [],
        "input": {"size": SIDE, "fit": "squash"},
        "normalization": input_form(name, "native"),
        **changes,
    }
    save_model(folder, network, ModelDescription.from_json({"schema": 1, **description}, folder))
    return folder


def pictures(count=5, dtype=np.uint8):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (count, SIDE, SIDE), dtype)
    return list(values)


def test_an_ensemble_answers_as_its_members_do(tmp_path):
    folders = [model(tmp_path / f"r0f{i}", seed=i) for i in range(3)]
    together = Ensemble(folders, CPU).predict(pictures())
    assert together.shape == (3, 5, 2)
    np.testing.assert_allclose(together.sum(2), 1, atol=1e-12)
    for index, folder in enumerate(folders):
        assert np.array_equal(Ensemble([folder], CPU).predict(pictures())[0], together[index])
    assert not np.allclose(together[0], together[1])


def test_answers_are_the_softmax_of_the_network(tmp_path):
    ensemble = Ensemble([model(tmp_path / "m", name="resnet10t")], CPU)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = torch.from_numpy(np.stack(pictures()).astype(np.float64) / 255)[:, None]
    inputs = (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = torch.softmax(ensemble.members[0].classifier.network.double()(inputs), 1)
    ensemble.members[0].classifier.network.float()
    np.testing.assert_allclose(ensemble.predict(pictures())[0], expected.numpy(), atol=1e-5)


def test_depths_do_not_influence_each_other(tmp_path):
    ensemble = Ensemble([model(tmp_path / "m")], CPU)
    flat, deep = pictures(), pictures(dtype=np.uint16)
    mixed = ensemble.predict([flat[0], deep[0], flat[1], deep[1]])[0]
    np.testing.assert_allclose(mixed[[0, 2]], ensemble.predict(flat[:2])[0], atol=1e-6)
    np.testing.assert_allclose(mixed[[1, 3]], ensemble.predict(deep[:2])[0], atol=1e-6)
    widened = [picture.astype(np.uint16) * 257 for picture in flat]
    np.testing.assert_allclose(ensemble.predict(widened), ensemble.predict(flat), atol=1e-6)


def test_a_picture_s_answer_does_not_depend_on_its_neighbours(tmp_path):
    ensemble = Ensemble([model(tmp_path / "m", name="resnet10t")], CPU)
    together = ensemble.predict(pictures())[0]
    for index, picture in enumerate(pictures()):
        np.testing.assert_allclose(ensemble.predict([picture])[0, 0], together[index], atol=1e-6)


def test_mirrored_averages_with_the_mirror_image(tmp_path):
    ensemble = Ensemble([model(tmp_path / "m")], CPU)
    turned = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures()]
    expected = (ensemble.predict(pictures()) + ensemble.predict(turned)) / 2
    found = ensemble.predict(pictures(), mirrored=True)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert not np.allclose(found, ensemble.predict(pictures()), atol=1e-7)
    np.testing.assert_allclose(found, ensemble.predict(turned, mirrored=True), atol=1e-7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", ["b", "a"]),
        ("chain", [{"step": "prepare", "size": 64, "fit": "squash"}]),
        ("input", {"size": SIDE, "fit": "pad"}),
    ],
)
def test_members_that_differ_are_refused(tmp_path, name, value):
    folders = [model(tmp_path / "r0f0"), model(tmp_path / "r0f1", **{name: value})]
    with pytest.raises(InputError, match=rf"r0f1: expected the same {name} as in .*r0f0"):
        Ensemble(folders, CPU)


def test_members_may_be_different_networks(tmp_path):
    folders = [model(tmp_path / "r0f0"), model(tmp_path / "r0f1", name="resnet10t")]
    assert Ensemble(folders, CPU).predict(pictures()).shape == (2, 5, 2)


def test_bf16_is_close(tmp_path):
    folder = model(tmp_path / "m")
    exact, quick = (Ensemble([folder], CPU, precision).predict(pictures()) for precision in ("fp32", "bf16"))
    assert not np.array_equal(exact, quick)
    np.testing.assert_allclose(quick, exact, atol=0.02)


class Narrow(nn.Module):
    def __init__(self, network, most):
        super().__init__()
        self.network, self.most = network, most

    def forward(self, images):
        if len(images) > self.most:
            raise torch.OutOfMemoryError
        return self.network(images)


def test_what_memory_does_not_hold_is_asked_in_halves(tmp_path):
    ensemble = Ensemble([model(tmp_path / "m")], CPU)
    expected = ensemble.predict(pictures())
    member = ensemble.members[0]
    whole = member.classifier.network
    member.classifier.network = Narrow(whole, 2)
    np.testing.assert_allclose(ensemble.predict(pictures()), expected, atol=1e-6)
    member.classifier.network = Narrow(whole, 0)
    with pytest.raises(CxrtoolError, match="does not suffice for one image"):
        ensemble.predict(pictures())


def test_an_image_has_the_same_probabilities_alone_and_among_others(tmp_path):
    ensemble = Ensemble([model(tmp_path / "r0f0")], CPU)
    images = pictures(7)
    together = ensemble.predict(images)
    alone = np.concatenate([ensemble.predict([image]) for image in images], axis=1)
    assert np.array_equal(together, alone)
    assert np.array_equal(
        together, np.concatenate([ensemble.predict(images[:3]), ensemble.predict(images[3:])], axis=1)
    )
