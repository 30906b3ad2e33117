import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxrtool.commands.fit.generators import fit_generators, parse_weights, resolve
from cxrtool.commands.fit.generators.effects import COLUMNS, HEADER
from cxrtool.commands.fit.generators.options import GeneratorOptions
from cxrtool.commands.info import InfoOptions, info
from cxrtool.data.tables.manifest import read_table, write_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import InputError, LeakageError, StoppedError, StrictError, UsageError
from cxrtool.flow.evaluating import EvaluateOptions, evaluate
from cxrtool.models.parts import load_network, read_part
from cxrtool.training.presets import SWEEP


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small networks, and neither curves nor examples: they cost more than all the fitting."""
    torch.set_num_threads(1)
    monkeypatch.setattr("cxrtool.training.class_inherent_fold.CLASSIFIER", "test_resnet")
    monkeypatch.setattr("cxrtool.models.class_inherent.WIDTH", 8)
    monkeypatch.setattr("cxrtool.training.curves.draw_panels", lambda path, *rest: path.write_bytes(b"png"))
    monkeypatch.setattr(
        "cxrtool.commands.fit.generators.fold.draw_transformations", lambda path, *r: path.write_bytes(b"")
    )


@pytest.fixture
def short(study):
    """The study with one fold of its splits."""
    rows = [row for row in read_table(study.splits).rows if (row["repeat"], row["fold"]) == ("0", "0")]
    write_table(study.splits, list(rows[0]), rows)
    return study


@pytest.fixture
def run(settings, tmp_path):
    def call(study, out="run", **changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in type(settings).__dataclass_fields__}
        told = {"size": 32, "epochs": 1, "batch_size": 8, "perceptual": "none", "weights": "none"}
        options = GeneratorOptions(manifest=study.folder, splits=study.splits, **{**told, **changes})
        return fit_generators(
            options, replace(settings, **{"out": tmp_path / out, "cache": tmp_path / "cache", **shared})
        )

    return call


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def test_every_fold_is_a_part_with_its_answers(run, short, tmp_path, listener):
    header, rows, title = run(short)
    fold = tmp_path / "run" / "r0f0"
    part = read_part(fold, "generators")
    assert part.description["built_with"]["classes"] == ["covid", "normal"]
    assert (part.network, part.form.size, part.form.fit) == ("fucitnet", 32, "squash")
    made = load_network(fold, "generators")(torch.rand(3, 1, 32, 32))
    assert made.shape == (2, 3, 3, 32, 32)
    assert float(made.detach().min()) >= 0.0
    assert part.description["trained"]["class_loss_weight"] == 0.05
    # Nobody sees a test image before the end.
    subsets = {row["image_id"]: row["subset"] for row in read_table(short.splits).rows}
    seen = read_table(fold / "fitted_on.csv").rows
    assert {row["image_id"] for row in seen} == {name for name, where in subsets.items() if where != "test"}
    assert all(row["sha256"] for row in seen)
    told = json.loads((fold / "run.json").read_text())
    assert told["command"] == "fit"
    assert told["options"]["perceptual"]["value"] == "none"
    assert told["training"]["perceptual_term"] == "off"
    assert told["training"]["classifier_weights"] == "drawn at random"
    assert "epoch,lr,train_loss" in (fold / "history.csv").read_text()
    # FuCiTNet alone.
    predictions = read_predictions(fold / "predictions.csv")
    assert [row["subset"] for row in predictions.rows] == sorted(
        (where for where in subsets.values() if where != "train"), reverse=True
    )
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1.0, atol=1e-6)
    # The table of all folds is that of their effects.
    assert header == HEADER
    assert [row[0] for row in rows] == ["covid", "normal"]
    assert "test images" in title
    effects = read_table(tmp_path / "run" / "effects.csv")
    assert effects.columns == list(COLUMNS)
    assert len(effects) == 2 * len(predictions.rows)
    mine = [r for r in effects.rows if r["subset"] == "test" and r["label"] == r["generator"] == "covid"]
    gain = np.mean([float(row["p_after"]) - float(row["p_before"]) for row in mine])
    assert float(rows[0][header.index("difference")]) == pytest.approx(gain, abs=6e-4)
    assert read_table(tmp_path / "run" / "summary.csv").rows[1]["class"] == "normal"
    assert any("the perceptual term" in text or "perceptual none" in text for text in listener.warned)
    assert any("layers with random weights must not be frozen" in text for text in listener.warned)
    # Nothing is left to do.
    assert run(short) is None
    assert "up to date" in listener.said[-1]


def test_a_run_can_be_evaluated_and_tells_what_it_is(run, short, settings, tmp_path):
    run(short)
    found = evaluate(EvaluateOptions((str(tmp_path / "run"),)), settings)
    assert found
    assert info(InfoOptions(tmp_path / "run"), settings).kind == "run of `cxrtool fit generators`"
    told = info(InfoOptions(tmp_path / "run" / "r0f0"), settings)
    assert told.kind == "class-inherent generators"
    assert "transform MANIFEST --generators" in told.next


def test_folds_are_independent_of_one_another(run, study, tmp_path):
    run(study, "all", only="r0f1,r0f2")
    run(study, "one", only="r0f2")
    assert files(tmp_path / "all" / "r0f2") == files(tmp_path / "one" / "r0f2")
    assert not (tmp_path / "one" / "r0f1").exists()
    assert not (tmp_path / "one" / "manifest.csv").exists()


def test_interrupted_it_goes_on_to_the_same_bytes(run, short, tmp_path, monkeypatch):
    run(short, "straight", epochs=2)
    asked = iter(range(100))
    stop = lambda self: StoppedError("stopped", 130) if next(asked) == 3 else None  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr("cxrtool.flow.signals.StopRequest.error", stop)
        with pytest.raises(StoppedError):
            run(short, "stopped", epochs=2)
    assert not (tmp_path / "stopped" / "r0f0").exists()
    run(short, "stopped", epochs=2)
    assert files(tmp_path / "stopped") == files(tmp_path / "straight")


def test_three_classes_and_a_choice_among_weights(run, short, tmp_path):
    table = read_table(short.folder / "manifest.csv")
    for index, row in enumerate(table.rows):
        row["label"] = ("covid", "normal", "pneumonia")[index // 2 % 2 + (index // 4 % 2) * (index // 2 % 2)]
        row["path"] = str(short.folder / Path(row["path"]).name)
    write_table(short.folder / "manifest.csv", table.columns, table.rows)
    run(short, class_loss="all", class_loss_weight="1,0.1", epochs=1)
    fold = tmp_path / "run" / "r0f0"
    trials = read_table(fold / "sweep.csv").rows
    assert [row["class_loss_weight"] for row in trials] == ["1.0", "0.1"]
    (chosen,) = [row for row in trials if row["chosen"]]
    described = read_part(fold, "generators").description
    assert described["trained"]["class_loss_weight"] == float(chosen["class_loss_weight"])
    assert described["built_with"]["classes"] == ["covid", "normal", "pneumonia"]
    assert read_predictions(fold / "predictions.csv").probabilities.shape[1] == 3
    assert {row["generator"] for row in read_table(fold / "effects.csv").rows} == {"covid", "normal", "pneumonia"}


def test_one_bad_file_is_left_out_and_told(run, short, tmp_path):
    (short.folder / "im000.png").write_bytes(b"no picture")
    with pytest.raises(StrictError, match="1 rejected"):
        run(short, strict=True)
    assert len(read_table(tmp_path / "run" / "rejects.csv")) == 1
    assert "im000" not in (tmp_path / "run" / "r0f0" / "effects.csv").read_text()


def test_a_test_image_planted_in_the_fit_is_refused(run, short):
    rows = read_table(short.splits).rows
    tested = next(row["image_id"] for row in rows if row["subset"] == "test")
    table = read_table(short.folder / "manifest.csv")
    trained = next(row["image_id"] for row in rows if row["subset"] == "train")
    content = cv2.imread(str(short.folder / f"{tested}.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(short.folder / f"{trained}.png"), content)
    for row in table.rows:
        row["path"] = str(short.folder / Path(row["path"]).name)
        row["sha256"] = "aa" if row["image_id"] in (tested, trained) else ""
    write_table(short.folder / "manifest.csv", [*table.columns, "sha256"], table.rows)
    with pytest.raises(LeakageError, match="more than one subset"):
        run(short)


def options(**changes):
    return GeneratorOptions(manifest=Path("m.csv"), **{"splits": Path("s.csv"), **changes})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"splits": None}, "needs --splits"),
        ({"class_loss": "each"}, "--class-loss: expected one of own, all"),
        ({"checkpoint": "first"}, "--checkpoint"),
        ({"classifier_lr": 0.0}, "--classifier-lr"),
        ({"class_loss_weight": "0.1,-1"}, "--class-loss-weight"),
    ],
)
def test_what_does_not_go_with_generators_is_refused(changes, told):
    with pytest.raises(UsageError, match=told):
        resolve(options(**changes))


OF_PARTS = (
    "also",
    "target-column",
    "balance",
    "loss",
    "exposure",
    "opacify",
    "copies",
    "dilate",
    "average",
    "network",
    "validation",
)
OF_GENERATORS = ("class-loss", "class-loss-weight", "perceptual", "weights", "classifier-lr")


@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        *(("generators", flag) for flag in OF_PARTS),
        *(("ribs", flag) for flag in OF_GENERATORS),
        # A lung network may begin with weights, too.
        *(("lungs", flag) for flag in OF_GENERATORS if flag != "weights"),
    ],
)
def test_options_of_another_kind_are_refused_by_name(cxr, kind, flag):
    done = cxr("fit", kind, "m.csv", f"--{flag}", "1", "-o", "part")
    assert done.code == 2
    assert f"no such option --{flag}" in done.err


def test_the_papers_values_stand_where_nothing_is_said():
    told, origins = GeneratorOptions.build({"manifest": Path("m.csv"), "splits": Path("s.csv"), "lr": 0.5})
    assert told.lr == 0.5
    assert (told.size, told.epochs, told.batch_size, told.opt, told.weight_decay) == (512, 50, 8, "adam", 1e-4)
    assert (told.sched, told.decay_epochs, told.decay_rate, told.patience) == ("step", 5, 0.1, 10)
    assert (told.classifier_lr, told.class_loss, told.class_loss_weight) == (1e-3, "own", "0.05")
    assert (told.perceptual, told.weights, told.checkpoint) == ("imagenet", "imagenet", "best-loss")
    assert told.augment == "rotate=10,shift=0.05,zoom=0.2,brightness=0.05,contrast=0.05,blur=0.5,p=0.7"
    assert origins["epochs"] == "preset"


def test_weights_of_the_class_term():
    assert parse_weights("sweep") == SWEEP
    assert len(SWEEP) == 13
    assert parse_weights("0, .5") == (0.0, 0.5)
    for text in ("", "0.1,0.1", "nan", "inf", "a"):
        with pytest.raises(UsageError, match="--class-loss-weight"):
            parse_weights(text)


def test_several_weights_need_validation_images_to_choose_by(run, short):
    rows = read_table(short.splits).rows
    for row in rows:
        row["subset"] = row["subset"].replace("validation", "train")
    write_table(short.splits, list(rows[0]), rows)
    with pytest.raises(InputError, match="no validation images, which choose"):
        run(short, class_loss_weight="1,0.1")


def test_images_that_a_generator_made_are_no_radiographs(run, short):
    table = read_table(short.folder / "manifest.csv")
    for row in table.rows:
        row |= {"generator": "covid", "parent_id": row["image_id"]}
    write_table(short.folder / "manifest.csv", [*table.columns, "generator", "parent_id"], table.rows)
    with pytest.raises(InputError, match="expected radiographs"):
        run(short)


def test_mixed_views_are_told(run, short, listener):
    run(short, "dry", dry_run=True)
    run(short)
    assert any("(AP, PA)" in text for text in listener.warned)
