"""Ages and sexes in all the spellings in which tables and headers have them."""

import pytest

from cxrtool.data.tables.people import sex_of, years


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("45", 45),
        ("45.5", 45.5),
        (" 045Y ", 45),
        ("006M", 0.5),
        ("0", 0),
        ("", None),
        ("-3", None),
        ("nan", None),
        ("200", None),
        ("Y", None),
        ("60+", None),
        ("40,5", 40.5),
        ("18 months", 1.5),
        ("61 yrs.", 61),
        ("70 Jahre", 70),
        ("0365D", 365 / 365.25),
    ],
)
def test_ages(cell, expected):
    assert years(cell) == expected


@pytest.mark.parametrize(
    ("cell", "sex"),
    [
        ("F", "F"),
        ("Female", "F"),
        ("female ", "F"),
        ("W", "F"),
        ("Frau", "F"),
        ("mujer", "F"),
        ("Femme", "F"),
        ("MALE", "M"),
        ("Mann", "M"),
        ("Homme", "M"),
        ("männlich", "M"),
        ("divers", "O"),
        ("1", ""),
        ("unknown", ""),
        ("", ""),
    ],
)
def test_sexes(cell, sex):
    assert sex_of(cell) == sex
