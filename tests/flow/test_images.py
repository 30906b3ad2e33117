"""The same image has the same id and the same row, however it is named."""

import io
import os

import cv2
import numpy as np
import pytest

from cxrtool.data.tables.manifest import read_manifest
from cxrtool.errors import InputError
from cxrtool.flow.images import read_images


def draw(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(".png", np.full((24, 24), value, np.uint8))
    assert ok
    path.write_bytes(data.tobytes())
    return path


@pytest.fixture
def ward(tmp_path, monkeypatch):
    """Three images with blanks, an umlaut and a suffix in capitals; two of them have one name."""
    monkeypatch.chdir(tmp_path)
    return [
        draw(tmp_path / "new" / "Klinik Süd" / "Röntgen 1.PNG", 10),
        draw(tmp_path / "new" / "Nord" / "Röntgen 1.PNG", 20),
        draw(tmp_path / "new" / "Nord" / "other.png", 30),
    ]


@pytest.fixture
def pipe():
    """A function that puts text into a pipe and returns its path, as `<(COMMAND)` of a shell does."""
    opened = []

    def make(text):
        read, write = os.pipe()
        opened.append(read)
        os.write(write, text.encode())
        os.close(write)
        return f"/dev/fd/{read}"

    yield make
    for number in opened:
        os.close(number)


def named(manifest):
    return {row["path"]: row["image_id"] for row in manifest.rows}


def test_files_a_folder_a_list_and_streams_give_the_same_ids(ward, pipe, settings, tmp_path, monkeypatch):
    expected = {
        str(ward[0]): "Klinik_Sud_Rontgen_1",
        str(ward[1]): "Nord_Rontgen_1",
        str(ward[2]): "other",
    }
    lines = "\n".join(str(path.relative_to(tmp_path)) for path in ward)
    (tmp_path / "list.txt").write_text(f"\ufeff{lines}\r\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    ways = [ward, "new", ["new/Nord", ward[0]], "list.txt", "-", pipe(lines), pipe(lines.replace("\n", "\0"))]
    for way in ways:
        assert named(read_images(way, settings)) == expected, way
    # A stream can be read only once, and is asked again.
    assert named(read_images("-", settings)) == expected


def test_what_is_given_again_is_used_once_and_named(ward, settings, listener):
    manifest = read_images(["new", ward[0], "new/Nord/other.png", ward[0]], settings)
    assert len(manifest) == 3
    assert listener.said[-1].startswith("used once although given again: 3 paths, such as ")


def test_a_list_loses_nothing(ward, pipe, settings, listener):
    manifest = read_images(pipe("gone.png\nnew\nnew/Nord/other.png\nnotes.txt\n new/Nord/other.png \n"), settings)
    assert [row["image_id"] for row in manifest.rows] == ["gone", "new", "other"]
    assert any(text.startswith("1 file skipped by name, such as notes.txt") for text in listener.said)
    assert any("given again: 1 path" in text for text in listener.said)


def test_equal_names_in_folders_of_equal_names_have_different_ids(tmp_path, settings):
    images = [draw(tmp_path / ward / "images" / "1.png", 10) for ward in ("north", "south")]
    ids = [row["image_id"] for row in read_images(images, settings).rows]
    assert len(set(ids)) == 2
    assert all(name.startswith("images_1-") for name in ids)
    assert ids == [row["image_id"] for row in read_images(images[::-1], settings).rows][::-1]


def test_an_image_of_a_step_keeps_its_row(ward, cxr, settings, pipe):
    assert cxr("prepare", "new", "--size", "20", "--workers", "1", "-q", "-o", "prepared").code == 0
    rows = read_manifest("prepared").rows
    assert [row["sha256"] != "" for row in rows] == [True] * 3
    files = [row["path"] for row in rows]
    for way in (files, "prepared", "prepared/images", [files[0], "prepared"], pipe("\n".join(files))):
        found = read_images(way, settings)
        assert sorted(found.rows, key=str) == sorted(rows, key=str), way
    mixed = read_images([ward[2], "prepared"], settings)
    assert len({row["image_id"] for row in mixed.rows}) == 4
    assert mixed.rows[0]["image_id"] == "Nord_other"


def test_a_manifest_in_a_stream_is_a_manifest(ward, pipe, settings):
    manifest = read_images(pipe("image_id,path,label\nx,new/Nord/other.png,covid\n"), settings)
    assert manifest.rows == [{"image_id": "x", "path": str(ward[2]), "label": "covid"}]


def test_a_missing_argument_is_an_error(ward, settings):
    with pytest.raises(InputError, match="gone: no such image, folder or manifest"):
        read_images([ward[0], "gone"], settings)
