"""Every published set once through `prepare`: what is listed becomes an image or stands in `rejects.csv`."""

import csv

import numpy as np
import pytest

from cxrtool.data.reading.images import read_image
from cxrtool.data.tables.manifest import read_manifest

EXPECTED = {
    # images, rejects, classes
    "actualmed": (3, 0, {"", "No finding", "COVID-19"}),
    "bimcv": (3, 2, {"", "COVID-19", "normal"}),
    "cohen": (3, 4, {"COVID-19", "No Finding"}),
    "covidgr": (2, 0, {"N", "P"}),
    "covidx": (6, 1, {"COVID-19", "normal", "pneumonia"}),
    "figure1": (4, 1, {"", "COVID-19", "No finding", "Pneumonia"}),
    "jsrt": (2, 1, {"nodule", "no nodule"}),
    "montgomery": (3, 0, {"normal", "tuberculosis"}),
    "shenzhen": (3, 0, {"normal", "tuberculosis"}),
    "kaggle-pneumonia": (8, 0, {"NORMAL", "PNEUMONIA", "bacterial", "virus"}),
    "padchest": (3, 6, {"normal", "pneumonia", "other findings"}),
    "radiography-db": (7, 0, {"COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"}),
    "rsna": (3, 1, {"Lung Opacity", "Normal", "No Lung Opacity / Not Normal"}),
}


@pytest.fixture
def prepared(published, cxr, tmp_path):
    def call(name, *options, code=0):
        done = cxr("prepare", published(name), "--dataset", name, *options, "--workers", "1", "-o", tmp_path / "out")
        assert done.code == code, done.err
        with (tmp_path / "out" / "rejects.csv").open() as file:
            rejects = {row["path"].rpartition("/")[2]: row["reason"] for row in csv.DictReader(file)}
        return read_manifest(tmp_path / "out"), rejects, done.err

    return call


@pytest.mark.parametrize("name", EXPECTED)
def test_nothing_vanishes(prepared, name):
    manifest, rejects, _ = prepared(name)
    images, rejected, classes = EXPECTED[name]
    assert (len(manifest), len(rejects), set(manifest.column("label"))) == (images, rejected, classes)
    assert all(reason for reason in rejects.values())
    assert len(set(manifest.column("sha256"))) == images or name == "bimcv"
    for row in manifest.rows:
        assert row["patient_id"] == "" or row["patient_id"].startswith(row["source"] + ":")


def test_raw_values_are_shown_by_their_headers(prepared):
    manifest, rejects, _ = prepared("bimcv")
    rows = {row["image_id"]: row for row in manifest.rows}
    plain, turned, bare = (
        rows[name]
        for name in (
            "sub-S1_ses-E1_run-1_bp-chest_vp-ap_dx",
            "sub-S2_ses-E3_acq-1_run-1_bp-chest_vp-pa_cr",
            "sub-S2_ses-E4_run-2_bp-chest_cr",
        )
    )
    first, second = read_image(plain["path"]).pixels, read_image(turned["path"]).pixels
    # One is stored inverted: shown, they are the same picture, over the whole range.
    assert np.abs(first.astype(int) - second).max() <= 65535 / 1199 + 1
    assert (first.min(), first.max()) == (0, 65535)
    assert read_image(bare["path"]).pixels.max() <= 4095
    assert "no .json file beside it" in bare["warning"]
    # What the table does not tell, the header does.
    assert (turned["age"], turned["sex"], plain["age"], plain["sex"]) == ("61", "F", "57", "M")
    assert rejects["sub-S2_ses-E4_run-1_bp-abdomen_cr.png"] == "body part abdomen, not a chest"


def test_a_changed_header_is_noticed(published, cxr, tmp_path):
    root = published("bimcv")
    call = ("prepare", root, "--dataset", "bimcv", "--workers", "1", "-o", tmp_path / "out")
    assert cxr(*call).code == 0
    before = read_manifest(tmp_path / "out").rows[0]["sha256"]
    assert "up to date" in cxr(*call).err
    (told,) = root.glob("sub-S1/ses-E1/mod-rx/*.json")
    told.write_text(told.read_text().replace("[1200]", "[900]"))
    assert cxr(*call).code == 0
    assert read_manifest(tmp_path / "out").rows[0]["sha256"] != before


def test_a_header_outside_the_root_is_not_read(published, cxr, tmp_path):
    root = published("bimcv")
    (told,) = root.glob("sub-S1/ses-E1/mod-rx/*.json")
    outside = tmp_path / "outside.json"
    told.rename(outside)
    told.symlink_to(outside)
    cxr("prepare", root, "--dataset", "bimcv", "--root", root, "--workers", "1", "-o", tmp_path / "out")
    assert "is outside --root" in (tmp_path / "out" / "rejects.csv").read_text()


def test_what_a_set_leaves_out_is_no_case_for_strict(prepared):
    _, rejects, _ = prepared("bimcv", "--strict")
    assert len(rejects) == 2


def test_a_corrupt_file_is_a_case_for_strict(published, cxr, tmp_path):
    root = published("padchest")
    done = cxr("prepare", root, "--dataset", "padchest", "--strict", "--workers", "1", "-o", tmp_path / "out")
    assert done.code == 3
    rejects = (tmp_path / "out" / "rejects.csv").read_text()
    assert "torn_8.png,truncated PNG" in rejects
    assert "gone_9.png,no such file" in rejects


def test_laterals_are_kept_where_they_are_asked_for(prepared):
    manifest, rejects, _ = prepared("padchest", "--view", "L,PA")
    assert sorted(manifest.column("view")) == ["L", "PA", "PA"]
    assert rejects["two_2.png"] == "view AP SUPINE, --view is L, PA"


def test_masks_come_along(prepared):
    manifest, _, told = prepared("radiography-db")
    assert sum(bool(row["mask"]) for row in manifest.rows) == 3
    mask = next(row for row in manifest.rows if row["image_id"] == "COVID-1")
    assert read_image(mask["mask"]).pixels.shape == read_image(mask["path"]).pixels.shape == (299, 299)
    assert "no patient ids" in told


def test_headers_of_dicom_tell_the_rest(prepared):
    manifest, rejects, _ = prepared("rsna")
    row = next(row for row in manifest.rows if row["image_id"] == "b2")
    assert (row["sex"], row["view"], row["patient_id"]) == ("F", "PA", "rsna:b2")
    assert rejects == {"d4.dcm": "no such file"}


def test_an_image_of_two_sets_has_one_patient(published, cxr, tmp_path):
    for name in ("figure1", "covidx"):
        assert cxr("prepare", published(name), "--dataset", name, "--workers", "1", "-o", tmp_path / name).code == 0
    patients = [set(read_manifest(tmp_path / name).column("patient_id")) for name in ("figure1", "covidx")]
    assert patients[0] & patients[1] == {"figure1:COVID-00003"}
