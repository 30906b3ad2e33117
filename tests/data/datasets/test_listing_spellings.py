"""A set is the same set from wherever and through whichever path it is read: ids and patients are equal."""

import os
from pathlib import Path

import pytest

from cxrtool.data.datasets import ADAPTERS
from cxrtool.data.datasets.listing import default_source, list_images, real_place
from cxrtool.data.datasets.record import Request

SETS = [name for name in ADAPTERS if name not in ("csv", "folder", "list")]


def spellings(root, link):
    """Working directories, and the ways to name `root` from there."""
    below = next(path for path in sorted(root.rglob("*")) if path.is_dir())
    up = os.path.relpath(root, below)
    return [
        (root.parent, root),
        (root.parent, Path(root.name)),
        (root.parent, Path(f"./{root.name}/")),
        (root, Path()),
        (below, Path(up)),
        (below, Path(up) / ".." / root.name),
        (root.parent, link),
        (link, Path()),
    ]


def rows_of(source, name):
    """The rows as they are wherever the set is: with the real paths of files."""
    rows = []
    for record in list_images([source], name, Request(), None).records:
        row = {key: os.path.realpath(cell) if cell.startswith("/") else cell for key, cell in record.columns.items()}
        rows.append({**row, "original": row["original"].partition(", line ")[2] or row["original"]})
    return rows


@pytest.mark.parametrize("name", SETS)
def test_a_published_set(published, tmp_path, monkeypatch, name):
    root = published(name)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "a link"
    link.symlink_to(root)
    found = []
    for here, source in spellings(root, link):
        monkeypatch.chdir(here)
        found.append(rows_of(source, name))
    assert found[0]
    assert all(rows == found[0] for rows in found)


@pytest.mark.parametrize("dataset", ["csv", "folder", "list"])
def test_a_plain_set(tmp_path, monkeypatch, dataset):
    root = tmp_path / "clinic"
    (root / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (root / "sub" / name).write_bytes(b"")
    table = {"csv": "m.csv", "list": "m.txt"}.get(dataset, "")
    text = f"sub/a.png,7\n{root}/sub/b.png,8\n" if dataset == "csv" else "sub/a.png\nsub/b.png\n"
    if table:
        (root / table).write_text("path,patient_id\n" * (dataset == "csv") + text)
    link = tmp_path / "link"
    link.symlink_to(root)
    found = []
    for here, source in spellings(root, link):
        monkeypatch.chdir(here)
        found.append(rows_of(source / table, dataset))
    assert all(rows == found[0] for rows in found)
    assert {row["source"] for row in found[0]} == {"clinic"}
    assert [row["original"] for row in found[0]] == ["sub/a.png", "sub/b.png"]


def test_images_of_one_name_keep_their_ids(tmp_path, monkeypatch):
    for name in ("x", "y"):
        (tmp_path / name / "scan").mkdir(parents=True)
        (tmp_path / name / "scan" / "im.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    ways = ("x/scan/im.png", "y/scan/im.png"), ("./y/../x/scan/im.png", tmp_path / "y/scan/im.png")
    first, second = (
        [r.image_id for r in list_images(list(map(Path, way)), None, Request(), None).records] for way in ways
    )
    assert first == second
    assert len(set(first)) == 2


def test_a_file_without_a_suffix_is_no_folder(tmp_path):
    (tmp_path / "clinic").mkdir()
    (tmp_path / "clinic" / "IM0001").write_bytes(b"")
    assert default_source(tmp_path / "clinic" / "IM0001") == "clinic"


def test_a_link_to_a_file_is_where_it_is(tmp_path):
    """Tools for large files keep them under the name of their content."""
    (tmp_path / "store").mkdir()
    (tmp_path / "cohen").mkdir()
    (tmp_path / "store" / "3f9a").write_text("path\n")
    (tmp_path / "cohen" / "m.csv").symlink_to("../store/3f9a")
    assert default_source(tmp_path / "cohen" / "m.csv") == "cohen"
    assert real_place(tmp_path / "cohen" / ".." / "cohen" / "m.csv") == tmp_path / "cohen" / "m.csv"


def test_control_characters_of_names_become_blanks(tmp_path):
    (tmp_path / "two\nlines").mkdir()
    (tmp_path / "two\nlines" / "a.png").write_bytes(b"")
    (record,) = list_images([tmp_path], None, Request(), "so\nurce").records
    assert (record.columns["label"], record.columns["source"]) == ("two lines", "so urce")
