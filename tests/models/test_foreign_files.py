"""Files that are no weights are refused in words that say what they are, before torch opens them."""

from __future__ import annotations

import pickle
import re
import subprocess
import time
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from cxrtool.errors import InputError
from cxrtool.models.registry import read_state

TORCH_WORDS = re.compile(r"weights_only|torch\.load|PytorchStreamReader|miniz|Unpickl|deserializ", re.IGNORECASE)


class Code:
    def __reduce__(self):
        return subprocess.getoutput, ("touch /tmp/never",)


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def inflating(path):
    torch.save({"w": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as whole:
        parts = {member.filename: whole.read(member) for member in whole.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, bytes(300 << 20) if name.endswith("data/0") else data)


FILES = {
    "code.pth": (lambda path: torch.save({"a": Code()}, path), "besides tensors it has the Python object "),
    "plain.pth": (lambda path: path.write_bytes(pickle.dumps(Code(), 2)), "besides tensors it has"),
    "module.pth": (lambda path: torch.save(torch.nn.Linear(2, 2), path), "the Python object torch.nn.modules.linear"),
    "torn.pth": (lambda path: (torch.save({"w": torch.zeros(99)}, path), halved(path)), "cut off or damaged"),
    "torn.safetensors": (lambda path: (save_file({"w": torch.zeros(99)}, path), halved(path)), "cut off or damaged"),
    "keras.h5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "found an HDF5 file"),
    "lfs.pth": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "a Git LFS pointer"),
    "page.pth": (lambda path: path.write_text("<!DOCTYPE html>"), "found a web page"),
    "empty.pth": (lambda path: path.touch(), "the file is empty"),
    "zip.pth": (lambda path: zipfile.ZipFile(path, "w").writestr("config.json", "{}"), "a ZIP archive of another kind"),
    "onnx.pth": (lambda path: path.write_bytes(b"\x08\x07\x12\x07pytorch"), "a file of an unknown kind"),
    "bomb.pth": (inflating, "inflates to more than its own size"),
    "repeated.pth": (
        lambda path: torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, path),
        "for which the file is too small",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_the_reason_is_in_our_words(tmp_path, name):
    make, words = FILES[name]
    make(tmp_path / name)
    began = time.process_time()
    with pytest.raises(InputError, match="cannot be read safely as a file of weights") as caught:
        read_state(tmp_path / name)
    assert time.process_time() - began < 2
    assert words in caught.value.message
    assert caught.value.hint
    assert not TORCH_WORDS.search(caught.value.message.replace(str(tmp_path), ""))


def test_code_names_the_way_out(tmp_path):
    torch.save({"a": Code()}, tmp_path / "w.pth")
    with pytest.raises(InputError) as caught:
        read_state(tmp_path / "w.pth")
    assert "state_dict()" in caught.value.hint
    assert "cxrtool weights import" in caught.value.hint


def test_old_and_new_files_of_torch_are_read(tmp_path):
    for number, new in enumerate((True, False)):
        path = tmp_path / f"{number}.pth"
        torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=new)
        assert read_state(path)["w"].tolist() == [1, 1, 1]
