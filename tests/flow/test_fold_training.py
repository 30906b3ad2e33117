import json
import math
from dataclasses import replace

import numpy as np
import pytest

from cxrtool.data.splitting.grouping import hashed
from cxrtool.data.tables.manifest import read_manifest, read_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.fold_training import check_design, describe_epoch, make_design
from cxrtool.flow.folder import read_run_file
from cxrtool.imaging.hashing import pixel_sha256
from cxrtool.models.description import Input
from cxrtool.training.checkpoint import load_model
from cxrtool.training.options import TrainingOptions


def ids(table, **wanted):
    return [row["image_id"] for row in table.rows if wanted.items() <= row.items()]


@pytest.fixture
def fold(study, train_study):
    return train_study(study) / "r0f0"


def test_a_fold_is_a_model_folder_with_its_answers(fold):
    assert {path.name for path in fold.iterdir()} == {
        "model.safetensors",
        "model.json",
        "fitted_on.csv",
        "history.csv",
        "curves.png",
        "predictions.csv",
        "rejects.csv",
        "run.json",
    }
    network, description = load_model(fold)
    assert description.classes == ["covid", "normal"]
    assert description.network == {
        "name": "covid-xnet",
        "classes": 2,
        "hidden": 0,
        "dropout": 0.0,
        "size": 16,
        "kernels": [5, 5, 5, 3, 3],
    }
    assert description.chain == []
    assert description.input == Input(16, "squash")
    assert description.calibration["temperature"] == 1.0
    assert description.calibration["reason"] == "only 4 validation images; 50 are needed"
    assert set(description.thresholds) == {"covid", "normal"}
    assert description.trained.pop("epoch") in (1, 2)
    assert description.trained == {"preset": None, "weights": "drawn at random"}
    assert network.head.out_features == 2
    assert len(read_table(fold / "history.csv")) == 2


def test_predictions_are_those_of_validation_and_test(study, fold):
    predictions = read_predictions(fold / "predictions.csv")
    for subset in ("validation", "test"):
        found = [row for row in predictions.rows if row["subset"] == subset]
        assert [row["image_id"] for row in found] == study.assigned(0, 0, subset)
        assert {(row["repeat"], row["fold"]) for row in found} == {("0", "0")}
    assert len(predictions.rows) == 4 + 8
    manifest = {row["image_id"]: row for row in read_manifest(study.folder).rows}
    for row, values in zip(predictions.rows, predictions.probabilities, strict=True):
        source = manifest[row["image_id"]]
        for name in ("label", "patient_id", "severity", "source", "view", "age", "sex"):
            assert row[name] == source[name]
        assert row["predicted"] == predictions.classes[int(values.argmax())]
        assert values.sum() == pytest.approx(1, abs=1e-8)


def test_paths_of_predictions_lead_from_their_file(study, fold):
    rows = read_table(fold / "predictions.csv").rows
    for row in rows:
        assert (fold / row["path"]).resolve() == (study.folder / f"{row['image_id']}.png").resolve()


def test_what_was_fitted_on_is_listed_with_pixels_and_patients(study, fold):
    table = read_table(fold / "fitted_on.csv")
    assert table.columns == ["image_id", "patient_id", "sha256", "repeat", "fold", "subset"]
    for subset in ("train", "validation"):
        assert sorted(ids(table, subset=subset)) == sorted(study.assigned(0, 0, subset))
    import cv2

    for row in table.rows:
        pixels = cv2.imread(str(study.folder / f"{row['image_id']}.png"), cv2.IMREAD_UNCHANGED)
        assert row["sha256"] == pixel_sha256(pixels)
        assert row["patient_id"] == hashed(f"p:{int(row['image_id'][2:]) // 2:03}")
        assert "p:" not in row["patient_id"]


def test_run_json_of_a_fold_tells_what_was_done(fold):
    made = read_run_file(fold)
    assert made["command"] == "train"
    assert made["counts"] == {"train": 12, "validation": 4, "test": 8, "rejects": 0}
    assert made["options"]["repeat"]["value"] == made["options"]["fold"]["value"] == "0"
    assert made["training"]["parameters"] == 434_050
    assert made["run_digest"] == read_run_file(fold.parent)["run_digest"]
    assert made["digest"] != made["run_digest"]


def test_a_fold_does_not_depend_on_those_before_it(study, train_study):
    alone = train_study(study, "alone", only="r1f2") / "r1f2"
    after = train_study(study, "after", only="r0f0,r1f2") / "r1f2"
    for name in ("model.safetensors", "predictions.csv", "history.csv"):
        assert (alone / name).read_bytes() == (after / name).read_bytes()


def test_folds_and_seeds_have_weights_of_their_own(study, train_study):
    # Two folds with the same images would tell the same otherwise.
    run = train_study(study, only="r0f0,r0f1")
    other = train_study(study, "other", seed=1)
    drawn = {(path / "r0f0" / "model.safetensors").read_bytes() for path in (run, other)}
    drawn.add((run / "r0f1" / "model.safetensors").read_bytes())
    assert len(drawn) == 3
    first = [float(read_table(path / "history.csv").rows[0]["train_loss"]) for path in (run / "r0f0", run / "r0f1")]
    assert first[0] != first[1]


def test_a_huge_seed_is_a_seed(study, train_study):
    assert (train_study(study, seed=2**70) / "r0f0" / "predictions.csv").exists()


def test_warnings_of_the_manifest_and_of_the_model_stand_side_by_side(study, train_study):
    import cv2

    manifest = study.folder / "manifest.csv"
    lines = manifest.read_text().splitlines()
    first = study.assigned(0, 0, "test")[0]
    cv2.imwrite(str(study.folder / f"{first}.png"), np.zeros((24, 28), np.uint8))
    marked = [
        f"{line},warning" if i == 0 else f"{line},{'old film' if first in line else ''}" for i, line in enumerate(lines)
    ]
    manifest.write_text("\n".join(marked) + "\n")
    rows = read_table(train_study(study) / "r0f0" / "predictions.csv").rows
    warnings = {row["image_id"]: row["warning"] for row in rows}
    assert warnings[first] == "old film; out of range: the image is blank"
    assert sum(map(bool, warnings.values())) < 4


def test_an_unreadable_image_is_listed_and_the_rest_goes_on(study, train_study, listener):
    broken = study.assigned(0, 0, "train")[0], study.assigned(0, 0, "test")[0]
    for name in broken:
        (study.folder / f"{name}.png").write_bytes(b"no picture")
    fold = train_study(study) / "r0f0"
    assert sorted(row["path"] for row in read_table(fold / "rejects.csv").rows) == sorted(
        str(study.folder / f"{name}.png") for name in broken
    )
    assert read_run_file(fold)["counts"] == {"train": 11, "validation": 4, "test": 7, "rejects": 2}
    assert not {*ids(read_table(fold / "fitted_on.csv")), *ids(read_table(fold / "predictions.csv"))} & set(broken)
    assert [text for text in listener.warned if "rejects.csv" in text] == [
        f"2 of 24 images cannot be read and are excluded; each with its reason in {fold.parent / 'rejects.csv'}"
    ]


def test_a_class_of_which_nothing_can_be_read_is_told(study, train_study):
    for name in study.assigned(0, 0, "train"):
        if int(name[2:]) % 4 < 2:
            (study.folder / f"{name}.png").unlink()
    with pytest.raises(InputError, match="fold r0f0: no training image of class 'covid' can be read"):
        train_study(study)


def test_when_nothing_can_be_read_the_first_reason_is_told(study, train_study):
    for path in study.folder.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"found none among 24, the first: .*im000.png: the file is empty$"):
        train_study(study)


def test_deep_and_shallow_images_train_together(study, train_study):
    import cv2

    path = study.folder / "im005.png"
    before = train_study(study, "before")
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 257)
    after = train_study(study, "after", precision="fp32")
    one, other = (read_predictions(run / "r0f0" / "predictions.csv") for run in (before, after))
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=0.01)


OPTIONS = TrainingOptions(model="covid-xnet", weights="none", size=32)


def test_a_design_is_what_the_options_say(settings):
    options = replace(OPTIONS, augment="rotate=5", freeze=True, frozen_bn="batch", lr=0.5, patience=3)
    design = make_design(options, 4, replace(settings, threads=2, device="cpu", precision="bf16"), 17)
    assert (design.architecture.classes, design.architecture.size) == (4, 32)
    assert (design.recipe.lr, design.recipe.patience, design.augmentation.rotate) == (0.5, 3, 5.0)
    assert (design.freeze, design.frozen_norms, design.seed) == (True, False, 17)
    assert (design.threads, design.device, design.precision) == (2, "cpu", "bf16")


@pytest.mark.parametrize(
    ("changes", "shared", "message"),
    [
        ({"opt": "lion"}, {}, "--opt"),
        ({"augment": "spin=1"}, {}, "--augment"),
        ({"dropout": 2.0}, {}, "--dropout"),
        ({"lr": math.nan}, {}, "--lr"),
        ({"size": 3}, {}, "--size"),
        ({"model": "resnet17"}, {}, "--model"),
        ({"weights": "imagenet"}, {}, "--weights imagenet"),
        ({}, {"device": "gpu"}, "--device"),
        ({}, {"precision": "fp8"}, "--precision"),
    ],
)
def test_every_option_is_checked(settings, changes, shared, message):
    check_design(OPTIONS, 2, settings)
    with pytest.raises(UsageError, match=message):
        check_design(replace(OPTIONS, **changes), 2, replace(settings, **shared))


def test_an_epoch_in_a_line():
    row = {"epoch": 3, "lr": 0.1, "train_loss": 0.25, "train_accuracy": 0.5, "validation_loss": None}
    assert describe_epoch(row) == "epoch 3  train loss 0.2500  train accuracy 0.5000"


def test_model_json_is_readable_by_hand(fold):
    text = (fold / "model.json").read_text()
    assert json.loads(text)["schema"] == 1
    assert text.startswith("{\n")
