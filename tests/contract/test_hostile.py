"""Whatever tables, model folders and configs say, no command writes outside its output, and none shows a traceback."""

import hashlib
import json
import os
import runpy
import shutil
from pathlib import Path

import pytest

from cxrtool.cli.main import load
from cxrtool.data.file_names import RUN_FILE
from cxrtool.data.tables.manifest import Manifest, read_table, write_table

EVERY = runpy.run_path(str(Path(__file__).with_name("test_every_command.py")))
CALLS, READING, COMMANDS = EVERY["CALLS"], EVERY["READING"], EVERY["COMMANDS"]
place, arguments, sound = EVERY["place"], EVERY["arguments"], EVERY["sound"]

NAMING = ("segment", "enhance", "transform", "explain")
"""The commands that name files by the ids of a manifest."""

IDS = {
    "above": "../../../victim/above",
    "over an image": "../../tiny/im005",
    "absolute": "{place}/victim/absolute",
    "two dots": "..",
    "one dot": ".",
    "below": "im/below",
    "backslash": "..\\..\\victim",
    "hyphen": "-rf",
    "hidden": ".hidden",
    "long": "x" * 300,
    "capitals": "IM000",
    "umlaut": "u\u0308ber",
}
"""Ids that only read as an id harm nobody, but that must not name a file. `umlaut` is beside its other spelling."""

TEXTS = {
    "line break": "a\nb",
    "return": "a\rb",
    "tab": "a\tb",
    "blanks": "   ",
    "escape": "\x1b[2J",
    "separator": "a\u2028b",
}
"""What no id, class or source may be."""

NAMES = {
    "label": "../../victim",
    "source": "../../victim",
    "severity": "../victim",
    "patient_id": "../../victim:1",
    "view": "/victim",
    "generator": "../../victim",
    "parent_id": "../../victim",
}
"""Other cells that could name a folder."""


def has(name, option):
    return option in [parameter.name for parameter in load(name).params]


def patient(names):
    """The commands, those of which a single call takes seconds only where there is time."""
    return [pytest.param(name, marks=pytest.mark.slow) if name.startswith("fit") else name for name in names]


def entries(folder, *without):
    """Each file and folder with its content and its time, but for what an output may be named."""
    found = {}
    for here, folders, files in os.walk(folder):
        if Path(here) == folder:
            folders[:] = [name for name in folders if not name.lstrip(".").startswith(("out", *without))]
            files = [name for name in files if not name.lstrip(".").startswith("out")]
        for name in [*files, *folders]:
            path = Path(here, name)
            status = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else path.is_symlink()
            # The time of a folder changes with the temporary files of others in it.
            found[str(path)] = (content, status.st_size, status.st_mtime_ns) if path.is_file() else content
    return found


@pytest.fixture
def outside(place, monkeypatch):
    """Calls a command; nothing outside its output changes, and what it says is no traceback."""
    (place / "victim").mkdir()
    (place / "victim" / "above.png").write_bytes(b"precious")
    (place / "victim" / "absolute.png").write_bytes(b"precious")
    monkeypatch.setenv("CXRTOOL_CACHE", str(place / "cache"))

    def call(cxr, *args):
        before = entries(place, "cache")
        outcome = cxr(*args)
        after = entries(place, "cache")
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        assert not changed, f"{args}: {changed}"
        assert "Traceback" not in outcome.err, outcome.err
        assert "a bug in cxrtool" not in outcome.err, outcome.err
        if outcome.code:
            told = [line for line in outcome.err.splitlines() if line.startswith("cxrtool ")]
            assert told, outcome.err
        return outcome

    return call


def table_of(name, place):
    """A sound table for a command: its columns and rows."""
    table = read_table(sound(name, place))
    rows = [dict(row) for row in table.rows]
    for row in rows:
        row["path"] = os.path.relpath(table.origin.parent / row["path"] if table.origin else row["path"], place)
    return table.columns, rows


def write(place, columns, rows):
    write_table(place / "hostile.csv", [*columns, *(name for name in rows[0] if name not in columns)], rows)
    splits = [dict(row) for row in read_table(place / "splits.csv").rows]
    for split, row in zip(splits, rows, strict=False):
        split["image_id"] = row["image_id"]
    write_table(place / "splits.csv", list(splits[0]), splits)
    return "hostile.csv"


@pytest.mark.parametrize("name", READING)
def test_ids_that_are_paths_write_nothing_outside(cxr, arguments, place, outside, name):
    columns, rows = table_of(name, place)
    rows[-1]["image_id"] = "\u00fcber"
    bad = {kind: text.format(place=place) for kind, text in IDS.items()}
    for row, identity in zip(rows[1:], bad.values(), strict=False):
        row["image_id"] = identity
    if outside(cxr, *arguments(name, write(place, columns, rows))).code == 0:
        assert name not in NAMING
        return
    assert name in NAMING
    # A command that names files by ids refuses the first of them: each of them alone, then.
    columns, rows = table_of(name, place)
    rows[-1]["image_id"] = "\u00fcber"
    for kind, identity in bad.items():
        changed = [{**row, "image_id": identity} if k == 5 else row for k, row in enumerate(rows)]
        outcome = outside(cxr, *arguments(name, write(place, columns, changed)))
        assert outcome.code == 1, (kind, outcome)
        assert "hostile.csv, line " in outcome.err, (kind, outcome.err)
        assert len(outcome.err.splitlines()) == 2


@pytest.mark.parametrize("name", NAMING)
@pytest.mark.parametrize("kind", ["above", "over an image", "absolute"])
def test_the_second_wall_holds_alone(cxr, arguments, place, outside, monkeypatch, name, kind):
    """Also where a command forgets to check the ids, or a path is made of something else."""
    monkeypatch.setattr(Manifest, "check_file_names", lambda manifest: None)
    columns, rows = table_of(name, place)
    rows[5]["image_id"] = IDS[kind].format(place=place)
    line = arguments(name, write(place, columns, rows))
    before = entries(place, "cache")
    outcome = cxr(*line)
    assert entries(place, "cache") == before
    assert outcome.code == 0 or "inside the output folder" in outcome.err or "No such file" in outcome.err


@pytest.mark.parametrize("name", READING)
def test_an_id_of_more_than_one_line_is_refused(cxr, arguments, place, outside, name):
    columns, rows = table_of(name, place)
    for column in ("image_id", "label"):
        for kind, text in TEXTS.items():
            changed = [{**row, column: text} if k == 5 else row for k, row in enumerate(rows)]
            write_table(place / "hostile.csv", columns, changed)
            outcome = outside(cxr, *arguments(name, "hostile.csv"))
            if name == "prepare" and outcome.code == 0:
                # It makes ids and classes of one line from whatever a table says.
                shutil.rmtree(place / "out")
                continue
            assert outcome.code == 1, (column, kind, outcome)
            # A line break in a cell makes the next line of the file the row's.
            told = outcome.err[outcome.err.index(f"cxrtool {name}: ") :]
            assert "hostile.csv, line " in told, (column, kind, outcome.err)
            assert len(told.splitlines()) == 2


@pytest.mark.parametrize("name", patient(READING))
def test_classes_and_groups_that_are_paths_write_nothing_outside(cxr, arguments, place, outside, name):
    columns, rows = table_of(name, place)
    covid = {"covid": NAMES["label"], "normal": "/victim/normal"}
    for number, row in enumerate(rows):
        row["label"] = covid[row["label"]]
        if "predicted" in row:
            row["predicted"] = covid[row["predicted"]]
            row[f"prob_{covid['covid']}"], row[f"prob_{covid['normal']}"] = (
                row.pop("prob_covid"),
                row.pop("prob_normal"),
            )
        for column, text in NAMES.items():
            if column not in ("label", "patient_id", "parent_id") and number % 2:
                row[column] = text
        row["patient_id"] = f"{NAMES['patient_id']}{number // 2}"
    columns = [column for column in columns if column in rows[0]]
    outside(cxr, *arguments(name, write(place, columns, rows)))


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("column", ["repeat", "fold"])
def test_folds_that_are_paths_write_nothing_outside(cxr, arguments, place, outside, name, column):
    columns, rows = table_of(name, place)
    for row in rows:
        row |= {"repeat": "0", "fold": "0", column: "../../victim"}
    write_table(place / "hostile.csv", list(dict.fromkeys([*columns, "repeat", "fold"])), rows)
    outcome = outside(cxr, *arguments(name, "hostile.csv"))
    if CALLS[name][1] == "manifest" and name != "prepare":
        assert outcome.code == 1, outcome
        assert f"expected a whole number from 0 in '{column}', found '../../victim'" in outcome.err
    if "{splits}" in CALLS[name][0]:
        splits = [{**row, column: "../../victim"} for row in read_table(place / "splits.csv").rows]
        write_table(place / "splits.csv", list(splits[0]), splits)
        outcome = outside(cxr, *arguments(name, sound(name, place)))
        assert outcome.code == 1, outcome
        assert "splits.csv, line 2: expected a whole number from 0" in outcome.err


MODELS = {
    "classes that are paths": {"classes": ["../../victim", "/victim/normal"]},
    "a class of two lines": {"classes": ["a\nb", "b"]},
    "a blank class": {"classes": [" ", "b"]},
    "a part elsewhere": {
        "chain": [{"step": "segment", "part": {"kind": "../../victim", "network": "x", "sha256": "../../victim"}}]
    },
    "an unknown step": {"chain": [{"step": "../../victim"}]},
    "other entries": {"trained": {"preset": "../../victim"}, "out": "../../victim", "path": "/victim"},
}


@pytest.mark.parametrize("name", [name for name in READING if "{model}" in CALLS[name][0]])
@pytest.mark.parametrize("kind", MODELS)
def test_a_hostile_model_writes_nothing_outside(cxr, arguments, place, outside, model, name, kind):
    folder = place / "stolen"
    shutil.copytree(model, folder)
    (folder / RUN_FILE).unlink()
    content = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**content, **MODELS[kind]}))
    line = [str(folder) if str(part) == str(model) else part for part in arguments(name, sound(name, place))]
    assert str(folder) in line
    outside(cxr, *line)


PARTS = {"network": {"network": "../../victim"}, "kind": {"kind": "../../victim"}, "form": {"form": {"size": "../x"}}}


@pytest.mark.parametrize("name", [name for name in READING if "{lungs}" in CALLS[name][0]])
@pytest.mark.parametrize("kind", PARTS)
def test_a_hostile_part_writes_nothing_outside(cxr, arguments, place, outside, lung_part, name, kind):
    folder = place / "stolen"
    shutil.copytree(lung_part, folder)
    content = json.loads((folder / "part.json").read_text())
    (folder / "part.json").write_text(json.dumps({**content, **PARTS[kind]}))
    line = [str(folder) if str(part) == str(lung_part) else part for part in arguments(name, sound(name, place))]
    assert outside(cxr, *line).code == 1


@pytest.mark.parametrize("name", patient(name for name in READING if has(name, "config")))
def test_a_hostile_config_writes_nothing_outside(cxr, arguments, place, outside, name):
    names = {parameter.name for parameter in load(name).params}
    (place / "hostile.toml").write_text('out = "victim"\n' + ("root = '..'\n" if "root" in names else ""))
    outside(cxr, *arguments(name, sound(name, place)), "--config", "hostile.toml", "-o", "out")
    # Without -o its folder is the output, and what is not of this command is never replaced.
    line = [part for part in arguments(name, sound(name, place)) if part not in ("-o", str(place / "out"))]
    outcome = outside(cxr, *line, "--config", "hostile.toml")
    assert outcome.code == 2, outcome
    assert "-o victim: expected " in outcome.err


@pytest.mark.parametrize("name", patient(name for name in READING if "{out}" in CALLS[name][0]))
def test_a_link_in_the_output_is_not_followed(cxr, arguments, place, outside, name):
    line = arguments(name, sound(name, place))
    assert outside(cxr, *line).code == 0
    out = place / "out"
    if out.is_file():
        pytest.skip("a single file")
    # All that this command writes, as links: to folders and files elsewhere.
    for path in sorted(out.iterdir()):
        if path.name == RUN_FILE:
            continue
        elsewhere = place / "victim" / path.name
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    outside(cxr, *line, "--force")
    shutil.rmtree(out)
    outside(cxr, *line)


@pytest.mark.parametrize("name", [name for name in READING if "{out}" in CALLS[name][0]])
def test_an_output_is_never_an_input(cxr, arguments, place, outside, name):
    given = sound(name, place)
    for target in (given, given.parent, place / "splits.csv"):
        line = [str(target) if part == str(place / "out") else part for part in arguments(name, given)]
        outcome = outside(cxr, *line, "--force")
        assert outcome.code == 2, (target, outcome)
        assert outcome.err.startswith(f"cxrtool {name}: -o {target}: expected "), outcome.err
        assert len(outcome.err.splitlines()) == 2


@pytest.mark.parametrize("name", [name for name in EVERY["STREAMING"] if has(name, "out")])
def test_a_file_is_never_written_over_an_input(cxr, arguments, place, outside, name):
    given = sound(name, place)
    (place / "link.csv").symlink_to(given)
    os.link(given, place / "hard.csv")
    for target in (given, place / "link.csv", place / "hard.csv"):
        outcome = outside(cxr, *arguments(name, given), "-o", target, "--force")
        assert outcome.code == 2, (target, outcome)
        assert "expected another place than the input" in outcome.err


@pytest.mark.parametrize("name", [name for name in READING if CALLS[name][1] == "manifest" and has(name, "root")])
def test_root_confines_what_is_read(cxr, arguments, place, outside, name):
    """By `..`, by an absolute path and by a link, an image outside is not read."""
    (place / "secret").mkdir()
    shutil.copy(place / "tiny" / "im003.png", place / "secret" / "im003.png")
    (place / "tiny" / "im004.png").unlink()
    (place / "tiny" / "im004.png").symlink_to("../secret/im003.png")
    columns, rows = table_of(name, place)
    for index, path in ((3, "../secret/im003.png"), (3, str(place / "secret" / "im003.png")), (4, "im004.png")):
        inside = [{**row, "path": Path(row["path"]).name} for row in rows if row["image_id"] not in ("im003", "im004")]
        inside.append({**rows[index], "path": path})
        write_table(place / "tiny" / "hostile.csv", columns, inside)
        outcome = outside(cxr, *arguments(name, place / "tiny" / "hostile.csv"), "--root", place / "tiny")
        shown = outcome.err
        if outcome.code == 0:
            shown = "".join(path.read_text() for path in (place / "out").glob("rejects.csv"))
            shutil.rmtree(place / "out")
        assert "outside --root" in shown, (path, outcome)


@pytest.mark.parametrize("name", [name for name in READING if CALLS[name][1] == "manifest"])
def test_only_regular_files_are_read(cxr, arguments, place, outside, name):
    tiny = place / "tiny"
    for identity in ("im003", "im004", "im005", "im006"):
        (tiny / f"{identity}.png").unlink()
    os.mkfifo(tiny / "im003.png")
    (tiny / "im004.png").symlink_to("/dev/zero")
    (tiny / "im005.png").symlink_to("im006.png")
    (tiny / "im006.png").symlink_to("im005.png")
    outcome = cxr(*arguments(name, sound(name, place)))
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    (tiny / "manifest.csv").unlink()
    os.mkfifo(tiny / "manifest.csv")
    outcome = cxr(*arguments(name, tiny / "manifest.csv"))
    assert outcome.code == 1
    assert "manifest.csv: expected " in outcome.err
