import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from cxrtool.cli.main import run as cxrtool
from cxrtool.commands.fuse.twins import TwinsOptions, fuse_twins
from cxrtool.commands.predict import PredictOptions, predict
from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.commands.transform import TransformOptions, transform
from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest, write_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import InputError, LeakageError
from cxrtool.flow.evaluating import EvaluateOptions, evaluate
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.settings import Settings

FOLDS = ("r0f0", "r0f1")
CLASSES = ["covid@covid", "covid@normal", "normal@covid", "normal@normal"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_study, write_generators):
    """A study, what `prepare --size 20` made of it, generators of that, their twins, and a run of two folds on them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("place")
    study = make_study(folder)
    rows = [row for row in read_table(study.splits).rows if row["repeat"] == "0" and row["fold"] != "2"]
    write_table(study.splits, list(rows[0]), rows)
    prepared = folder / "prepared"
    assert (
        cxrtool(
            [
                "prepare",
                str(study.folder / "manifest.csv"),
                "--size",
                "20",
                "--fit",
                "pad",
                "--workers",
                "1",
                "-q",
                "-o",
                str(prepared),
            ]
        )
        == 0
    )
    chain = read_run_file(prepared)["chain"]
    write_generators(folder / "generators", study.splits, read_manifest(prepared).rows, folds=FOLDS, chain=chain)
    settings = Settings(cache=folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        told = TrainOptions(
            prepared, study.splits, model="covid-xnet", size=24, epochs=2, batch_size=8, transform=folder / "generators"
        )
        train(told, replace(settings, out=folder / "run"))
    transform(TransformOptions(prepared, folder / "generators", strips=0), replace(settings, out=folder / "twins"))
    return folder, study


@pytest.fixture
def ask(place, settings, tmp_path):
    def call(source, model="run/r0f0", out="answers.csv", **changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
        predict(
            PredictOptions(place[0] / model, str(source), **changes), replace(settings, out=tmp_path / out, **shared)
        )
        return read_predictions(tmp_path / out)

    return call


@pytest.fixture
def strangers(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(100 + index).integers(0, 100, (24, 28), np.uint8)
        pixels[:, :12] += 120
        cv2.imwrite(str(folder / f"{index}.png"), pixels.astype(np.uint16) * 256 if index == 2 else pixels)
    return folder


def kept_of(place, fold, folder):
    """A manifest of what a fold tested: raw, prepared, or as twins."""
    study = place[1]
    names = set(study.assigned(0, fold, "test"))
    manifest = read_manifest(folder)
    own = [row for row in manifest.rows if row.get("fold", "") in ("", str(fold))]
    keep = [row["image_id"] for row in own if (row.get("parent_id") or row["image_id"]) in names]
    some = manifest.subset(keep)
    target = place[0] / f"tested-{folder.name}-{fold}.csv"
    write_manifest(target, some.columns, some.rows)
    return target


def by_twin(predictions):
    return {
        (row["parent_id"], row["generator"]): (row["label"], values)
        for row, values in zip(predictions.rows, predictions.probabilities, strict=True)
        if row["subset"] == "test"
    }


@pytest.mark.parametrize("source", ["study", "prepared", "twins"])
@pytest.mark.parametrize("fold", [0, 1])
def test_raw_prepared_and_written_images_are_answered_as_the_fold_itself_did(place, ask, source, fold):
    own = by_twin(read_predictions(place[0] / "run" / f"r0f{fold}" / "predictions.csv"))
    answers = ask(kept_of(place, fold, place[0] / source), f"run/r0f{fold}")
    asked = by_twin(answers)
    assert answers.classes == CLASSES
    assert asked.keys() == own.keys()
    assert len(own) == 16
    for key, (label, values) in asked.items():
        assert label == own[key][0]
        np.testing.assert_allclose(values, own[key][1], atol=1e-6)
    for row in answers.rows:
        of = f"_r0f{fold}" if source == "twins" else ""
        assert row["image_id"] == f"{row['parent_id']}{of}_{row['generator']}"


def test_each_fold_shows_an_image_to_its_own_generators(place, ask, strangers):
    single = [by_twin(ask(strangers, f"run/{name}", out=f"{name}.csv")) for name in FOLDS]
    members = ask(strangers, "run", members=True)
    assert len(members.rows) == 3 * 2 * 2
    for row, values in zip(members.rows, members.probabilities, strict=True):
        label, expected = single[int(row["fold"])][row["parent_id"], row["generator"]]
        assert row["image_id"] == f"{row['parent_id']}_r0f{row['fold']}_{row['generator']}"
        assert label == row["label"] == ""
        np.testing.assert_allclose(values, expected, atol=1e-6)
    mean = ask(strangers, "run", out="mean.csv")
    assert [row["image_id"] for row in mean.rows] == [f"{i}_{name}" for i in range(3) for name in ("covid", "normal")]
    for (_, values), one, other in zip(by_twin(mean).values(), *(each.values() for each in single), strict=True):
        np.testing.assert_allclose(values, (one[1] + other[1]) / 2, atol=1e-6)


def test_batches_and_sixteen_bits_do_not_matter(place, ask, strangers):
    whole = ask(strangers)
    np.testing.assert_allclose(ask(strangers, batch_size=1).probabilities, whole.probabilities, atol=1e-6)
    cv2.imwrite(
        str(strangers / "1.png"), cv2.imread(str(strangers / "1.png"), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 257
    )
    deep = ask(strangers)
    np.testing.assert_allclose(deep.probabilities, whole.probabilities, atol=1e-3)


def test_images_are_counted_not_twins_and_what_comes_next_is_told(ask, strangers, listener, tmp_path):
    (strangers / "broken.png").write_bytes(b"x")
    ask(strangers)
    assert listener.said[-2:] == [
        "3 images predicted, 1 rejected",
        f"one row for each of 6 twins; next: `cxrtool fuse twins {tmp_path / 'answers.csv'}` makes one per image",
    ]


def test_what_was_trained_on_is_refused(place, ask, listener):
    study = place[1]
    manifest = read_manifest(study.folder).subset([study.assigned(0, 0, "train")[0]])
    write_manifest(place[0] / "trained.csv", manifest.columns, manifest.rows)
    with pytest.raises(LeakageError):
        ask(place[0] / "trained.csv")
    for row in manifest.rows:
        row["patient_id"] = ""
    write_manifest(place[0] / "trained.csv", manifest.columns, manifest.rows)
    with pytest.raises(LeakageError):
        ask(place[0] / "trained.csv")
    assert len(ask(place[0] / "trained.csv", allow_leakage=True).rows) == 2
    assert any("1 of 1 image, or their patients, were used in training" in text for text in listener.warned)


def test_twins_of_other_generators_are_refused(place, ask):
    with pytest.raises(InputError, match=r"has been through: .*transform.* was trained on: .*transform"):
        ask(kept_of(place, 1, place[0] / "twins"), "run/r0f0")


def test_a_model_whose_generators_are_gone_says_so(place, ask, strangers):
    parts = place[0] / "run" / "r0f0" / "parts"
    parts.rename(parts.with_name("elsewhere"))
    try:
        with pytest.raises(InputError, match=r"were made with a generators network .fucitnet"):
            ask(strangers)
    finally:
        parts.with_name("elsewhere").rename(parts)


def test_a_network_of_three_channels_sees_every_channel_of_a_twin(place, settings, tmp_path, monkeypatch):
    """Saved twins and twins made on the fly are the same to it, and their mean is not."""
    told = TrainOptions(
        place[0] / "twins", place[1].splits, model="resnet10t", weights="none", size=32, epochs=1, batch_size=8
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        train(told, replace(settings, out=tmp_path / "run"))

    def asked(source, out):
        predict(PredictOptions(tmp_path / "run" / "r0f0", str(source)), replace(settings, out=tmp_path / out))
        found = read_predictions(tmp_path / out)
        return {twin: values for twin, (_, values) in by_twin(found).items()}

    saved = asked(kept_of(place, 0, place[0] / "twins"), "saved.csv")
    made = asked(kept_of(place, 0, place[0] / "prepared"), "made.csv")
    assert set(saved) == set(made)
    for name, values in saved.items():
        np.testing.assert_allclose(values, made[name], atol=1e-5)
    monkeypatch.setattr("cxrtool.flow.predicting.ends_with_twins", lambda chain: False)
    grey = asked(kept_of(place, 0, place[0] / "twins"), "grey.csv")
    assert max(np.abs(values - saved[name]).max() for name, values in grey.items()) > 1e-4


def test_a_model_of_grey_twins_is_refused(place, ask, strangers, editable):
    editable(place[0] / "run" / "r0f0")
    path = place[0] / "run" / "r0f0" / "model.json"
    kept = path.read_text()
    content = json.loads(kept)
    content["chain"][-1]["version"] = 1
    path.write_text(json.dumps(content))
    try:
        with pytest.raises(InputError, match="expected twins of three channels, found a model of grey ones"):
            ask(strangers)
    finally:
        path.write_text(kept)


def test_a_model_of_twins_is_evaluated_on_new_images_as_by_fusing_its_predictions(
    ask, strangers, place, settings, tmp_path
):
    rows = [
        {"image_id": path.stem, "path": str(path), "label": label}
        for path, label in zip(sorted(strangers.glob("*.png")), ("covid", "normal", "covid"), strict=True)
    ]
    write_table(tmp_path / "new.csv", list(rows[0]), rows)
    for model in ("run", "run/r0f0"):
        ask(tmp_path / "new.csv", model)
        fuse_twins(TwinsOptions((tmp_path / "answers.csv",)), replace(settings, out=tmp_path / "fused.csv"))
        expected = evaluate(EvaluateOptions((str(tmp_path / "fused.csv"),), resamples=20), settings)[""]
        found = evaluate(EvaluateOptions((str(place[0] / model), str(tmp_path / "new.csv")), resamples=20), settings)[
            ""
        ]
        assert found["images"] == 3
        assert found["confusion"] == expected["confusion"]
        assert found["per_class"] == expected["per_class"]
