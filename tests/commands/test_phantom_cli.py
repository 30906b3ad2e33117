"""`cxrtool phantom` as its user meets it."""

import json
import subprocess
import sys

import pytest

from cxrtool.data.tables.manifest import read_table
from cxrtool.phantom.plants import PLANTS
from cxrtool.phantom.subject import LABELS

SMALL = ("--count", 3, "--size", 64, "--truth", "none", "--workers", 1)


def test_it_draws_and_says_what_to_do_next(cxr, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = cxr("phantom", *SMALL, "-o", "phantoms")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.splitlines()[0].startswith("3 images of ")
    assert outcome.err.splitlines()[-1] == "next: cxrtool prepare phantoms/metadata.csv -o prepared"
    assert cxr("prepare", "phantoms/metadata.csv", "-o", "prepared", "--strict").code == 0
    assert cxr("phantom", *SMALL, "-o", "phantoms").err == "phantoms: up to date, nothing to do\n"
    assert cxr("phantom", *SMALL, "-o", "phantoms", "--quiet", "--force").err == ""


def test_a_config_repeats_it(cxr, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    flags = ("--classes", "covid,viral", "--plant", "marker", "--plant-strength", 0.5, "--children", 0.9)
    assert cxr("phantom", *SMALL, *flags, "--seed", 9, "-o", first).code == 0
    assert cxr("phantom", "--config", first / "run.json", "-o", second).code == 0
    assert (first / "truth.csv").read_bytes() == (second / "truth.csv").read_bytes()
    made = [json.loads((folder / "run.json").read_text()) for folder in (first, second)]
    assert made[0]["digest"] == made[1]["digest"]
    assert made[1]["options"]["plant"] == {"value": "marker", "origin": "config"}
    assert set(read_table(second / "metadata.csv").column("label")) <= {"covid", "viral"}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--count", 0), "'--count'"),
        (("--count", "many"), "--count: expected a whole number, found 'many'"),
        (("--size", 8), "'--size'"),
        (("--children", 2), "'--children'"),
        (("--plant-strength", -1), "'--plant-strength'"),
        (
            ("--classes", "normal,flu"),
            "--classes: expected some of normal, pathological, covid, viral, bacterial, found",
        ),
        (("--sources", "nowhere"), "--sources: expected some of "),
        (("--sources", "county=many"), "--sources: expected NAME or NAME=WEIGHT, found 'county=many'"),
        (("--sources", "county=1,county=2"), "--sources: 'county' is listed twice"),
        (("--plant", "luck"), "--plant: expected some of marker, border, "),
        (("--plant", "duplicate", "--count", 5), "--plant duplicate: expected a --count of at least 12, found 5"),
        (("--truth", "half"), "--truth: expected one of all, masks, none, found 'half'"),
    ],
)
def test_a_value_that_cannot_be_is_one_line(cxr, tmp_path, flags, told):
    outcome = cxr("phantom", *flags, "-o", tmp_path / "set")
    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.err.splitlines()[0]
    assert len(outcome.err.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_all_that_may_be_chosen(cxr):
    text = " ".join(cxr("phantom", "--help").out.split())
    for name in (*LABELS, *PLANTS):
        assert name in text


def test_with_nothing_to_do_it_loads_nothing_slow(cxr, tmp_path):
    assert cxr("phantom", *SMALL, "-o", tmp_path / "set").code == 0
    code = (
        "import sys\n"
        "from cxrtool.cli.main import run\n"
        "assert run(sys.argv[1:]) == 0\n"
        "print(sorted({'numpy', 'cv2', 'pydicom', 'torch', 'rich'} & sys.modules.keys()))\n"
    )
    command = [sys.executable, "-c", code, "phantom", *map(str, SMALL), "-o", str(tmp_path / "set")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
    assert "up to date" in done.stderr
