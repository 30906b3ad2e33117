"""`fit opacities`: outlines, images without any, and images of which only the extent is known."""

import json

import cv2
import numpy as np
import pytest
import torch

from cxrtool.commands.fit.measure import found_and_true
from cxrtool.commands.fit.pairs import Targets, decode_target
from cxrtool.data.tables.manifest import read_table
from cxrtool.errors import ImageError, InputError
from cxrtool.imaging.fits import Form
from cxrtool.imaging.view import lay_back, lung_box, see
from cxrtool.models.parts import SHIPPED, load_network
from cxrtool.models.unet import UNet
from cxrtool.training.losses import outlines_and_shares

FORM = Form(64, crop_lungs=True)
TARGETS = Targets("opacities", frozenset({"normal"}), "extent", "mask")


@pytest.fixture
def row(tmp_path):
    """An image with two lungs, in one of which is an opacity."""
    pixels = np.full((80, 100), 150, np.uint8)
    lungs, patch = np.zeros_like(pixels), np.zeros_like(pixels)
    lungs[10:70, 10:45] = lungs[10:70, 55:90] = 255
    patch[40:60, 15:40] = 255
    pixels[lungs > 0] = 60
    pixels[patch > 0] = 120
    files = {"path": pixels, "mask": lungs, "opacities": patch}
    for name, values in files.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), values)
    return {"image_id": "a", "label": "covid", "extent": "5"} | {name: str(tmp_path / f"{name}.png") for name in files}


def decoded(row):
    return decode_target(TARGETS.pair(row), form=FORM, kind="opacities", dilate=0)[0]


def test_an_outline_is_cut_to_the_lungs_as_the_image_is(row):
    pixels, lungs, patch = (cv2.imread(row[name], cv2.IMREAD_GRAYSCALE) for name in ("path", "mask", "opacities"))
    assert lung_box(lungs) == (6, 5, 68, 90)
    shown = decoded(row)
    assert shown.max() == 255
    placed = see(pixels, FORM, lungs)
    back = lay_back(shown.astype(np.float32) / 255, placed, FORM) > 0.5
    assert np.mean(back != (patch > 0)) < 0.01
    # The opacity is brighter than the lung in the same place of the input.
    assert placed.values[shown > 200].mean() > placed.values[shown == 0].min() + 0.2


def test_an_image_of_a_clear_class_has_an_empty_target(row):
    assert not decoded({**row, "label": "normal", "opacities": ""}).any()


def test_of_an_extent_only_the_share_of_the_lungs_is_known(row):
    shown = decoded({**row, "opacities": ""})
    lungs = cv2.imread(row["mask"], cv2.IMREAD_GRAYSCALE)
    covered = see(lungs, FORM, lungs).values.mean()
    assert shown.mean() / 255 == pytest.approx(0.08 * 5 * covered, rel=0.03)
    assert shown.max() == 102
    with pytest.raises(InputError, match="a: expected an extent from 0 to 8 in 'extent', found '9'"):
        TARGETS.pair({**row, "opacities": "", "extent": "9"})


def test_an_image_without_lungs_cannot_be_cropped(row):
    with pytest.raises(ImageError, match="it has no lung mask"):
        decoded({**row, "mask": ""})


@pytest.mark.parametrize("kind", ["lungs", "opacities"])
def test_a_mask_is_measured_at_its_own_size(row, tmp_path, kind):
    mask = cv2.imread(row["mask"], cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "large.png"), cv2.resize(mask, (200, 160), interpolation=cv2.INTER_NEAREST))
    pair = Targets("opacities", lungs="mask").pair({**row, "opacities": str(tmp_path / "large.png")})
    form = FORM if kind == "opacities" else Form(64)
    shown = np.ones((64, 64), np.float32)
    pixels, found, truth, lungs = found_and_true(pair, lambda placed: shown, form, kind)
    assert pixels.shape == (80, 100)
    assert found.shape == truth.shape == (160, 200)
    assert lungs is None or np.array_equal(lungs, truth)


def test_the_loss_of_each_kind_of_target():
    outline = torch.zeros(1, 1, 8, 8)
    outline[..., :4] = 1
    right, wrong = 40 * outline - 20, 20 - 40 * outline
    assert float(outlines_and_shares(right, outline)) == pytest.approx(0, abs=1e-3)
    assert float(outlines_and_shares(wrong, outline)) > 10
    # Of a share only the sum counts: any half of the image is as good as another.
    share = torch.full((1, 1, 8, 8), 0.5)
    assert float(outlines_and_shares(right, share)) == pytest.approx(float(outlines_and_shares(wrong, share)))
    assert float(outlines_and_shares(right, share)) == pytest.approx(0, abs=1e-3)
    assert float(outlines_and_shares(torch.full_like(share, 20), share)) == pytest.approx(1, abs=1e-3)
    # An empty outline has no Dice, in which one wrong pixel would count as much as all.
    empty = torch.zeros(1, 1, 8, 8)
    assert float(outlines_and_shares(torch.full_like(empty, -20), empty)) == pytest.approx(0, abs=1e-3)
    both = torch.cat([outline, share]), torch.cat([right, torch.full_like(share, 20)])
    assert float(outlines_and_shares(both[1], both[0])) == pytest.approx(0.5, abs=1e-3)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    from cxrtool.cli.main import run

    folder = tmp_path_factory.mktemp("drawn") / "phantoms"
    assert run(["phantom", "--count", "12", "--size", "96", "--workers", "1", "-q", "-o", str(folder)]) == 0
    return folder


def test_phantoms_are_fitted_without_more_ado(phantoms, cxr, tmp_path, no_pictures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = ["fit", "opacities", phantoms, "--epochs", "1", "--size", "64", "--validation", "0.3", "--threads", "1"]
    outcome = cxr(*call, "--workers", "1", "--cache", "cache", "-o", "part")
    assert outcome.code == 0, outcome.err
    measured = read_table(tmp_path / "part/dice.csv")
    assert measured.columns[-3:] == ["dice", "iou", "share_error"]
    assert all(0 <= float(row["share_error"]) <= 1 for row in measured.rows)
    told = json.loads((tmp_path / "part/part.json").read_text())
    assert (told["kind"], told["form"]) == ("opacities", {**Form(64, crop_lungs=True).to_json()})
    assert "segment MANIFEST --opacities --opacity-network part" in outcome.err


def test_the_fit_begins_with_the_lung_network(phantoms, cxr, tmp_path, no_pictures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = ["fit", "opacities", phantoms, "--epochs", "1", "--size", "64", "--validation", "0", "--lr", "1e-9"]
    more = ["--weight-decay", "0", "--warmup-epochs", "0", "--average", "0", "--checkpoint", "last", "--workers", "1"]
    assert cxr(*call, *more, "--cache", "cache", "-o", "part").code == 0
    known = load_network(SHIPPED / "lungs-default", "lungs").state_dict()
    for name, value in load_network(tmp_path / "part", "opacities").get_submodule("chest").state_dict().items():
        assert torch.allclose(value, known[name], atol=1e-5), name
    assert not all(torch.allclose(value, known[name]) for name, value in UNet().state_dict().items())


def test_images_with_an_extent_alone_are_only_trained_on(phantoms, cxr, tmp_path, no_pictures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cxr("prepare", phantoms / "metadata.csv", "--workers", "1", "-o", "prepared").code == 0
    truth = {row["path"]: row for row in read_table(phantoms / "truth.csv").rows}
    table = read_table(tmp_path / "prepared/manifest.csv")
    table.rows[1]["extent"] = "N/A"
    for index, row in enumerate(table.rows):
        drawn = truth[row["original"]]["opacities"]
        row["opacities"] = str(phantoms / drawn) if index % 2 else ""
        row["path"], row["mask"] = (str(tmp_path / "prepared" / row[name]) for name in ("path", "mask"))
    from cxrtool.data.tables.manifest import write_table

    write_table(tmp_path / "half.csv", [*table.columns, "opacities"], table.rows)
    call = ["fit", "opacities", "half.csv", "--epochs", "1", "--size", "64", "--validation", "0.4", "--workers", "1"]
    outcome = cxr(*call, "--extent", "extent", "--cache", "cache", "-o", "part")
    assert outcome.code == 0, outcome.err
    assert "training images with an extent are too few to fit shares to them (at least 20)" in outcome.err
    assert not load_network(tmp_path / "part", "opacities").get_submodule("shares").weight.any()
    unknown = cxr(*call, "--extent", "extend", "-o", "unknown")
    assert (unknown.code, (tmp_path / "unknown").exists()) == (1, False)
    assert "half.csv: expected a column 'extend'" in unknown.err
    outlined = {row["image_id"] for row in table.rows if row["opacities"]}
    assert {row["image_id"] for row in read_table(tmp_path / "part/dice.csv").rows} <= outlined
    fitted = {row["image_id"] for row in read_table(tmp_path / "part/fitted_on.csv").rows}
    assert fitted - outlined
    monkeypatch.setattr("cxrtool.training.share_fit.LEAST", 3)
    assert cxr(*call, "--extent", "extent", "--cache", "cache", "-o", "enough").code == 0
    shares = load_network(tmp_path / "enough", "opacities").get_submodule("shares")
    assert 0 < float(shares.own) < 1
    assert shares.weight.any()


def test_an_encoder_of_random_weights_is_refused(phantoms, cxr, tmp_path):
    outcome = cxr("fit", "opacities", phantoms, "--weights", "none", "-o", tmp_path / "part")
    assert outcome.code == 2
    assert "expected weights of the encoder, which stays as it is, found none" in outcome.err
