import json
import os

import pytest

from cxrtool.data import digests
from cxrtool.data.digests import altered, check, entries_of, entry_of, is_of_step
from cxrtool.errors import ChangedError


@pytest.fixture
def folder(tmp_path):
    """A folder of a step with a table, a picture, a hidden file, and another step in it."""
    made = tmp_path / "made"
    for path in ("images", "inner"):
        (made / path).mkdir(parents=True)
    (made / "table.csv").write_text("a,b\n1,2\n")
    (made / "images/x.png").write_bytes(b"pixels")
    (made / ".hidden").write_text("")
    (made / "inner/run.json").write_text('{"command": "explain"}')
    (made / "inner/own.csv").write_text("a\n")
    seal(made)
    return made


def seal(made):
    content = {"command": "prepare", "argv": ["cxrtool", "prepare", "my images", "-o", "made"]}
    (made / "run.json").write_text(json.dumps({**content, "files": entries_of(made)}))


def test_a_folder_lists_its_own_files(folder):
    assert entries_of(folder) == {
        "images/x.png": entry_of(b"pixels"),
        "table.csv": entry_of("a,b\n1,2\n"),
    }
    assert entries_of(folder, "table.csv").keys() == {"images/x.png"}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"a,b\n", "it has 4 bytes instead of 8"),
        (b"a,b\n1,3\n", "its content is another"),
        (None, "it is missing"),
    ],
)
def test_another_file_is_told_with_what_to_do(folder, content, found):
    path = folder / "table.csv"
    check(path)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ChangedError) as caught:
        check(path)
    assert caught.value.message == f"{path}: expected the file as `cxrtool prepare` wrote it, found it changed: {found}"
    assert "`cxrtool prepare 'my images' -o made --force`" in caught.value.hint


def test_one_fold_is_named_to_be_made_again(tmp_path):
    fold = tmp_path / "run/r0f1"
    fold.mkdir(parents=True)
    (fold / "t.csv").write_text("a\n")
    files = {**entries_of(fold), "t.csv": entry_of("b\n")}
    (fold / "run.json").write_text(
        json.dumps({"command": "train", "argv": ["cxrtool", "train", "m", "-o", "run"], "files": files})
    )
    with pytest.raises(ChangedError) as caught:
        check(fold / "t.csv")
    assert "`cxrtool train m -o run --force --only r0f1`" in caught.value.hint


def test_what_has_no_entry_is_not_checked(folder, tmp_path):
    (folder / "mine.csv").write_text("x\n")
    for path in (folder / "mine.csv", folder / "inner/own.csv", folder / "no such.csv", tmp_path / "out.csv"):
        check(path)
    assert is_of_step(folder / "images/x.png")
    assert not is_of_step(tmp_path / "out.csv")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"files": {"table.csv": "1 2"}}', '{"command": "x", "files": [1]}', "[" * 99999]
)
def test_a_foreign_run_json_checks_nothing(folder, text):
    (folder / "run.json").write_text(text)
    check(folder / "table.csv")
    assert altered(folder) is None


def test_a_file_is_hashed_once_and_an_image_only_after_a_change(folder, monkeypatch):
    hashed = []
    whole = digests.sha256_file
    monkeypatch.setattr(digests, "sha256_file", lambda path: hashed.append(path) or whole(path))
    for _ in range(3):
        check(folder / "table.csv")
        check(folder / "images/x.png", by_time=True)
    assert hashed == [folder / "table.csv"]
    assert altered(folder) is None
    (folder / "images/x.png").write_bytes(b"slexip")
    later = (folder / "run.json").stat().st_mtime_ns + 10**9
    os.utime(folder / "images/x.png", ns=(later, later))
    assert altered(folder) == "images/x.png"
    with pytest.raises(ChangedError):
        check(folder / "images/x.png", by_time=True)
