"""JSON and TOML of anybody: one reason a file, and never a parser's own error."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cxrtool.data.structured import load_json, load_toml

DEEP = 100_000


@pytest.mark.parametrize("text", ["[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP])
def test_deep_json_is_a_reason(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        load_json(path)


@pytest.mark.parametrize(
    "text", ["a=" + "[" * DEEP + "]" * DEEP, ".".join("a" * DEEP) + "=1", "[" + ".".join(["'a'"] * DEEP) + "]"]
)
def test_deep_toml_is_a_reason_at_once(tmp_path, text):
    path = tmp_path / "a.toml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ValueError, match="nested too deeply"):
        load_toml(path)
    assert time.process_time() - began < 1


def test_toml_with_many_keys_and_long_words_is_read(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(
        "".join(f"k{i} = 1\n" for i in range(20_000)) + f'word = "{"w" * 200_000}"\nuid = "1.2.840.10008.1.2"'
    )
    assert len(load_toml(path)) == 20_002


@pytest.mark.parametrize("load", [load_json, load_toml])
def test_what_is_no_file_is_not_waited_for(tmp_path, load):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, found in ((pipe, "a device or pipe"), (Path("/dev/zero"), "a device or pipe"), (tmp_path, "a folder")):
        with pytest.raises(ValueError, match=f"expected a regular file, found {found}"):
            load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")


@pytest.mark.parametrize("load", [load_json, load_toml])
def test_a_large_file_is_not_read(tmp_path, load):
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 1 << 33)
    with pytest.raises(ValueError, match="found 8,589,934,592"):
        load(path)
