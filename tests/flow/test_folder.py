import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cxrtool.data.files import locked
from cxrtool.data.tables.manifest import Manifest, read_manifest, relative_rows
from cxrtool.data.tables.views import columns_of
from cxrtool.errors import OutputError, StrictError, UsageError
from cxrtool.flow.folder import Inputs, Plan, StepFolder, _as_json, read_run_file
from cxrtool.flow.journal import Marks
from cxrtool.flow.settings import Settings


def plan_of(manifest, command="prepare", **options):
    return Plan(command, options, Inputs.of(manifest), libraries=("numpy",))


def make(out, manifest, settings, command="prepare", **options):
    """A step: copies every image; returns whether it had to."""
    folder = StepFolder(out, plan_of(manifest, command, **options), settings)
    if not folder.needs_work():
        return False
    with folder.build() as build:
        rows = []
        for row in manifest.rows:
            target = build.path / f"{row['image_id']}.png"
            target.write_bytes(Path(row["path"]).read_bytes())
            build.journal.add(row["image_id"], {})
            rows.append({**row, "path": str(target)})
        build.finish(manifest.columns, rows)
    return True


def beside(out):
    """What lies beside the output, hidden or not."""
    return sorted(path.name for path in out.parent.iterdir() if path.name not in (out.name, "tiny"))


def tree(folder):
    """Every file's content, but for what tells the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def test_a_step_is_whole_and_leaves_nothing_beside(tiny, tmp_path, settings):
    out = tmp_path / "out"
    assert make(out, tiny, settings, size=512)
    names = {path.name for path in out.iterdir()}
    assert names == {f"{i}.png" for i in tiny.column("image_id")} | {"manifest.csv", "rejects.csv", "run.json"}
    assert beside(out) == []
    assert read_manifest(out).rows[0]["path"] == str(out / "im000.png")
    assert (out / "rejects.csv").read_text() == "path,reason\n"


def test_run_json_says_what_was_run(tiny, tmp_path, settings):
    out = tmp_path / "out"
    make(
        out, tiny, replace(settings, origins={"size": "flag"}, argv=["cxrtool", "prepare"], seed=3), size=512, fit="pad"
    )
    made = read_run_file(out)
    assert made["command"] == "prepare"
    assert made["argv"] == ["cxrtool", "prepare"]
    assert made["options"] == {
        "size": {"value": 512, "origin": "flag"},
        "fit": {"value": "pad", "origin": "default"},
    }
    assert made["counts"] == {"images": 24, "rejects": 0}
    assert set(made["versions"]) == {"cxrtool", "numpy"}
    assert made["seed"] == 3


def test_the_same_again_does_nothing(tiny, tmp_path, settings, listener):
    out = tmp_path / "out"
    make(out, tiny, settings)
    before = (out / "manifest.csv").stat().st_mtime_ns
    assert not make(out, tiny, settings)
    assert listener.said[-1].endswith("out: up to date, nothing to do")
    assert (out / "manifest.csv").stat().st_mtime_ns == before


def test_a_younger_input_of_the_same_content_only_touches_the_manifest(tiny, tmp_path, settings):
    out = tmp_path / "out"
    make(out, tiny, settings)
    before = tree(out)
    later = time.time() + 100
    os.utime(tiny.origin, (later, later))
    os.utime(out / "manifest.csv", (1, 1))
    assert not make(out, read_manifest(tiny.origin), settings)
    assert (out / "manifest.csv").stat().st_mtime > 1
    assert tree(out) == before


@pytest.mark.parametrize("change", ["option", "row", "pixels", "mask", "force", "version", "leakage"])
def test_whatever_bears_on_the_result_redoes_it(tiny, tmp_path, settings, change, monkeypatch):
    out = tmp_path / "out"
    make(out, tiny, settings, size=1)
    manifest, size = tiny, 1
    if change == "option":
        size = 2
    elif change == "row":
        manifest.rows[3]["label"] = "other"
    elif change == "pixels":
        Path(tiny.rows[3]["path"]).write_bytes(b"new")
    elif change == "mask":
        manifest.rows[3]["mask"] = manifest.rows[3]["path"]
    elif change == "force":
        settings = replace(settings, force=True)
    elif change == "leakage":
        settings = replace(settings, allow_leakage=True)
    else:
        monkeypatch.setattr("cxrtool.__version__", "99")
    assert make(out, manifest, settings, size=size)
    assert not make(out, manifest, replace(settings, force=False), size=size)


@pytest.mark.parametrize("name", ["workers", "device", "dry_run", "argv", "seed", "threads"])
def test_whatever_does_not_bear_on_it_leaves_it(tiny, tmp_path, settings, name):
    out = tmp_path / "out"
    make(out, tiny, settings)
    other = {"device": "cuda", "dry_run": True, "argv": ["x"]}.get(name, 7)
    assert not make(out, tiny, replace(settings, **{name: other}))


def test_seed_and_threads_count_where_the_plan_says_so(tiny):
    plan = plan_of(tiny)
    for field, setting in (("seeded", "seed"), ("threaded", "threads")):
        bearing = replace(plan, **{field: True})
        assert plan.digest(Settings(**{setting: 1})) == plan.digest(Settings(**{setting: 2}))
        assert bearing.digest(Settings(**{setting: 1})) != bearing.digest(Settings(**{setting: 2}))


def test_verify_sees_what_size_and_time_hide(tiny):
    image = Path(tiny.rows[0]["path"])
    status = image.stat()
    digests = {verify: Inputs.of(tiny, verify=verify).digest for verify in (False, True)}
    image.write_bytes(image.read_bytes()[::-1])
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Inputs.of(tiny).digest == digests[False]
    assert Inputs.of(tiny, verify=True).digest != digests[True]


def test_a_project_that_was_moved_is_not_computed_anew(tiny, tmp_path):
    before = Inputs.of(tiny).digest
    (tmp_path / "tiny").rename(tmp_path / "elsewhere")
    assert Inputs.of(read_manifest(tmp_path / "elsewhere")).digest == before


@pytest.mark.parametrize("kind", ["foreign folder", "another step", "file", "damaged run.json"])
def test_what_this_command_did_not_make_is_refused_and_untouched(tiny, tmp_path, settings, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("precious")
    elif kind == "another step":
        make(out, tiny, settings, command="enhance")
    else:
        out.mkdir()
        (out / "precious.txt").write_text("precious")
        if kind == "damaged run.json":
            (out / "run.json").write_text('{"command": "pre')
    before = tree(out) if out.is_dir() else out.read_text()
    for force in (False, True):
        with pytest.raises(OutputError, match="expected a new folder or one that `cxrtool prepare` made"):
            make(out, tiny, replace(settings, force=force))
    assert (tree(out) if out.is_dir() else out.read_text()) == before


def test_an_empty_folder_is_welcome(tiny, tmp_path, settings):
    (tmp_path / "out").mkdir()
    assert make(tmp_path / "out", tiny, settings)


def test_a_folder_is_needed(tiny, settings):
    with pytest.raises(UsageError, match="needs -o DIR"):
        StepFolder(None, plan_of(tiny), settings)


def test_what_cannot_be_swapped_is_refused(tiny, tmp_path, settings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in (".", "..", "/"):
        with pytest.raises(OutputError, match="expected a folder that can be replaced"):
            StepFolder(Path(out), plan_of(tiny), settings)


def test_a_link_to_a_folder_stays_a_link(tiny, tmp_path, settings):
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    real.mkdir(parents=True)
    link.symlink_to(real)
    for size in (1, 2):
        assert make(link, tiny, settings, size=size)
        assert link.is_symlink()
        assert len(read_manifest(link)) == 24
    assert [path.name for path in real.parent.iterdir()] == ["real"]


def test_dry_run_says_and_does_nothing(tiny, tmp_path, settings, listener):
    out = tmp_path / "out"
    assert not make(out, tiny, replace(settings, dry_run=True))
    assert "would write" in listener.said[-1]
    assert beside(out) == []


def test_a_failing_step_keeps_the_old_result_and_its_own_work(tiny, tmp_path, settings, listener):
    out = tmp_path / "out"
    make(out, tiny, settings, size=1)
    before = tree(out)
    folder = StepFolder(out, plan_of(tiny, size=2), settings)

    def fail_halfway():
        with folder.build() as build:
            (build.path / "half.png").write_bytes(b"half")
            build.journal.add("half", {"sha256": "x"})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert tree(out) == before
    with folder.build() as build:
        assert build.journal.done == {"half": {"sha256": "x"}}
        assert (build.path / "half.png").exists()
    assert "going on where it stopped, 1 done" in listener.said[-1]


def test_a_step_that_fails_before_doing_anything_leaves_nothing(tiny, tmp_path, settings):
    out = tmp_path / "out"

    def fail_at_once():
        with StepFolder(out, plan_of(tiny), settings).build() as build:
            (build.path / "images").mkdir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_at_once()
    assert not out.exists()
    assert beside(out) == []


def test_what_other_options_left_half_done_is_cleared_and_neighbours_are_not(tiny, tmp_path, settings):
    out = tmp_path / "run"
    stale = tmp_path / ".run.0123456789ab.partial"
    neighbour = tmp_path / ".run.v2.0123456789ab.partial"
    for folder in (stale, neighbour, tmp_path / ".run.999.old", tmp_path / ".run.hidden"):
        folder.mkdir()
        (folder / "x").write_text("x")
    make(out, tiny, settings)
    assert beside(out) == [".run.hidden", ".run.v2.0123456789ab.partial"]


def test_two_at_once_are_refused(tiny, tmp_path, settings):
    out = tmp_path / "out"
    with locked(tmp_path / ".out.lock"), pytest.raises(OutputError, match="another cxrtool is writing here"):
        make(out, tiny, settings)


def test_a_journal_survives_a_line_cut_short(tiny, tmp_path, settings):
    folder = StepFolder(tmp_path / "out", plan_of(tiny), settings)
    partial = tmp_path / f".out.{folder.digest[:12]}.partial"
    partial.mkdir()
    (partial / "journal.jsonl").write_bytes(b'{"key": "a", "n": 1}\n{"key": "b", "n"\xff\0')
    with folder.build() as build:
        assert build.journal.done == {"a": {"n": 1}}
        build.journal.add("c", {"n": 3})
    with folder.build() as build:
        assert build.journal.done == {"a": {"n": 1}, "c": {"n": 3}}


def test_unfinished_files_of_killed_writers_do_not_get_in(tiny, tmp_path, settings):
    out = tmp_path / "out"
    with StepFolder(out, plan_of(tiny), settings).build() as build:
        (build.path / "images").mkdir()
        (build.path / "images" / ".x.png.abc.png").write_bytes(b"half")
        build.finish(tiny.columns, tiny.rows)
    assert [path.name for path in out.rglob(".*")] == []


def test_rejects_are_listed_warned_of_and_strict(tiny, tmp_path, settings, listener):
    def finish(out, settings, wanted=False):
        with StepFolder(out, plan_of(tiny), settings).build() as build:
            build.reject("/data/bad.png", "truncated, half a picture")
            build.finish(tiny.columns, tiny.rows, wanted=wanted)

    finish(tmp_path / "a", settings)
    assert (tmp_path / "a" / "rejects.csv").read_text() == 'path,reason\n/data/bad.png,"truncated, half a picture"\n'
    assert listener.warned == [f"1 rejected, with reasons in {tmp_path / 'a' / 'rejects.csv'}"]
    with pytest.raises(StrictError):
        finish(tmp_path / "b", replace(settings, strict=True))
    assert len(read_manifest(tmp_path / "b")) == 24
    finish(tmp_path / "c", replace(settings, strict=True), wanted=True)
    assert len(listener.warned) == 1


STEP = """
import sys, time
from pathlib import Path
from cxrtool.data.tables.manifest import read_manifest
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.settings import Settings
from cxrtool.data.files import atomic_write

manifest = read_manifest(sys.argv[1])
folder = StepFolder(Path(sys.argv[2]), Plan("prepare", {}, Inputs.of(manifest), libraries=()), Settings())
print("on", flush=True)
if folder.needs_work():
    with folder.build() as build:
        rows = []
        for row in manifest.rows:
            target = build.path / f"{row['image_id']}.png"
            if row["image_id"] not in build.journal.done:
                atomic_write(target, Path(row["path"]).read_bytes() * 50)
                build.journal.add(row["image_id"], {})
            rows.append({**row, "path": str(target)})
        build.finish(manifest.columns, rows)
"""


def test_killed_at_any_time_and_called_again_it_equals_a_clean_run(tiny, tmp_path):
    def call(out, wait=None):
        process = subprocess.Popen([sys.executable, "-c", STEP, tiny.origin, out], stdout=subprocess.PIPE)
        process.stdout.readline()
        if wait is not None:
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()
        return process.returncode

    assert call(tmp_path / "clean") == 0
    clean = tree(tmp_path / "clean")
    killed = 0
    for number, wait in enumerate((0.0005, 0.002, 0.004, 0.007, 0.011, 0.016, 0.022, 0.03)):
        out = tmp_path / f"out{number}"
        killed += call(out, wait) == -signal.SIGKILL
        assert not out.exists() or tree(out) == clean
        assert call(out) == 0
        assert tree(out) == clean
    assert killed >= 3
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "clean", *(f"out{n}" for n in range(8))}


def test_a_file_that_cannot_be_written_is_one_line_and_what_was_done_is_kept(tiny, tmp_path, settings):
    out = tmp_path / "out"
    make(out, tiny, settings, size=1)
    before = tree(out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = StepFolder(out, plan_of(tiny, size=2), settings)

    def fill():
        with folder.build() as build:
            build.journal.add("first", {})
            (build.path / "large.png").write_bytes(bytes(100_000))

    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*out: it is larger than a file may be here"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(out) == before
    with folder.build() as build:
        assert build.journal.done == {"first": {}}


def test_read_run_file_takes_only_what_cxrtool_wrote(tmp_path):
    assert read_run_file(tmp_path) is None
    for text in ("[1]", "{}", "not json", '"command"'):
        (tmp_path / "run.json").write_text(text)
        assert read_run_file(tmp_path) is None
    (tmp_path / "run.json").write_text(json.dumps({"command": "split"}))
    assert read_run_file(tmp_path) == {"command": "split"}


def test_a_missing_image_is_an_input_like_any_other(tiny, tmp_path):
    before = Inputs.of(tiny)
    Path(tiny.rows[0]["path"]).unlink()
    after = Inputs.of(tiny)
    assert after.digest != before.digest
    assert after.count == before.count == 24


def test_the_manifest_is_the_youngest_file(tiny, tmp_path, settings):
    out = tmp_path / "out"
    make(out, tiny, settings)
    youngest = max(out.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert youngest.name == "manifest.csv"


def test_a_lock_that_a_killed_process_left_goes_and_one_that_is_held_stays(tiny, tmp_path, settings):
    out = tmp_path / "out"
    make(out, tiny, settings)
    lock = tmp_path / ".out.lock"
    lock.touch()
    assert not StepFolder(out, plan_of(tiny), settings).needs_work()
    assert not lock.exists()
    with locked(lock):
        assert not StepFolder(out, plan_of(tiny), settings).needs_work()
        assert lock.exists()


@pytest.mark.parametrize("streamed", [False, True])
def test_the_digest_of_a_table_is_that_of_its_rows_as_json(tiny, streamed):
    rows = [{**row, 'a "%s" %': f"%{i}é\n", "mask": ""} for i, row in enumerate(tiny.rows)]
    own = Manifest(list(rows[0]), rows, None if streamed else tiny.origin)
    relative = rows if streamed else list(relative_rows(rows, tiny.origin.parent))
    for table in (own, Manifest.of_columns(columns_of(rows), own)):
        assert "".join(_as_json(table)) == json.dumps(relative, sort_keys=True)
        assert Inputs.of(table).digest == Inputs.of(own).digest
    empty = Manifest.of_columns(columns_of([], ["image_id"]), own)
    assert "".join(_as_json(empty)) == "[]"


def test_a_run_without_one_of_its_folds_is_not_up_to_date(tiny, tmp_path, settings, listener):
    out = tmp_path / "out"
    make(out, tiny, settings)
    (out / "r0f0").mkdir()
    folder = StepFolder(out, plan_of(tiny), replace(settings, report=listener))
    assert not folder.needs_work(["r0f0"])
    assert folder.needs_work(["r0f0", "r0f1"])
    assert any("r0f1 is no longer there" in line for line in listener.said)


def test_images_of_two_folders_are_two_images_though_name_size_and_time_are_the_same(tmp_path):
    for name, content in (("one", b"first"), ("two", b"other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.bmp").write_bytes(content)
        os.utime(tmp_path / name / "image.bmp", (10**9, 10**9))
    one, two = (tmp_path / name / "image.bmp" for name in ("one", "two"))
    assert Marks("").of(files=[one]) != Marks("").of(files=[two])
    # By their content, images are the same wherever they are.
    assert Marks("", verify=True).of(files=[one]) != Marks("", verify=True).of(files=[two])
    two.write_bytes(b"first")
    assert Marks("", verify=True).of(files=[one]) == Marks("", verify=True).of(files=[two])
