import cv2
import numpy as np
import pytest

from cxrtool.commands.enhance.images import Kept, Task, count_one, enhance_one, look_at_stages, measure_one
from cxrtool.data.files import are_whole_pngs
from cxrtool.errors import ImageError
from cxrtool.flow.replaying import replay_clahe
from cxrtool.imaging.histogram import unpack

CLAHE = {"step": "clahe", "version": 1, "clip": 2.0, "tiles": 2}
STRONG = {**CLAHE, "clip": 9.0}


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(40, 200, (30, 20), np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), pixels)
    return pixels


def test_an_image_goes_each_way_once_and_into_every_file(image, tmp_path):
    task = Task("image", str(tmp_path / "image.png"), ((1, ("a.png", "b.png")), (0, ("c.png",))))
    written = enhance_one(task, target=tmp_path, before=[CLAHE], ways=[[], [STRONG]])
    assert written == {"files": {name: (tmp_path / name).stat().st_size for name in ("a.png", "b.png", "c.png")}}
    assert are_whole_pngs(tmp_path, written["files"])
    once = replay_clahe(image, CLAHE)
    for name, expected in (
        ("a.png", replay_clahe(once, STRONG)),
        ("b.png", replay_clahe(once, STRONG)),
        ("c.png", once),
    ):
        assert (cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED) == expected).all()
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:-1])
    assert not are_whole_pngs(tmp_path, written["files"])
    assert not are_whole_pngs(tmp_path, {"d.png": 3})


def test_a_histogram_is_that_after_the_steps_before(image, tmp_path):
    path = str(tmp_path / "image.png")
    task = Task("image", path, ((0, ("kept.png",)),))
    found = measure_one(task, target=tmp_path, before=[CLAHE], keep=True)
    expected = np.bincount(replay_clahe(image, CLAHE).ravel(), minlength=256)
    assert np.array_equal(unpack(found["cells"]), expected)
    kept = Kept("kept.png", found["bytes"])
    assert are_whole_pngs(tmp_path, {kept.name: kept.size})
    (tmp_path / "image.png").rename(tmp_path / "moved.png")
    assert (count_one(Task("", path, (), kept=kept), target=tmp_path, before=[CLAHE]) == expected).all()
    # Where the file is gone or cut, the steps are done again.
    (tmp_path / "moved.png").rename(path)
    (tmp_path / "kept.png").write_bytes(b"cut")
    assert (count_one(Task("", path, (), kept=kept), target=tmp_path, before=[CLAHE]) == expected).all()
    assert "bytes" not in measure_one(task, target=tmp_path, before=[], keep=False)


def test_every_stage_is_shown_at_one_size_in_8_bits(image, tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), image.astype(np.uint16) * 257)
    for name in ("image.png", "deep.png"):
        stages = look_at_stages(str(tmp_path / name), chain=[CLAHE, STRONG], side=60)
        assert [(stage.shape, stage.dtype) for stage in stages] == [((60, 40), np.uint8)] * 3


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        enhance_one(Task("x", str(tmp_path / "x.png"), ()), target=tmp_path, before=[], ways=[])
