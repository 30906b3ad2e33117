"""Limits of the machine and hostile files of options: one line with the reason, for every command, never a bug."""

from __future__ import annotations

import errno
import importlib
import os

import pytest

from cxrtool.cli import main
from cxrtool.cli.main import NAMES, load, members_of, module_of

MODULES = {name: importlib.import_module(module_of(name)) for name in NAMES}
COMMANDS = [
    command for name in NAMES for command in ([f"{name} {kind}" for kind in members_of(MODULES[name])] or [name])
]
CONFIGURED = [name for name in COMMANDS if any("--config" in entry.opts for entry in load(name).params)]

DEEP = 20_000


@pytest.fixture
def options(tmp_path):
    """Files of options that no parser survives by itself, by their reason."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep.json").write_text('{"a":' * DEEP + "1" + "}" * DEEP)
    (tmp_path / "deep.toml").write_text("a=" + "[" * DEEP + "]" * DEEP)
    (tmp_path / "keys.toml").write_text(".".join("a" * DEEP) + "=1")
    (tmp_path / "bytes.toml").write_bytes(bytes(range(256)))
    (tmp_path / "large.json").touch()
    os.truncate(tmp_path / "large.json", 1 << 33)
    return {
        "/dev/zero": "found a device or pipe",
        tmp_path / "pipe": "found a device or pipe",
        tmp_path: "found a folder",
        tmp_path / "deep.json": "nested too deeply",
        tmp_path / "deep.toml": "nested too deeply",
        tmp_path / "keys.toml": "nested too deeply",
        tmp_path / "large.json": "found 8,589,934,592",
        tmp_path / "bytes.toml": "codec can't decode",
        tmp_path / "none.toml": "No such file",
    }


def test_most_commands_take_options_from_a_file():
    assert len(CONFIGURED) > 10


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_hostile_file_of_options_is_one_line(cxr, options, name):
    for path, reason in options.items():
        outcome = cxr(*name.split(), "--config", path)
        assert outcome.code == 1, outcome.err
        assert reason in outcome.err
        assert f"--config {path}" in outcome.err
        assert len(outcome.err.splitlines()) == 1


REFUSALS = {
    "files": (OSError(errno.EMFILE, "Too many open files"), "too many open files", "ulimit -n"),
    "memory": (MemoryError(), "not enough memory", "--workers"),
    "library": (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "not enough memory", "-"),
    "torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory", "-"),
    "thread": (RuntimeError("can't start new thread"), "not enough memory", "--workers"),
    "kernel": (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory", "--workers"),
    "space": (OSError(errno.ENOSPC, "No space left on device"), "cannot write", "free some space"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_the_machine_refuses_is_no_bug(cxr, monkeypatch, kind):
    error, words, hint = REFUSALS[kind]

    def refuse(*_):
        raise error

    monkeypatch.setattr(main, "_invoke", refuse)
    outcome = cxr("split", "manifest.csv")
    assert outcome.code == 1
    assert words in outcome.err
    assert hint in outcome.err
    assert "bug" not in outcome.err
