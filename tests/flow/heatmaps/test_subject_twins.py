from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.commands.transform import TransformOptions, transform
from cxrtool.data.tables.manifest import read_manifest, read_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import UsageError
from cxrtool.explaining.cam import GradCam, upsample
from cxrtool.explaining.randomised import DRAWS, STAGES
from cxrtool.flow.heatmaps import explain
from cxrtool.flow.heatmaps.drawing import Task
from cxrtool.flow.heatmaps.options import ExplainOptions
from cxrtool.flow.heatmaps.subject import Subject, TwinSubject
from cxrtool.flow.settings import Settings
from cxrtool.training.checkpoint import load_model
from cxrtool.training.twin_maker import TwinMaker

SIDE, INPUT = 24, 32
CLASSES = ["covid@covid", "covid@normal", "normal@covid", "normal@normal"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_masked_study, write_generators):
    """A study with masks, and a run of two folds on the twins of its images."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("place")
    study = make_masked_study(folder)
    write_generators(
        folder / "generators", study.splits, read_manifest(study.folder).rows, size=20, folds=("r0f0", "r0f1")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        told = TrainOptions(
            study.folder,
            study.splits,
            model="covid-xnet",
            size=INPUT,
            epochs=6,
            batch_size=8,
            augment="none",
            transform=folder / "generators",
        )
        train(told, Settings(out=folder / "run", cache=folder / "cache"))
    return folder, study


@pytest.fixture
def subject(place):
    return Subject.load(
        place[0] / "run" / "r0f0", [place[1].folder / "im000.png"], "study", ("grad-cam",), None, torch.device("cpu")
    )


@pytest.fixture
def views(place, subject):
    tasks = [Task(row["path"], "") for row in read_manifest(place[1].folder).rows[:6]]
    return [view for batch in subject.views(tasks, 4, 1, None) for _, view in batch]


@pytest.fixture
def ask(place, settings, tmp_path):
    def call(source=None, model="run", out="out", **changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
        told = ExplainOptions(place[0] / model, str(source or place[1].folder), **{"sheet": 0, **changes})
        explain(told, replace(settings, **{"out": tmp_path / out, **shared}))
        return {row["image_id"]: row for row in read_manifest(tmp_path / out).rows}

    return call


def by_hand(place, view):
    """The probabilities (twin, class) of one radiograph, its twins, and the network, without the code under test."""
    fold = place[0] / "run" / "r0f0"
    network, description = load_model(fold)
    part = next((fold / "parts").iterdir())
    made = TwinMaker(part, torch.device("cpu")).make([view.pixels])[0]
    small = [cv2.resize(twin, (INPUT, INPUT), interpolation=cv2.INTER_LINEAR) for twin in made]
    form = description.normalization
    # The network has one channel, and gets the mean of the twin's three.
    mean = np.stack(small).mean(3)[:, None] / np.float32(255)
    images = (torch.from_numpy(mean) - form.mean[0]) / form.std[0]
    with torch.no_grad():
        probabilities = torch.softmax(network(images.float()).double(), 1).numpy()
    return network, images.float(), probabilities


def highest(probabilities, label):
    """Label, twin, class and probability that hold the maximum, by trying all."""
    found = (-1.0, 0, 0)
    for twin in range(2):
        for column, name in enumerate(CLASSES):
            if name.split("@")[0] == label and probabilities[twin, column] > found[0]:
                found = (probabilities[twin, column], twin, column)
    return found


def test_factual_and_counterfactual_are_those_of_the_twins_that_hold_the_maxima(place, subject, views):
    assert isinstance(subject, TwinSubject)
    assert subject.names == ["covid", "normal"]
    assert views[0].pixels.shape == (20, 20)
    for view, explained in zip(views, subject.why([view.pixels for view in views], "predicted"), strict=True):
        network, images, probabilities = by_hand(place, view)
        best = {label: highest(probabilities, label) for label in ("covid", "normal")}
        decided = "normal" if best["normal"][0] > best["covid"][0] else "covid"
        other = "covid" if decided == "normal" else "normal"
        assert explained.predicted == decided
        share = best[decided][0] / (best["covid"][0] + best["normal"][0])
        assert explained.probability == pytest.approx(share, rel=1e-5)
        assert [reason.target for reason in explained.reasons] == [decided, other]
        for reason in explained.reasons:
            value, twin, column = best[reason.target]
            assert reason.probability == pytest.approx(value, rel=1e-5)
            assert (reason.twin, reason.output) == (["covid", "normal"][twin], CLASSES[column])
            fixed = torch.tensor([column])
            found = GradCam(network, images[twin : twin + 1])(images[twin : twin + 1], lambda _, fixed=fixed: fixed)
            whole = upsample(found.values, INPUT)[0].numpy()
            expected = cv2.resize(whole, (20, 20), interpolation=cv2.INTER_LINEAR)
            np.testing.assert_allclose(reason.values, expected, atol=1e-5 + 1e-4 * expected.max())


def test_a_target_may_be_a_label_a_class_or_the_opposite(subject, views):
    pictures = [view.pixels for view in views]
    default = subject.why(pictures, "predicted")
    for name in ("opposite", "covid", "normal@covid"):
        found = subject.why(pictures, name)
        assert all(len(one.reasons) == 1 for one in found)
        for one, both in zip(found, default, strict=True):
            reason = one.reasons[0]
            assert (one.predicted, one.probability) == (both.predicted, pytest.approx(both.probability))
            if name == "normal@covid":
                assert reason.target == reason.output == name
                continue
            same = both.reasons[1] if name == "opposite" else next(r for r in both.reasons if r.target == name)
            assert (reason.target, reason.twin, reason.output) == (same.target, same.twin, same.output)
            np.testing.assert_allclose(reason.values, same.values, atol=1e-6)


def test_of_three_labels_the_counterfactual_is_the_next_best(subject, views, monkeypatch):
    labels = ["a", "b", "c"]
    classes = [f"{one}@{other}" for one in labels for other in labels]
    monkeypatch.setattr(subject, "description", replace(subject.description, classes=classes))
    monkeypatch.setattr(subject.twins.maker, "names", labels)
    table = np.full((1, 3, 9), 0.01)
    table[0, 2, 7], table[0, 0, 3], table[0, 1, 0] = 0.5, 0.4, 0.3
    monkeypatch.setattr(subject, "ask", lambda pictures: table.reshape(3, 9))
    original = subject.twins.maker.make
    monkeypatch.setattr(subject.twins.maker, "make", lambda given: [[*one, one[0]] for one in original(given)])
    asked = []

    def explain(pictures, choose, explainer=None):
        asked.extend(choose(torch.zeros(len(pictures), 9)).tolist())
        return type("Answer", (), {"maps": np.zeros((len(pictures), INPUT, INPUT), np.float32)})

    monkeypatch.setattr(subject, "explain", explain)
    (found,) = subject.why([views[0].pixels], "predicted")
    assert found.predicted == "c"
    assert [(reason.target, reason.twin, reason.output) for reason in found.reasons] == [
        ("c", "c", "c@b"),
        ("b", "a", "b@a"),
    ]
    assert asked == [7, 3]


def test_an_unknown_target_names_the_nearest(subject):
    with pytest.raises(UsageError, match=r"--target: .*found 'nromal'; did you mean 'normal'\?"):
        subject.check_target("nromal")


def test_randomised_maps_are_those_of_the_first_reason(subject, views):
    found = subject.compare_randomised(views[:2], "predicted", 0)
    assert [(index, stage, draw) for index, stage, draw, _ in found] == [
        (index, stage, draw) for stage in STAGES for draw in range(DRAWS) for index in range(2)
    ]


def test_each_image_is_explained_by_the_fold_that_tested_it_with_both_maps(place, ask, tmp_path, listener):
    rows = ask(sheet=3)
    assert len(rows) == 16
    for fold in range(2):
        tested = set(place[1].assigned(0, fold, "test"))
        assert {name for name, row in rows.items() if row["fold"] == str(fold)} == tested
        own = read_predictions(place[0] / "run" / f"r0f{fold}" / "predictions.csv")
        by_twin = {
            (row["parent_id"], row["generator"]): values
            for row, values in zip(own.rows, own.probabilities, strict=True)
            if row["subset"] == "test"
        }
        for name in tested:
            row = rows[name]
            for label, twin, output, value in (
                (row["target"], row["twin"], row["output"], row["target_probability"]),
                (row["opposite"], row["opposite_twin"], row["opposite_output"], row["opposite_probability"]),
            ):
                assert output.split("@")[0] == label
                assert float(value) == pytest.approx(by_twin[name, twin][CLASSES.index(output)], abs=1e-5)
                columns = [k for k, known in enumerate(CLASSES) if known.startswith(f"{label}@")]
                both = np.stack([by_twin[name, generator] for generator in ("covid", "normal")])
                assert float(value) == pytest.approx(both[:, columns].max(), abs=1e-5)
            assert row["predicted"] == row["target"] != row["opposite"]
            assert 0.5 <= float(row["probability"]) < 1
    out = tmp_path / "out"
    for row in rows.values():
        for prefix in ("", "opposite_"):
            values = np.load(out / row[f"{prefix}map"])
            assert values.shape == (SIDE, SIDE + 4)
            mask = cv2.imread(row["mask"], cv2.IMREAD_UNCHANGED) > 0
            if values.any():
                inside = values[mask].sum() / values.sum()
                assert float(row[f"{prefix}energy_inside"]) == pytest.approx(inside, abs=1e-4)
    plain = cv2.imread(str(out / "overlays" / f"{next(iter(rows))}.png"))
    # The picture and two maps.
    assert plain.shape[1] > 3 * 384
    assert sorted(path.name for path in (out / "sheets").iterdir())
    assert any(text.startswith("maps of the opposite class:") for text in listener.said)


def test_an_interrupted_explanation_goes_on(place, ask, tmp_path, monkeypatch):
    whole = ask(out="whole")
    from cxrtool.flow.heatmaps import Explanation

    monkeypatch.setattr(Explanation, "draw", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ask()
    monkeypatch.undo()
    monkeypatch.setattr(TwinSubject, "why", lambda *rest: pytest.fail("done again"))
    rows = ask()
    assert rows.keys() == whole.keys()
    for name, row in rows.items():
        for key in ("target", "twin", "output", "opposite_energy_inside", "opposite_peak_x"):
            assert row[key] == whole[name][key]


def test_written_twins_are_explained_as_pictures_of_their_own(place, ask, settings, tmp_path):
    transform(
        TransformOptions(place[1].folder, place[0] / "generators", only="r0f0", strips=0),
        replace(settings, out=tmp_path / "twins", cache=place[0] / "cache"),
    )
    rows = ask(tmp_path / "twins", model="run/r0f0")
    assert len(rows) == 48
    assert {row["predicted"] for row in rows.values()} <= set(CLASSES)
    assert "opposite" not in next(iter(rows.values()))
    single = Subject.load(
        place[0] / "run/r0f0", [tmp_path / "twins/images/r0f0/x.png"], "t", ("cam",), None, torch.device("cpu")
    )
    assert single.generators is None


def test_twins_are_explained_by_several_methods_and_tested_for_what_they_depend_on(place, ask, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    manifest = read_manifest(place[1].folder)
    for row in manifest.rows:
        (folder / f"{row['image_id']}.png").write_bytes(Path(row["mask"]).read_bytes())
    rows = ask(method="cam,grad-cam", reference=folder, faithfulness=2, model="run/r0f0")
    table = [row for row in read_table(tmp_path / "out" / "reference.csv").rows if not row["reason"]]
    assert [row["method"] for row in table] == ["cam", "grad-cam"] * len(rows)
    for row in table:
        if row["method"] == "cam" and not int(row["empty_map"]):
            assert row["energy"] == rows[row["image_id"]]["energy_inside"]
    for row in read_table(tmp_path / "out" / "faithfulness.csv").rows:
        # The curves begin at the output for the twin that holds the maximum.
        assert 0 < float(row["deletion"]) < 1
    assert len(list((tmp_path / "out/maps/grad-cam").iterdir())) == len(
        list((tmp_path / "out/maps/opposite").iterdir())
    )
