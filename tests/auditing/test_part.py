import json

import pytest

from cxrtool.auditing import part
from cxrtool.auditing.part import ALARM, CLEAR, LEVELS, NOTE, UNKNOWN, WARNING, Finding, Part, by_gravity
from cxrtool.evaluation.sheet import Sheet

PART = Part(
    "leakage",
    "Leakage",
    {"pairs": 2},
    [Finding(ALARM, "two patients are on two sides.")],
    [Sheet("Pairs", ["a", "b"], [["1", "2"]], ["a note"])],
    [("pairs.png", "The pairs")],
)


def test_a_part_comes_back_from_json_as_it_was():
    entry = json.loads(json.dumps(PART.as_json()))
    back = Part.from_json("leakage", entry)
    assert back.as_json() == PART.as_json()
    assert back.findings[0] == PART.findings[0]
    assert back.sheets[0] == PART.sheets[0]
    assert back.pictures == [("pairs.png", "The pairs")]


def test_the_gravest_comes_first_and_equals_keep_their_order():
    parts = [
        Part("a", "A", findings=[Finding(level, f"a {level}") for level in reversed(LEVELS)]),
        Part("b", "B", findings=[Finding(NOTE, "b"), Finding(WARNING, "b")]),
    ]
    found = by_gravity(parts)
    assert [finding.level for finding in found] == [ALARM, WARNING, WARNING, NOTE, NOTE, CLEAR, "unknown"]
    assert [finding.text for finding in found if finding.level == WARNING] == ["a warning", "b"]


def audit(*levels, sheets=()):
    found = [Finding(level, f"found {i}.") for i, level in enumerate(levels)]
    entry = Part("probes", "Shortcut probes", {}, found, sheets).as_json()
    return {"about": "12 images", "headline": [], "parts": {"probes": entry}}


@pytest.mark.parametrize(
    ("levels", "begins"),
    [
        ((ALARM, WARNING, CLEAR), "1 alarm and 1 warning:"),
        ((ALARM, ALARM), "2 alarms:"),
        ((WARNING, WARNING, NOTE), "No alarm, but 2 warnings:"),
        ((NOTE, CLEAR, UNKNOWN), "No alarm and no warning"),
        ((UNKNOWN,), "Nothing could be searched"),
        ((), "Nothing could be searched"),
    ],
)
def test_the_verdict_counts_the_grave(levels, begins):
    assert part.verdict(part.parts_of(audit(*levels))).startswith(begins)


def test_other_commands_print_the_grave_alone_and_say_how_many_more():
    lines = part.headline(part.parts_of(audit(CLEAR, WARNING, ALARM, NOTE, WARNING)), shown=2)
    assert lines[1:] == ["ALARM: found 2.", "Warning: found 1.", "and 1 more"]
    assert part.headline(part.parts_of(audit(CLEAR)))[1:] == []


def test_the_audit_itself_prints_everything():
    found = audit(NOTE, ALARM, UNKNOWN)
    assert part.opening(found)[0] == "12 images"
    assert part.opening(found)[-3:] == ["ALARM: found 1.", "Note: found 0.", "Not known: found 2."]


def test_tables_go_out_as_they_were_made():
    sheet = Sheet("Probes", ["probe", "value"], [["border | rim", "0.9"]], ["of 12 images"])
    found = audit(NOTE, sheets=[sheet])
    assert part.sheets(found) == [sheet]
    assert part.tidy(found) == (["level", "part", "text"], [["note", "probes", "found 0."]])
    text = part.markdown(found)
    assert "| border \\| rim | 0.9 |" in text
    assert "- of 12 images" in text
    assert "## Shortcut probes" in text
