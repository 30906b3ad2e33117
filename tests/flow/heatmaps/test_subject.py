import numpy as np
import pytest
import torch

from cxrtool.data.tables.manifest import read_manifest
from cxrtool.errors import CxrtoolError, UsageError
from cxrtool.explaining.cam import GradCam, upsample
from cxrtool.explaining.randomised import DRAWS, STAGES
from cxrtool.flow.heatmaps.drawing import Task, View
from cxrtool.flow.heatmaps.subject import Subject, chooser, class_index
from cxrtool.training.checkpoint import load_model

CPU = torch.device("cpu")
LOGITS = torch.tensor([[1.0, 5.0, 3.0], [9.0, 2.0, 4.0]])


@pytest.fixture
def subject(train_study, study):
    run = train_study(study, size=32, epochs=1)
    return Subject.load(run / "r0f0", [study.folder / "im000.png"], "study", ("grad-cam",), None, CPU)


@pytest.fixture
def views(subject, study):
    rows = read_manifest(study.folder).rows
    tasks = [Task(row["path"], "") for row in rows[:5]] + [Task("/nowhere.png", "")]
    return [pair for batch in subject.views(tasks, 4, 1, None) for pair in batch]


@pytest.mark.parametrize(
    ("target", "expected"), [("predicted", [1, 0]), ("opposite", [2, 2]), ("b", [1, 1]), ("c", [2, 2])]
)
def test_the_class_that_is_asked_about(target, expected):
    assert chooser(target, ["a", "b", "c"])(LOGITS).tolist() == expected


def test_of_two_classes_the_opposite_is_the_other():
    assert chooser("opposite", ["a", "b"])(LOGITS[:, :2]).tolist() == [0, 1]


def test_an_unknown_class_names_the_nearest():
    message = r"--target: expected one of predicted, opposite, covid, normal, found 'covdi'; did you mean 'covid'\?"
    with pytest.raises(UsageError, match=message):
        chooser("covdi", ["covid", "normal"])
    with pytest.raises(UsageError, match=r"--positive: expected one of a, b, found 'zebra'$"):
        class_index("--positive", "zebra", ["a", "b"])


def test_images_come_in_order_and_what_cannot_be_read_in_its_place(views):
    assert [index for index, _ in views] == list(range(6))
    assert all(isinstance(view, View) for _, view in views[:5])
    assert views[5][1].message == "no such file"


def test_the_maps_are_those_of_the_network_at_its_input_s_size(subject, views):
    pictures = [view.pixels for _, view in views[:5]]
    answer = subject.explain(pictures, chooser("normal", subject.classes))
    network, description = load_model(subject.folder)
    form = description.normalization
    images = torch.from_numpy(np.stack(pictures)[:, None] / np.float32(255))
    images = ((images - form.mean[0]) / form.std[0]).float()
    found = GradCam(network, images)(images, lambda logits: torch.ones(5, dtype=torch.int64))
    np.testing.assert_allclose(answer.maps, upsample(found.values, 32), atol=1e-6)
    np.testing.assert_allclose(answer.probabilities, torch.softmax(found.logits.double(), 1), atol=1e-6)
    assert answer.targets.tolist() == [1] * 5


def test_sixteen_bits_are_explained_as_eight(subject, views):
    eight = views[0][1].pixels
    pair = [
        subject.explain([pixels], chooser("predicted", subject.classes)).maps
        for pixels in (eight, eight.astype(np.uint16) * 257)
    ]
    np.testing.assert_allclose(*pair, atol=1e-6)


def test_randomised_maps_are_compared_image_by_image(subject, views):
    before = {name: value.clone() for name, value in subject.network.state_dict().items()}
    wanted = chooser("predicted", subject.classes)
    found = subject.randomise([view.pixels for _, view in views[:3]], wanted, 0)
    assert [(index, stage, draw) for index, stage, draw, _ in found] == [
        (index, stage, draw) for stage in STAGES for draw in range(DRAWS) for index in range(3)
    ]
    assert found == subject.randomise([view.pixels for _, view in views[:3]], wanted, 0)
    assert found != subject.randomise([view.pixels for _, view in views[:3]], wanted, 1)
    ranks = [likeness.rank_correlation for *_, likeness in found if likeness.rank_correlation is not None]
    assert ranks
    assert min(ranks) < 0.99
    assert all(torch.equal(value, before[name]) for name, value in subject.network.state_dict().items())


def test_a_full_gpu_is_told(subject, views, monkeypatch):
    def fail(images, choose):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(subject, "explainers", {"grad-cam": fail})
    with pytest.raises(CxrtoolError, match="does not suffice for 2 images") as caught:
        subject.explain([views[0][1].pixels] * 2, chooser("predicted", subject.classes))
    assert "--batch-size" in caught.value.hint
