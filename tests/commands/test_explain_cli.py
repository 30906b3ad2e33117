import cv2
import numpy as np
import pytest

from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.tables.manifest import read_manifest
from cxrtool.flow.settings import Settings


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_study):
    """A study with a model of its first fold."""
    folder = tmp_path_factory.mktemp("place")
    study = make_study(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        told = TrainOptions(study.folder, study.splits, model="covid-xnet", size=32, epochs=1, only="r0f0")
        train(told, Settings(out=folder / "run", cache=folder / "cache"))
    return folder / "run", study


COMMON = ("--threads", "1", "--workers", "1", "--device", "cpu")


def test_a_run_is_explained_into_a_folder(place, cxr, tmp_path):
    run, study = place
    result = cxr("explain", run, study.folder, "--partial", *COMMON, "--target", "opposite", "-o", tmp_path / "heat")
    assert (result.code, result.out) == (0, "")
    assert "grad-cam of body: 2 x 2 cells, 256 channels" in result.err
    assert "images were not explained: no fold of the run tested it" in result.err
    rows = read_manifest(tmp_path / "heat").rows
    assert [row["image_id"] for row in rows] == sorted(study.assigned(0, 0, "test"))
    assert all(row["target"] != row["predicted"] for row in rows)
    again = cxr("explain", run, study.folder, "--partial", *COMMON, "--target", "opposite", "-o", tmp_path / "heat")
    assert again.err.endswith("up to date, nothing to do\n")


def test_an_image_is_explained_by_a_model(place, cxr, tmp_path):
    cv2.imwrite(str(tmp_path / "new.png"), np.random.default_rng(1).integers(0, 255, (30, 40), np.uint8))
    result = cxr("explain", place[0] / "r0f0", tmp_path / "new.png", *COMMON, "-q", "-o", tmp_path / "heat")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert cv2.imread(str(tmp_path / "heat" / "overlays" / "new.png")) is not None


def test_without_an_output_it_says_so(place, cxr):
    result = cxr("explain", place[0] / "r0f0", place[1].folder, *COMMON)
    assert result.code == 2
    assert "needs -o DIR" in result.err


def test_a_wrong_class_is_exit_code_2(place, cxr, tmp_path):
    result = cxr("explain", place[0] / "r0f0", place[1].folder, *COMMON, "--target", "covit", "-o", tmp_path / "heat")
    assert result.code == 2
    assert "did you mean 'covid'?" in result.err
    assert not (tmp_path / "heat").exists()
