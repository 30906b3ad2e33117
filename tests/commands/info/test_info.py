import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrtool.commands.info import InfoOptions, info
from cxrtool.commands.select import SelectOptions, select
from cxrtool.commands.split import SplitOptions, split
from cxrtool.data.tables.manifest import read_manifest, write_manifest
from cxrtool.errors import InputError


@pytest.fixture
def look(settings):
    """Describe a path."""
    return lambda path, **options: info(InfoOptions(Path(path), **options), settings)


@pytest.fixture
def dicom_file(tmp_path):
    """A DICOM file with a patient."""
    from pydicom.data import get_testdata_file

    data = get_testdata_file("CT_small.dcm", read=True)
    data.PatientID = "P-4711"
    data.save_as(tmp_path / "a.dcm")
    return tmp_path / "a.dcm"


@pytest.fixture
def splits(tiny, settings):
    """A splits file in the manifest's folder."""
    path = tiny.origin.parent / "splits.csv"
    split(SplitOptions(tiny.origin, holdout="50/25/25"), replace(settings, out=path))
    return path


def test_a_manifest(look, tiny):
    found = look(tiny.origin)
    assert found.kind == "manifest"
    assert found.facts == {
        "images": "24",
        "classes": "covid 12, normal 12",
        "patients": "12",
        "severity": "mild 8, severe 8, missing 8",
        "source": "a 12, b 12",
        "view": "AP 12, PA 12",
        "sex": "F 12, M 12",
        "age": "20 to 31, median 25.5",
        "processing": "unprocessed images",
    }
    assert found.warnings == []
    assert "cxrtool split" in found.next


def test_splits_beside_it_are_found_and_counted(look, tiny, splits, settings, tmp_path):
    found = look(tiny.origin.parent)
    assert found.facts["splits"] == str(splits)
    _, columns, rows = found.tables[0]
    assert columns == ["fold", "subset", "images", "patients", "covid", "normal"]
    assert rows[0] == ["r0f0", "train", "12", "6", "6", "6"]
    splits.rename(tmp_path / "splits.csv")
    assert look(tiny.origin.parent).facts["splits"] == str(tmp_path / "splits.csv")
    (tmp_path / "splits.csv").write_text("image_id,subset\nstranger,train\n")
    assert "splits" not in look(tiny.origin.parent).facts


def test_splits_that_do_not_fit_are_warned_of(look, tiny, tmp_path):
    (tmp_path / "s.csv").write_text("image_id,subset\nim000,train\nim001,test\nstranger,train\n")
    warnings = look(tiny.origin, splits=tmp_path / "s.csv").warnings
    assert warnings == [
        "1 id of the splits is not in this manifest, such as stranger",
        "22 images are in no subset of the splits, such as im002",
        "r0f0: 1 patient is in more than one subset, such as p:000",
    ]


def test_lost_files_and_duplicates_are_warned_of(look, tiny):
    Path(tiny.rows[5]["path"]).unlink()
    for index, digest in ((0, "x"), (1, "X"), (2, "x")):
        tiny.rows[index]["sha256"] = digest
    write_manifest(tiny.origin, [*tiny.columns, "sha256"], tiny.rows)
    lost, twins = look(tiny.origin).warnings
    assert lost == f"1 of 24 image files are missing, such as {tiny.rows[5]['path']}"
    assert twins.startswith("2 images have the same pixels as another, 1 with another label, such as im001 and im000")


def test_a_step_folder_tells_how_it_was_made(look, tiny, settings, tmp_path):
    out = tmp_path / "chosen"
    command = ["cxrtool", "select", "a b.csv", "-o", "chosen"]
    select(SelectOptions((tiny.origin,), per_class="5"), replace(settings, out=out, argv=command))
    for path in (out, out / "manifest.csv", out / "run.json"):
        found = look(path)
        assert found.kind == "folder of `cxrtool select`"
        assert found.facts["made by"] == "cxrtool select 'a b.csv' -o chosen"
        assert found.facts["left out"] == "14: 14 × --per-class 5: not drawn"


def test_a_table_of_rejects(look, tmp_path):
    (tmp_path / "r.csv").write_text("path,reason\na,truncated\nb,truncated\nc,empty\n")
    assert look(tmp_path / "r.csv").facts == {"files": "3", "reasons": "2 × truncated; 1 × empty"}


def test_a_splits_file(look, splits):
    found = look(splits)
    assert found.kind == "splits"
    assert found.facts == {"images": "24", "repeats": "1", "folds in all": "1"}
    assert found.tables[0][2] == [["r0f0", "train", "12"], ["r0f0", "validation", "6"], ["r0f0", "test", "6"]]


def test_predictions(look, tmp_path):
    header = "image_id,subset,label,predicted,prob_a,prob_b,warning\n"
    text = header + "1,test,a,b,0.4,0.6,no lungs found\n2,test,b,b,0.1,0.9,\n"
    (tmp_path / "predictions.csv").write_text(text)
    for path in (tmp_path, tmp_path / "predictions.csv"):
        found = look(path)
        assert found.kind == "predictions"
        assert found.facts["probabilities of"] == "a, b"
        assert found.facts["predicted"] == "b 2"
        assert found.facts["warnings"] == "no lungs found 1"


def test_a_model(look, tmp_path):
    model = {
        "schema": 1,
        "classes": ["a", "b"],
        "architecture": {"name": "covid-xnet", "size": 128},
        "chain": [],
        "calibration": None,
        "usual": {"long": [1] * 1000},
    }
    (tmp_path / "model.json").write_text(json.dumps(model))
    (tmp_path / "fitted_on.csv").write_text("image_id,patient_id,subset\n1,p,train\n2,p,train\n3,q,validation\n")
    for path in (tmp_path, tmp_path / "model.json"):
        found = look(path)
        assert found.kind == "model"
        assert found.facts["classes"] == "a, b"
        assert found.facts["architecture"] == "name covid-xnet, size 128"
        assert found.facts["calibration"] == "none"
        assert found.facts["processing"] == "unprocessed images"
        assert found.facts["fitted on"] == "train 2, validation 1; 2 patients"
        assert "usual" not in found.facts
    (tmp_path / "model.json").write_text("{half")
    with pytest.raises(InputError, match=r"model\.json: cannot be read"):
        look(tmp_path)


def test_a_run_tells_which_folds_are_missing(look, tmp_path):
    run = tmp_path / "run"
    (run / "r0f0").mkdir(parents=True)
    (run / "r0f0" / "predictions.csv").write_text("image_id,prob_a,prob_b\n1,0.5,0.5\n")
    (run / "splits.csv").write_text("image_id,repeat,fold,subset\n1,0,0,test\n1,0,1,test\n")
    options = {"model": {"value": "resnet18", "origin": "flag"}, "lr": {"value": 0.001, "origin": "preset"}}
    (run / "run.json").write_text(json.dumps({"command": "train", "argv": ["cxrtool", "train"], "options": options}))
    found = look(run)
    assert found.kind == "run"
    assert found.facts["folds"] == "1 of 2; missing r0f1"
    assert found.facts["model"] == "resnet18"
    assert found.facts["lr"] == "0.001"
    (run / "r0f1").mkdir()
    (run / "r0f1" / "predictions.csv").write_text("image_id,prob_a,prob_b\n1,0.5,0.5\n")
    assert look(run).facts["folds"] == "2 of 2, complete"
    assert look(run).next == f"cxrtool evaluate {run}"


def test_a_run_that_is_partly_replaced_tells_which_folds_are_of_other_options(look, tmp_path):
    run = tmp_path / "run"
    (run / "r0f0").mkdir(parents=True)
    (run / "r0f1").mkdir()
    (run / "splits.csv").write_text("image_id,repeat,fold,subset\n1,0,0,test\n1,0,1,test\n")
    (run / "run.json").write_text(json.dumps({"command": "train", "argv": [], "run_digest": "new"}))
    for fold, digest in (("r0f0", "new"), ("r0f1", "old")):
        (run / fold / "predictions.csv").write_text("image_id,prob_a,prob_b\n1,0.5,0.5\n")
        (run / fold / "run.json").write_text(json.dumps({"command": "train", "run_digest": digest}))
    assert look(run).facts["folds"] == "1 of 2; missing r0f1"
    assert look(run).next == "run the same `cxrtool train` again to continue"


def test_an_image(look, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.arange(6000, dtype=np.uint16).reshape(60, 100))
    found = look(tmp_path / "a.png")
    assert found.kind == "image"
    assert found.facts["width x height"] == "100 x 60"
    assert found.facts["bits a pixel"] == "16"
    assert found.facts["grey values"] == "0 to 5999"


def test_the_patient_of_a_dicom_file_is_shown_on_request(look, dicom_file):
    found = look(dicom_file)
    assert "P-4711" not in str(found)
    assert found.facts["patient id"] == "in the file; --show-identity shows it"
    assert look(dicom_file, show_identity=True).facts["patient id"] == "P-4711"


def test_a_folder_of_images_without_manifest(look, tiny):
    tiny.origin.unlink()
    found = look(tiny.origin.parent)
    assert found.facts["files"] == "24"
    assert found.facts["kinds"] == ".png 24"
    assert found.next == f"cxrtool prepare {tiny.origin.parent} -o prepared"


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "text", "table", "empty file", "device"])
def test_what_it_does_not_know_it_says_what_it_looked_for(look, tmp_path, kind):
    path = tmp_path / "x"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "text":
        path.write_bytes(b"\0not a picture")
    elif kind == "table":
        path.write_text("a,b\n1,2\n")
    elif kind == "empty file":
        path.write_bytes(b"")
    elif kind == "device":
        path = Path("/dev/null")
    with pytest.raises(InputError) as caught:
        look(path)
    assert "a manifest" in caught.value.hint


def test_a_manifest_without_images_says_so(look, tmp_path):
    (tmp_path / "m.csv").write_text("image_id,path\n")
    for options in ({}, {"table1": True}):
        with pytest.raises(InputError, match="a manifest without images"):
            look(tmp_path / "m.csv", **options)


def test_table_one_by_class_and_by_subset(look, tiny, splits, settings):
    by_subset = look(tiny.origin, table1=True).tables[0]
    assert by_subset[1] == ["", "train", "validation", "test", "all", "SMD"]
    assert by_subset[2][0] == ["images", "12", "6", "6", "24", ""]
    split(SplitOptions(tiny.origin, folds=3), replace(settings, out=splits))
    found = look(tiny.origin, table1=True)
    assert found.tables[0][1] == ["", "covid", "normal", "all", "SMD"]
    assert "has 3 repeats and folds; Table 1 is by class" in found.warnings[0]
    assert not any(row[0].startswith("label") for row in found.tables[0][2])


def test_real_radiographs(look, real_data):
    found = look(real_data / "covid-cxr-336" / "images")
    assert found.facts["files"] == "336"
    assert found.facts["folders"] == "covid, normal, pneumonia"
    image = next((real_data / "covid-cxr-336" / "images" / "covid").iterdir())
    assert look(image).kind == "image"


def test_twins_are_counted_as_the_radiographs_that_they_are(cxr, study, write_generators, tmp_path):
    run = write_generators(tmp_path / "g", study.splits, read_manifest(study.folder).rows)
    made = cxr(
        "transform",
        study.folder,
        "--generators",
        run,
        "-o",
        tmp_path / "twins",
        "--cache",
        tmp_path / "c",
        "--workers",
        "1",
        "--threads",
        "1",
        "--strips",
        "0",
    )
    assert made.code == 0, made.err
    told = cxr("info", tmp_path / "twins")
    assert "48, of 24 radiographs for 1 fold" in told.out
    assert "covid 24, normal 24" in told.out
    assert "the same pixels" not in told.err


def test_a_division_is_advised_that_every_class_allows(look, tiny):
    few = sorted({row["patient_id"] for row in tiny.rows if row["label"] == "normal"})[:3]
    rows = [row for row in tiny.rows if row["label"] == "covid" or row["patient_id"] in few]
    write_manifest(tiny.origin, tiny.columns, rows)
    assert " --folds 3 " in look(tiny.origin).next
