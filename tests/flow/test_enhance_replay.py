import json

import cv2
import numpy as np
import pytest
import torch

from cxrtool.flow.chain import STEADY, describe, missing_steps, replay
from cxrtool.flow.enhance_replay import STEPS, Step, replay_suppress_ribs
from cxrtool.flow.lungs import Picture
from cxrtool.flow.parts import AT
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
    assert "negative" in STEADY
