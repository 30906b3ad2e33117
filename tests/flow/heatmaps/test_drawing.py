import cv2
import numpy as np
import pytest

from cxrtool.errors import ImageError
from cxrtool.explaining.maps import lay_on
from cxrtool.flow.heatmaps.drawing import Drawing, Task, captions, choose, draw_one, sheet_of, view_one
from cxrtool.flow.replaying import REPLAY

CHAIN = [{"step": "prepare", "version": 1, "size": 40, "fit": "pad"}]


@pytest.fixture
def picture(tmp_path):
    """A bright square in a picture of 60 x 90, and a mask of just this square at twice the size."""
    pixels = np.full((90, 60), 30, np.uint8)
    pixels[50:70, 10:30] = 220
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    mask = np.zeros((180, 120), np.uint8)
    mask[100:140, 20:60] = 1
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    return tmp_path


def view(folder, mask="m.png", chain=(), size=32):
    task = Task(str(folder / "a.png"), str(folder / mask) if mask else "")
    return view_one(task, chain=list(chain), size=size, fit="squash", max_pixels=None)


@pytest.mark.parametrize("chain", [(), CHAIN])
def test_a_mask_lies_on_its_picture_whatever_both_went_through(picture, chain):
    seen = view(picture, chain=chain)
    assert (seen.height, seen.width) == ((40, 40) if chain else (90, 60))
    assert seen.mask.shape == (seen.height, seen.width)
    laid = lay_on(seen.pixels.astype(np.float32), seen.moves, seen.height, seen.width)
    inside, outside = laid[seen.mask > 0], laid[seen.mask == 0]
    assert inside.mean() > 170
    assert np.median(outside) <= 31
    assert (seen.warning, seen.trouble) == ("", "")


def test_an_image_without_a_mask_has_none(picture):
    assert view(picture, mask="").mask is None


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: cv2.imwrite(str(path), np.zeros((50, 90), np.uint8)), "it is 90 x 50, its image 60 x 90"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: cv2.imwrite(str(path), np.zeros((90, 60), np.uint8)), "nothing is marked in it"),
        (
            lambda path: cv2.imwrite(str(path), 255 * (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == 0)),
            "all four corners are marked in it, as where lungs are 0 and the rest is not",
        ),
    ],
)
def test_a_mask_that_will_not_do_is_left_out_with_the_reason(picture, make, reason):
    make(picture / "m.png")
    seen = view(picture)
    assert seen.mask is None
    assert seen.trouble == f"mask excluded: {reason}"


def test_an_image_that_cannot_be_read_is_refused(picture):
    (picture / "a.png").write_bytes(b"x")
    with pytest.raises(ImageError):
        view(picture)


def test_a_mask_stops_at_a_step_that_it_cannot_follow(picture, monkeypatch):
    monkeypatch.setitem(REPLAY, "turn", lambda pixels, entry: pixels.T)
    assert "cannot be transformed like its image by 'turn'" in view(picture, chain=[{"step": "turn"}]).trouble


@pytest.mark.parametrize("tile", [(), ("a", "b")])
def test_an_overlay_is_drawn_and_handed_over_for_a_sheet(picture, tile):
    np.save(picture / "v.npy", np.linspace(0, 2, 5400, dtype=np.float32).reshape(90, 60))
    drawing = Drawing(
        Task(str(picture / "a.png"), str(picture / "m.png")),
        ((picture / "v.npy", (59, 89)),),
        picture / "o.png",
        4.0,
        ("title",),
        tile,
    )
    exhibit = draw_one(drawing, chain=[], max_pixels=None)
    assert cv2.imread(str(picture / "o.png")).shape[0] > 384
    if not tile:
        assert exhibit is None
        return
    assert exhibit.caption == tile
    assert exhibit.values.max() == pytest.approx(0.5)
    assert exhibit.peak == (pytest.approx(59.5 / 60), pytest.approx(89.5 / 90))


@pytest.mark.parametrize(
    ("label", "predicted", "positive", "sheet"),
    [
        ("a", "a", "a", "true_positive"),
        ("a", "b", "a", "false_negative"),
        ("b", "a", "a", "false_positive"),
        ("b", "b", "a", "true_negative"),
        ("b", "c", "a", "true_negative"),
        ("b", "c", None, "wrong"),
        ("c", "c", None, "correct"),
        ("", "a", "a", "unlabelled"),
        ("z", "a", None, "unlabelled"),
    ],
)
def test_every_answer_has_its_sheet(label, predicted, positive, sheet):
    assert sheet_of({"label": label, "predicted": predicted}, ["a", "b", "c"], positive) == sheet


def test_who_is_on_a_sheet_is_left_to_chance_and_repeats():
    ids = {"right": [str(k) for k in range(100)], "wrong": ["x", "y"]}
    one, again, other = choose(ids, 10, 0), choose(ids, 10, 0), choose(ids, 10, 1)
    assert one == again != other
    assert len(one["right"]) == 10
    assert one["right"] == sorted(one["right"], key=int) != ids["right"][:10]
    assert one["wrong"] == ["x", "y"]
    assert choose(ids, 0, 0) == {"right": [], "wrong": []}


def test_captions_tell_what_was_asked_and_what_is_wrong():
    row = {
        "image_id": "a",
        "label": "",
        "predicted": "covid",
        "probability": "0.9",
        "target": "normal",
        "target_probability": "0.1",
        "energy_inside": "0.456",
        "warning": "",
    }
    assert captions(row) == (
        ("a: no label, predicted covid 0.90", "map of normal (0.10), 46% of its energy inside the mask"),
        ("a", "no label, predicted covid 0.90", "map of normal (0.10)"),
    )
    empty = captions({**row, "energy_inside": "", "warning": "empty map: nothing in it"})
    assert empty[0][1:] == ("map of normal (0.10)", "empty map: nothing in it")
    assert empty[1][2] == "empty map"
