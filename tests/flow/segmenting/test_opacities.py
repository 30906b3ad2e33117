"""`segment --opacities` on chests drawn with two ellipses and a grey patch, with a network that marks what is grey."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from cxrtool.data.tables.manifest import read_manifest, write_manifest
from cxrtool.errors import UsageError
from cxrtool.flow.segmenting import SegmentOptions, segment
from cxrtool.imaging.fits import Form
from cxrtool.imaging.regions import REGIONS
from cxrtool.imaging.zones import opaque_shares
from cxrtool.models import opacities
from cxrtool.models.part_network import PartNetwork
from cxrtool.models.parts import read_part, save_part

AIR, PATCH, BODY = 70, 105, 185


class Grey(nn.Module):
    """Marks every pixel whose grey is near `PATCH`."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(200.0))

    def forward(self, images):
        return (0.05 - (images - PATCH / 255).abs()) * self.slope


@pytest.fixture
def part(tmp_path, monkeypatch):
    form = Form(64, crop_lungs=True)
    monkeypatch.setitem(opacities.NETWORKS, "grey", PartNetwork(Grey, form, "for a test"))
    save_part(tmp_path / "grey", "opacities", "grey", Grey(), form, {})
    return tmp_path / "grey"


class Shares(Grey):
    """The same, with a map of shares of its own: a quarter on the left, more than all on the right."""

    def forward(self, images):
        half = torch.where(torch.arange(images.shape[-1]) < images.shape[-1] // 2, 0.25, 1.5)
        return torch.cat((super().forward(images), half.expand_as(images)), 1)


@pytest.fixture
def patched(chests):
    """The chests with a grey patch in the lower half of the patient's right lung, and its mask for the first four."""
    rows = chests.rows
    for index, row in enumerate(rows):
        pixels = cv2.imread(row["path"], cv2.IMREAD_UNCHANGED)
        height, width = pixels.shape
        patch = np.zeros_like(pixels)
        patch[height // 2 : int(height * 0.6), int(width * 0.22) : int(width * 0.38)] = 255
        # Without grain, in which some pixels would be grey.
        plain = np.where(cv2.GaussianBlur(pixels, (0, 0), 3) < 128, AIR, BODY).astype(np.uint8)
        plain[(patch > 0) & (plain == AIR)] = PATCH
        cv2.imwrite(row["path"], plain)
        row["opacities"] = ""
        if index < 4:
            row["opacities"] = row["path"].replace(".png", "-opacity.png")
            cv2.imwrite(row["opacities"], patch)
    write_manifest(chests.origin, [*chests.columns, "opacities"], rows)
    return read_manifest(chests.origin.parent)


@pytest.fixture
def call(patched, lung_part, part, settings, tmp_path):
    def call(out="out", **changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in type(settings).__dataclass_fields__}
        told = {"sources": patched.origin.parent, "lungs": lung_part, "sheet": 0, "opacities": True}
        options = SegmentOptions(**{**told, "opacity_network": part, **changes})
        segment(options, replace(settings, out=tmp_path / out, **shared))
        return tmp_path / out

    return call


def mask_of(path):
    return cv2.imread(path, cv2.IMREAD_UNCHANGED)


def test_masks_are_inside_the_lungs_and_shares_are_theirs(call, part):
    for row in read_manifest(call()).rows:
        found, lungs = mask_of(row["opacities"]), mask_of(row["mask"])
        assert found.shape == lungs.shape
        assert not (found[lungs == 0]).any()
        # The mean of probabilities, which are near 0 or 1 here but for the edges of the patch.
        shares = opaque_shares(found.astype(np.float32) / 255, lungs)
        for region in REGIONS:
            assert float(row[f"opacity_{region}"]) == pytest.approx(shares[region], abs=0.08), region
        assert float(row["opacity_right"]) > 0.05 + float(row["opacity_left"])
        assert row["opacity_seen"] == ""
        assert row["opacity_network"] == read_part(part, "opacities").name


def test_a_map_of_shares_gives_the_shares_and_the_size_of_the_mask(call, tmp_path, monkeypatch):
    form = Form(64, crop_lungs=True)
    monkeypatch.setitem(opacities.NETWORKS, "shares", PartNetwork(Shares, form, "for a test"))
    save_part(tmp_path / "shares", "opacities", "shares", Shares(), form, {})
    plain, mapped = (
        read_manifest(call(f"by-{name}", opacity_network=tmp_path / name)).rows for name in ("grey", "shares")
    )
    for one, other in zip(plain, mapped, strict=True):
        assert float(other["opacity_right"]) == pytest.approx(0.25, abs=0.02)
        assert other["opacity_left_upper"] == "1.0000"
        few, many, lungs = (
            mask_of(row[name]) > 0 for row, name in ((one, "opacities"), (other, "opacities"), (other, "mask"))
        )
        assert (few & many).sum() > 0.9 * few.sum(), "the most probable pixels are in both"
        # Outside of the patch a lung is flat, and equally probable pixels are taken together.
        assert many.sum() > 2 * few.sum()
        assert not (many & ~lungs).any()


def test_given_masks_are_compared_and_kept(call, patched):
    rows = read_manifest(call()).rows
    for row, before in zip(rows, patched.rows, strict=True):
        assert row["opacities_reference"] == before["opacities"]
        if before["opacities"]:
            assert float(row["opacity_dice"]) > 0.7
            assert float(row["opacity_share_error"]) < 0.1
        else:
            assert row["opacity_dice"] == ""


def test_a_crop_takes_masks_and_references_along(call):
    whole, cropped = (read_manifest(call(str(crop), crop=crop)).rows for crop in (False, True))
    for one, other in zip(whole, cropped, strict=True):
        top, left, height, width = (int(other[f"crop_{name}"]) for name in ("top", "left", "height", "width"))
        box = slice(top, top + height), slice(left, left + width)
        assert np.array_equal(mask_of(one["opacities"])[box], mask_of(other["opacities"]))
        assert {name: one[name] for name in one if name.startswith("opacity_")} == {
            name: other[name] for name in one if name.startswith("opacity_")
        }
        if one["opacities_reference"]:
            assert np.array_equal(mask_of(one["opacities_reference"])[box], mask_of(other["opacities_reference"]))


def test_a_crop_without_a_search_drops_masks_that_no_longer_match(call):
    rows = read_manifest(call(crop=True, opacities=False, opacity_network=None)).rows
    assert {row["opacities"] for row in rows} == {""}


@pytest.mark.parametrize("changes", [{"apply_mask": True}, {"erase_lungs": True}])
def test_opacities_are_those_of_the_whole_image(call, changes):
    plain, changed = (read_manifest(call(str(len(more)), **more)).rows for more in ({}, changes))
    shares = [[row["opacity_lungs"] for row in rows] for rows in (plain, changed)]
    assert shares[0] == shares[1]


def test_batches_and_workers_do_not_bear_on_the_bytes(call):
    one, other = call("one", batch_size=16, workers=1), call("other", batch_size=16, workers=2)
    for file in sorted(one.glob("opacities/*.png")):
        assert file.read_bytes() == (other / "opacities" / file.name).read_bytes()
    assert (one / "manifest.csv").read_bytes() == (other / "manifest.csv").read_bytes()


def test_images_that_the_network_was_fitted_on_are_marked(call, patched, part, listener):
    known = [row for row in patched.rows if row["patient_id"] == patched.rows[0]["patient_id"]]
    lines = ["image_id,patient_id,sha256,subset", f"x,{known[0]['patient_id']},,train"]
    (part / "fitted_on.csv").write_text("\n".join(lines) + "\n")
    rows = read_manifest(call()).rows
    assert [row["image_id"] for row in rows if row["opacity_seen"]] == [row["image_id"] for row in known]
    assert any("opacity network was fitted on" in text for text in listener.warned)


def test_the_run_file_tells_network_and_agreement(call):
    told = json.loads((call() / "run.json").read_text())["opacities"]
    assert told["network"] == "grey"
    assert 0.7 < told["opacity_dice"]["value"] <= 1
    assert told["opacity_dice"]["images"] == 4


def test_the_sheet_shows_the_lowest_agreement_first(call):
    assert mask_of(str(call(sheet=4) / "sheets" / "opacities.png")).ndim == 3


def test_a_network_without_a_search_is_refused(call):
    with pytest.raises(UsageError, match="--opacity-network: expected --opacities"):
        call(opacities=False)


def test_an_image_is_known_by_its_pixels_where_the_table_has_no_digest(call, patched, part):
    from cxrtool.data.reading.images import read_image
    from cxrtool.imaging.hashing import pixel_sha256

    digest = pixel_sha256(read_image(patched.rows[2]["path"]).pixels)
    (part / "fitted_on.csv").write_text(f"image_id,patient_id,sha256,subset\nx,,{digest},train\n")
    rows = [{**row, "sha256": "", "patient_id": ""} for row in patched.rows]
    write_manifest(patched.origin, patched.columns, rows)
    rows = read_manifest(call("plain")).rows
    assert [row["image_id"] for row in rows if row["opacity_seen"]] == [patched.rows[2]["image_id"]]


def test_estimates_of_earlier_shares_are_removed(call, patched, listener):
    rows = [{**row, "extent_estimated": "3.000", "severity_estimated": "moderate"} for row in patched.rows]
    write_manifest(patched.origin, [*patched.columns, "extent_estimated", "severity_estimated"], rows)
    assert not {"extent_estimated", "severity_estimated"} & set(read_manifest(call("anew")).columns)
    assert any("extent_estimated, severity_estimated" in text for text in listener.said)
    kept = read_manifest(call("kept", opacities=False, opacity_network=None))
    assert {row["extent_estimated"] for row in kept.rows} == {"3.000"}


def test_without_lungs_nothing_is_compared(call, patched, listener):
    first = patched.rows[0]
    cv2.imwrite(first["path"], np.full_like(mask_of(first["path"]), 7))
    row = read_manifest(call("flat")).rows[0]
    assert not float(row["mask_area"])
    assert (row["opacity_lungs"], row["opacity_dice"], row["opacity_share_error"]) == ("", "", "")
