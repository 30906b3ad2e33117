import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from cxrtool.cli.main import run
from cxrtool.errors import ImageError, InputError
from cxrtool.flow.chain import canonical, chain_of, decode, describe, missing_steps
from cxrtool.imaging.hashing import pixel_sha256

NATIVE = {"step": "prepare", "version": 1, "size": "native", "fit": "squash"}
SMALL = {"step": "prepare", "version": 1, "size": 24, "fit": "pad"}
ENHANCED = {"step": "enhance", "version": 1, "steps": "clahe"}


def folder_of(path, *chain):
    (path / "images").mkdir(parents=True)
    (path / "run.json").write_text(json.dumps({"command": "prepare", "chain": chain}))
    return path / "images" / "a.png"


def test_what_changes_no_pixel_does_not_count():
    assert canonical([NATIVE]) == []
    assert canonical([NATIVE, ENHANCED]) == [ENHANCED]
    assert canonical([SMALL]) == [SMALL]


def test_a_chain_in_words():
    assert describe([SMALL, ENHANCED]) == "prepare --size 24 --fit pad, then enhance --steps clahe"
    assert describe([]) == "unprocessed images"


def test_the_chain_of_an_image_is_that_of_its_step_s_folder(tmp_path):
    small, native = folder_of(tmp_path / "small", SMALL), folder_of(tmp_path / "native", NATIVE)
    assert chain_of([small, small.with_name("b.png")]) == [SMALL]
    assert chain_of([native, tmp_path / "raw.png"]) == []
    assert chain_of([]) == []


def test_images_of_different_chains_do_not_mix(tmp_path):
    small, enhanced = folder_of(tmp_path / "small", SMALL), folder_of(tmp_path / "enhanced", SMALL, ENHANCED)
    with pytest.raises(InputError, match="expected images of one preprocessing") as caught:
        chain_of([small, enhanced])
    assert f"{small} (prepare --size 24 --fit pad)" in caught.value.message
    assert f"{enhanced} (prepare --size 24 --fit pad, then enhance --steps clahe)" in caught.value.message
    newer = folder_of(tmp_path / "newer", {**SMALL, "version": 2})
    with pytest.raises(InputError, match="one preprocessing"):
        chain_of([small, newer])


def test_what_is_missing_is_what_comes_behind():
    assert missing_steps([SMALL], [], "model", "data") == [SMALL]
    assert missing_steps([SMALL], [SMALL], "model", "data") == []
    assert missing_steps([NATIVE], [], "model", "data") == []
    assert missing_steps([], [NATIVE], "model", "data") == []


@pytest.mark.parametrize("data", [[SMALL], [ENHANCED], [{**SMALL, "size": 25}, ENHANCED]])
def test_another_chain_is_refused_naming_both(data):
    with pytest.raises(InputError) as caught:
        missing_steps([{**SMALL, "size": 32}], data, "run", "prepared")
    assert f"prepared has been through: {describe(data)}" in caught.value.message
    assert "run was trained on: prepare --size 32 --fit pad" in caught.value.message
    assert "prepare … --like run" in caught.value.hint


def test_a_step_that_cannot_be_repeated_is_told_before_any_image_is_read():
    with pytest.raises(InputError, match="cannot repeat 'hocus' on raw"):
        missing_steps([SMALL, {"step": "hocus"}], [], "model", "raw")
    assert missing_steps([{"step": "hocus"}], [{"step": "hocus"}], "model", "data") == []


@pytest.mark.parametrize(("size", "fit"), [("native", "squash"), ("24", "pad")])
def test_replaying_gives_the_pixels_of_prepare(tmp_path, size, fit):
    source = tmp_path / "raw"
    source.mkdir()
    generator = np.random.default_rng(0)
    cv2.imwrite(str(source / "a.png"), generator.integers(0, 256, (40, 60), np.uint8))
    cv2.imwrite(str(source / "b.png"), generator.integers(0, 65536, (70, 30), np.uint16))
    (source / "c.dcm").write_bytes(Path(get_testdata_file("CT_small.dcm")).read_bytes())
    out = tmp_path / "prepared"
    assert run(["prepare", str(source), "--size", size, "--fit", fit, "--workers", "1", "-q", "-o", str(out)]) == 0
    chain = chain_of(sorted((out / "images").iterdir()))
    assert bool(chain) == (size != "native")
    for name in ("a.png", "b.png", "c.dcm"):
        raw, digest = decode(source / name, chain=chain, size=16, fit="squash")
        done, _ = decode(out / "images" / f"{name[0]}.png", chain=[], size=16, fit="squash")
        assert np.array_equal(raw, done)
        row = next(line for line in (out / "manifest.csv").read_text().splitlines() if line.startswith(name[0] + ","))
        assert digest in row


def test_decoding_gives_size_depth_and_digest(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (40, 60), np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    found, digest = decode(tmp_path / "a.png", chain=[], size=16, fit="squash")
    assert (found.shape, found.dtype) == ((16, 16), np.uint16)
    assert digest == pixel_sha256(pixels)
    with pytest.raises(ImageError):
        decode(tmp_path / "a.png", chain=[], size=16, fit="squash", max_pixels=2399)
    with pytest.raises(ImageError):
        decode(tmp_path / "none.png", chain=[], size=16, fit="squash")


def test_a_jpeg_that_is_damaged_within_is_refused_as_prepare_does(tmp_path):
    generator = np.random.default_rng(0)
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), generator.integers(0, 256, (64, 64), np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff\xd3" * 20
    path.write_bytes(data)
    with pytest.raises(ImageError):
        decode(path, chain=[], size=16, fit="squash")


def test_where_versions_are_all_that_differs_they_are_named():
    older, newer = [{**SMALL, "version": 1}], [{**SMALL, "version": 2}]
    with pytest.raises(InputError, match=r"\(prepare version 2\); model was trained on: .* \(prepare version 1\)"):
        missing_steps(older, newer, "model", "data")


def test_what_was_done_fold_by_fold_is_told_of_the_fold_in_whose_folder_an_image_lies(tmp_path):
    (tmp_path / "images" / "r0f1").mkdir(parents=True)
    entry = {"step": "match-histogram", "version": 1, "folds": {"r0f0": "abc", "r0f1": "xyz"}}
    (tmp_path / "run.json").write_text(json.dumps({"command": "enhance", "chain": [SMALL, entry]}))
    found = chain_of([tmp_path / "images" / "r0f1" / "a.png"])
    assert found == [SMALL, {"step": "match-histogram", "version": 1, "quantiles": "xyz"}]
    with pytest.raises(InputError, match="expected images of one preprocessing"):
        chain_of([tmp_path / "images" / fold / "a.png" for fold in ("r0f0", "r0f1")])
    with pytest.raises(InputError, match="fold by fold, expected a folder named after one of r0f0, r0f1"):
        chain_of([tmp_path / "images" / "a.png"])


def test_what_was_fitted_is_told_shortly_and_apart():
    entry = {
        "step": "segment",
        "version": 1,
        "part": {"kind": "lungs", "network": "unet", "sha256": "12ab34cd56"},
        "_at": "/somewhere",
        "use": "crop+apply",
        "margin": 0.025,
        "margin_of": "image",
        "threshold": 0.5,
        "tta": True,
    }
    assert describe([entry]) == (
        "segment (lungs: unet 12ab34cd) --crop --apply-mask --margin 0.025 --margin-of image --threshold 0.5 --tta"
    )
    one, other = ({"step": "match-histogram", "version": 1, "quantiles": values} for values in ("abc", "abd"))
    assert describe([one]).startswith("match-histogram (quantiles: ")
    assert describe([one]) != describe([other])
    assert len(describe([one])) < 50
