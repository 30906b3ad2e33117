import cv2
import numpy as np
import pytest

from cxrtool.commands.fit.generators.fold import Example, choose, draw_transformations


def test_a_few_of_each_class_from_all_over():
    places = list(range(100, 120))
    labels = ["covid"] * 12 + ["normal"] * 8
    assert choose(places, labels, ["covid", "normal"]) == [100, 103, 106, 109, 112, 114, 116, 118]
    assert choose(places[:1], labels[:1], ["covid", "normal"]) == [100]


@pytest.mark.parametrize("classes", [["covid", "normal"], ["a", "b", "c"]])
def test_what_is_brighter_is_red_and_what_is_darker_blue(tmp_path, classes):
    original = np.full((16, 16), 0.5, np.float32)
    versions = np.stack([np.repeat(original[..., None], 3, 2) + 0.2 * (-1) ** k for k in range(len(classes))])
    half = np.full(len(classes), 0.5)
    examples = [Example(f"i{k}", classes[0], original, versions, half, half) for k in range(3)]
    for name in "ab":
        draw_transformations(tmp_path / f"{name}.png", examples, classes, "test images of r0f0")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    blue, _, red = np.moveaxis(cv2.imread(str(tmp_path / "a.png")).astype(int), 2, 0)
    assert ((red - blue) > 60).sum() > 3000
    assert ((blue - red) > 60).sum() > 3000


def test_no_image_gives_a_picture_that_says_so(tmp_path):
    draw_transformations(tmp_path / "a.png", [], ["covid", "normal"], "nothing")
    assert cv2.imread(str(tmp_path / "a.png")) is not None
