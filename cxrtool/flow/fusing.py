"""Fusion: the key by which predictions are matched, and the twins of a radiograph by the rule of COVID-SDNet."""

from __future__ import annotations

from collections.abc import Iterable

from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.predictions import Predictions
from cxrtool.data.tables.twins import is_twin, split_class, twin_class
from cxrtool.errors import InputError, count_of
from cxrtool.flow.settings import Settings
from cxrtool.options import one_of

POSITIVE = "covid"
"""The class that ties go to by default, if there is a class of this name."""

DECIDING = "twin"
"""The column with the generator whose twin has the highest probability of all."""

TEST = "test"
SHOWN = 3

Key = tuple[str, str, str, str]
"""Image, repeat, fold and subset: predictions that agree in all four are fused."""


def key_of(row: Row, name: str = "") -> Key:
    """The key of a row of predictions; `name` replaces its image.

    >>> key_of({"image_id": "a_r0f1", "parent_id": "a", "repeat": "0", "fold": "1", "subset": ""})
    ('a', '0', '1', 'test')
    """
    return name or original_of(row), row.get("repeat", ""), row.get("fold", ""), row.get("subset", "") or TEST


def examples(names: Iterable[str]) -> str:
    """The first few names.

    >>> examples(["a", "b", "c", "d"])
    'a, b, c, …'
    """
    found = list(names)
    return ", ".join(found[:SHOWN]) + (", …" if len(found) > SHOWN else "")


def join_twins(predictions: Predictions, positive: str | None, settings: Settings) -> Predictions:
    """Fuse the twins of each radiograph in each repeat and fold.

    Columns in which the twins differ, such as the digest, are dropped; the path is that of the twin with the highest
    probability.

    Raises:
        InputError: The predictions are not of twins, or no radiograph has all of its twins.
        UsageError: `positive` is not a class.
    """
    import numpy as np

    from cxrtool.evaluation.fusion import twins

    labels, generators = _classes(predictions)
    positive = _positive(positive, labels, settings)
    indices = _twin_indices(predictions, generators)
    whole = {key: found for key, found in indices.items() if len(found) == len(generators)}
    if not whole:
        raise InputError(
            f"{predictions.name}: expected for each radiograph a twin by each of {', '.join(generators)}, found no "
            "radiograph with all of them",
            "`cxrtool train --transform` predicts all twins",
        )
    rows_of = np.array([[whole[key][name] for name in generators] for key in whole])
    label = [labels.index(split_class(name)[0]) for name in predictions.classes]
    stacked = predictions.probabilities[rows_of]
    scores, decided = twins(stacked, label, len(labels), labels.index(positive))
    deciding = stacked.max(axis=2).argmax(axis=1)
    rows = []
    for key, found, predicted, twin in zip(whole, rows_of, decided, deciding, strict=True):
        row = _radiograph(key, [predictions.rows[i] for i in found], int(twin), predictions.classes)
        rows.append({**row, "predicted": labels[predicted], DECIDING: generators[twin]})
    settings.report.say(
        f"fused {count_of(len(rows), 'radiograph')} from {count_of(len(generators), 'twin')} each, ties to {positive}"
    )
    if len(whole) < len(indices):
        lost = [key[0] for key in indices if key not in whole]
        settings.report.warn(f"excluded {count_of(len(lost), 'radiograph')} without all twins: {examples(lost)}")
    columns = [name for name in predictions.columns if any(name in row for row in rows)]
    return Predictions(labels, rows, scores, "twins", [*columns, DECIDING])


def _classes(predictions: Predictions) -> tuple[list[str], list[str]]:
    try:
        pairs = [split_class(name) for name in predictions.classes]
    except InputError as error:
        raise InputError(
            f"{predictions.name}: {error.message}", "`cxrtool train --transform RUN` trains a network of twins"
        ) from error
    labels, generators = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    absent = [twin_class(a, b) for a in labels for b in generators if (a, b) not in pairs]
    if absent or len(labels) < 2:
        found = f"none of {absent[0]}" if absent else f"{labels[0]} alone"
        raise InputError(f"{predictions.name}: expected a class for each label and generator, found {found}")
    return labels, generators


def _positive(given: str | None, labels: list[str], settings: Settings) -> str:
    if given is not None:
        one_of("--positive", given, labels)
    return given or next((name for name in labels if name.casefold() == POSITIVE), labels[0])


def _twin_indices(predictions: Predictions, generators: list[str]) -> dict[Key, dict[str, int]]:
    """For each radiograph, repeat, fold and subset: the row index of the twin by each generator."""
    found: dict[Key, dict[str, int]] = {}
    for index, row in enumerate(predictions.rows):
        name, parent = row.get("generator", ""), row.get("parent_id", "")
        if not is_twin(row) or not parent or name not in generators:
            raise InputError(
                f"{predictions.name}: expected rows of twins, with a parent_id and one of the generators "
                f"{', '.join(generators)}, found '{row['image_id']}' with '{parent}' and '{name}'"
            )
        twins = found.setdefault(key_of(row, parent), {})
        if twins.setdefault(name, index) != index:
            raise InputError(f"{predictions.name}: expected one twin of '{parent}' by {name} in a fold, found two")
    return found


def _radiograph(key: Key, twins: list[Row], deciding: int, classes: list[str]) -> Row:
    """The columns in which the twins of a radiograph agree."""
    first = twins[0]
    agreed = {name: cell for name, cell in first.items() if all(row.get(name, "") == cell for row in twins)}
    # In a manifest of twins the label is that of the radiograph.
    labels = {split_class(label)[0] if label in classes else label for label in (row.get("label", "") for row in twins)}
    if len(labels) > 1:
        raise InputError(f"'{key[0]}': expected twins of one label, found {' and '.join(sorted(labels))}")
    warnings = dict.fromkeys(row["warning"] for row in twins if row.get("warning"))
    # The row is of the radiograph itself, which has no parent.
    kept = {name: cell for name, cell in agreed.items() if name not in ("parent_id", "generator")}
    changed = {"image_id": key[0], "path": twins[deciding].get("path", ""), "subset": key[3], "label": labels.pop()}
    return {**kept, **changed, "warning": "; ".join(warnings)}
