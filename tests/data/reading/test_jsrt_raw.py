import numpy as np
import pytest

from cxrtool.data.reading.images import read_image
from cxrtool.data.reading.jsrt_raw import BYTES, is_raw, read_raw
from cxrtool.errors import ImageError


def test_dark_film_becomes_black_over_the_whole_range(tmp_path):
    samples = np.zeros((2048, 2048), ">u2")
    samples[0, :3] = 0, 2048, 4095
    path = tmp_path / "JPCLN001.IMG"
    path.write_bytes(samples.tobytes())
    pixels = read_image(path).pixels
    assert pixels.dtype == np.uint16
    assert pixels[0, :3].tolist() == [65535, round(2047 * 65535 / 4095), 0]


def test_only_its_name_and_size_together_tell_it(tmp_path):
    assert is_raw("jpcnn001.img", BYTES)
    assert not is_raw("jpcnn001.img", BYTES - 2)
    assert not is_raw("jpcnn001.raw", BYTES)
    path = tmp_path / "x.IMG"
    path.write_bytes(b"\x07\xfa" * 500)
    with pytest.raises(ImageError, match="unknown format"):
        read_image(path)


def test_samples_of_more_than_twelve_bits_are_refused():
    samples = np.zeros((2048, 2048), ">u2")
    samples[5, 5] = 4096
    with pytest.raises(ImageError, match="found 4,096"):
        read_raw(samples.tobytes())


def test_it_counts_against_the_limit(tmp_path):
    path = tmp_path / "JPCLN001.IMG"
    path.write_bytes(bytes(BYTES))
    with pytest.raises(ImageError, match="2,048 x 2,048 pixels"):
        read_image(path, max_pixels=1000)
