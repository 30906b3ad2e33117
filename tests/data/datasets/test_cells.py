import doctest

import pytest

from cxrtool.data.datasets import cells
from cxrtool.data.datasets.record import Request
from cxrtool.data.tables.people import years_of


def test_the_examples_hold():
    assert doctest.testmod(cells).failed == 0


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['normal', 'normal']", ["normal"]),
        ("['a', nan, 'b']", ["a", "b"]),
        ("['cut off', 'here", ["cut off"]),
        ("[]", []),
        ("None", []),
        ("[" * 5000, []),
    ],
)
def test_lists_that_were_written_as_text(text, items):
    assert cells.items_of(text) == items


@pytest.mark.parametrize("text", ["", "nan", "38+", "mid 50s", "-3", "1e3", "['57']"])
def test_what_is_no_age_is_empty(text):
    assert years_of(text) == ""
    assert cells.years_between(text, "20140915") == ""


def test_views_that_are_asked_for_are_kept():
    assert cells.not_frontal("AP SUPINE", Request()) == cells.not_frontal("", Request()) == ""
    assert "a lateral" in cells.not_frontal("LL", Request())
    assert cells.not_frontal("LL", Request(views=frozenset({"PA"}))) == ""


@pytest.mark.parametrize(
    ("findings", "label"),
    [
        (["COVID 19 uncertain", "COVID 19"], "COVID-19"),
        (["covid-19"], "COVID-19"),
        (["viral pneumonia", "normal"], "pneumonia"),
        (["exclude"], ""),
        (["suboptimal study", "normal"], "normal"),
        (["scoliosis"], "other findings"),
    ],
)
def test_one_class_of_several_findings(findings, label):
    assert cells.class_of(findings) == label
