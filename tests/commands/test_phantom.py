"""A set of drawn radiographs: laid out as real ones are, the same bytes whoever draws them."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxrtool.commands.phantom import PhantomOptions, phantom
from cxrtool.commands.prepare import PrepareOptions, prepare
from cxrtool.data.reading.images import read_image
from cxrtool.data.tables.manifest import read_manifest, read_table
from cxrtool.errors import OutputError, UsageError
from cxrtool.flow.settings import Settings
from cxrtool.phantom.cohort import SEVERITIES
from cxrtool.phantom.sources import FILES, SOURCES
from cxrtool.phantom.subject import KINDS, LABELS
from cxrtool.phantom.tables import METADATA, TRUTH, TRUTHS

OPTIONS = PhantomOptions(count=30, size=64, classes=",".join(LABELS))


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A set with every class, by two processes."""
    folder = tmp_path_factory.mktemp("drawn") / "set"
    assert phantom(OPTIONS, Settings(out=folder, seed=1, workers=2)) == 30
    return folder


@pytest.fixture(scope="module")
def rows(drawn):
    """Both tables, joined."""
    metadata, truth = (read_table(drawn / f"{name}.csv") for name in ("metadata", "truth"))
    assert metadata.columns == list(METADATA)
    assert truth.columns == list(TRUTH)
    return [{**a, **b} for a, b in zip(metadata.rows, truth.rows, strict=True)]


def test_every_file_is_listed_and_nothing_else_is_there(drawn, rows):
    listed = {row[name] for row in rows for name in ("path", "mask", *TRUTHS)}
    assert len(listed) == 30 * 8
    assert set(contents(drawn)) == listed | {"metadata.csv", "truth.csv", "rejects.csv"}
    assert (drawn / "rejects.csv").read_text() == "path,reason\n"
    for row in rows:
        assert Path(row["path"]).parts[:2] == ("images", row["label"])
        assert Path(row["path"]).suffix == f".{FILES[SOURCES[row['source']].file]}"
        assert row["label"] not in Path(row["path"]).name
    youngest = max(drawn.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert youngest.name == "metadata.csv"


def test_run_json_tells_how_to_draw_it_again(drawn):
    made = json.loads((drawn / "run.json").read_text())
    assert made["command"] == "phantom"
    assert (made["seed"], made["chain"]) == (1, [])
    assert made["options"]["classes"]["value"] == ",".join(LABELS)
    assert made["counts"]["images"] == sum(made["counts"][label] for label in LABELS) == 30
    assert made["counts"]["rejects"] == 0


def test_pictures_and_truth_have_one_shape_and_the_depth_of_their_source(drawn, rows):
    depths = Counter()
    for row in rows:
        picture = read_image(drawn / row["path"]).pixels
        read = {name: read_image(drawn / row[name]).pixels for name in ("mask", *TRUTHS)}
        assert {pixels.shape for pixels in read.values()} == {picture.shape}
        assert read["ribless"].dtype == picture.dtype
        for name in ("mask", "right", "left", "heart"):
            assert set(np.unique(read[name])) <= {0, 255}
        assert np.array_equal(read["mask"], read["right"] | read["left"])
        assert read["right"].any()
        assert read["left"].any()
        present = set(np.unique(read["lesions"])) - {0}
        assert row["lesion_kinds"].split(";") == [name for name, value in KINDS.items() if value in present] or (
            not present and row["lesion_kinds"] == ""
        )
        depths[picture.dtype.name] += 1
    assert set(depths) == {"uint8", "uint16"}


def test_severity_and_extent_are_those_of_the_drawing(rows):
    for row in rows:
        right, left = int(row["extent_right"]), int(row["extent_left"])
        assert int(row["extent"]) == right + left
        assert (float(row["share_right"]) > 0) >= (right > 0)
        if row["label"] == "covid":
            low, high = SEVERITIES[row["severity"]]
            assert low <= right + left <= high
        else:
            assert row["severity"] == ""
        if row["label"] == "normal":
            assert (right, left) == (0, 0)
    assert all(row["planted"] == row["twin_of"] == "" for row in rows)


def test_one_process_draws_the_same_bytes(drawn, tmp_path):
    phantom(OPTIONS, Settings(out=tmp_path / "one", seed=1, workers=1))
    assert contents(tmp_path / "one") == contents(drawn)


def test_another_seed_draws_others(drawn, tmp_path):
    phantom(replace(OPTIONS, count=4), Settings(out=tmp_path / "other", seed=2, workers=1))
    known = set(map(sha256, (path for path in drawn.rglob("*") if path.parts[-3] == "images")))
    for row in read_table(tmp_path / "other" / "metadata.csv").rows:
        assert sha256(tmp_path / "other" / row["path"]) not in known


def test_prepare_reads_all_of_it(drawn, rows, tmp_path, settings, listener):
    out = tmp_path / "prepared"
    prepare(PrepareOptions((drawn / "metadata.csv",)), replace(settings, out=out, strict=True, workers=2))
    prepared = read_manifest(out).rows
    assert [row["original"] for row in prepared] == [row["path"] for row in rows]
    assert listener.warned == []
    assert all(row["warning"] == "" for row in prepared)
    for row, before in zip(prepared, rows, strict=True):
        for name in ("label", "severity", "source", "view", "age", "sex", "extent", "subset"):
            assert row[name] == before[name]
        assert row["patient_id"] == f"{before['source']}:{before['patient_id']}"
        assert np.array_equal(read_image(row["path"]).pixels, read_image(drawn / before["path"]).pixels)
        assert np.array_equal(read_image(row["mask"]).pixels, read_image(drawn / before["mask"]).pixels)


@pytest.mark.parametrize(("truth", "folders"), [("masks", {"images", "masks"}), ("none", {"images"})])
def test_less_truth_leaves_the_pictures_as_they_are(drawn, rows, tmp_path, truth, folders):
    phantom(replace(OPTIONS, truth=truth, count=10), Settings(out=tmp_path / "set", seed=1, workers=1))
    assert {path.name for path in (tmp_path / "set").iterdir() if path.is_dir()} == folders
    for before, row in zip(rows, read_table(tmp_path / "set" / "metadata.csv").rows, strict=False):
        assert (tmp_path / "set" / row["path"]).read_bytes() == (drawn / before["path"]).read_bytes()
        assert row == {name: before[name] for name in METADATA} | {"mask": before["mask"] if truth == "masks" else ""}
    told = read_table(tmp_path / "set" / "truth.csv").rows
    assert all(not row[name] for row in told for name in TRUTHS)
    assert [row["extent_left"] for row in told] == [row["extent_left"] for row in rows[:10]]


def test_duplicates_are_the_same_bytes_and_near_duplicates_are_not(tmp_path, settings, listener):
    out = tmp_path / "set"
    options = PhantomOptions(count=24, size=64, plant="duplicate, near-duplicate,marker", truth="none")
    phantom(options, replace(settings, out=out))
    metadata, truth = (read_table(out / f"{name}.csv").rows for name in ("metadata", "truth"))
    by_id = {Path(row["path"]).stem: row for row in metadata}
    kinds = Counter()
    for row, told in zip(metadata, truth, strict=True):
        kind = told["planted"].split(";")[-1]
        assert (kind == "marker") == (told["twin_of"] == "")
        if told["twin_of"]:
            kinds[kind] += 1
            original = by_id[told["twin_of"]]
            same = sha256(out / row["path"]) == sha256(out / original["path"])
            assert same == (kind == "duplicate")
            assert row["patient_id"] != original["patient_id"]
            assert row["subset"] != original["subset"]
    assert min(kinds["duplicate"], kinds["near-duplicate"]) >= 2
    assert any(f"duplicate {kinds['duplicate']}" in line for line in listener.said)


def test_the_user_is_told_what_there_is_and_what_to_do_next(tmp_path, settings, listener):
    out = tmp_path / "my set"
    one, other = list(SOURCES)[:2]
    options = PhantomOptions(count=12, size=64, sources=f"{other}=2, {one}", truth="none")
    phantom(options, replace(settings, out=out))
    told = read_table(out / "metadata.csv")
    labels, severities = Counter(told.column("label")), Counter(told.column("severity"))
    sources = Counter(told.column("source"))
    shown = ", ".join(f"{name} {labels[name]}" for name in ("normal", "pathological", "covid"))
    assert listener.said[0] == f"12 images of {len(set(told.column('patient_id')))} patients: {shown}"
    assert listener.said[1] == "  covid: " + ", ".join(f"{n} {severities[n]}" for n in SEVERITIES if severities[n])
    assert listener.said[2] == f"  sources: {one} {sources[one]}, {other} {sources[other]}"
    assert listener.said[3] == f"next: cxrtool prepare '{out}/metadata.csv' -o prepared"
    assert len(listener.said) == 4


def test_the_same_again_does_nothing_and_other_options_draw_anew(tmp_path, settings, listener):
    out = tmp_path / "set"
    options = PhantomOptions(count=2, size=64, truth="none")
    assert phantom(options, replace(settings, out=out)) == 2
    before = (out / "metadata.csv").stat().st_mtime_ns
    same = replace(options, classes="normal, pathological,covid", plant="")
    assert phantom(same, replace(settings, out=out, workers=2)) is None
    assert listener.said[-1] == f"{out}: up to date, nothing to do"
    assert (out / "metadata.csv").stat().st_mtime_ns == before
    changes = ({"count": 3}, {"size": 65}, {"classes": "normal"}, {"children": 0.3}, {"sources": next(iter(SOURCES))})
    for change in changes:
        assert phantom(replace(options, **change), replace(settings, out=out, dry_run=True)) is None
        assert listener.said[-1] == f"would write {out}: inputs or options have changed"
    assert phantom(options, replace(settings, out=out, seed=5)) == 2
    assert phantom(options, replace(settings, out=out, seed=5, force=True)) == 2


@pytest.mark.parametrize(
    "change", [{"truth": "some"}, {"size": 8}, {"classes": "flu"}, {"plant": "luck"}, {"count": 0}]
)
def test_a_value_that_cannot_be_is_refused_before_anything_is_done(tmp_path, settings, listener, change):
    for dry_run in (False, True):
        with pytest.raises(UsageError, match="expected"):
            phantom(replace(PhantomOptions(), **change), replace(settings, out=tmp_path / "set", dry_run=dry_run))
    assert listener.said == []
    assert list(tmp_path.iterdir()) == []


def test_it_writes_only_into_a_folder_of_its_own(tmp_path, settings):
    with pytest.raises(UsageError, match="needs -o DIR"):
        phantom(PhantomOptions(), settings)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="expected a new folder"):
        phantom(PhantomOptions(), replace(settings, out=tmp_path / "mine"))
    assert contents(tmp_path / "mine") == {"letter.txt": b"dear"}


def test_a_radiograph_that_cannot_be_drawn_ends_the_run_by_name(tmp_path):
    # Each process loads a module that a test put in the way.
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(
        "import sys\n"
        "class Trap:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pydicom.dataset': raise ValueError('no such bone')\n"
        "sys.meta_path.insert(0, Trap())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(trap)}
    command = [sys.executable, "-m", "cxrtool", "phantom", "--size", "64", "--count", "20", "--workers", "1", "-o"]
    done = subprocess.run(
        [*command, str(tmp_path / "set")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("cxrtool phantom: p0000")
    assert first.endswith("-0 cannot be drawn: ValueError: no such bone")
    assert "resumes from here" in second
    assert not (tmp_path / "set").exists()


def test_killed_at_any_time_and_called_again_it_equals_a_clean_run(drawn, tmp_path):
    command = [
        sys.executable,
        "-m",
        "cxrtool",
        "phantom",
        "--count",
        "30",
        "--size",
        "64",
        "--classes",
        ",".join(LABELS),
        "--seed",
        "1",
        "--workers",
        "1",
        "-o",
    ]
    resumed = 0
    for attempt in range(3):
        out = tmp_path / f"out{attempt}"
        process = subprocess.Popen([*command, str(out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            parts = list(tmp_path.glob(f".out{attempt}.*.partial/.rows.csv"))
            if parts and parts[0].read_bytes().count(b"\n") > 8 * attempt:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        if attempt == 2:
            # A file that was noted as finished was cut by the crash, and a line of the rows too.
            (partial,) = tmp_path.glob(".out2.*.partial")
            harmed = sorted((partial / "truth").glob("p000005*"))[0]
            harmed.write_bytes(harmed.read_bytes()[:-5])
            (partial / ".rows.csv").write_bytes((partial / ".rows.csv").read_bytes()[:-9])
        done = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        resumed += "going on where it stopped" in done.stderr
        assert contents(out) == contents(drawn)
        shutil.rmtree(out)
    assert resumed >= 2
    assert [path.name for path in tmp_path.iterdir()] == []
