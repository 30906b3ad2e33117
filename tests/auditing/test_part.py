import json

from cxrtool.auditing.part import ALARM, CLEAR, LEVELS, NOTE, WARNING, Finding, Part, by_gravity
from cxrtool.evaluation.tables import Sheet

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
