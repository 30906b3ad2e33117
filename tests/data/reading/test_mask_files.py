import cv2
import numpy as np
import pytest
from PIL import Image

from cxrtool.data.reading.mask_files import read_mask
from cxrtool.errors import ImageError


@pytest.fixture
def write(tmp_path):
    def call(name, values):
        cv2.imwrite(str(tmp_path / name), np.asarray(values, np.uint8))
        return tmp_path / name

    return call


def test_files_are_joined_each_by_its_own_highest_value(write):
    joined = read_mask([write("a.png", [[1, 0, 0, 0]] * 4), write("b.png", [[0, 0, 200, 90]] * 4)])
    assert joined.tolist() == [[255, 0, 255, 0]] * 4


def test_a_mask_of_zeros_is_empty(write):
    assert not read_mask([write("a.png", np.zeros((4, 4)))]).any()


def test_a_gif_is_read(tmp_path):
    values = np.zeros((6, 8), np.uint8)
    values[2:4, 3:7] = 255
    Image.fromarray(values).save(tmp_path / "a.gif")
    assert np.array_equal(read_mask([tmp_path / "a.gif"]), values)
    (tmp_path / "cut.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:30])
    with pytest.raises(ImageError, match="GIF"):
        read_mask([tmp_path / "cut.gif"])
    frames = [Image.fromarray(values), Image.fromarray(255 - values)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="animated"):
        read_mask([tmp_path / "moving.gif"])


def test_a_large_gif_is_refused_before_it_is_decoded(tmp_path):
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(tmp_path / "a.gif")
    with pytest.raises(ImageError, match="50 x 50 pixels"):
        read_mask([tmp_path / "a.gif"], max_pixels=100)


def test_parts_of_different_sizes_are_refused_by_name(write):
    with pytest.raises(ImageError, match=r"b.png: its parts are of different sizes, 4 x 4 and 5 x 4"):
        read_mask([write("a.png", np.ones((4, 4))), write("b.png", np.ones((4, 5)))])


def test_a_missing_part_is_named(write, tmp_path):
    with pytest.raises(ImageError, match=r"gone.png: no such file"):
        read_mask([write("a.png", np.ones((4, 4))), tmp_path / "gone.png"])


@pytest.mark.parametrize("labels", [(1, 2), (60, 120, 180, 240), (2, 1, 3), (50, 255)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_every_label_of_a_map_is_inside(tmp_path, labels, kind):
    values = np.zeros((40, 60), kind)
    for k, label in enumerate(labels):
        values[5:35, 2 + 14 * k : 12 + 14 * k] = label
    cv2.imwrite(str(tmp_path / "labels.png"), values)
    assert np.array_equal(read_mask([tmp_path / "labels.png"]) > 0, values > 0)


@pytest.mark.parametrize("way", ["blur", "half", "jpeg", "enlarged", "paste"])
def test_soft_edges_and_noise_of_compression_are_no_labels(tmp_path, way):
    mask = np.zeros((80, 120), np.uint8)
    cv2.ellipse(mask, (60, 40), (31, 23), 20, 0, 360, 255, -1)
    path, values = tmp_path / "mask.png", mask
    if way == "blur":
        values = cv2.GaussianBlur(mask, (0, 0), 1.5)
    elif way == "half":
        values = cv2.resize(mask, (60, 40), interpolation=cv2.INTER_AREA)
    elif way == "enlarged":
        values = cv2.resize(mask, (300, 200), interpolation=cv2.INTER_LINEAR)
    elif way == "paste":
        # One grey pixel is no region.
        values[3, 3] = 100
    if way == "jpeg":
        path = tmp_path / "mask.jpg"
        cv2.imwrite(str(path), values, [cv2.IMWRITE_JPEG_QUALITY, 60])
    else:
        cv2.imwrite(str(path), values)
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read_mask([path]) > 0, read > 0.5 * read.max())
