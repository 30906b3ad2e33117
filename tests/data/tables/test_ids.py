import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.data.tables.ids import (
    LONGEST,
    LONGEST_NAME,
    Naming,
    fault_of_name,
    fault_of_text,
    one_file,
    one_line,
    patient_id,
    safe_name,
    shown,
    stem_of,
    unique_ids,
)


@given(st.text(max_size=300))
def test_a_safe_name_is_safe(text):
    name = safe_name(text)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
    assert len(name) <= LONGEST + 1
    assert not name.endswith(".")
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["CON", "nul.png", "com1", "Aux"])
def test_names_of_devices_are_changed(name):
    assert safe_name(name) != name


def test_long_names_stay_different():
    assert safe_name("a" * 300 + "1") != safe_name("a" * 300 + "2")


def test_only_suffixes_of_pictures_are_cut():
    assert [stem_of(name) for name in ("a.b.PNG", "1.2.3", "x", ".png", "a.dcm", "scan.2020")] == [
        "a.b",
        "1.2.3",
        "x",
        ".png",
        "a",
        "scan.2020",
    ]


NAMES = st.sampled_from(["a", "A", "b", "x_a", "x_A", "a-2", "é", "..", "", "con"])


@given(st.lists(st.builds(Naming, NAMES, st.sampled_from(["x", "X", "y", ""]), NAMES), max_size=12))
def test_ids_are_unique_whatever_the_names(namings):
    ids = unique_ids(namings)
    assert len({identity.lower() for identity in ids}) == len(namings)
    assert all(safe_name(identity) == identity for identity in ids)


def test_ids_do_not_depend_on_the_order():
    namings = [Naming("a", "x", f"x/a{i}.png") for i in range(3)]
    namings += [Naming("b", "x", "x/b.png"), Naming("A", "y", "y/A.png")]
    expected = dict(zip(namings, unique_ids(namings), strict=True))
    for seed in range(5):
        shuffled = random.Random(seed).sample(namings, len(namings))
        assert dict(zip(shuffled, unique_ids(shuffled), strict=True)) == expected
    assert expected[namings[3]] == "b"
    assert expected[namings[4]] == "y_A"
    assert re.fullmatch(r"x_a-[0-9a-f]{8}", expected[namings[0]])


def test_a_file_that_is_listed_twice_gets_two_ids():
    assert unique_ids([Naming("a", "", "a.png")] * 2)[1].endswith("-2")


def test_patients_of_two_sources_are_two():
    assert patient_id("1", "a") != patient_id("1", "b")
    assert patient_id("a:1", "b") == "a:1"
    assert patient_id("  ", "a") == ""


def test_a_salt_hides_and_joins():
    hidden = patient_id("00042", "clinic", "secret")
    assert re.fullmatch(r"clinic:[0-9a-f]{16}", hidden)
    assert hidden == patient_id("clinic:00042", "elsewhere", "secret")
    assert hidden != patient_id("00042", "clinic", "other")
    assert patient_id("", "clinic", "secret") == ""


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("im001", ""),
        ("Thorax côté (1)", ""),
        ("影像", ""),
        ("1.2.840.113619", ""),
        ("a b", ""),
        ("x" * LONGEST_NAME, ""),
        ("", "nothing"),
        ("  ", "only blanks"),
        ("a\nb", "a line break"),
        ("a\tb", "a tab"),
        ("a\0b", "a zero byte"),
        ("a\x1bb", "a control character"),
        ("../x", "a '/'"),
        ("/etc/passwd", "a '/'"),
        ("a\\b", "a '\\'"),
        ("..", "a dot at its start"),
        (".hidden", "a dot at its start"),
        ("-rf", "a hyphen at its start"),
        ("é" * 101, "202 bytes"),
    ],
)
def test_what_cannot_name_a_file(name, fault):
    assert fault_of_name(name) == fault


@given(st.text())
def test_every_name_that_is_made_can_name_a_file(text):
    assert fault_of_name(safe_name(text)) == ""
    assert fault_of_text(one_line(f"a{text}")) == ""
    assert "\n" not in shown(text)


@pytest.mark.parametrize(("one", "other"), [("A1", "a1"), ("c\u00f4te", "co\u0302te"), ("STRASSE", "stra\u00dfe")])
def test_what_is_one_file_on_some_computers(one, other):
    assert one_file(one) == one_file(other)
