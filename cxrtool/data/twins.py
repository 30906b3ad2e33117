"""Twins: what the generators of several classes made of one radiograph, and the classes that are told apart then.

A row of a twin has the radiograph's id in `parent_id`, the class whose generator made it in `generator`, and the fold
in which it is valid. Its `label` stays the radiograph's. A classifier of twins tells apart each pair of a label and a
generator: for two classes P and N those that the paper calls P+, P-, N+ and N- (Tabik et al. 2020, COVID-SDNet).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxrtool.data.manifest import Row
from cxrtool.errors import InputError

MARK = "@"
"""Between the label and the generator in the name of a twin's class."""


def twin_id(image_id: str, repeat: str, fold: str, generator: str) -> str:
    """The id of a twin.

    >>> twin_id("a", "0", "3", "covid")
    'a_r0f3_covid'
    """
    return f"{image_id}_r{repeat}f{fold}_{generator}"


def twin_class(label: str, generator: str) -> str:
    """The class of a twin; without a label there is none.

    >>> twin_class("normal", "covid")
    'normal@covid'
    """
    return f"{label}{MARK}{generator}" if label else ""


def split_class(name: str) -> tuple[str, str]:
    """Label and generator of a twin's class.

    Raises:
        InputError: It is none.

    >>> split_class("normal@covid")
    ('normal', 'covid')
    """
    label, mark, generator = name.rpartition(MARK)
    if not (label and mark and generator):
        raise InputError(f"expected a class of twins such as covid{MARK}covid, found '{name}'")
    return label, generator


def is_twin(row: Mapping[str, str]) -> bool:
    """Whether a row is that of a twin."""
    return bool(row.get("generator"))


def twin_rows(row: Row, repeat: str, fold: str, generators: Sequence[str]) -> list[Row]:
    """The rows of what each generator of a fold makes of one radiograph; their `path` stays that of the radiograph."""
    parent = row.get("parent_id") if row.get("repeat") else row["image_id"]
    identity = parent or row["image_id"]
    return [
        {**row, "image_id": twin_id(identity, repeat, fold, name), "parent_id": identity, "generator": name,
         "repeat": repeat, "fold": fold}
        for name in generators
    ]  # fmt: skip
