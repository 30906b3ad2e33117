"""`grade` as a user calls it: estimates by fits that saw none of the images, and their agreement with raters."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrtool.data.splitting.grouping import hashed
from cxrtool.data.tables.severity import SEVERITIES, stratum_of
from cxrtool.evaluation.grading import fit_grader
from cxrtool.flow.graders import GRADE, default_grader, read_grader, write_grader
from cxrtool.imaging.regions import PREFIX, REGIONS, SIDES, ZONES
from cxrtool.models.parts import default_part

COUNT = 60


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Sixty images of thirty patients with opaque shares, extents and Brixia scores that follow them."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("image.png", np.zeros((8, 8), np.uint8))
    rng = np.random.default_rng(0)
    rows = []
    for index in range(COUNT):
        zones = rng.beta(0.8, 1.2, 6)
        shares = {
            "lungs": zones.mean(),
            "right": zones[:3].mean(),
            "left": zones[3:].mean(),
            **dict(zip(ZONES, zones, strict=True)),
        }
        extent = np.clip(4 * (shares["right"] + shares["left"]) + rng.normal(0, 0.4), 0, 8)
        row = {"image_id": f"i{index}", "path": "image.png", "label": ("covid", "normal")[index % 4 == 3]}
        row |= {"patient_id": f"p{index // 2}", "sha256": f"{index:064x}", "extent": f"{extent:.2f}"}
        row |= {PREFIX + region: f"{shares[region]:.4f}" for region in REGIONS}
        for reader in ("senior", "junior"):
            row |= {f"{reader}_{zone}": str(round(3 * share)) for zone, share in zip(ZONES, zones, strict=True)}
        rows.append(row)
    write("shares.csv", rows)
    return tmp_path


def write(name, rows):
    with Path(name).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def read(name):
    with Path(name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_severities_and_agreement(place, cxr):
    outcome = cxr("grade", "shares.csv", "--fit", "extent", "-o", "graded")
    assert outcome.code == 0, outcome.err
    rows = read("graded/manifest.csv")
    assert len(rows) == COUNT
    for row in rows:
        low, found, high = (float(row[name]) for name in ("extent_low", "extent_estimated", "extent_high"))
        assert 0 <= low <= found <= high <= 8
        assert row["severity_estimated"] == stratum_of(found)
    told = json.loads((place / "graded/agreement.json").read_text())
    pairs = np.array([[float(row["extent_estimated"]), float(row["extent"])] for row in rows])
    assert told["total"]["mae"]["value"] == pytest.approx(np.abs(pairs[:, 0] - pairs[:, 1]).mean(), abs=1e-3)
    assert told["total"]["pearson"]["value"] == pytest.approx(np.corrcoef(*pairs.T)[0, 1], abs=1e-3)
    assert told["patients"] == 30
    strata = [stratum_of(value) for value in pairs[:, 1]]
    same = np.mean([row["severity_estimated"] == stratum for row, stratum in zip(rows, strata, strict=True)])
    assert told["total"]["stratum_accuracy"]["value"] == pytest.approx(same)
    assert "by fits that saw none of them" in outcome.out
    assert cv2.imread("graded/agreement.png") is not None
    assert "up to date" in cxr("grade", "shares.csv", "--fit", "extent", "-o", "graded").err


def test_every_estimate_is_of_the_fit_that_left_its_patient_out(place, cxr):
    cxr("grade", "shares.csv", "--fit", "extent", "-o", "graded")
    fitted = read_grader(place / "graded/grader")
    for row in read("graded/manifest.csv"):
        fold = fitted.fold_of(row)
        assert fold is not None
        shares = np.array([[float(row[PREFIX + side]) for side in SIDES]])
        assert float(row["extent_estimated"]) == pytest.approx(fitted.grader.regions(shares, fold).sum(), abs=1e-3)
    # With the grader alone, images that it knows are still judged by a fit that did not see them.
    cxr("grade", "shares.csv", "--grader", "graded/grader", "--rated", "extent", "-o", "again")
    first, again = (read(f"{name}/manifest.csv") for name in ("graded", "again"))
    assert [row["extent_estimated"] for row in first] == [row["extent_estimated"] for row in again]


def test_brixia_scores_have_zones_and_the_mean_of_readers(place, cxr):
    outcome = cxr("grade", "shares.csv", "--scale", "brixia", "--fit", "senior,junior", "-o", "graded")
    assert outcome.code == 0, outcome.err
    for row in read("graded/manifest.csv"):
        zones = [float(row[f"brixia_{zone}_estimated"]) for zone in ZONES]
        assert float(row["brixia_estimated"]) == pytest.approx(sum(zones), abs=0.01)
        assert all(0 <= zone <= 3 for zone in zones)
        assert "severity_estimated" not in row
    told = json.loads((place / "graded/agreement.json").read_text())
    assert told["regions"]["mae"]["value"] < 0.35


def test_what_a_network_was_fitted_on_gets_no_score(place, cxr):
    rows = read("shares.csv")
    for index, row in enumerate(rows):
        row["opacity_seen"] = "1" if index < 4 else ""
    rows[7][f"{PREFIX}left"] = ""
    write("shares.csv", rows)
    outcome = cxr("grade", "shares.csv", "--fit", "extent", "-o", "graded")
    blank = [row["image_id"] for row in read("graded/manifest.csv") if not row["extent_estimated"]]
    assert blank == ["i0", "i1", "i2", "i3", "i7"]
    assert "4 of 60 images seen by the opacity network; no estimate" in outcome.err
    assert "1 of 60 images without opaque shares; no estimate" in outcome.err


def test_an_estimate_of_before_is_not_kept_for_an_image_without_one(place, cxr):
    cxr("grade", "shares.csv", "--fit", "extent", "-o", "graded")
    rows = read("graded/manifest.csv")
    rows[7][f"{PREFIX}left"] = ""
    rows = [{**row, "path": str(place / "image.png")} for row in rows]
    write("shares.csv", rows)
    outcome = cxr("grade", "shares.csv", "--grader", "graded/grader", "-o", "again")
    assert outcome.code == 0, outcome.err
    again = read("again/manifest.csv")
    assert again[0].keys() == rows[0].keys()
    assert [row["image_id"] for row in again if not row["extent_estimated"]] == ["i7"]
    assert not again[7]["severity_estimated"]
    assert not again[7]["extent_low"]


def test_severities_are_of_the_named_classes(place, cxr):
    cxr("grade", "shares.csv", "--fit", "extent", "--classes", "covid", "-o", "graded")
    for row in read("graded/manifest.csv"):
        assert bool(row["severity_estimated"]) == (row["label"] == "covid")
        assert row["extent_estimated"]


def test_rated_and_estimated_severities_are_never_in_one_table(place, cxr):
    cxr("grade", "shares.csv", "--fit", "extent", "-o", "graded")
    rows = read("graded/manifest.csv")
    for row in rows:
        row |= {"predicted": row["label"], "prob_covid": "0.8", "prob_normal": "0.2", "subset": "test"}
        row |= {"repeat": "0", "fold": "0"}
    write("estimated.csv", rows)
    outcome = cxr("evaluate", "estimated.csv", "--by", "severity", "--format", "json")
    found = json.loads(outcome.out)
    assert list(found["per_group"]) == ["severity_estimated"]
    assert any("nobody rated them" in note for note in found["notes"])
    for index, row in enumerate(rows):
        row["severity"] = "mild" if index % 2 else ""
    write("both.csv", rows)
    found = json.loads(cxr("evaluate", "both.csv", "--by", "severity", "--format", "json").out)
    assert list(found["per_group"]) == ["severity"]
    assert set(found["per_group"]["severity"]) == {"mild", "(none)"}


@pytest.mark.parametrize(
    ("spoil", "arguments", "expected"),
    [
        ({"extent": "9"}, ("--fit", "extent"), "expected a score from 0 to 8, found '9'"),
        ({"extent": "much"}, ("--fit", "extent"), "expected a score from 0 to 8, found 'much'"),
        ({}, ("--fit", "rale"), "expected a column 'rale'"),
        ({}, ("--fit", "extent", "--grader", "x"), "--fit makes a grader, --grader takes one: choose one"),
        ({}, ("--grader", "nowhere"), "expected a folder with grade.json and fitted_on.csv"),
        ({}, ("--fit", "extent", "--classes", "viral"), "--classes: expected classes of the manifest, found 'viral'"),
    ],
)
def test_a_wrong_call_is_one_line(place, cxr, spoil, arguments, expected):
    rows = read("shares.csv")
    rows[5] |= spoil
    write("shares.csv", rows)
    outcome = cxr("grade", "shares.csv", *arguments, "-o", "graded")
    assert outcome.code in (1, 2)
    assert expected in outcome.err
    assert not (place / "graded").exists()


def test_a_manifest_without_shares_says_what_writes_them(place, cxr):
    write("plain.csv", [{"image_id": "a", "path": "image.png", "label": "covid"}])
    outcome = cxr("grade", "plain.csv", "-o", "graded")
    assert "expected the column 'opacity_right'" in outcome.err
    assert "segment MANIFEST --opacities" in outcome.err


def test_a_damaged_grader_is_refused(place, cxr):
    cxr("grade", "shares.csv", "--fit", "extent", "-o", "graded")
    content = json.loads((place / "graded/grader" / GRADE).read_text())
    content["points"][0] = 3.9
    (place / "graded/grader" / GRADE).write_text(json.dumps(content))
    outcome = cxr("grade", "shares.csv", "--grader", "graded/grader", "-o", "again")
    assert outcome.code in (1, 2)
    assert "grade.json" in outcome.err


def test_patients_in_a_grader_are_hashed(tmp_path):
    rng = np.random.default_rng(0)
    shares = rng.random((20, 2))
    rows = [{"image_id": f"i{k}", "patient_id": f"clinic:{k}", "sha256": ""} for k in range(20)]
    grader = fit_grader("extent", shares, 4 * shares.sum(1), np.arange(20), 0)
    write_grader(tmp_path / "grader", grader, rows, {})
    assert "clinic" not in (tmp_path / "grader/fitted_on.csv").read_text()
    assert read_grader(tmp_path / "grader").patients[hashed("clinic:3")] == grader.fold_of[3]


@pytest.mark.parametrize("scale", ["extent", "brixia"])
def test_graders_come_with_cxrtool(scale):
    fitted = read_grader(default_grader(scale))
    assert fitted.grader.scale == scale
    assert len(fitted.images) > 50
    # A new default network needs new graders.
    assert fitted.content["networks"] == [default_part("opacities").name]


def test_shares_of_another_network_than_the_grader_was_fitted_to_are_warned_of(place, cxr):
    rows = read("shares.csv")
    write("shares.csv", [{**row, "opacity_network": "one" if k % 2 else "two"} for k, row in enumerate(rows)])
    outcome = cxr("grade", "shares.csv", "--fit", "extent", "-o", "graded")
    assert "another opacity network" not in outcome.err
    assert read_grader(place / "graded/grader").content["networks"] == ["one", "two"]
    names = ["one", "two", "three", ""]
    others = [{**row, "image_id": f"o{k}", "patient_id": f"o{k}", "sha256": ""} for k, row in enumerate(rows)]
    write("others.csv", [{**row, "opacity_network": names[k % 4]} for k, row in enumerate(others)])
    outcome = cxr("grade", "others.csv", "--grader", "graded/grader", "-o", "others")
    assert "15 of 60 images have opaque shares of another opacity network (three) than the grader" in outcome.err
    assert all(row["extent_estimated"] for row in read("others/manifest.csv"))


def test_images_without_digest_and_patient_are_known_by_their_id(place, cxr):
    rows = [{**row, "patient_id": "", "sha256": ""} for row in read("shares.csv")]
    write("shares.csv", rows)
    outcome = cxr("grade", "shares.csv", "--fit", "extent", "-o", "graded")
    assert "neither sha256 nor patient_id: 60 of the images, 60 of those of the fit" in outcome.err
    grader = read_grader(place / "graded/grader")
    errors = [abs(float(row["extent_estimated"]) - float(row["extent"])) for row in read("graded/manifest.csv")]
    assert errors == pytest.approx(grader.grader.errors, abs=2e-3)


def test_estimates_do_not_depend_on_the_order_of_the_rows(place, cxr):
    cxr("grade", "shares.csv", "--fit", "extent", "-o", "one")
    rows = read("shares.csv")
    write("shares.csv", [rows[k] for k in np.random.default_rng(1).permutation(COUNT)])
    cxr("grade", "shares.csv", "--fit", "extent", "-o", "other")
    one, other = (read(f"{name}/manifest.csv") for name in ("one", "other"))
    assert sorted(map(str, one)) == sorted(map(str, other))


def test_another_list_of_fitted_images_is_another_grader(place, cxr):
    cxr("grade", "shares.csv", "--fit", "extent", "-o", "graded")
    shutil.copytree("graded/grader", "own")
    cxr("grade", "shares.csv", "--grader", "own", "-o", "again")
    before = [row["extent_estimated"] for row in read("again/manifest.csv")]
    path = place / "own/fitted_on.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    cxr("grade", "shares.csv", "--grader", "own", "-o", "again")
    assert [row["extent_estimated"] for row in read("again/manifest.csv")] != before


def test_nothing_to_compare_with_is_said(place, cxr):
    write("shares.csv", [{**row, "extent": ""} for row in read("shares.csv")])
    outcome = cxr("grade", "shares.csv", "--rated", "extent", "-o", "graded")
    assert "no image with an estimate has a score in extent" in outcome.err


def test_scores_with_a_decimal_comma_are_those_with_a_point(place, cxr):
    cxr("grade", "shares.csv", "--fit", "extent", "-o", "points")
    write("shares.csv", [{**row, "extent": row["extent"].replace(".", ",")} for row in read("shares.csv")])
    outcome = cxr("grade", "shares.csv", "--fit", "extent", "-o", "commas")
    assert outcome.code == 0, outcome.err
    one, other = ([row["extent_estimated"] for row in read(f"{name}/manifest.csv")] for name in ("points", "commas"))
    assert one == other
    assert cxr("select", "shares.csv", "--severity-from", "extent", "-o", "rated.csv").code == 0
    assert {row["severity"] for row in read("rated.csv")} <= set(SEVERITIES)
