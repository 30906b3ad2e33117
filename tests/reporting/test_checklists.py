import pytest

from cxrtool.commands.report.options import ReportOptions
from cxrtool.options import declared
from cxrtool.reporting import titles
from cxrtool.reporting.checklists import AUTHOR, CHECKLISTS, tabulate

TITLES = {value for name, value in vars(titles).items() if name.isupper()}


def test_the_names_are_those_of_the_command():
    assert declared(ReportOptions)["checklist"][1].known() == list(CHECKLISTS)


def test_claim_has_its_44_items_in_order():
    assert [item.number for item in CHECKLISTS["claim"].items] == [str(n) for n in range(1, 45)]


def test_tripod_ai_has_its_27_items_with_52_parts():
    numbers = [item.number for item in CHECKLISTS["tripod-ai"].items]
    parts = {
        3: "abc",
        5: "ab",
        6: "abc",
        8: "abc",
        9: "abc",
        12: "abcdefg",
        18: "abcdef",
        20: "abc",
        23: "ab",
        27: "abc",
    }
    assert numbers == [f"{n}{part}" for n in range(1, 28) for part in parts.get(n, [""])]
    assert len(numbers) == 52


@pytest.mark.parametrize("name", CHECKLISTS)
def test_items_name_sections_that_there_are(name):
    for item in CHECKLISTS[name].items:
        assert set(item.sections) <= TITLES
        assert item.asks
        assert item.sections or not item.lacks, "what has no section is the author's as a whole"


@pytest.mark.parametrize("name", CHECKLISTS)
def test_only_what_is_on_the_page_answers(name):
    checklist = CHECKLISTS[name]
    nothing = tabulate(checklist, set())
    assert {row[3] for row in nothing.rows} == {AUTHOR}
    whole = tabulate(checklist, TITLES)
    states = [row[3] for row in whole.rows]
    assert [row[0] for row in whole.rows] == [item.number for item in checklist.items]
    answered, partly = states.count("answered"), sum(state.startswith(f"{AUTHOR}: ") for state in states)
    assert answered > 5
    assert partly > 5
    rest = states.count(AUTHOR)
    assert answered + partly + rest == len(states)
    assert f"{answered} are answered on this page, {partly} in part, and {rest} not at all" in whole.notes[0]
