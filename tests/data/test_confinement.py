"""The second wall: a step writes in its folder, whatever a path is made of."""

import numpy as np
import pytest

from cxrtool.data.confinement import allow, also_in, check_inside, confined_to, confinement, is_inside, leading_out
from cxrtool.data.files import atomic_write
from cxrtool.data.reading.images import write_png
from cxrtool.errors import OutputError
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.parallel import map_items

PIXELS = np.zeros((4, 4), np.uint8)


def write(path):
    return write_png(path, PIXELS)


def test_nothing_is_confined_outside_of_a_build(tmp_path):
    atomic_write(tmp_path / "a.txt", "a")
    write(tmp_path / "b.png")


def test_paths_and_links_out_of_the_folder_are_refused(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "folder").symlink_to(outside)
    (inside / "file.txt").symlink_to(outside / "file.txt")
    with confined_to(inside):
        atomic_write(inside / "sub" / "a.txt", "a")
        for path in (
            outside / "a.txt",
            inside / ".." / "outside" / "a.txt",
            inside / "folder" / "a.txt",
            inside / "file.txt",
            inside,
        ):
            with pytest.raises(OutputError, match="expected a file inside the output folder"):
                atomic_write(path, "a")
            with pytest.raises(OutputError, match="expected a file inside the output folder"):
                write(path)
        with also_in(outside):
            atomic_write(outside / "b.txt", "b")
    assert [path.name for path in outside.iterdir()] == ["b.txt"]
    assert leading_out(inside).name in ("folder", "file.txt")
    assert leading_out(outside) is None
    assert leading_out(tmp_path / "nowhere") is None
    assert confinement()[0] == []


def test_a_folder_beside_it_with_a_longer_name_is_outside(tmp_path):
    with confined_to(tmp_path / "run"), pytest.raises(OutputError):
        check_inside(tmp_path / "run2" / "a.txt")


def test_a_loop_of_links_is_nowhere(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert is_inside(tmp_path / "a", tmp_path)
    assert not is_inside(tmp_path / "a", tmp_path / "other")


def test_workers_are_confined_too(tmp_path):
    (tmp_path / "run").mkdir()
    paths = [tmp_path / "run" / "a.png", tmp_path / "b.png"]
    with confined_to(tmp_path / "run"), pytest.raises(OutputError, match="inside the output folder"):
        list(map_items(write, paths, workers=1))
    assert not (tmp_path / "b.png").exists()


def write_above(folder):
    with folder.build() as build:
        atomic_write(build.path / "kept.txt", "kept")
        atomic_write(build.path / ".." / "above.txt", "above")


def test_a_build_is_confined_and_begins_anew_where_links_are(tiny, settings, tmp_path):
    folder = StepFolder(tmp_path / "out", Plan("x", {}, Inputs.of(tiny), libraries=()), settings)
    with pytest.raises(OutputError, match="inside the output folder"):
        write_above(folder)
    partial = next(tmp_path.glob(".out.*.partial"))
    assert (partial / "kept.txt").exists()
    (partial / "manifest.csv").symlink_to(tmp_path / "victim.csv")
    (tmp_path / "victim.csv").write_text("precious")
    with folder.build() as build:
        build.finish(tiny.columns, tiny.rows)
    assert not (tmp_path / "above.txt").exists()
    assert (tmp_path / "victim.csv").read_text() == "precious"
    assert not (tmp_path / "out" / "manifest.csv").is_symlink()


def test_a_cache_is_written_to_from_a_build(tmp_path):
    allow(tmp_path / "cache")
    with confined_to(tmp_path / "out"):
        atomic_write(tmp_path / "cache" / "a.txt", "a")
