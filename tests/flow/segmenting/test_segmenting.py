"""`segment` on chests that are drawn with two ellipses, with a small network that has learnt them."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest, write_table
from cxrtool.errors import InputError, StrictError, UsageError
from cxrtool.flow.segmenting import SegmentOptions, segment
from cxrtool.imaging.hashing import pixel_sha256
from cxrtool.imaging.view import see
from cxrtool.models.parts import load_network, read_part


@pytest.fixture
def call(chests, lung_part, settings, tmp_path):
    def call(out="out", **changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in type(settings).__dataclass_fields__}
        options = SegmentOptions(**{"sources": chests.origin.parent, "lungs": lung_part, "sheet": 0, **changes})
        folder = tmp_path / out
        segment(options, replace(settings, out=folder, **shared))
        return folder

    return call


def grey(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def probability(pixels, part):
    """What the network says, without any of the code under test: (H, W) at the picture's size."""
    described = read_part(part, "lungs")
    values = torch.from_numpy(see(pixels, described.form).values)[None, None]
    network = load_network(part, "lungs")
    with torch.inference_mode():
        share = torch.sigmoid(network(values))[0, 0].numpy()
    return cv2.resize(share, pixels.shape[::-1], interpolation=cv2.INTER_LINEAR)


def test_masks_are_written_at_the_picture_s_size_and_pictures_are_left_where_they_are(call, chests, lung_part):
    out = call()
    manifest = read_manifest(out)
    assert manifest.column("image_id") == chests.column("image_id")
    assert manifest.column("path") == chests.column("path")
    assert not (out / "images").exists()
    for row in manifest.rows:
        pixels, mask = grey(row["path"]), grey(row["mask"])
        assert mask.shape == pixels.shape
        assert set(np.unique(mask)) == {0, 255}
        assert row["mask_area"] == f"{(mask > 0).mean():.4f}"
        expected = probability(pixels, lung_part) > 0.5
        assert np.mean((mask > 0) != expected) < 0.01
        assert row["warning"] == ""
        assert row["sha256"] == pixel_sha256(pixels)
    assert json.loads((out / "run.json").read_text())["chain"] == []


def test_masks_of_the_manifest_are_compared_and_kept(call, chests):
    rows = read_manifest(call()).rows
    for row, before in zip(rows, chests.rows, strict=True):
        assert row["mask_reference"] == before["mask"]
        if before["mask"]:
            found, drawn = grey(row["mask"]) > 0, grey(before["mask"]) > 0
            both = (found & drawn).sum()
            assert row["mask_dice"] == f"{2 * both / (found.sum() + drawn.sum()):.4f}"
            assert row["mask_iou"] == f"{both / (found | drawn).sum():.4f}"
            assert float(row["mask_dice"]) > 0.9
        else:
            assert (row["mask_dice"], row["mask_iou"]) == ("", "")


def test_the_agreement_is_told_with_its_interval(call, listener):
    out = call()
    found = json.loads((out / "run.json").read_text())["lungs"]
    values = [float(cell) for cell in read_table(out / "manifest.csv").column("mask_dice") if cell]
    assert found["agreement"]["dice"]["value"] == pytest.approx(np.mean(values), abs=1e-4)
    assert found["agreement"]["dice"]["images"] == 12
    assert found["agreement"]["dice"]["low"] < np.mean(values) < found["agreement"]["dice"]["high"]
    assert any(text.startswith("Dice with the masks of the manifest: 0.9") for text in listener.said)


@pytest.mark.parametrize("margin_of", ["image", "box"])
def test_crops_are_cut_from_the_original_pixels(call, chests, margin_of):
    out = call(crop=True, margin=0.1, margin_of=margin_of)
    whole = read_manifest(call("whole"))
    for row, before, first in zip(read_manifest(out).rows, whole.rows, chests.rows, strict=True):
        mask, pixels = grey(before["mask"]), grey(before["path"])
        y, x = np.nonzero(mask)
        height, width = mask.shape if margin_of == "image" else (np.ptp(y) + 1, np.ptp(x) + 1)
        down, across = int(height * 0.1 + 0.5), int(width * 0.1 + 0.5)
        top, left = max(y.min() - down, 0), max(x.min() - across, 0)
        part = np.s_[top : y.max() + down + 1, left : x.max() + across + 1]
        assert np.array_equal(grey(row["path"]), pixels[part])
        assert np.array_equal(grey(row["mask"]), mask[part])
        told = [int(row[f"crop_{name}"]) for name in ("top", "left", "height", "width")]
        assert told == [top, left, *pixels[part].shape]
        assert (int(row["height"]), int(row["width"])) == pixels[part].shape
        if first["mask"]:
            assert np.array_equal(grey(row["mask_reference"]), grey(first["mask"])[part])
            assert row["mask_dice"] == before["mask_dice"]
        assert row["mask_area"] == before["mask_area"]


@pytest.mark.parametrize("keep", [True, False])
def test_lungs_are_kept_alone_or_erased(call, keep):
    out = call(**{"apply_mask" if keep else "erase_lungs": True})
    for row, before in zip(read_manifest(out).rows, read_manifest(call("whole")).rows, strict=True):
        inside = grey(before["mask"]) > 0
        assert np.array_equal(grey(row["path"]), np.where(inside == keep, grey(before["path"]), 0))
        assert row["path"].startswith(str(out))
        assert row["sha256"] == before["sha256"]


def test_sixteen_bits_stay_sixteen(call, chests):
    pixels = grey(chests.rows[0]["path"]).astype(np.uint16) * 257
    cv2.imwrite(chests.rows[0]["path"], pixels)
    row = read_manifest(call(crop=True, apply_mask=True)).rows[0]
    found = grey(row["path"])
    assert found.dtype == np.uint16
    top, left, height, width = (int(row[f"crop_{name}"]) for name in ("top", "left", "height", "width"))
    part = pixels[top : top + height, left : left + width]
    assert np.array_equal(found, np.where(grey(row["mask"]) > 0, part, 0))


def test_where_no_lungs_are_found_the_picture_is_left_whole_and_that_is_told(call, chests):
    for row, pixels in zip(chests.rows, (np.zeros((40, 50)), np.full((40, 50), 200)), strict=False):
        cv2.imwrite(row["path"], pixels.astype(np.uint8))
    rows = read_manifest(call(crop=True, apply_mask=True, threshold=0.9)).rows[:2]
    for row in rows:
        assert "blank image" in row["warning"]
        assert "no lungs found: the image is unchanged" in row["warning"]
        assert (row["crop_height"], row["crop_width"], row["mask_area"]) == ("40", "50", "0.0000")
    assert grey(rows[1]["path"]).min() == 200


def test_the_chain_tells_what_was_done_and_with_what(call, lung_part):
    out = call(crop=True, erase_lungs=True, tta=True)
    part = read_part(lung_part, "lungs")
    assert json.loads((out / "run.json").read_text())["chain"] == [
        {
            "step": "segment",
            "version": 1,
            "part": part.identity(),
            "use": "crop+erase",
            "margin": 0.025,
            "margin_of": "image",
            "threshold": 0.5,
            "tta": True,
        }
    ]
    carried = out / "parts" / f"lungs-{part.sha256[:16]}"
    assert read_part(carried, "lungs").sha256 == part.sha256


def test_the_mirror_image_is_asked_too(call, lung_part):
    mirrored = read_manifest(call(tta=True))
    for row in mirrored.rows[:4]:
        pixels = grey(row["path"])
        both = probability(pixels, lung_part) + probability(pixels[:, ::-1].copy(), lung_part)[:, ::-1]
        assert np.mean((grey(row["mask"]) > 0) != (both > 1)) < 0.01


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(call, chests, tmp_path):
    Path(chests.rows[3]["path"]).write_bytes(b"no image")
    Path(chests.rows[20]["path"]).unlink()
    Path(chests.rows[5]["mask"]).write_bytes(b"no mask")
    with pytest.raises(StrictError):
        call(crop=True, strict=True)
    out = tmp_path / "out"
    rows = {row["image_id"]: row for row in read_manifest(out).rows}
    rejects = read_table(out / "rejects.csv").rows
    assert [row["path"] for row in rejects] == [chests.rows[i]["path"] for i in (3, 20)]
    assert len(rows) == 22
    assert "mask excluded" in rows["im005"]["warning"]
    assert (rows["im005"]["mask_dice"], rows["im005"]["mask_reference"]) == ("", "")
    assert not list(out.rglob(".*"))


def test_if_nothing_can_be_read_it_says_so(call, chests, tmp_path):
    for row in chests.rows:
        Path(row["path"]).write_bytes(b"")
    with pytest.raises(InputError, match="found none among 24"):
        call()
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_goes_on_and_becomes_the_same(call, chests, tmp_path, monkeypatch):
    whole = call("whole", crop=True)
    calls = []

    def stop(self, columns, rows, **more):
        calls.append(len(rows))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cxrtool.flow.folder.Build.finish", stop)
        with pytest.raises(KeyboardInterrupt):
            call(crop=True)
    assert calls == [24]
    partial = next(tmp_path.glob(".out.*.partial"))
    (partial / "images" / "im004.png").write_bytes(b"half")
    (partial / "masks" / "im007.png").unlink()
    seen = []
    from cxrtool.flow import segmenting as module

    def watched(tasks, *args, **more):
        seen.extend(task.image_id for task in tasks)
        return original(tasks, *args, **more)

    original = module.segment_all
    monkeypatch.setattr(module, "segment_all", watched)
    out = call(crop=True)
    assert seen == ["im004", "im007"]
    for path in whole.rglob("*.png"):
        assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes()
    assert (out / "manifest.csv").read_text() == (whole / "manifest.csv").read_text()


def test_the_same_again_is_nothing_to_do_and_another_option_is(call, listener, tmp_path):
    call()
    before = (tmp_path / "out" / "manifest.csv").stat().st_mtime_ns
    call(workers=3, device="cpu", batch_size=5)
    assert listener.said[-1].endswith("up to date, nothing to do")
    assert (tmp_path / "out" / "manifest.csv").stat().st_mtime_ns == before
    call(threshold=0.6)
    assert (tmp_path / "out" / "manifest.csv").stat().st_mtime_ns > before


def test_batches_and_workers_do_not_bear_on_the_bytes(call):
    one, other = call("one", crop=True, batch_size=4), call("other", crop=True, batch_size=4, workers=3)
    for path in one.rglob("*.png"):
        assert (other / path.relative_to(one)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("known", ["sha256", "patient_id"])
def test_a_network_that_was_fitted_on_these_images_is_told(call, chests, lung_part, listener, tmp_path, known):
    import shutil

    part = tmp_path / "seen"
    shutil.copytree(lung_part, part)
    told = {"image_id": "x", "patient_id": "", "sha256": ""}
    told[known] = pixel_sha256(grey(chests.rows[2]["path"])) if known == "sha256" else chests.rows[2]["patient_id"]
    write_table(part / "fitted_on.csv", list(told), [told])
    out = call(lungs=part)
    number = 1 if known == "sha256" else 2
    assert any(f"fitted on {number} of these 24 images" in text and "im002" in text for text in listener.warned)
    assert json.loads((out / "run.json").read_text())["lungs"]["seen_in_fitting"] == number


def test_segmenting_again_compares_with_the_first_masks_and_not_with_itself(call, chests):
    first = call("first", crop=True)
    rows = read_manifest(call("second", sources=first)).rows
    for row, before in zip(rows, chests.rows, strict=True):
        assert bool(row["mask_dice"]) == bool(before["mask"])
        assert (Path(row["mask_reference"]).parent == first / "references") == bool(before["mask"])


def test_pictures_of_several_kinds_are_taken_for_masks_alone(call, chests, tmp_path):
    cropped = read_manifest(call("cropped", crop=True))
    mixed = [cropped.rows[0], *chests.rows[1:]]
    write_manifest(tmp_path / "mixed.csv", chests.columns, mixed)
    assert len(read_manifest(call("masks", sources=tmp_path / "mixed.csv"))) == 24
    with pytest.raises(InputError, match="expected images of one preprocessing"):
        call("crops", sources=tmp_path / "mixed.csv", crop=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"apply_mask": True, "erase_lungs": True}, "choose one"),
        ({"margin_of": "lung"}, "--margin-of: expected one of image, box, found 'lung'"),
        ({"margin": -0.1}, "--margin: expected a share"),
        ({"threshold": 1.0}, "--threshold: expected a probability"),
    ],
)
def test_impossible_options_are_refused(call, changes, message):
    with pytest.raises(UsageError, match=message):
        call(**changes)


def test_a_folder_without_a_network_is_refused(call, tmp_path):
    with pytest.raises(InputError, match=r"part\.json"):
        call(lungs=tmp_path)


def test_a_dry_run_writes_nothing(call, tmp_path, listener):
    call(dry_run=True)
    assert listener.said == ["would write " + str(tmp_path / "out") + ": it is not there yet"]
    assert not (tmp_path / "out").exists()
