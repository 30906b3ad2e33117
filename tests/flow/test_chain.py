import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file

from cxrtool.cli.main import run
from cxrtool.data.tables.manifest import Manifest
from cxrtool.errors import ImageError, InputError
from cxrtool.flow.chain import (
    ALL,
    canonical,
    chain_of,
    chain_of_manifest,
    copy_parts,
    describe,
    fold_together,
    is_divided,
    locate,
    missing_steps,
    name_of,
    own_fold,
)
from cxrtool.flow.folder import AT, without_paths
from cxrtool.flow.replaying import decode
from cxrtool.imaging.fits import Form
from cxrtool.imaging.hashing import pixel_sha256
from cxrtool.models import parts as models
from cxrtool.models.lungs import NETWORKS

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


@pytest.fixture
def part(tmp_path):
    torch.manual_seed(0)
    models.save_part(tmp_path / "mine", "lungs", "unet", NETWORKS["unet"].build(), Form(64), {})
    return models.read_part(tmp_path / "mine", "lungs")


def test_a_part_travels_with_its_chain(part, tmp_path):
    entry = {"step": "segment", "part": part.identity(), AT: str(part.folder)}
    chain = [{"step": "prepare", "size": 64}, entry]
    copy_parts(chain, tmp_path / "step")
    written = without_paths(chain)
    assert written == [chain[0], {"step": "segment", "part": part.identity()}]
    found = locate(written, tmp_path / "step")
    assert found[0] == chain[0]
    assert found[1][AT] == str(tmp_path / "step" / "parts" / name_of(part.identity()))
    copy_parts(found, tmp_path / "model")
    assert locate(written, tmp_path / "model")[1][AT].startswith(str(tmp_path / "model"))


def test_a_part_that_is_not_there_is_named(part, tmp_path):
    with pytest.raises(InputError, match=rf"lungs network \(unet, {part.sha256[:12]}\) that is neither in"):
        locate([{"step": "segment", "part": part.identity()}], tmp_path)


def test_what_comes_with_cxrtool_is_found_and_not_copied(part, tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (tmp_path / "mine").rename(shipped / "lungs-default")
    monkeypatch.setattr(models, "SHIPPED", shipped)
    found = locate([{"step": "segment", "part": part.identity()}], tmp_path / "model")
    assert found[0][AT] == str(shipped / "lungs-default")
    copy_parts(found, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert models.default_part("lungs").shipped


def test_of_a_fold_of_generators_the_part_alone_travels(tmp_path, study, write_generators):
    run = write_generators(tmp_path / "run", study.splits, [])
    part = models.read_part(run / "r0f0", "generators")
    copy_parts([{"step": "transform", "part": part.identity(), AT: str(part.folder)}], tmp_path / "model")
    names = [path.name for path in (tmp_path / "model" / "parts").glob("*/*")]
    assert sorted(names) == ["fitted_on.csv", "part.json", "part.safetensors"]
    assert locate([{"step": "transform", "part": part.identity()}], tmp_path / "model")


SQUASHED = {"step": "prepare", "version": 2, "size": 24, "fit": "squash"}
CLAHE = {"step": "clahe", "version": 1, "clip": 2.0, "tiles": 8}


def match(quantiles):
    return {"step": "match-histogram", "version": 1, "quantiles": quantiles}


def test_what_all_folds_share_is_told_once_and_the_rest_of_each():
    chains = {"r0f0": [SQUASHED, match("-255 1"), CLAHE], "r0f1": [SQUASHED, match("1 -255"), CLAHE]}
    folds = {"step": "match-histogram", "version": 1, "folds": {"r0f0": "-255 1", "r0f1": "1 -255"}}
    assert fold_together(chains) == [SQUASHED, folds, CLAHE]
    assert fold_together({ALL: [SQUASHED]}) == [SQUASHED]
    assert fold_together({"r0f0": [CLAHE], "r0f1": [CLAHE]}) == [CLAHE]


@pytest.mark.parametrize(
    "chains",
    [
        {"r0f0": [SQUASHED], "r0f1": [SQUASHED, CLAHE]},
        {"r0f0": [], "r0f1": [CLAHE]},
        {"r0f0": [CLAHE], "r0f1": [{**CLAHE, "clip": 3.0}]},
        {"r0f0": [match("a")], "r0f1": [{**match("b"), "version": 2}]},
        {ALL: [match("a")], "r0f1": [match("b")]},
    ],
)
def test_other_differences_are_refused(chains):
    with pytest.raises(InputError, match="expected images of one preprocessing"):
        fold_together(chains)


def test_the_chain_of_a_manifest_is_read_from_the_folders_of_its_folds(tmp_path):
    folds = {"r0f0": "-255 1", "r1f2": "1 -255"}
    told = [SQUASHED, {"step": "match-histogram", "version": 1, "folds": folds}, CLAHE]
    (tmp_path / "run.json").write_text(json.dumps({"command": "enhance", "chain": told}))
    rows = [
        {"image_id": name, "path": str(tmp_path / "images" / name / "a.png"), "repeat": name[1], "fold": name[3]}
        for name in folds
    ]
    manifest = Manifest(list(rows[0]), rows)
    assert chain_of_manifest(manifest) == told
    assert is_divided(manifest)
    assert [own_fold(row) for row in rows] == list(folds)
    assert not is_divided(Manifest(["image_id"], [{"image_id": "a", "repeat": ""}]))
