"""Twins: the images that the generators of several classes make of one radiograph, and the classes of twins.

A row of a twin has the radiograph's id in `parent_id`, the class whose generator made it in `generator`, and the fold
in which it is valid. Its `label` stays the radiograph's. A classifier of twins has one class for each pair of a label
and a generator: for two classes P and N the paper calls them P+, P-, N+ and N- (Tabik et al. 2020, COVID-SDNet).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from cxrtool.data.tables.ids import safe_name
from cxrtool.data.tables.manifest import Row
from cxrtool.errors import InputError

MARK = "@"
"""Between the label and the generator in the name of a twin's class."""

LONGEST = 60
"""Characters of a generator's name in an id, which is a file name."""


def twin_id(image_id: str, repeat: str, fold: str, generator: str) -> str:
    """The id of a twin; without a repeat the twin belongs to no single fold.

    A generator whose name is long or not allowed in a file name gets a digest after it, so that `P+` and `P-` differ.

    >>> twin_id("a", "0", "3", "covid"), twin_id("a", "", "", "covid")
    ('a_r0f3_covid', 'a_covid')
    >>> twin_id("a", "0", "3", "P+")
    'a_r0f3_P-3073f3'
    """
    name = safe_name(generator)[:LONGEST]
    if name != generator:
        name = f"{name}-{hashlib.sha256(generator.encode()).hexdigest()[:6]}"
    return "_".join([image_id, *([f"r{repeat}f{fold}"] if repeat else []), name])


def twin_class(label: str, generator: str) -> str:
    """The class of a twin; empty without a label.

    >>> twin_class("normal", "covid")
    'normal@covid'
    """
    return f"{label}{MARK}{generator}" if label else ""


def split_class(name: str) -> tuple[str, str]:
    """Label and generator of a twin's class.

    Raises:
        InputError: The name is not a class of twins.

    >>> split_class("normal@covid")
    ('normal', 'covid')
    """
    label, mark, generator = name.rpartition(MARK)
    if not (label and mark and generator):
        raise InputError(f"expected a class of twins such as covid{MARK}covid, found '{name}'")
    return label, generator


def twin_classes(labels: Sequence[str], generators: Sequence[str]) -> list[str]:
    """The classes of a classifier of twins, label by label.

    >>> twin_classes(["P", "N"], ["P", "N"])
    ['P@P', 'P@N', 'N@P', 'N@N']
    """
    return [twin_class(label, generator) for label in labels for generator in generators]


def labels_of(classes: Iterable[str]) -> list[str]:
    """The labels in classes of twins, in order.

    Raises:
        InputError: A name is not a class of twins.

    >>> labels_of(["P@P", "P@N", "N@P", "N@N"])
    ['P', 'N']
    """
    return list(dict.fromkeys(split_class(name)[0] for name in classes))


def radiograph_id(row: Mapping[str, str]) -> str:
    """The id of the radiograph that a twin was made of; for any other image its own id."""
    return row["parent_id"] if is_twin(row) else row["image_id"]


def is_twin(row: Mapping[str, str]) -> bool:
    """Whether a row is that of a twin."""
    return bool(row.get("generator"))


def twin_rows(row: Mapping[str, str], repeat: str, fold: str, generators: Sequence[str]) -> list[Row]:
    """The rows of the twins that the generators of a fold make of one radiograph; `path` stays that of the radiograph.

    Args:
        row: The radiograph, or its processed image for the same fold.
        repeat: Empty where the twins belong to no single fold.
        fold: Likewise.
        generators: Names, in order.

    >>> [twin["image_id"] for twin in twin_rows({"image_id": "a"}, "0", "1", ["P", "N"])]
    ['a_r0f1_P', 'a_r0f1_N']
    """
    parent = row.get("parent_id") if row.get("repeat") else row["image_id"]
    identity = parent or row["image_id"]
    return [
        {
            **row,
            "image_id": twin_id(identity, repeat, fold, name),
            "parent_id": identity,
            "generator": name,
            "repeat": repeat,
            "fold": fold,
        }
        for name in generators
    ]
