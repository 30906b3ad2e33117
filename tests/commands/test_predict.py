import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxrtool.cli.console import Console
from cxrtool.cli.main import run as cxrtool
from cxrtool.commands.predict import PredictOptions, predict
from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import IncompleteError, InputError, LeakageError, StrictError, TakenError, UsageError
from cxrtool.flow.settings import Settings

SIDE = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_small_study):
    """A study, a run of two folds of it, and a run on what `prepare --size 20` made of it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("place")
    study = make_small_study(folder)
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
    settings = Settings(cache=folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        for source, name in ((study.folder, "run"), (prepared, "small")):
            told = TrainOptions(source, study.splits, model="covid-xnet", size=16, epochs=2, batch_size=8)
            train(told, replace(settings, out=folder / name))
    return folder, study


@pytest.fixture
def strangers(tmp_path):
    """Pictures that no model has seen: two of the kind it knows, blank, upside down, deep, broken."""
    folder = tmp_path / "new"
    folder.mkdir()
    for index, half in enumerate((slice(0, SIDE // 2), slice(SIDE // 2, SIDE))):
        pixels = np.random.default_rng(100 + index).integers(0, 100, (SIDE, SIDE + 4), np.uint8)
        pixels[:, half] += 120
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
    cv2.imwrite(str(folder / "deep.png"), pixels.astype(np.uint16) * 257)
    return folder


@pytest.fixture
def ask(place, settings, tmp_path):
    """Ask the first fold, or another model, and read the answers."""

    def call(source, model="run/r0f0", out="answers.csv", **changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
        told = PredictOptions(place[0] / model, str(source), **changes)
        predict(told, replace(settings, **{"out": tmp_path / out, **shared}))
        return read_predictions(tmp_path / out)

    return call


def by_id(predictions):
    return {row["image_id"]: values for row, values in zip(predictions.rows, predictions.probabilities, strict=True)}


def test_a_fold_s_own_answers_are_those_of_its_model(place, ask):
    folder, study = place
    for fold in range(2):
        own = by_id(read_predictions(folder / "run" / f"r0f{fold}" / "predictions.csv"))
        tested = study.assigned(0, fold, "test")
        asked = by_id(ask(subset_of(study, tested), f"run/r0f{fold}"))
        assert sorted(asked) == sorted(tested)
        for name, values in asked.items():
            np.testing.assert_allclose(values, own[name], atol=1e-6)


def subset_of(study, names, name="some.csv"):
    """A manifest of these images."""
    manifest = read_manifest(study.folder).subset(names)
    write_manifest(study.folder.parent / name, manifest.columns, manifest.rows)
    return study.folder.parent / name


def test_an_image_a_folder_and_a_manifest_are_answered_alike(place, ask, strangers, tmp_path, monkeypatch, capsys):
    one = by_id(ask(strangers / "0.png"))
    several = by_id(ask(strangers))
    assert sorted(several) == ["0", "1", "deep"]
    np.testing.assert_allclose(one["0"], several["0"], atol=1e-6)
    rows = [{"image_id": name, "path": str(strangers / f"{name}.png"), "label": ""} for name in several]
    write_manifest(strangers / "manifest.csv", list(rows[0]), rows)
    for source in (strangers, strangers / "manifest.csv"):
        for name, values in by_id(ask(source)).items():
            np.testing.assert_allclose(values, several[name], atol=1e-6)
    text = (strangers / "manifest.csv").read_bytes()
    monkeypatch.chdir(strangers)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    for name, values in by_id(ask("-")).items():
        np.testing.assert_allclose(values, several[name], atol=1e-6)


def test_without_an_output_the_table_is_printed_with_absolute_paths(place, ask, strangers, settings, capsys, tmp_path):
    expected = ask(strangers)
    shown = replace(settings, output=Console("table", 2, settings.report))
    predict(PredictOptions(place[0] / "run/r0f0", str(strangers)), shown)
    printed = tmp_path / "printed.csv"
    printed.write_text(capsys.readouterr().out)
    table = read_table(printed)
    assert [row["path"] for row in table.rows] == [str(strangers / f"{n}.png") for n in ("0", "1", "deep")]
    assert np.array_equal(read_predictions(printed).probabilities, expected.probabilities)
    assert list(tmp_path.glob("*.rejects.csv")) == [tmp_path / "answers.rejects.csv"]


def test_rows_hold_what_the_manifest_says_and_what_was_found(place, ask):
    _, study = place
    tested = study.assigned(0, 0, "test")
    rows = {row["image_id"]: row for row in read_manifest(study.folder).rows}
    answers = ask(subset_of(study, tested))
    for row, values in zip(answers.rows, answers.probabilities, strict=True):
        source = rows[row["image_id"]]
        for name in ("label", "patient_id", "severity", "source", "view", "age", "sex"):
            assert row[name] == source[name]
        assert row["subset"] == "test"
        assert row["predicted"] == answers.classes[int(values.argmax())]
        assert len(row["sha256"]) == 64
        assert (row["repeat"], row["fold"]) == ("", "")


def test_a_mask_is_no_part_of_an_answer(place, ask):
    _, study = place
    source = subset_of(study, study.assigned(0, 0, "test")[:2])
    table = read_manifest(source)
    rows = [{**row, "mask": row["path"], "note": "kept"} for row in table.rows]
    write_manifest(source, [*table.columns, "mask", "note"], rows)
    answers = ask(source)
    assert "mask" not in answers.columns
    assert [row["note"] for row in answers.rows] == ["kept"] * 2


def test_a_folder_s_name_is_a_label_only_inside_what_was_asked(ask, strangers):
    (strangers / "covid").mkdir()
    (strangers / "1.png").rename(strangers / "covid" / "1.png")
    answers = ask(strangers)
    assert {row["image_id"]: row["label"] for row in answers.rows} == {"0": "", "1": "covid", "deep": ""}
    assert {"source", "original"}.isdisjoint(answers.columns)


def test_a_run_answers_with_the_mean_of_its_folds(ask, strangers):
    mean = ask(strangers, "run", "mean.csv")
    each = ask(strangers, "run", "each.csv", members=True)
    assert len(mean.rows) == 3
    assert {(row["repeat"], row["fold"]) for row in mean.rows} == {("", "")}
    assert [(row["image_id"], row["repeat"], row["fold"]) for row in each.rows] == [
        (name, "0", fold) for name in ("0", "1", "deep") for fold in ("0", "1")
    ]
    np.testing.assert_allclose(each.probabilities.reshape(3, 2, 2).mean(1), mean.probabilities, atol=1e-8)
    for fold in range(2):
        alone = ask(strangers, f"run/r0f{fold}", "alone.csv")
        np.testing.assert_allclose(each.probabilities[fold::2], alone.probabilities, atol=1e-8)


def test_a_run_that_lacks_folds_answers_only_where_that_is_wanted(place, ask, strangers):
    folder, _ = place
    hidden = folder / "run" / "r0f1" / "predictions.csv"
    hidden.rename(folder / "aside.csv")
    try:
        with pytest.raises(IncompleteError, match="1 of 2 folds; missing r0f1"):
            ask(strangers, "run")
        partial = ask(strangers, "run", partial=True)
    finally:
        (folder / "aside.csv").rename(hidden)
    np.testing.assert_allclose(partial.probabilities, ask(strangers).probabilities, atol=1e-8)


def test_the_mirror_image_is_averaged_in(ask, strangers, tmp_path):
    turned = tmp_path / "turned"
    turned.mkdir()
    for path in strangers.iterdir():
        cv2.imwrite(str(turned / path.name), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:, ::-1])
    plain, mirrored = ask(strangers).probabilities, ask(turned).probabilities
    both = ask(strangers, tta=True).probabilities
    np.testing.assert_allclose(both, (plain + mirrored) / 2, atol=1e-6)
    assert not np.allclose(both, plain, atol=1e-5)


def test_raw_images_are_answered_as_prepared_ones(place, ask, tmp_path):
    folder, study = place
    tested = study.assigned(0, 1, "test")
    own = by_id(read_predictions(folder / "small" / "r0f1" / "predictions.csv"))
    raw = by_id(ask(subset_of(study, tested), "small/r0f1"))
    again = tmp_path / "again"
    assert (
        cxrtool(
            [
                "prepare",
                str(subset_of(study, tested)),
                "--like",
                str(folder / "small"),
                "--workers",
                "1",
                "-q",
                "-o",
                str(again),
            ]
        )
        == 0
    )
    prepared = by_id(ask(again, "small/r0f1"))
    assert sorted(raw) == sorted(prepared) == sorted(tested)
    for name in tested:
        np.testing.assert_allclose(raw[name], own[name], atol=1e-6)
        np.testing.assert_allclose(prepared[name], own[name], atol=1e-6)
    native = tmp_path / "native"
    assert cxrtool(["prepare", str(subset_of(study, tested)), "--workers", "1", "-q", "-o", str(native)]) == 0
    for name, values in by_id(ask(native, "small/r0f1")).items():
        np.testing.assert_allclose(values, own[name], atol=1e-6)


def test_images_that_went_through_something_else_are_refused(place, ask):
    folder, _ = place
    with pytest.raises(InputError) as caught:
        ask(folder / "prepared")
    assert "prepared/manifest.csv has been through: prepare --size 20 --fit pad" in caught.value.message
    assert "r0f0 was trained on: unprocessed images" in caught.value.message
    assert "--like" in caught.value.hint


@pytest.mark.parametrize("subset", ["train", "validation"])
@pytest.mark.parametrize("how", ["pixels", "patient"])
def test_what_a_model_was_fitted_on_is_refused(place, ask, settings, listener, tmp_path, subset, how):
    _, study = place
    name = study.assigned(0, 0, subset)[0]
    source = study.folder / f"{name}.png"
    if how == "patient":
        # Another picture of the same patient.
        cv2.imwrite(str(tmp_path / "other.png"), np.random.default_rng(5).integers(0, 255, (9, 9), np.uint8))
        patient = read_manifest(study.folder).subset([name]).rows[0]["patient_id"]
        row = {"image_id": "x", "path": str(tmp_path / "other.png"), "patient_id": f" {patient.upper()} "}
        source = tmp_path / "other.csv"
        write_manifest(source, list(row), [row])
    shown = "x" if how == "patient" else name
    with pytest.raises(LeakageError, match=rf"1 of 1 image, .* were used in training, such as {shown} in r0f0"):
        ask(source)
    assert not (tmp_path / "answers.csv").exists()
    assert len(ask(source, allow_leakage=True).rows) == 1
    assert len([text for text in listener.warned if "were used in training" in text]) == 1


def test_a_raw_image_is_recognised_by_a_model_of_prepared_ones(place, ask):
    _, study = place
    with pytest.raises(LeakageError):
        ask(study.folder / f"{study.assigned(0, 0, 'train')[0]}.png", "small/r0f0")


def test_a_copy_in_another_format_is_recognised_by_its_pixels(place, ask, tmp_path):
    _, study = place
    source = study.folder / f"{study.assigned(0, 0, 'train')[0]}.png"
    cv2.imwrite(str(tmp_path / "renamed.tif"), cv2.imread(str(source), cv2.IMREAD_UNCHANGED))
    with pytest.raises(LeakageError):
        ask(tmp_path / "renamed.tif")


def test_a_run_knows_what_any_of_its_folds_has_seen(place, ask):
    _, study = place
    with pytest.raises(LeakageError) as caught:
        ask(study.folder, "run")
    assert caught.value.exit_code == 4
    assert "own predictions.csv" in caught.value.hint


def test_an_unreadable_image_is_listed_and_the_rest_answered(ask, strangers, tmp_path, listener):
    expected = by_id(ask(strangers, batch_size=2))
    (strangers / "00broken.png").write_bytes(b"no picture")
    (strangers / "zz.png").write_bytes((strangers / "0.png").read_bytes()[:-30])
    answers = by_id(ask(strangers, batch_size=2))
    assert sorted(answers) == ["0", "1", "deep"]
    for name, values in answers.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6)
    rejects = read_table(tmp_path / "answers.rejects.csv")
    assert [Path(row["path"]).name for row in rejects.rows] == ["00broken.png", "zz.png"]
    assert all(row["reason"] for row in rejects.rows)
    assert listener.said[-1] == "3 images predicted, 2 rejected"
    with pytest.raises(StrictError, match="3 images predicted, 2 rejected"):
        ask(strangers, strict=True)


def test_when_no_image_can_be_read_there_is_no_answer(ask, strangers, tmp_path):
    (strangers / "broken.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"found none among 1, the first: .*broken.png: the file is empty"):
        ask(strangers / "broken.png")
    assert not (tmp_path / "answers.csv").exists()


def test_a_picture_unlike_a_chest_is_answered_with_a_warning(ask, strangers):
    cv2.imwrite(str(strangers / "blank.png"), np.full((SIDE, SIDE), 128, np.uint8))
    sideways = cv2.imread(str(strangers / "0.png"), cv2.IMREAD_UNCHANGED).T
    cv2.imwrite(str(strangers / "sideways.png"), np.ascontiguousarray(sideways))
    warnings = {row["image_id"]: row["warning"] for row in ask(strangers).rows}
    assert warnings.pop("blank").endswith("out of range: the image is blank")
    assert warnings.pop("sideways").startswith("out of range: unlike the training images")
    assert set(warnings.values()) == {""}


def test_depths_do_not_influence_each_other(ask, strangers):
    together = by_id(ask(strangers))
    # Shrinking rounds to the picture's own depth.
    np.testing.assert_allclose(together["deep"], together["1"], atol=1e-3)
    for name, values in together.items():
        np.testing.assert_allclose(by_id(ask(strangers / f"{name}.png"))[name], values, atol=1e-6)


def test_pictures_over_the_limit_are_rejected(ask, strangers, tmp_path):
    cv2.imwrite(str(strangers / "large.png"), np.zeros((100, 100), np.uint8))
    assert len(ask(strangers, max_pixels=1000).rows) == 3
    assert "large.png" in (tmp_path / "answers.rejects.csv").read_text()


def test_a_dry_run_asks_nothing(place, settings, listener, strangers, tmp_path):
    told = PredictOptions(place[0] / "run", str(strangers))
    predict(told, replace(settings, dry_run=True, out=tmp_path / "out.csv"))
    assert listener.said == ["would run 2 models on 3 images"]
    assert not (tmp_path / "out.csv").exists()


def test_reading_stays_below_the_root(ask, strangers, tmp_path):
    assert len(ask(strangers, root=tmp_path).rows) == 3
    (strangers / "link.png").symlink_to("/usr/share/nothing.png")
    with pytest.raises(InputError, match=r"link\.png is outside --root"):
        ask(strangers, root=tmp_path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("study", "expected a model folder or a run, found another folder"),
        ("nowhere", "expected a model folder or a run, found neither"),
        ("splits.csv", "expected a model folder or a run, found neither"),
    ],
)
def test_what_is_no_model_is_told(ask, strangers, model, message):
    with pytest.raises(InputError, match=message):
        ask(strangers, model)


def test_what_is_no_source_is_told(ask, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").write_text("image_id,path\n")
    for source, message in (
        ("nowhere", "no such image, folder or manifest"),
        ("empty", "expected images, found none"),
        ("empty.csv", "expected images, found none"),
        ("gone.csv", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            ask(tmp_path / source)


@pytest.mark.parametrize("changes", [{"precision": "fp8"}, {"device": "gpu"}])
def test_a_wrong_option_is_told(ask, strangers, changes):
    with pytest.raises(UsageError):
        ask(strangers, **changes)


def test_answers_are_exact_unless_bf16_is_asked_for(ask, strangers):
    auto, exact, quick = (ask(strangers, precision=name).probabilities for name in ("auto", "fp32", "bf16"))
    assert np.array_equal(auto, exact)
    assert not np.array_equal(auto, quick)
    np.testing.assert_allclose(auto, quick, atol=0.02)


def test_the_caller_s_randomness_is_left_alone(ask, strangers):
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    ask(strangers, threads=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["run.json", "images.csv", "rejects.csv"])
def test_a_file_of_somebody_else_beside_the_table_is_not_replaced(place, settings, strangers, tmp_path, name):
    mine, out = tmp_path / f"own.{name}", tmp_path / "own.csv"
    mine.write_text("colour\nred\n")
    options = PredictOptions(place[0] / "run/r0f0", str(strangers))
    with pytest.raises(TakenError, match=rf"found another file: .*own\.{name}, which is written beside it"):
        predict(options, replace(settings, out=out))
    assert mine.read_text() == "colour\nred\n"
    assert not out.exists()
    predict(options, replace(settings, out=out, force=True))
    predict(options, replace(settings, out=out))


def test_a_pipe_is_written_to_and_nothing_beside_it(place, settings, strangers):
    predict(PredictOptions(place[0] / "run/r0f0", str(strangers)), replace(settings, out=Path("/dev/null")))
    assert not Path("/dev/null.rejects.csv").exists()
    assert not Path("/dev/null").is_file()


def test_a_model_that_cannot_be_replayed_is_told_once(place, ask, strangers, tmp_path, editable):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(place[0] / "run" / "r0f0", copy)
    editable(copy)
    description = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**description, "chain": [{"step": "hocus", "strength": 2}]}))
    with pytest.raises(InputError, match="hocus --strength 2; this cxrtool cannot repeat 'hocus'"):
        ask(strangers, copy)


def test_sizes_of_reduced_images_are_those_of_their_files(place, ask, tmp_path):
    """A model of `prepare --size 20` knows the sizes of before, and so does a new image get its own."""
    folder, study = place
    tested = study.assigned(0, 1, "test")
    ask(subset_of(study, tested), "small/r0f1")
    raw = read_table(tmp_path / "answers.images.csv").rows
    ask(folder / "small", "small/r0f1", allow_leakage=True)
    prepared = {row["image_id"]: row for row in read_table(tmp_path / "answers.images.csv").rows}
    for row in raw:
        assert not [kind for kind in ("small", "narrow", "wide", "large") if kind in row["unlike"]]
        assert (row["width"], row["height"]) == tuple(prepared[row["image_id"]][side] for side in ("width", "height"))
    pixels = cv2.imread(read_manifest(study.folder).rows[0]["path"], cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(tmp_path / "tiny.png"), pixels[:10, :10])
    ask(tmp_path / "tiny.png", "small/r0f1")
    assert "small: shorter side (pixels) 10" in read_table(tmp_path / "answers.images.csv").rows[0]["unlike"]
