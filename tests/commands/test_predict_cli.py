import io
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.tables.manifest import read_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.flow.settings import Settings


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_study):
    """A study with a model of its first fold."""
    folder = tmp_path_factory.mktemp("place")
    study = make_study(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        told = TrainOptions(study.folder, study.splits, model="covid-xnet", size=16, epochs=1, only="r0f0")
        train(told, Settings(out=folder / "run", cache=folder / "cache"))
    return folder / "run" / "r0f0", study


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(100).integers(0, 100, (24, 28), np.uint8)
    pixels[:, :12] += 120
    cv2.imwrite(str(tmp_path / "new.png"), pixels)
    return tmp_path / "new.png"


COMMON = ("--threads", "1", "--workers", "1", "--device", "cpu")


def test_an_answer_is_a_table_on_standard_output(place, picture, cxr, tmp_path):
    result = cxr("predict", place[0], picture, *COMMON)
    assert result.code == 0
    assert result.out.splitlines()[0] == (
        "image_id,path,repeat,fold,subset,label,predicted,prob_covid,prob_normal,warning,sha256"
    )
    assert result.err == "1 image predicted, 0 rejected\n"
    (tmp_path / "out.csv").write_text(result.out)
    read = read_predictions(tmp_path / "out.csv")
    assert read.rows[0]["path"] == str(picture)
    assert read.probabilities.sum() == pytest.approx(1)


def test_an_answer_is_written_exactly_where_it_shall_be(place, picture, cxr, tmp_path):
    result = cxr("predict", place[0], picture, *COMMON, "-o", tmp_path / "answers.csv", "-q")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert read_table(tmp_path / "answers.csv").rows[0]["path"] in ("new.png", str(picture))
    assert (tmp_path / "answers.rejects.csv").read_text() == "path,reason\n"
    beside = ["answers.csv", "answers.images.csv", "answers.journal.jsonl", "answers.rejects.csv", "answers.run.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*beside, "new.png"]
    measured = read_table(tmp_path / "answers.images.csv").rows
    assert [row["image_id"] for row in measured] == ["new"]
    made = json.loads((tmp_path / "answers.run.json").read_text())
    assert (made["command"], made["counts"]) == ("predict", {"images": 1, "rejects": 0})
    assert (tmp_path / made["members"][0]["folder"] / "model.json").is_file()


def test_a_manifest_comes_through_a_pipe(place, picture, cxr, monkeypatch):
    text = f"image_id,path,label\n007,{picture.name},normal\n".encode()
    monkeypatch.chdir(picture.parent)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    result = cxr("predict", place[0], "-", *COMMON)
    assert result.code == 0
    assert result.out.splitlines()[1].startswith(f"007,{picture},,,test,normal,")


def test_a_model_that_cannot_be_calibrated_says_why(place, picture, cxr):
    plain, result = (
        cxr("predict", place[0], picture, *COMMON),
        cxr("predict", place[0], picture, *COMMON, "--calibrated"),
    )
    assert result.code == 0
    assert result.out == plain.out
    assert result.err.startswith("warning: --calibrated: the model stays at temperature 1: only ")
    assert len(result.err.splitlines()) == 2


def test_the_real_command_prints_the_same_every_time(place, picture, cxr):
    told = ["predict", str(place[0]), str(picture), *COMMON]
    command = [sys.executable, "-m", "cxrtool", *told]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert first.stdout == cxr(*told).out


def test_what_a_model_was_fitted_on_is_exit_code_4(place, cxr):
    model, study = place
    result = cxr("predict", model, study.folder, *COMMON)
    assert result.code == 4
    assert result.out == ""
    assert "16 of 24 images, or their patients, were used in training" in result.err
    allowed = cxr("predict", model, study.folder, *COMMON, "--allow-leakage")
    assert allowed.code == 0
    assert len(allowed.out.splitlines()) == 25
    assert allowed.err.startswith("warning: 16 of 24 images")


def test_rejects_are_exit_code_3_where_that_is_asked_for(place, picture, cxr):
    (picture.parent / "broken.png").write_bytes(b"no picture")
    result = cxr("predict", place[0], picture.parent, *COMMON)
    assert result.code == 0
    assert len(result.out.splitlines()) == 2
    assert f"warning: {picture.parent / 'broken.png'}: " in result.err
    assert result.err.endswith("1 image predicted, 1 rejected\n")
    strict = cxr("predict", place[0], picture.parent, *COMMON, "--strict")
    assert strict.code == 3
    assert strict.out == result.out


@pytest.mark.parametrize(
    ("model", "source", "more", "code", "text"),
    [
        ("{model}", "gone", (), 1, "gone: no such image, folder or manifest"),
        ("{model}", "gone.csv", (), 1, "gone.csv: no such file"),
        ("gone", "{picture}", (), 1, "gone: expected a model folder or a run, found neither"),
        ("{model}", "{picture}", ("--device", "gpu"), 2, "--device: expected auto, cpu, cuda or cuda:N, found 'gpu'"),
        ("{model}", "{picture}", ("--precision", "int4"), 2, "--precision: expected one of auto, fp32, bf16"),
        ("{model}", "{picture}", ("--batch-size", "0"), 2, "--batch-size"),
        ("{model}", "{picture}", ("--member",), 2, "no such option --member; did you mean --members?"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(place, picture, cxr, model, source, more, code, text):
    names = {"model": place[0], "picture": picture}
    result = cxr("predict", model.format(**names), source.format(**names), *COMMON, *more)
    assert result.code == code
    assert text in result.err
    assert result.out == ""
    assert 1 <= len(result.err.splitlines()) <= 2


def test_a_broken_model_is_told_without_a_traceback(place, picture, cxr, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(place[0], copy)
    description = json.loads((copy / "model.json").read_text())
    wider = {**description["architecture"], "classes": 3}
    for content in ("{", "[]", json.dumps({**description, "architecture": wider})):
        (copy / "model.json").write_text(content)
        result = cxr("predict", copy, picture, *COMMON)
        assert result.code == 1
        assert "Traceback" not in result.err
        assert "copy/model" in result.err
