"""The reader of PNG, JPEG, TIFF and BMP against Pillow and tifffile, and against files that are not what they seem."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from cxrtool.data.images import read_image, write_png
from cxrtool.errors import ImageError

GENERATOR = np.random.default_rng(7)
SMOOTH = np.clip(np.add.outer(np.arange(40) * 3, np.arange(60) * 2), 0, 255).astype(np.uint8)
DEEP = (np.add.outer(np.arange(40), np.arange(60)) * 600 + 7).astype(np.uint16)
NOISE = GENERATOR.integers(0, 256, (120, 90), dtype=np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    def reader(data: bytes, **options):
        path = tmp_path / "picture"
        path.write_bytes(data)
        return read_image(path, **options)

    return reader


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, *extra: bytes, rows: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_eight_bit_grey_is_exact(read, kind):
    assert np.array_equal(read(saved(Image.fromarray(SMOOTH), kind)).pixels, SMOOTH)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_stay_sixteen(read, kind):
    pixels = read(saved(Image.fromarray(DEEP), kind)).pixels
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, DEEP)


def test_jpeg_is_what_its_decoder_says(read):
    data = saved(Image.fromarray(SMOOTH), "JPEG", quality=95)
    assert np.abs(read(data).pixels.astype(int) - np.asarray(Image.open(io.BytesIO(data)))).max() <= 1
    progressive = saved(Image.fromarray(SMOOTH), "JPEG", quality=95, progressive=True)
    assert np.array_equal(read(progressive).pixels, read(data).pixels)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_grey_stored_in_another_mode_keeps_its_values(read, mode, kind):
    if (mode, kind) in {("LA", "BMP"), ("LA", "TIFF"), ("RGBA", "TIFF")}:
        pytest.skip("BMP has no such mode; a TIFF with transparency is refused, see below")
    radiograph = read(saved(Image.fromarray(SMOOTH).convert(mode), kind))
    assert np.array_equal(radiograph.pixels, SMOOTH)
    assert radiograph.warnings == []


def test_every_grey_value_survives_rgb_at_both_depths(read):
    for values in (np.arange(256, dtype=np.uint8).reshape(16, 16), np.arange(65536, dtype=np.uint16).reshape(256, 256)):
        data = cv2.imencode(".png", np.dstack([values] * 3))[1].tobytes()
        assert np.array_equal(read(data).pixels, values)


@pytest.mark.parametrize("mode", ["1", "P"])
def test_few_bits_spread_over_the_whole_range(read, mode):
    image = Image.fromarray(SMOOTH).convert(mode)
    if mode == "P":
        image = Image.fromarray(SMOOTH).quantize(4).convert("RGB").quantize(4)
    expected = np.asarray(image.convert("L"))
    assert np.abs(read(saved(image, "PNG")).pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_packed_grey_png(read, depth):
    row = bytes([0] + [0b00011011] * 4)
    pixels = read(png(32 // depth, 2, depth, 0, rows=row * 2)).pixels
    bits = np.unpackbits(np.frombuffer(row[1:], np.uint8)).reshape(-1, depth)
    values = bits @ (1 << np.arange(depth)[::-1])
    assert np.array_equal(pixels[0], values * 255 // (2**depth - 1))


def test_colour_is_weighted_by_bt601_and_said(read):
    colour = GENERATOR.integers(0, 256, (50, 50, 3), dtype=np.uint8)
    radiograph = read(saved(Image.fromarray(colour), "PNG"))
    expected = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(radiograph.pixels - expected).max() <= 0.51
    assert any("coloured" in text for text in radiograph.warnings)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_is_laid_over_black(read, dtype):
    full = np.iinfo(dtype).max
    grey = GENERATOR.integers(0, full + 1, (30, 30)).astype(dtype)
    alpha = GENERATOR.integers(0, full + 1, (30, 30)).astype(dtype)
    data = cv2.imencode(".png", np.dstack([grey] * 3 + [alpha]))[1].tobytes()
    radiograph = read(data)
    assert np.abs(radiograph.pixels - grey.astype(float) * alpha / full).max() <= 0.5
    assert radiograph.warnings == ["transparent parts were laid over black"]
    with pytest.raises(ImageError, match="transparent"):
        read(cv2.imencode(".png", np.dstack([grey] * 3 + [np.zeros_like(alpha)]))[1].tobytes())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "TIFF16"])
def test_turned_upright_as_pillow_does(read, kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(DEEP if kind == "TIFF16" else SMOOTH)
    data = saved(image, kind[:4], exif=exif)
    if kind == "TIFF16":
        turned = Image.fromarray(DEEP.astype(np.int32))
        turned.getexif()[274] = orientation
        expected = np.asarray(ImageOps.exif_transpose(turned)).astype(np.uint16)
    else:
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    pixels = read(data).pixels
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= (1 if kind == "JPEG" else 0)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "deflate"}, {"byteorder": ">"}, {"bigtiff": True}, {"rowsperstrip": 7}, {"tile": (64, 64)}],
    ids=str,
)
def test_tiff_layouts(read, dtype, options):
    array = GENERATOR.integers(0, np.iinfo(dtype).max + 1, (150, 130)).astype(dtype)
    assert np.array_equal(read(tiff(array, **options)).pixels, array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_min_is_white_tiff_comes_out_black_is_zero(read, dtype):
    array = GENERATOR.integers(0, np.iinfo(dtype).max + 1, (50, 60)).astype(dtype)
    data = tiff(array, photometric="miniswhite")
    assert np.array_equal(read(data).pixels, np.iinfo(dtype).max - array)


def test_lzw_tiff(read):
    data = saved(Image.fromarray(NOISE), "TIFF", compression="tiff_lzw")
    assert np.array_equal(read(data).pixels, NOISE)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff(SMOOTH.astype(np.float32)), "floating-point"),
        (tiff(SMOOTH.astype(np.int16)), "signed"),
        (tiff(SMOOTH.astype(np.uint32)), "8 or 16 bits"),
        (tiff(np.stack([SMOOTH, SMOOTH]), photometric="minisblack"), "one page, found 2"),
        (tiff(np.stack([SMOOTH] * 3).astype(np.uint16), photometric="rgb", planarconfig="separate"), "planes"),
        (tiff(np.dstack([SMOOTH] * 4), photometric="rgb", extrasamples=["unassalpha"]), "transparency"),
        (saved(Image.fromarray(SMOOTH).convert("1"), "TIFF"), "8 or 16 bits"),
        (saved(Image.fromarray(SMOOTH).convert("CMYK"), "TIFF"), "photometric interpretation 5"),
        (saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG"), "CMYK"),
        (saved(Image.fromarray(SMOOTH), "GIF"), "a GIF"),
        (saved(Image.fromarray(SMOOTH), "WEBP"), "WebP"),
        (saved(Image.fromarray(SMOOTH), "PDF"), "a PDF"),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (bytes(4096), "only zeros"),
        (b"some text", "found text"),
        (b"\x81\x02\x03", "unknown format"),
        (b"", "empty"),
        (b"BM\xff", "unknown format"),
        (b"\xff\xd8\xff", "truncated JPEG"),
        (b"\x89PNG\r\n\x1a\n", "malformed PNG"),
        (b"II*\0", "truncated TIFF"),
        (png(0, 5, 8, 0), "0 x 5"),
        (png(4, 4, 8, 0, chunk(b"acTL", struct.pack(">II", 2, 0)), rows=bytes(20)), "animated"),
        (png(4, 4, 8, 0, rows=bytes(7)), "cannot be decoded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_supported_is_refused_by_name(read, data, words):
    with pytest.raises(ImageError, match=words):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(NOISE), "PNG"),
        saved(Image.fromarray(NOISE), "JPEG"),
        saved(Image.fromarray(NOISE), "JPEG", progressive=True),
        saved(Image.fromarray(NOISE), "BMP"),
        tiff(NOISE),
        tiff(NOISE, compression="deflate"),
        tiff(NOISE, rowsperstrip=10),
    ],
    ids=["png", "jpeg", "progressive", "bmp", "tiff", "deflate", "strips"],
)
def test_no_truncated_file_is_read(read, data):
    whole = read(data).pixels
    refused = 0
    for cut in range(0, len(data), max(1, len(data) // 60)):
        try:
            part = read(data[:cut])
        except ImageError:
            refused += 1
        else:
            # Some writers put metadata behind the pixels: a file cut there has lost nothing that is seen.
            assert np.array_equal(part.pixels, whole)
    assert refused > 50
    with pytest.raises(ImageError):
        read(data[: len(data) // 2])


def test_a_bit_flipped_in_a_png_is_found(read):
    data = bytearray(saved(Image.fromarray(NOISE), "PNG"))
    data[len(data) // 2] ^= 4
    with pytest.raises(ImageError, match="cannot be decoded"):
        read(bytes(data))


def test_a_cut_jpeg_with_an_end_marker_is_overheard(read, capfd):
    data = saved(Image.fromarray(NOISE), "JPEG")
    mended = data[: len(data) // 2] + b"\xff\xd9"
    capfd.readouterr()
    with pytest.raises(ImageError, match="part of the picture is missing"):
        read(mended, overhear=True)
    emptied = data[: len(data) // 2] + bytes(len(data) // 2) + b"\xff\xd9"
    with pytest.raises(ImageError, match="damaged JPEG"):
        read(emptied, overhear=True)
    assert read(data, overhear=True).warnings == []
    assert capfd.readouterr().err == ""
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"


def test_bytes_behind_the_end_do_not_matter(read):
    for kind in ("PNG", "JPEG"):
        data = saved(Image.fromarray(NOISE), kind)
        assert np.array_equal(read(data + b"trailing" * 100).pixels, read(data).pixels)


def test_a_thumbnail_inside_a_cut_jpeg_does_not_pass_for_its_end(read):
    exif = saved(Image.fromarray(NOISE), "JPEG")
    data = saved(Image.fromarray(NOISE), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    whole = data[:2] + segment + data[2:]
    assert np.array_equal(read(whole).pixels, read(data).pixels)
    with pytest.raises(ImageError, match="truncated JPEG"):
        read(whole[: len(segment) + 400])


def test_only_regular_files_are_opened(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="a folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="a pipe"):
        read_image(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="a device"):
        read_image("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(ImageError, match="not readable"):
        read_image(tmp_path / "loop.png")
    with pytest.raises(ImageError, match="not readable"):
        read_image("a\0b")
    with pytest.raises(ImageError, match="not readable"):
        read_image("x" * 5000)


def test_the_name_does_not_matter(tmp_path):
    path = tmp_path / "wrong.dcm"
    path.write_bytes(saved(Image.fromarray(SMOOTH), "PNG"))
    assert np.array_equal(read_image(path).pixels, SMOOTH)


def test_blank_and_narrow_pictures_are_said(read):
    assert "blank" in read(saved(Image.fromarray(np.full((9, 9), 7, np.uint8)), "PNG")).warnings[0]
    twelve = (DEEP // 600).astype(np.uint16)
    assert "hardly any contrast" in read(saved(Image.fromarray(twelve), "PNG")).warnings[0]


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(saved(Image.fromarray(SMOOTH), "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def many_scans() -> bytes:
    data = saved(Image.fromarray(np.zeros((2500, 2500), np.uint8)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * 3000 + b"\xff\xd9"


BOMBS = {
    "png": lambda: png(60_000, 60_000, 16, 6),
    "png-text": lambda: png(8, 8, 8, 0, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(450_000_000))), rows=bytes(72)),
    "jpeg": lambda: jpeg_of_size(65_000, 65_000),
    "jpeg-scans": many_scans,
    "bmp": lambda: b"BM" + struct.pack("<IIIIiiHHI", 9, 0, 54, 40, 60_000, -60_000, 1, 24, 0) + bytes(99),
    "tiff": lambda: tiff(SMOOTH, metadata=None).replace(struct.pack("<HHII", 256, 4, 1, 60), _wide(60_000_000)),
}


def _wide(width: int) -> bytes:
    return struct.pack("<HHII", 256, 4, 1, width)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_quickly_and_in_little_memory(tmp_path, read_bomb, name):
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[name]())
    outcome = read_bomb(path)
    # A text chunk is not a pixel: it may be skipped, but it must not be inflated.
    assert outcome.startswith("refused:") or (name == "png-text" and outcome == "(8, 8)")


def test_the_limit_is_the_users(read):
    data = saved(Image.fromarray(SMOOTH), "PNG")
    assert read(data, max_pixels=SMOOTH.size).pixels.shape == SMOOTH.shape
    with pytest.raises(ImageError, match="60 x 40 pixels, more than --max-pixels 2,399"):
        read(data, max_pixels=SMOOTH.size - 1)


@pytest.mark.parametrize("pixels", [SMOOTH, DEEP, NOISE], ids=["eight", "sixteen", "noise"])
def test_what_is_written_is_read_back(tmp_path, pixels):
    size = write_png(tmp_path / "out.png", pixels)
    assert size == (tmp_path / "out.png").stat().st_size
    again = read_image(tmp_path / "out.png").pixels
    assert again.dtype == pixels.dtype
    assert np.array_equal(again, pixels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), pixels)


def test_nothing_is_left_open(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, SMOOTH)
    handle = os.dup(0)
    os.close(handle)
    for refused in (tmp_path, path):
        with contextlib.suppress(ImageError):
            read_image(refused, overhear=True)
    assert os.dup(0) == handle
    os.close(handle)
