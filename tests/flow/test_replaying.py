"""The steps of a chain: what `predict` and `explain` do to a raw picture is what the steps one by one do to it."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from cxrtool.commands.predict import PredictOptions, predict
from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.tables.manifest import read_manifest, write_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import ImageError, InputError
from cxrtool.flow.chain import chain_of, describe, locate, missing_steps
from cxrtool.flow.folder import AT, without_paths
from cxrtool.flow.heatmaps.drawing import Task, view_one
from cxrtool.flow.replaying import STEPS, Picture, Step, look, read_mask, replay, replay_suppress_ribs
from cxrtool.flow.segmenting import SegmentOptions, segment
from cxrtool.imaging.histogram import count_levels, pack
from cxrtool.imaging.view import see
from cxrtool.models.parts import load_network, read_part


def picture(shape=(80, 60), seed=0):
    rng = np.random.default_rng(seed)
    return (40 + 170 * cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), 4)).astype(np.uint8)


@pytest.fixture
def entry(rib_part):
    return {"step": "suppress-ribs", "version": 1, "part": read_part(rib_part, "ribs").identity(), AT: str(rib_part)}


def answer_of(rib_part, values):
    with torch.inference_mode():
        return load_network(rib_part, "ribs")(torch.from_numpy(values)[None, None])[0, 0].numpy()


def test_a_picture_of_the_network_s_size_becomes_its_answer(rib_part, entry):
    image = picture((64, 64))
    shown = see(image, read_part(rib_part, "ribs").form).values
    assert np.allclose(shown, 1 - image / 255, atol=1e-6)
    expected = (1 - answer_of(rib_part, shown)) * 255
    assert np.abs(replay_suppress_ribs(image, entry) - expected.clip(0, 255)).max() <= 0.51
    assert np.abs(expected.clip(0, 255) - image).mean() > 3


def test_what_the_network_cannot_see_stays(rib_part, entry):
    """A pattern finer than the network's input, on a picture twice its size, is there afterwards as before."""
    smooth = picture((128, 128))
    fine = np.where(np.indices((128, 128)).sum(0) % 2, 9, -9)
    changed = (smooth + fine).astype(np.uint8)
    difference = replay_suppress_ribs(changed, entry).astype(int) - replay_suppress_ribs(smooth, entry)
    # At the borders, where the network sees padding, its answer is cut off at white.
    assert np.abs(difference - fine)[16:-16, 16:-16].max() <= 1


@pytest.mark.parametrize("shape", [(80, 60), (60, 200), (33, 31)])
def test_shape_and_depth_stay_and_depth_does_not_matter(entry, shape):
    image = picture(shape)
    result = replay_suppress_ribs(image, entry)
    assert (result.shape, result.dtype) == (image.shape, np.uint8)
    deep = replay_suppress_ribs(image.astype(np.uint16) * 257, entry)
    assert (deep.shape, deep.dtype) == (image.shape, np.uint16)
    # Both are resampled in their own depth, so that rounding comes once more.
    assert np.abs(deep / 257 - result).max() <= 1.6


def test_what_leaves_the_range_is_cut_off(entry):
    image = np.zeros((64, 64), np.uint8)
    image[:, 32:] = 255
    result = replay_suppress_ribs(image, entry).astype(int)
    assert result.min() >= 0
    assert result.max() <= 255
    # Wrapped around, some of white would have become black.
    assert result[16:48, 48:].min() > 200
    assert result[16:48, 10:24].max() < 80


def test_every_step_is_replayed_by_a_chain(entry):
    image = picture()
    quantiles = pack(count_levels(picture(seed=1)))
    chain = [
        {"step": "match-histogram", "version": 1, "quantiles": quantiles},
        entry,
        {"step": "clahe", "version": 1, "clip": 2.0, "tiles": 8},
    ]
    assert [step["step"] for step in chain] == list(STEPS)
    for step in json.loads(json.dumps(chain)):
        changed = replay(Picture(image), [step]).pixels
        assert (changed == STEPS[step["step"]].replay(image, step)).all()
        assert (changed != image).any()
        image = changed
    assert len(describe(chain)) < 200


def test_a_step_knows_its_own_words_and_those_of_earlier_versions(entry):
    assert STEPS["suppress-ribs"].describe(entry) == f"Ribs were suppressed by a network ({entry['part']['network']})."
    assert STEPS["match-histogram"].describe({}) == "The histogram of grey values was matched to a reference."
    for told in ({"clip": 2.0, "tiles": 8}, {"clahe_clip": 2.0, "clahe_tiles": 8}):
        assert "(clip limit 2, 8 x 8 tiles)" in STEPS["clahe"].describe(told)
    assert {name for name, step in STEPS.items() if step.fitted} == {"match-histogram"}


def test_a_step_more_is_replayed_and_told_wherever_chains_are(monkeypatch):
    negative = Step("negative", lambda pixels, entry: entry["white"] - pixels, lambda entry: "Negatives were taken.")
    monkeypatch.setitem(STEPS, "negative", negative)
    image, chain = picture(), [negative.entry(white=255)]
    assert missing_steps(chain, [], "model", "images") == chain
    assert (replay(Picture(image), chain).pixels == 255 - image).all()
    assert describe(chain) == "negative --white 255"
    assert "negative" in STEPS


USES = {
    "crop": {"crop": True},
    "apply": {"apply_mask": True},
    "erase": {"erase_lungs": True, "threshold": 0.4},
    "crop+apply": {"crop": True, "apply_mask": True, "margin": 0.05, "margin_of": "box", "tta": True},
}


@pytest.fixture
def segmented(chests, lung_part, settings, tmp_path):
    def call(**changes):
        out = tmp_path / "segmented"
        options = SegmentOptions(**{"sources": chests.origin.parent, "lungs": lung_part, "sheet": 0, **changes})
        segment(options, replace(settings, out=out))
        return read_manifest(out)

    return call


@pytest.fixture
def model(segmented, chests, settings, tmp_path, no_pictures):
    """A tiny network, trained on cropped lungs alone."""
    manifest = segmented(crop=True, apply_mask=True)
    parts = ("train", "train", "validation", "test")
    splits = [
        {"image_id": row["image_id"], "repeat": "0", "fold": "0", "subset": parts[k // 4 % 4]}
        for k, row in enumerate(manifest.rows)
    ]
    write_table(tmp_path / "splits.csv", list(splits[0]), splits)
    options = TrainOptions(
        manifest.origin.parent,
        tmp_path / "splits.csv",
        model="covid-xnet",
        size=32,
        epochs=2,
        batch_size=8,
        augment="none",
    )
    train(options, replace(settings, out=tmp_path / "run", cache=tmp_path / "cache"))
    return tmp_path / "run" / "r0f0"


@pytest.mark.parametrize("use", USES)
def test_a_replayed_picture_is_the_one_that_was_written(segmented, chests, use):
    manifest = segmented(**USES[use])
    chain = missing_steps(chain_of(_paths(manifest)), chain_of(_paths(chests)), "model", "data")
    assert [entry["use"] for entry in chain] == [use]
    for row, raw in list(zip(manifest.rows, chests.rows, strict=True))[:8]:
        pixels = cv2.imread(raw["path"], cv2.IMREAD_UNCHANGED)
        mask = read_mask(raw["mask"], pixels.shape, None) if raw["mask"] else None
        picture = replay(Picture(pixels, mask), chain)
        assert np.array_equal(picture.pixels, cv2.imread(row["path"], cv2.IMREAD_UNCHANGED))
        assert np.array_equal(picture.lungs, cv2.imread(row["mask"], cv2.IMREAD_UNCHANGED))
        if raw["mask"]:
            assert np.array_equal(picture.mask, cv2.imread(row["mask_reference"], cv2.IMREAD_UNCHANGED))


def test_predict_on_raw_pictures_is_predict_on_the_steps_pictures(model, segmented, chests, settings, tmp_path):
    answers = []
    for index, source in enumerate((chests.origin, tmp_path / "segmented")):
        told = replace(settings, out=tmp_path / f"{index}.csv", allow_leakage=True)
        predict(PredictOptions(model, str(source)), told)
        answers.append(read_predictions(tmp_path / f"{index}.csv"))
    np.testing.assert_allclose(answers[0].probabilities, answers[1].probabilities, atol=1e-6)
    assert [row["image_id"] for row in answers[0].rows] == [row["image_id"] for row in answers[1].rows]


def test_a_model_carries_the_networks_that_its_chain_needs(model, chests):
    description = json.loads((model / "model.json").read_text())
    assert AT not in json.dumps(description)
    assert AT not in (model / "run.json").read_text()
    chain = locate(description["chain"], model)
    assert chain[0][AT].startswith(str(model / "parts"))
    shutil.rmtree(model / "parts")
    with pytest.raises(InputError, match="made with a lungs network"):
        locate(description["chain"], model)


def test_a_trained_on_radiograph_is_known_by_its_raw_pixels(model, chests, settings, tmp_path):
    """Although the model has only ever seen the crop."""
    from cxrtool.errors import LeakageError

    folder = tmp_path / "new"
    folder.mkdir()
    shutil.copy(chests.rows[0]["path"], folder / "renamed.png")
    with pytest.raises(LeakageError, match="renamed"):
        predict(PredictOptions(model, str(folder)), replace(settings, out=tmp_path / "new.csv"))


def test_predict_says_when_no_lungs_are_there(model, settings, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    cv2.imwrite(str(folder / "blank.png"), np.full((60, 60), 90, np.uint8))
    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / "noise.png"), rng.integers(0, 256, (60, 60), np.uint8))
    predict(PredictOptions(model, str(folder)), replace(settings, out=tmp_path / "odd.csv"))
    told = {row["image_id"]: row["warning"] for row in read_predictions(tmp_path / "odd.csv").rows}
    assert "no lungs found" in told["blank"]
    assert "lungs" in told["noise"]


def test_a_model_without_segmentation_says_nothing_of_lungs(chests):
    assert "lungs" not in look(chests.rows[0]["path"], chain=[], size=16, fit="squash")[2]


def test_the_size_and_the_lungs_of_an_image_are_those_after_the_chain(segmented, chests):
    """And those that the manifest of the step has for its training images."""
    manifest = segmented(crop=True)
    made, row = manifest.rows[0], chests.rows[0]
    chain = chain_of(_paths(manifest))
    seen = look(row["path"], chain=chain, size=16, fit="squash")
    assert (str(seen.height), str(seen.width)) == (made["height"], made["width"])
    assert f"{seen.lung_area:.4f}" == made["mask_area"]
    assert seen.pixels.shape == (16, 16)
    assert look(row["path"], chain=[], size=16, fit="squash").lung_area is None


def test_heatmaps_take_the_masks_along_and_else_the_lungs_that_are_found(segmented, chests):
    chain = chain_of(_paths(segmented(crop=True, apply_mask=True)))
    raw = chests.rows[0]
    seen = [
        view_one(Task(raw["path"], mask), chain=chain, size=32, fit="squash", max_pixels=None)
        for mask in (raw["mask"], "", chests.rows[2]["path"])
    ]
    assert seen[0].mask.shape == seen[1].mask.shape == (seen[0].height, seen[0].width)
    agreeing = np.mean(seen[0].mask == seen[1].mask)
    assert 0.9 < agreeing < 1


def test_a_mask_of_other_proportions_is_not_that_of_the_picture(chests):
    with pytest.raises(ImageError, match="it is 88 x 96, its image 96 x 88"):
        read_mask(chests.rows[0]["mask"], (88, 96), None)


def test_folds_with_processing_of_their_own_answer_together(model, chests, settings, tmp_path, editable):
    """As a run whose histograms are matched to a reference of each fold."""
    run = tmp_path / "two"
    for fold in range(2):
        shutil.copytree(model, run / f"r0f{fold}")
        editable(run / f"r0f{fold}")
        description = json.loads((model / "model.json").read_text())
        description["chain"][0]["margin"] = 0.025 + 0.2 * fold
        (run / f"r0f{fold}" / "model.json").write_text(json.dumps(description))
    found = []
    for name in ("two", "two/r0f1"):
        told = replace(settings, out=tmp_path / "answers.csv", allow_leakage=True, force=True)
        predict(PredictOptions(tmp_path / name, str(chests.origin), members=True, partial=True), told)
        found.append(read_predictions(tmp_path / "answers.csv"))
    folds = np.array([row["fold"] for row in found[0].rows])
    one, other = (found[0].probabilities[folds == fold] for fold in "01")
    assert np.abs(one - other).max() > 1e-4
    np.testing.assert_allclose(other, found[1].probabilities, atol=1e-6)


def test_chains_of_equal_networks_are_equal_wherever_these_lie(segmented, lung_part, tmp_path):
    chain = chain_of(_paths(segmented(crop=True)))
    shutil.copytree(lung_part, tmp_path / "moved")
    moved = [{**chain[0], AT: str(tmp_path / "moved")}]
    assert missing_steps(moved, chain, "model", "data") == []
    assert missing_steps(moved, [], "model", "data") == moved
    other = [{**chain[0], "part": {**chain[0]["part"], "sha256": "0" * 64}}]
    with pytest.raises(InputError, match=r"segment \(lungs: unet 00000000\) --crop --margin 0.025 --margin-of image"):
        missing_steps(other, chain, "model", "data")
    assert AT not in json.dumps(without_paths(chain))


def _paths(manifest):
    from pathlib import Path

    return [Path(row["path"]) for row in manifest.rows]
