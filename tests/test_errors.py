from pathlib import Path

import pytest

from cxrtool.errors import InputError, NothingReadError


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ((), "m.csv: expected an image that can be read, found none among 3", None),
        (
            ("a.png", "a.png: the file is empty"),
            "m.csv: expected an image that can be read, found none among 3, the first: a.png: the file is empty",
            None,
        ),
        (
            (Path("a/b.png"), "no such file", "a pair"),
            "m.csv: expected a pair that can be read, found none among 3, the first: a/b.png: no such file",
            "if the table was moved: its paths are relative to its folder",
        ),
        (("", "cut off"), "m.csv: expected an image that can be read, found none among 3, the first: cut off", None),
    ],
)
def test_where_nothing_can_be_read_the_first_file_and_its_reason_are_told(given, message, hint):
    error = NothingReadError("m.csv", 3, *given)
    assert isinstance(error, InputError)
    assert (error.message, error.hint) == (message, hint)
