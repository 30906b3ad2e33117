"""The cache is the user's alone, and only its own files are ever removed."""

import json
import os

import pytest

from cxrtool.data.cache import IMAGES, INDEX, TAG, default_cache, entries_of, open_cache, remove
from cxrtool.errors import InputError, OutputError

NAMES = [f"{number:024x}" for number in range(3)]


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    for name in ("CXRTOOL_CACHE", "SLURM_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path


def store(folder, name, used=1000.0, **content):
    (folder / name).mkdir(parents=True)
    (folder / name / IMAGES).write_bytes(b"x" * 10000)
    (folder / name / INDEX).write_text(json.dumps({"sha256": ["a", "b"], "made_by": "cxrtool train", **content}))
    for file in (INDEX, IMAGES):
        os.utime(folder / name / file, (used, used))
    return folder / name


def test_its_place_is_of_this_user(temporary, monkeypatch):
    own = f"cxrtool-cache-{os.getuid()}"
    assert default_cache() == temporary / "tmp" / own
    monkeypatch.setenv("SLURM_TMPDIR", str(temporary / "job"))
    assert default_cache() == temporary / "job" / own
    monkeypatch.setenv("CXRTOOL_CACHE", str(temporary / "mine"))
    assert default_cache() == temporary / "mine"


def test_nobody_else_may_read_it(temporary):
    folder = open_cache(None)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / TAG).read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    folder.chmod(0o777)
    assert open_cache(None).stat().st_mode & 0o777 == 0o700


def test_a_link_in_its_place_is_refused(temporary):
    (temporary / "tmp").mkdir()
    (temporary / "elsewhere").mkdir()
    default_cache().symlink_to(temporary / "elsewhere")
    with pytest.raises(OutputError, match="found one of somebody else"):
        open_cache(None)


def test_a_folder_with_other_content_keeps_it_and_gets_no_mark(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert open_cache(tmp_path) == tmp_path
    assert not (tmp_path / TAG).exists()
    with pytest.raises(InputError, match=r"found a folder with notes\.txt"):
        entries_of(tmp_path)
    store(tmp_path, NAMES[0])
    assert [entry.path.name for entry in entries_of(tmp_path)] == [NAMES[0]]


def test_what_is_in_it(tmp_path):
    assert entries_of(tmp_path / "nowhere") == []
    store(tmp_path, NAMES[0], used=3000)
    store(tmp_path, NAMES[1], used=2000)
    (tmp_path / NAMES[1] / INDEX).unlink()
    (tmp_path / NAMES[1] / ".images.npy.ab12.npy").write_bytes(b"half")
    os.utime(tmp_path / NAMES[1] / ".images.npy.ab12.npy", (1, 1))
    unfinished, whole = entries_of(tmp_path)
    assert (unfinished.images, unfinished.made_by, unfinished.files) == (None, "", 2)
    assert (whole.images, whole.made_by, whole.files, whole.used) == (2, "cxrtool train", 2, 3000)
    assert whole.size >= 10000


def test_a_store_with_a_foreign_file_or_that_is_a_link_is_left(tmp_path):
    foreign = store(tmp_path, NAMES[0])
    (foreign / "thesis.doc").write_text("years of work")
    (tmp_path / NAMES[1]).symlink_to(store(tmp_path / "elsewhere", NAMES[2]))
    (tmp_path / TAG).write_text("")
    assert entries_of(tmp_path) == []


def test_removing(tmp_path):
    from cxrtool.data.files import locked

    store(tmp_path, NAMES[0])
    (entry,) = entries_of(tmp_path)
    with locked(tmp_path / f".{NAMES[0]}.lock"):
        assert not remove(entry)
    assert remove(entry)
    assert list(tmp_path.iterdir()) == []
