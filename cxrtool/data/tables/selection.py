"""Choose, relabel, thin out and join rows of manifests; what is left out is told with its reason."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxrtool.data.splitting.dealing import rank
from cxrtool.data.splitting.grouping import normalised
from cxrtool.data.tables.manifest import Manifest, Row, order_columns
from cxrtool.errors import InputError, UsageError


@dataclass
class Selection:
    """The rows that are kept, and those that are not.

    Attributes:
        columns: The header.
        rows: What is kept, in the order of the input.
        rejects: Path and reason of what is not.
        warnings: What the user should know about it.
    """

    columns: list[str]
    rows: list[Row]
    rejects: list[Row] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def keep(self, wanted: Callable[[Row], bool], reason: Callable[[Row], str]) -> None:
        """Keep the rows that are wanted, and note the reason for every other."""
        self.rejects += [{"path": row["path"], "reason": reason(row)} for row in self.rows if not wanted(row)]
        self.rows = [row for row in self.rows if wanted(row)]

    def require(self, column: str, option: str, hint: str | None = None) -> None:
        """Check that a column is there.

        Raises:
            InputError: It is not; the message names those that are.
        """
        if column not in self.columns:
            raise InputError(f"{option}: expected a column '{column}', found: {', '.join(self.columns)}", hint)


def concatenate(manifests: Sequence[Manifest]) -> Selection:
    """Put manifests under one another.

    An image that stands in two of them is kept once. Where another image has the same id (in any case), the folder in
    which its path first differs is put before the id, and where that does not help a digest behind it.

    Raises:
        InputError: Two manifests give one image different labels.
    """
    selection = Selection(order_columns([column for manifest in manifests for column in manifest.columns]), [])
    known: dict[str, Row] = {}
    origins: dict[str, str] = {}
    for manifest in manifests:
        renamed: dict[str, str] = {}
        fresh: list[Row] = []
        for index, row in enumerate(manifest.rows):
            identity = row["image_id"]
            other = known.get(identity.casefold())
            if other is not None and other["path"] == row["path"]:
                if other.get("label", "") != row.get("label", ""):
                    raise InputError(
                        f"{manifest.place(index)}: '{identity}' is labelled '{row.get('label', '')}', "
                        f"but '{other.get('label', '')}' in {origins[identity.casefold()]}",
                        "make the labels agree with --relabel, or leave the image out of one of them with --where",
                    )
                continue
            copy = {column: row.get(column, "") for column in selection.columns}
            if other is not None:
                copy["image_id"] = renamed[identity] = _another_id(identity, row["path"], other["path"], known)
            known[copy["image_id"].casefold()] = copy
            origins[copy["image_id"].casefold()] = manifest.name
            fresh.append(copy)
        for row in fresh:
            if row.get("parent_id") in renamed:
                row["parent_id"] = renamed[row["parent_id"]]
        selection.rows += fresh
        if renamed:
            old, new = next(iter(renamed.items()))
            selection.warnings.append(
                f"{manifest.name}: {len(renamed)} ids belong to other images already and were renamed, "
                f"such as '{old}' to '{new}'"
            )
    return selection


def _another_id(identity: str, path: str, other: str, known: Mapping[str, Row]) -> str:
    mine, theirs = Path(path).parent.parts[::-1], Path(other).parent.parts[::-1]
    folder = next((part for i, part in enumerate(mine) if i >= len(theirs) or part != theirs[i]), "")
    candidate = "_".join(filter(None, (re.sub(r"[^\w.-]+", "_", folder).strip("._"), identity)))
    return candidate if candidate.casefold() not in known else f"{candidate}_{rank(path)[:8]}"


def parse_relabel(arguments: Iterable[str]) -> dict[str, str]:
    """What each label becomes.

    >>> parse_relabel(["pathological,covid=positive"])
    {'pathological': 'positive', 'covid': 'positive'}
    """
    mapping: dict[str, str] = {}
    for argument in arguments:
        old, equals, new = argument.rpartition("=")
        names = [name.strip() for name in old.split(",") if name.strip()]
        if not equals or not names or not new.strip():
            raise UsageError(
                f"--relabel: expected OLD,OLD=NEW, such as pathological,covid=positive, found '{argument}'"
            )
        for name in names:
            if mapping.setdefault(name, new.strip()) != new.strip():
                raise UsageError(f"--relabel: '{name}' cannot become both '{mapping[name]}' and '{new.strip()}'")
    return mapping


def relabel(selection: Selection, mapping: Mapping[str, str]) -> None:
    """Give labels other names, all at once.

    Raises:
        UsageError: A label that no row has.
    """
    labels = sorted({row["label"] for row in selection.rows if row.get("label")})
    for name in mapping:
        if name not in labels:
            near = difflib.get_close_matches(name, labels, 1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"--relabel: expected one of {', '.join(labels) or 'no labels'}, found '{name}'{meant}")
    for row in selection.rows:
        if row.get("label") in mapping:
            row["label"] = mapping[row["label"]]


def drop_duplicates(selection: Selection) -> None:
    """Of images with identical pixels (`sha256`) keep the first; where their labels differ, warn.

    Raises:
        InputError: There is no column `sha256`.
    """
    selection.require("sha256", "--drop-duplicates", "`cxrtool prepare` writes it")
    first: dict[str, Row] = {}
    for row in selection.rows:
        if row.get("sha256"):
            first.setdefault(row["sha256"].lower(), row)

    def twin(row: Row) -> Row:
        return first.get(row.get("sha256", "").lower(), row)

    differing = [row for row in selection.rows if twin(row).get("label", "") != row.get("label", "")]
    if differing:
        row = differing[0]
        selection.warnings.append(
            f"{len(differing)} duplicates have another label than the image that is kept, such as '{row['image_id']}' "
            f"({row.get('label', '')}) and '{twin(row)['image_id']}' ({twin(row).get('label', '')})"
        )
    selection.keep(
        lambda row: twin(row) is row, lambda row: f"--drop-duplicates: the pixels of {twin(row)['image_id']}"
    )


def one_per(selection: Selection, column: str, seed: int) -> None:
    """Keep one image for each value of a column, drawn by the seed; an empty cell is a value of its own.

    Raises:
        InputError: There is no such column.
    """
    selection.require(column, "--one-per")
    drawn: dict[str, Row] = {}
    for row in _shuffled(selection.rows, seed):
        drawn.setdefault(normalised(row.get(column, "")) or f"\0{row['image_id']}", row)
    kept = {id(row) for row in drawn.values()}
    selection.keep(lambda row: id(row) in kept, lambda row: f"--one-per {column}: another of {row.get(column)}")


SMALLEST = "smallest"


def parse_per_class(text: str) -> int | None:
    """How many images of each class; None for as many as the smallest class has.

    >>> parse_per_class("40"), parse_per_class("smallest")
    (40, None)
    """
    if text == SMALLEST:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--per-class: expected a number over 0, or {SMALLEST}, found '{text}'")
    return int(text)


def smallest_class(selection: Selection) -> int:
    """How many images the smallest class has; 0 where nothing has a label."""
    return min(Counter(row["label"] for row in selection.rows if row.get("label")).values(), default=0)


def sample(selection: Selection, seed: int, *, per_class: int | None = None, fraction: float | None = None) -> None:
    """Draw so many images of each class, or such a share of each.

    The draw hangs on seed and ids alone: the order of rows does not matter, and a smaller sample lies in the greater.
    Images without a label are a class for `fraction`, and left out by `per_class`.
    """
    classes: dict[str, list[Row]] = {}
    for row in _shuffled(selection.rows, seed):
        classes.setdefault(row.get("label", ""), []).append(row)
    kept: set[int] = set()
    for label in sorted(classes):
        rows = classes[label]
        count = per_class or 0
        if fraction is not None:
            # At least one: a share of a small class must not be a class less.
            count = max(1, round(len(rows) * fraction))
        elif not label:
            count = 0
        elif len(rows) < count:
            selection.warnings.append(f"--per-class {count}: there are only {len(rows)} of {label}")
        kept |= {id(row) for row in rows[:count]}
    option = f"--fraction {fraction:g}" if fraction is not None else f"--per-class {per_class}"
    selection.keep(
        lambda row: id(row) in kept, lambda row: f"{option}: {'not drawn' if row.get('label') else 'no label'}"
    )


def _shuffled(rows: Iterable[Row], seed: int) -> list[Row]:
    return sorted(rows, key=lambda row: rank(seed, row["image_id"]))
