"""Age and sex in one spelling, whatever the table or the header has."""

from __future__ import annotations

import re

_UNITS = {
    1.0: ("", "y", "yr", "yrs", "year", "years", "j", "jahre", "a", "ans", "años", "anos", "anni"),
    12.0: ("m", "mo", "month", "months"),
    365.25 / 7: ("w", "week", "weeks"),
    365.25: ("d", "day", "days"),
}
_PER_YEAR = {unit: share for share, units in _UNITS.items() for unit in units}

_SEXES = {
    "M": "m male man boy männlich mann maennlich homme masculin hombre masculino uomo maschio h",
    "F": "f female woman girl w weiblich frau femme féminin feminin mujer femenino feminino donna femmina",
    "O": "o other divers diverse x",
}
_SEX_OF = {word: sex for sex, words in _SEXES.items() for word in words.split()}

OLDEST = 130.0
"""Years; a larger number is not an age."""


def years(text: str) -> float | None:
    """An age in years, from a number or with a unit; None where the text is not one age, such as `50+`.

    >>> years("65.0"), years("045Y"), years("40,5"), years("18M"), years("6 months"), years("50+"), years("nan")
    (65.0, 45.0, 40.5, 1.5, 0.5, None, None)
    """
    match = re.fullmatch(r"(\d{1,5}(?:[.,]\d+)?)\s*([^\W\d_]*)\.?", text.strip().lower())
    if not match or match[2] not in _PER_YEAR:
        return None
    age = float(match[1].replace(",", ".")) / _PER_YEAR[match[2]]
    return age if age <= OLDEST else None


def years_of(text: str) -> str:
    """An age as a number of years; empty where the text is not one age.

    >>> years_of("65.0"), years_of("045Y"), years_of("003D"), years_of("50+")
    ('65', '45', '0.00821', '')
    """
    age = years(text)
    return "" if age is None else f"{age:g}" if age == round(age, 2) else f"{age:.3g}"


def sex_of(text: str) -> str:
    """`M`, `F` or `O`; empty for all else, such as `unknown`, or a number whose code is not known.

    >>> sex_of(" Female"), sex_of("m."), sex_of("Frau"), sex_of("1")
    ('F', 'M', 'F', '')
    """
    return _SEX_OF.get(text.strip().strip(".").lower(), "")
