"""Predictions of another tool: which column is the image, the label, the scores and the predicted class.

Columns with common names are recognised, others are named. What cannot be decided is refused, with the option that
decides it. `notes` state what was taken for what.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.data.tables.ids import stem_of
from cxrtool.data.tables.manifest import COLUMNS, Row, Table, dump_table
from cxrtool.data.tables.numbers import decimal
from cxrtool.data.tables.predictions import (
    DECISIONS,
    PREFIX,
    PROBABILITIES,
    RANKING,
    Predictions,
    dump_predictions,
    probability_columns,
)
from cxrtool.errors import InputError
from cxrtool.options import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IDS = ("image_id", "filename", "file_name", "file", "image", "imagename", "img", "path", "name", "id")
LABELS = ("y_true", "target", "label", "labels", "truth", "true_label", "ground_truth", "gt", "class")
SCORES = ("y_score", "score", "prob", "probability", "proba", "pred_prob", "y_prob", "y_proba", "logits", "logit")
PREDICTED = ("y_pred", "prediction", "predicted", "predicted_class", "predicted_label", "pred")
PATIENTS = ("patient_id", "patientid", "patient", "subject_id", "subject")
MOST_CLASSES = 20
"""A column with more different cells is not suggested as that of the classes."""

NUMBERED = "row"
"""The id of an image without one: this and the number of its row."""

_KIND = r"(?:y_|pred_)?(?:prob|proba|probability|score|logits?|softmax|sigmoid)|p"
_BEFORE = re.compile(rf"(?P<kind>{_KIND})[ _.:-](?P<name>.+)", re.IGNORECASE)
_BEHIND = re.compile(rf"(?P<name>.+)[ _.:-](?P<kind>{_KIND})", re.IGNORECASE)
_WORDS = ({"0", "1"}, {"false", "true"}, {"no", "yes"}, {"neg", "pos"}, {"negative", "positive"})
_POSITIVES = {"1", "true", "yes", "pos", "positive"}
TOLERANCE = 0.0051
"""Allowed difference of the sum of probabilities from 1, per class, as in `cxrtool.evaluation.scores`."""


@dataclass(frozen=True)
class ForeignColumns:
    """The columns of a table as a user names them; None finds them."""

    id: str | None = None
    label: str | None = None
    score: str | None = None
    predicted: str | None = None
    positive: str | None = None

    def named(self) -> bool:
        """Whether a column is named."""
        return any(getattr(self, entry.name) for entry in fields(self) if entry.name != "positive")


@dataclass(frozen=True)
class _Found:
    """The columns of a table by their meaning; `scores` maps a column to its class, empty for the positive class."""

    id: str | None
    label: str
    scores: Mapping[str, str]
    predicted: str | None


def is_own(table: Table) -> bool:
    """Whether a table has the columns of `predictions.csv`."""
    labelled = "label" in table.columns or not _matching(table, LABELS)
    return "image_id" in table.columns and labelled and len(probability_columns(table.columns)) > 1


def read_foreign(table: Table, names: ForeignColumns) -> Predictions:
    """Predictions of a table of any tool.

    Raises:
        InputError: A column is missing or ambiguous, a score is no number, or the class of a score is not known.
    """
    if not len(table):
        raise InputError(f"{table.name}: expected predictions, found no rows")
    found = _find(table, names)
    labels = _texts(table.column(found.label))
    values, logits = _scores(table, list(found.scores))
    classes, renamed = _classes(table, found, labels, names)
    truth = [renamed.get(label, label) for label in labels]
    predicted = _predicted(table, found, classes, renamed)
    if not found.scores:
        kind, how = DECISIONS, "no scores, so no AUC and no calibration"
        probabilities = _one_hot(classes, predicted)
    else:
        kind, how, probabilities = _kind(values, classes, list(found.scores.values()), logits=logits)
        if kind == RANKING and found.predicted is None:
            how += ", no accuracy"
    rows = _rows(table, found, truth, predicted)
    note = _note(found, classes, renamed, how)
    return Predictions(classes, rows, probabilities, table.name, kind=kind, notes=[note])


def as_runs(parts: Sequence[Predictions]) -> list[str]:
    """Number foreign predictions of several files, which have no repeat or fold, as runs; returns a note.

    Files with different images are the folds of one repeat; otherwise each file is a repeat.
    """
    if len(parts) < 2 or not all(part.notes for part in parts):
        return []
    if any(any(part.column(name)) for part in parts for name in ("repeat", "fold")):
        return []
    ids = [{*part.column("image_id")} for part in parts]
    apart = sum(map(len, ids)) == len(set().union(*ids)) and not all(_numbered(part) for part in parts)
    for number, part in enumerate(parts):
        for row in part.rows:
            row["repeat"], row["fold"] = ("0", str(number)) if apart else (str(number), "0")
    what = "folds, because they have different images" if apart else "runs (repeats), because they have the same images"
    return [f"The {len(parts)} files are {len(parts)} {what}."]


def notes_of(parts: Sequence[Predictions]) -> list[str]:
    """The notes of several files; one that differs only in the range of the scores is shown once."""
    notes = {re.sub(r" \((from|their sum) [^)]*\)", "", note): note for part in parts for note in part.notes}
    return list(notes.values() if len(parts) == 1 else notes)


def as_table(predictions: Predictions) -> str:
    """Predictions of another tool as a table that is read back as the same: with probabilities, ranks, or neither."""
    import numpy as np

    if predictions.kind == PROBABILITIES:
        return dump_predictions(predictions)
    empty = {name for name in predictions.text.columns if not predictions.text[name].astype(bool).any()}
    rows = [{name: cell for name, cell in row.items() if name not in empty} for row in predictions.rows]
    values = predictions.probabilities
    # The scores of two classes are mirror images unless the table had both.
    mirrored = values.shape[1] == 2 and np.array_equal(values[:, 0], 1 - values[:, 1])
    classes = predictions.classes[-1:] if mirrored else predictions.classes
    for name in classes if predictions.kind == RANKING else ():
        # From 2, so that ranks are never taken for probabilities.
        ranks = np.unique(values[:, predictions.classes.index(name)], return_inverse=True)[1] + 2
        for row, rank in zip(rows, ranks, strict=True):
            row[f"score_{name}"] = str(int(rank))
    return dump_table(list(dict.fromkeys(name for row in rows for name in row)), rows)


def _numbered(part: Predictions) -> bool:
    return part.rows[0]["image_id"] == f"{NUMBERED}1"


def _find(table: Table, names: ForeignColumns) -> _Found:
    label = _named(table, names.label, "--label-column") or _known(table, LABELS, "the label", "--label-column")
    if label is None:
        raise InputError(
            f"{table.name}: expected a column of true classes, such as label or y_true, found: {_shown(table)}",
            f"name it: --label-column {shlex.quote(_like_labels(table))}",
        )
    identity = _named(table, names.id, "--id-column")
    identity = identity or next(iter(_matching(table, IDS)), None)
    predicted = _named(table, names.predicted, "--predicted-column")
    predicted = predicted or _known(table, PREDICTED, "the predicted class", "--predicted-column", without=label)
    if names.predicted is None and predicted and not any(map(str.strip, table.column(predicted))):
        predicted = None
    if names.score:
        pieces = [piece.strip() for piece in names.score.split(",") if piece.strip()]
        columns = [_named(table, piece, "--score-column") or piece for piece in pieces]
        classes = {_plain(text): text for text in _texts(table.column(label)) if text}
        scores = {column: _class_of(column, classes, every=len(columns) > 1) for column in columns}
        return _Found(identity, label, scores, predicted)
    scores = _score_columns(table, label, {identity, predicted})
    if not scores:
        single = _known(table, SCORES, "the score", "--score-column", without=label)
        if single is None and predicted and names.predicted is None and _are_scores(table, label, predicted):
            # Some tools write the score of the positive class as y_pred.
            single, predicted = predicted, None
        scores = {single: ""} if single else {}
    if not scores and predicted is None:
        raise InputError(
            f"{table.name}: expected columns prob_<class>, a score such as y_score, or a predicted class such as "
            f"y_pred, found: {_shown(table)}",
            "name it with --score-column COLUMN or --predicted-column COLUMN",
        )
    return _Found(identity, label, scores, predicted)


def _shown(table: Table) -> str:
    return ", ".join(table.columns)


def _named(table: Table, column: str | None, flag: str) -> str | None:
    """The column that an option names, whatever its case."""
    if column is None:
        return None
    alike = [name for name in table.columns if name == column] or [
        name for name in table.columns if _plain(name) == _plain(column)
    ]
    if len(alike) == 1:
        return alike[0]
    meant = did_you_mean(column, table.columns)
    raise InputError(f"{table.name}: {flag} {column}: expected this column, found: {_shown(table)}{meant}")


def _matching(table: Table, known: Sequence[str]) -> list[str]:
    lowered = {_plain(column): column for column in reversed(table.columns)}
    return [lowered[name] for name in known if name in lowered]


def _known(table: Table, known: Sequence[str], what: str, flag: str, without: str | None = None) -> str | None:
    """The one column with a common name; several are one if their cells are equal."""
    found = [column for column in _matching(table, known) if column != without]
    if len({tuple(table.column(column)) for column in found}) > 1:
        raise InputError(
            f"{table.name}: expected one column for {what}, found {' and '.join(found)}",
            f"name it: {flag} {found[0]}",
        )
    return found[0] if found else None


def _class_of(column: str, classes: Mapping[str, str], *, every: bool) -> str:
    """The class in the name of a score column, spelled as in the labels; empty where there is none.

    >>> _class_of("prob_COVID", {"covid": "Covid"}, every=False), _class_of("y_score", {"a": "A"}, every=False)
    ('Covid', '')
    """
    matches = [match["name"] for match in (_BEFORE.fullmatch(column), _BEHIND.fullmatch(column)) if match]
    for name in (*matches, column):
        if _plain(name) in classes:
            return classes[_plain(name)]
    if column.startswith(PREFIX) and column != PREFIX:
        return column.removeprefix(PREFIX)
    return (matches[0] if matches else column) if every else ""


def _score_columns(table: Table, label: str, others: set[str | None]) -> dict[str, str]:
    """The columns whose names have a class, such as `prob_covid` or `covid_score`, or are one."""
    classes = {_plain(text): text for text in _texts(table.column(label)) if text}
    free = [column for column in table.columns if column != label and column not in others]
    found = {column: _class_of(column, classes, every=False) for column in free}
    marked = {
        column: name
        for column, name in found.items()
        if name and (_BEFORE.fullmatch(column) or _BEHIND.fullmatch(column))
    }
    if marked:
        if len(set(marked.values())) < len(marked):
            raise InputError(
                f"{table.name}: expected one score column for each class, found {' and '.join(marked)}",
                "name them: --score-column COLUMN,COLUMN",
            )
        return marked
    whole = {column: name for column, name in found.items() if name}
    return whole if len(whole) > 1 and set(whole.values()) == set(classes.values()) else {}


def _like_labels(table: Table) -> str:
    """The first column that may have the classes: few different words or whole numbers."""
    for column in table.columns:
        cells = [cell for cell in _texts(table.column(column)) if cell]
        whole = all((number := decimal(cell)) is None or number.is_integer() for cell in cells)
        if whole and 1 < len(set(cells)) <= min(MOST_CLASSES, len(cells) - 1):
            return column
    return "COLUMN"


def _are_scores(table: Table, label: str, column: str) -> bool:
    """Whether the cells are numbers that are no classes."""
    classes = set(_texts(table.column(label)))
    cells = _texts(table.column(column))
    return not set(cells) <= classes and all(decimal(cell) is not None for cell in cells)


def _texts(cells: Sequence[str]) -> list[str]:
    """Classes as text; numbers that a program wrote as 1.0 are whole again."""
    stripped = [cell.strip() for cell in cells]
    if all(re.fullmatch(r"\d+\.0+", cell) for cell in stripped if cell):
        return [cell.partition(".")[0] for cell in stripped]
    return stripped


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _scores(table: Table, columns: Sequence[str]) -> tuple[NDArray[np.float64], bool]:
    """The numbers (n, columns) and whether their names are those of logits."""
    import numpy as np

    values = np.zeros((len(table), len(columns)))
    for k, column in enumerate(columns):
        for index, cell in enumerate(table.column(column)):
            number = decimal(cell.strip())
            if number is None or not np.isfinite(number):
                raise InputError(f"{table.place(index)}: expected a number as score in {column}, found '{cell}'")
            values[index, k] = number
    return values, bool(columns) and all("logit" in column.lower() for column in columns)


def _classes(
    table: Table, found: _Found, labels: Sequence[str], names: ForeignColumns
) -> tuple[list[str], dict[str, str]]:
    """The classes in the order of the scores, and other names for labels."""
    present = sorted({label for label in labels if label})
    if not present:
        raise InputError(f"{table.name}: expected labelled images, found no cell in {found.label}")
    if not found.scores:
        # A prediction that differs from a label in its case alone is this label.
        further = {_plain(cell): cell for cell in _texts(table.column(found.predicted or "")) if cell}
        return sorted({*present, *(further[name] for name in further.keys() - set(map(_plain, present)))}), {}
    if len(found.scores) > 1:
        classes = list(found.scores.values())
        strange = [label for label in present if label not in classes]
        if strange:
            raise InputError(
                f"{table.name}: expected a score column for each label, found the label '{strange[0]}' and the scores "
                f"{', '.join(found.scores)}",
                "name the column after its label, as in prob_" + strange[0] + _way_of_one(found, present),
            )
        return classes, {}
    column, of = next(iter(found.scores.items()))
    positive = of if of in present else _positive(table, column, of or names.positive, present)
    if positive not in present:
        # 0 and 1, where 1 has a name now.
        one = next(label for label in present if label.lower() in _POSITIVES)
        return [f"not {positive}", positive], {
            label: positive if label == one else f"not {positive}" for label in present
        }
    others = [label for label in present if label != positive]
    if len(others) == 1:
        return [others[0], positive], {}
    return [f"not {positive}", positive], dict.fromkeys(others, f"not {positive}")


def _way_of_one(found: _Found, present: Sequence[str]) -> str:
    """A command line that works where the classes of the scores do not have the names of the labels."""
    if len(found.scores) == 2 and len(present) == 2:
        column = list(found.scores)[1]
        return f"; or choose the score of one class: --score-column {column} --positive {present[1]}"
    return ""


def _positive(table: Table, column: str, wanted: str | None, present: Sequence[str]) -> str:
    """The class that a single score column is the score of: a label, or another name for the label 1."""
    binary = {label.lower() for label in present} in _WORDS or {label.lower() for label in present} <= {"0", "1"}
    if wanted is not None:
        same = [label for label in present if _plain(label) == _plain(wanted)]
        if same:
            return wanted if wanted in same else same[0]
        if binary and any(label.lower() in _POSITIVES for label in present):
            return wanted
        meant = did_you_mean(wanted, present)
        raise InputError(
            f"{table.name}: --positive: expected a label of the table ({', '.join(present)}), found '{wanted}'{meant}"
        )
    one = next((label for label in present if binary and label.lower() in _POSITIVES), None)
    if one is None:
        ways = " or ".join(f"--positive {label}" for label in present[:3])
        raise InputError(
            f"{table.name}: expected the class that {column} is the score of, found the labels {', '.join(present)}",
            f"name it: {ways}",
        )
    return one


def _predicted(table: Table, found: _Found, classes: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    if found.predicted is None:
        return [""] * len(table)
    # Labels may differ in their case alone: then only the same spelling is the same class.
    exact = {name: name for name in classes} | dict(renamed)
    spellings = Counter(map(_plain, {*classes, *renamed}))
    known = {_plain(name): exact[name] for name in exact if spellings[_plain(name)] == 1}
    result = []
    for index, cell in enumerate(_texts(table.column(found.predicted))):
        name = exact.get(cell) or known.get(_plain(cell))
        if cell and name is None and _plain(cell) != "inconclusive":
            known_classes = ", ".join(classes)
            raise InputError(
                f"{table.place(index)}: expected a class among {known_classes} in {found.predicted}, found '{cell}'"
            )
        result.append(name or cell)
    if not found.scores and "" in result:
        place = table.place(result.index(""))
        raise InputError(f"{place}: expected a predicted class in {found.predicted}, found an empty cell")
    return result


def _kind(
    values: NDArray[np.float64], classes: Sequence[str], of: Sequence[str], *, logits: bool
) -> tuple[str, str, NDArray[np.float64]]:
    """What the scores are, in words, too, and as an array (n, K) in the order of the classes."""
    import numpy as np

    inside = bool(((values >= 0) & (values <= 1)).all())
    if values.shape[1] == 1:
        if inside:
            return PROBABILITIES, "taken as probability", np.hstack([1 - values, values])
        ranks = _ranks(values)
        why = f"from {values.min():.4g} to {values.max():.4g}"
        return RANKING, f"no probabilities ({why}): for ROC and AUC only, no calibration", np.hstack([1 - ranks, ranks])
    if logits and not inside:
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return PROBABILITIES, "logits, turned into probabilities by softmax", powers / powers.sum(axis=1, keepdims=True)
    sums = values.sum(axis=1)
    if inside and bool((np.abs(sums - 1) <= TOLERANCE * values.shape[1]).all()):
        return PROBABILITIES, "taken as probabilities", values
    why = (
        f"from {values.min():.4g} to {values.max():.4g}"
        if not inside
        else f"their sum is {sums.min():.4g} to {sums.max():.4g}"
    )
    return RANKING, f"no probabilities ({why}): for ROC and AUC only, no calibration", _ranks(values)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column as its dense rank, scaled into (0, 1): the same order and the same ties."""
    import numpy as np

    columns = [np.unique(column, return_inverse=True)[1] + 1 for column in values.T]
    return np.stack([ranks / (ranks.max() + 1) for ranks in columns], axis=1).astype(np.float64)


def _one_hot(classes: Sequence[str], predicted: Sequence[str]) -> NDArray[np.float64]:
    import numpy as np

    return np.array([[float(name == label) for name in classes] for label in predicted], np.float64)


def _rows(table: Table, found: _Found, truth: Sequence[str], predicted: Sequence[str]) -> list[Row]:
    cells = [cell.strip() for cell in table.column(found.id)] if found.id else []
    stems = [stem_of(re.split(r"[\\/]", cell)[-1]) for cell in cells]
    ids = stems if len(set(stems)) == len(set(cells)) else cells
    patient = next(iter(_matching(table, PATIENTS)), None)
    taken = {found.id, found.label, found.predicted, *found.scores} - {None}
    lowered = {column: column.lower() for column in table.columns if column.lower() in COLUMNS}
    base = table.origin.absolute().parent if table.origin else Path.cwd()
    rows = []
    for index, row in enumerate(table.rows):
        made = {lowered.get(column, column): cell for column, cell in row.items() if column not in taken}
        if truth[index] != row[found.label].strip():
            made["label_of_table"] = row[found.label]
        if found.id and not ids[index]:
            raise InputError(f"{table.place(index)}: the cell '{found.id}' is empty")
        path = base / cells[index] if found.id else base
        made |= {
            "image_id": ids[index] if found.id else f"{NUMBERED}{index + 1}",
            "path": str(path) if found.id and path.is_file() else "",
            "label": truth[index],
            "predicted": predicted[index],
        }
        if patient:
            made["patient_id"] = row[patient].strip()
        rows.append(made)
    return rows


def _note(found: _Found, classes: Sequence[str], renamed: Mapping[str, str], how: str) -> str:
    """What was taken for what, in one line."""
    parts = [f"image = {found.id}" if found.id else "no column of images, so each row is an image"]
    parts.append(f"label = {found.label}")
    if len(found.scores) == 1:
        parts.append(f"score of {classes[1]} = {next(iter(found.scores))}")
    elif found.scores:
        parts.append(f"scores of {', '.join(classes)} = {', '.join(found.scores)}")
    if found.predicted:
        parts.append(f"predicted class = {found.predicted}")
    old = [label for label, new in renamed.items() if new != classes[-1]]
    against = f" '{classes[0]}' is {', '.join(old)}." if old else ""
    return f"Columns: {'; '.join(parts)}; {how}.{against}"
