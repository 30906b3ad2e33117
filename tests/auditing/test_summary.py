import pytest

from cxrtool.auditing import summary
from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Finding, Part
from cxrtool.evaluation.tables import Sheet


def audit(*levels, sheets=()):
    part = Part(
        "probes", "Shortcut probes", {}, [Finding(level, f"found {i}.") for i, level in enumerate(levels)], sheets
    )
    return {"about": "12 images", "headline": [], "parts": {"probes": part.as_json()}}


@pytest.mark.parametrize(
    ("levels", "begins"),
    [
        ((ALARM, WARNING, CLEAR), "1 alarm, and 1 warning:"),
        ((ALARM, ALARM), "2 alarms:"),
        ((WARNING, WARNING, NOTE), "No alarm, but 2 warnings:"),
        ((NOTE, CLEAR, UNKNOWN), "No alarm and no warning"),
        ((UNKNOWN,), "Nothing could be searched"),
        ((), "Nothing could be searched"),
    ],
)
def test_the_verdict_counts_the_grave(levels, begins):
    assert summary.verdict(summary.parts_of(audit(*levels))).startswith(begins)


def test_other_commands_print_the_grave_alone_and_say_how_many_more():
    lines = summary.headline(summary.parts_of(audit(CLEAR, WARNING, ALARM, NOTE, WARNING)), shown=2)
    assert lines[1:] == ["ALARM: found 2.", "Warning: found 1.", "and 1 more"]
    assert summary.headline(summary.parts_of(audit(CLEAR)))[1:] == []


def test_the_audit_itself_prints_everything():
    found = audit(NOTE, ALARM, UNKNOWN)
    assert summary.opening(found)[0] == "12 images"
    assert summary.opening(found)[-3:] == ["ALARM: found 1.", "Note: found 0.", "Not known: found 2."]


def test_tables_go_out_as_they_were_made():
    sheet = Sheet("Probes", ["probe", "value"], [["border | rim", "0.9"]], ["of 12 images"])
    found = audit(NOTE, sheets=[sheet])
    assert summary.sheets(found) == [sheet]
    assert summary.tidy(found) == (["level", "part", "text"], [["note", "probes", "found 0."]])
    text = summary.markdown(found)
    assert "| border \\| rim | 0.9 |" in text
    assert "- of 12 images" in text
    assert "## Shortcut probes" in text
