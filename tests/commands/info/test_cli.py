import csv
import io
import json

import pytest


def test_a_page_for_people(cxr, tiny):
    outcome = cxr("info", tiny.origin)
    assert outcome.out.splitlines()[:3] == [
        f"{tiny.origin}: manifest",
        "  images      24",
        "  classes     covid 12, normal 12",
    ]
    assert outcome.err == f"next: cxrtool split {tiny.origin} --folds 5 -o splits.csv\n"


def test_json_for_programs(cxr, tiny):
    found = json.loads(cxr("info", tiny.origin, "--format", "json", "--quiet").out)
    assert found["kind"] == "manifest"
    assert found["facts"]["images"] == "24"
    assert found["warnings"] == []


def test_warnings_go_to_standard_error(cxr, tiny):
    (tiny.origin.parent / "im000.png").unlink()
    outcome = cxr("info", tiny.origin)
    assert outcome.err.startswith("warning: 1 of 24 image files are missing")
    assert "not there" not in outcome.out


@pytest.mark.parametrize(
    ("style", "start"), [("md", "| what | value |"), ("latex", "\\begin{tabular}"), ("csv", "what,value")]
)
def test_other_formats(cxr, tiny, style, start):
    assert cxr("info", tiny.origin, "--format", style).out.startswith(start)


def test_table_one_is_one_table(cxr, tiny):
    rows = list(csv.reader(io.StringIO(cxr("info", tiny.origin, "--table1", "--format", "csv").out)))
    assert rows[0] == ["", "covid", "normal", "all", "SMD"]
    assert rows[1] == ["images", "12", "12", "24", ""]
    assert {len(row) for row in rows} == {5}
    assert cxr("info", tiny.origin, "--table1").err == ""
