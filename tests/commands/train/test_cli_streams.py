"""Splits from a pipe or from standard input train the same run, and the same content is nothing to do."""

import io
import json
import os

import pytest

from cxrtool.data.tables.manifest import read_table, write_table


@pytest.fixture
def splits(study):
    rows = [row for row in read_table(study.splits).rows if (row["repeat"], row["fold"]) == ("0", "0")]
    write_table(study.splits, list(rows[0]), rows)
    return study.splits.read_bytes()


@pytest.fixture
def call(study, cxr, tmp_path, no_pictures):
    def train(splits):
        options = ("--model", "covid-xnet", "--size", "32", "--epochs", "1", "--threads", "1", "--workers", "1")
        return cxr(
            "train", study.folder, "--splits", splits, *options, "--cache", tmp_path / "c", "-o", tmp_path / "run"
        )

    return train


def through_a_pipe(call, content):
    read, write = os.pipe()
    try:
        os.write(write, content)
        os.close(write)
        return call(f"/dev/fd/{read}")
    finally:
        os.close(read)


def test_splits_from_streams(call, splits, study, tmp_path, monkeypatch):
    done = through_a_pipe(call, splits)
    assert done.code == 0, done.err
    assert "its only fold is complete" in done.err
    run = tmp_path / "run"
    assert (run / "splits.csv").read_bytes() == splits
    # What can be read again, unlike the pipe.
    assert json.loads((run / "run.json").read_text())["options"]["splits"]["value"] == str(run / "splits.csv")
    for again in (lambda: through_a_pipe(call, splits), lambda: call("-"), lambda: call(study.splits)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(splits)))
        outcome = again()
        assert (outcome.code, "up to date, nothing to do" in outcome.err) == (0, True), outcome.err
    other = splits.replace(b",validation", b",train", 1)
    assert "up to date" not in through_a_pipe(call, other).err
