import os

import pytest

from cxrtool.data.datasets.folder import read
from cxrtool.data.datasets.record import Request


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_the_class_is_the_last_folder(tmp_path):
    touch(tmp_path, "train/covid/b.png", "train/covid/a.dcm", "val/normal/c", "loose.jpg")
    found = {record.relative: record.columns["label"] for record in read(tmp_path, Request())}
    assert found == {
        "loose.jpg": "",
        "train/covid/a.dcm": "covid",
        "train/covid/b.png": "covid",
        "val/normal/c": "normal",
    }


def test_what_is_no_image_by_name_is_skipped_and_counted(tmp_path):
    touch(tmp_path, "a/x.png", "a/README.txt", "a/labels.csv", "DICOMDIR", "a/.DS_Store", ".git/objects/ab", "a/y.xyz")
    request = Request()
    assert [record.relative for record in read(tmp_path, request)] == ["a/x.png", "a/y.xyz"]
    assert sorted(path.name for path in request.skipped) == ["DICOMDIR", "README.txt", "labels.csv"]


def test_links_are_followed_without_going_round(tmp_path):
    touch(tmp_path, "data/covid/a.png")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert [record.relative for record in read(tmp_path / "link", Request())] == ["gone.png", "covid/a.png"]


def test_the_output_is_not_its_own_input(tmp_path):
    touch(tmp_path, "covid/a.png", "out/images/a.png")
    request = Request(exclude=frozenset({(tmp_path / "out").resolve()}))
    assert [record.relative for record in read(tmp_path, request)] == ["covid/a.png"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_not_lost(tmp_path):
    touch(tmp_path, "covid/a.png", "secret/b.png")
    (tmp_path / "secret").chmod(0)
    try:
        assert [record.relative for record in read(tmp_path, Request())] == ["covid/a.png", "secret"]
    finally:
        (tmp_path / "secret").chmod(0o700)


def test_a_single_file(tmp_path):
    touch(tmp_path, "a.png")
    (record,) = read(tmp_path / "a.png", Request())
    assert (record.relative, record.columns) == ("a.png", {})
