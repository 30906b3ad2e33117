"""Choose, relabel, thin out and join rows of manifests; every excluded row gets a reason."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cxrtool.data.splitting.dealing import rank
from cxrtool.data.splitting.grouping import normalised
from cxrtool.data.tables.manifest import Manifest, Row, Table, order_columns
from cxrtool.data.tables.missing import missing_words
from cxrtool.data.tables.numbers import decimal
from cxrtool.data.tables.severity import HIGHEST, SEVERITY, stratum_of
from cxrtool.errors import InputError, UsageError, count_of
from cxrtool.options import did_you_mean, one_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Selection(Table):
    """The rows that are kept, in the order of the input, and those that are not.

    Attributes:
        rejects: Path and reason of each excluded row.
    """

    rejects: list[Row] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def keep(self, wanted: pd.Series, reason: pd.Series | str) -> None:
        """Keep the rows that are wanted, and record the reason for every other.

        Args:
            wanted: Booleans, indexed as the frame is.
            reason: One for all, or one for each row.
        """
        reasons = self.frame[["path"]].assign(reason=reason)
        self.rejects += reasons[~wanted].to_dict("records")
        self.frame = self.frame[wanted]

    def cells(self, column: str) -> pd.Series:
        """The cells of a column, indexed as the frame is; all empty where the column is missing."""
        return self.frame[column] if column in self.columns else self.frame["path"].map(lambda _: "")

    def drawn(self, seed: int) -> pd.Index:
        """The index of the frame in a random order that depends on the seed and the ids alone."""
        return self.frame["image_id"].map(lambda name: rank(seed, name)).sort_values().index


def _require(selection: Selection, column: str, option: str, hint: str | None = None) -> None:
    if column not in selection.columns:
        raise InputError(
            f"{option}: expected a column '{column}', found: {', '.join(selection.columns)}"
            f"{did_you_mean(column, selection.columns)}",
            hint,
        )


def concatenate(manifests: Sequence[Manifest]) -> Selection:
    """Concatenate manifests.

    An image that is in two of them is kept once. Where another image has the same id (in any case), the folder in
    which its path first differs is added before the id, and if that id is taken too, a digest after it.

    Raises:
        InputError: Two manifests give one image different labels.
    """
    import pandas as pd

    columns = order_columns([column for manifest in manifests for column in manifest.columns])
    known: dict[str, _Known] = {}
    parts, warnings = [], []
    for manifest in manifests:
        names, renamed = _names(manifest, known)
        images = manifest.frame.reindex(columns=columns, fill_value="").assign(image_id=names)
        if renamed and "parent_id" in columns:
            parents = images["parent_id"]
            images = images.assign(parent_id=parents.map(renamed).fillna(parents))
        parts.append(images[images["image_id"] != ""])
        if renamed:
            old, new = next(iter(renamed.items()))
            warnings.append(
                f"{manifest.name}: {count_of(len(renamed), 'id')} already used by other images and renamed, "
                f"such as '{old}' to '{new}'"
            )
    selection = Selection.of_frame(pd.concat(parts))
    selection.warnings += warnings
    return selection


class _Known(NamedTuple):
    """An image of an earlier row; the key is its present id."""

    path: str
    label: str
    origin: str


def _names(manifest: Manifest, known: dict[str, _Known]) -> tuple[list[str], dict[str, str]]:
    """The id of each row, empty where the image is known already; and the new id of each renamed image.

    Row by row, because an id that was renamed can be the next one's.
    """
    names, renamed = [], {}
    cells = (manifest.column(name) for name in ("image_id", "path", "label"))
    for index, (identity, path, label) in enumerate(zip(*cells, strict=True)):
        name, other = identity, known.get(identity.casefold())
        if other is not None and other.path == path:
            if other.label != label:
                raise InputError(
                    f"{manifest.place(index)}: '{identity}' is labelled '{label}', "
                    f"but '{other.label}' in {other.origin}",
                    "make the labels agree with --relabel, or exclude the image from one of them with --where",
                )
            names.append("")
            continue
        if other is not None:
            name = renamed[identity] = _another_id(identity, path, other.path, known)
        known[name.casefold()] = _Known(path, label, manifest.name)
        names.append(name)
    return names, renamed


def _another_id(identity: str, path: str, other: str, known: Container[str]) -> str:
    mine, theirs = Path(path).parent.parts[::-1], Path(other).parent.parts[::-1]
    folder = next((part for i, part in enumerate(mine) if i >= len(theirs) or part != theirs[i]), "")
    candidate = "_".join(filter(None, (re.sub(r"[^\w.-]+", "_", folder).strip("._"), identity)))
    return candidate if candidate.casefold() not in known else f"{candidate}_{rank(path)[:8]}"


def parse_relabel(arguments: Iterable[str]) -> dict[str, str]:
    """The new name of each label.

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


def exclude(selection: Selection, text: str) -> None:
    """Exclude the rows with a value, given as `COLUMN=VALUE`; upper and lower case are the same.

    Raises:
        UsageError: It is not written so, or no row has the value; the message has those that are there.
        InputError: There is no such column, or no row is left.
    """
    column, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not column or not value:
        raise UsageError(f"--exclude: expected COLUMN=VALUE, such as severity=mild, found '{text}'")
    _require(selection, column, "--exclude")
    cells = _normalised(selection.cells(column))
    if normalised(value) not in set(cells):
        known = sorted({cell for cell in selection.column(column) if cell.strip()})
        one_of(f"--exclude {column}", value, known or ["no values"])
    selection.keep(cells != normalised(value), f"--exclude: {text}")
    if not len(selection):
        raise InputError(f"--exclude {text}: every image has this value, so that none is left")


def rate(selection: Selection, column: str) -> int:
    """Make `severity` of a column with extents from 0 to 8; rows without an extent keep none.

    Returns:
        The number of rows whose severity was another one.

    Raises:
        InputError: There is no such column, or a cell is no extent.
    """
    _require(selection, column, "--severity-from")
    cells = selection.cells(column).str.strip()
    missing = missing_words(set(cells))
    extents = {cell: "" if cell.casefold() in missing else cell for cell in set(cells)}
    for cell in sorted(filter(None, extents.values())):
        extent = decimal(cell)
        if extent is None or not 0 <= extent <= HIGHEST:
            raise InputError(
                f"--severity-from {column}: expected numbers from 0 to {HIGHEST}, found '{cell}'",
                "an extent counts 0 to 4 for each lung",
            )
        extents[cell] = stratum_of(extent)
    made = cells.map(extents)
    before = selection.cells(SEVERITY) if SEVERITY in selection.columns else made
    changed = int(((before != "") & (before != made)).sum())
    selection.frame = selection.frame.assign(**{SEVERITY: made})
    return changed


def relabel(selection: Selection, mapping: Mapping[str, str]) -> None:
    """Give labels other names, all at once.

    Raises:
        UsageError: A label that no row has.
    """
    labels = sorted(set(selection.column("label")) - {""})
    for name in mapping:
        one_of("--relabel", name, labels or ["no labels"])
    cells = selection.cells("label")
    selection.frame = selection.frame.assign(label=cells.map(mapping).fillna(cells))


def drop_duplicates(selection: Selection) -> None:
    """Keep the first of each set of images with identical pixels (`sha256`); where their labels differ, warn.

    Raises:
        InputError: There is no column `sha256`.
    """
    _require(selection, "sha256", "--drop-duplicates", "`cxrtool prepare` writes it")
    images = selection.frame.assign(label=selection.cells("label"))
    digests = images["sha256"].str.lower()
    indices = images.index.to_series()
    firsts = indices.groupby(digests).transform("first").where(digests != "", indices)
    kept = images.loc[firsts].set_axis(images.index)
    differing = images.index[kept["label"] != images["label"]]
    if len(differing):
        row, first = images.loc[differing[0]], kept.loc[differing[0]]
        selection.warnings.append(
            f"{count_of(len(differing), 'duplicate has', 'duplicates have')} another "
            f"label than the image that is kept, such as '{row['image_id']}' "
            f"({row['label']}) and '{first['image_id']}' ({first['label']})"
        )
    selection.keep(firsts == indices, "--drop-duplicates: same pixels as " + kept["image_id"])


def one_per(selection: Selection, column: str, seed: int, whole: Iterable[str] = ()) -> None:
    """Keep one image for each value of a column, drawn by the seed; every image with an empty cell is kept.

    Args:
        selection: The rows.
        column: Such as `patient_id`.
        seed: Of the draw.
        whole: Classes of which every image is kept. Of a patient with images of other classes too, one of those is.

    Raises:
        InputError: There is no such column.
        UsageError: A class that no image has.
    """
    _require(selection, column, "--one-per")
    labels = selection.cells("label")
    known = sorted(set(labels) - {""})
    for name in whole:
        one_of("--one-per-except", name, known or ["no labels"])
    cells = selection.cells(column)
    values = _normalised(cells).where(~labels.isin(list(whole)), "")
    others = values.loc[selection.drawn(seed)].duplicated().sort_index() & (values != "")
    selection.keep(~others, f"--one-per {column}: another image of " + cells)


def _normalised(cells: pd.Series) -> pd.Series:
    known = {cell: normalised(cell) for cell in set(cells)}
    return cells.map(known.__getitem__)


SMALLEST = "smallest"


def parse_per_class(text: str) -> int | None:
    """The number of images of each class; None for as many as the smallest class has.

    >>> parse_per_class("40"), parse_per_class("smallest")
    (40, None)
    """
    if text == SMALLEST:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--per-class: expected a number above 0, or {SMALLEST}, found '{text}'")
    return int(text)


def smallest_class(selection: Selection) -> int:
    """The number of images of the smallest class; 0 where no image has a label."""
    labels = selection.cells("label")
    return min(labels[labels != ""].value_counts(), default=0)


def sample(selection: Selection, seed: int, *, per_class: int | None = None, fraction: float | None = None) -> None:
    """Draw a number of images of each class, or a share of each class.

    The draw depends on seed and ids alone: the order of rows does not matter, and a larger sample contains the smaller.
    Images without a label are a class for `fraction`, and excluded by `per_class`.
    """
    labels = selection.cells("label")
    sizes = labels.groupby(labels).size()
    if fraction is not None:
        option = f"--fraction {fraction:g}"
        # At least one: no class may become empty.
        counts = sizes.map(lambda size: max(1, round(size * fraction)))
    else:
        option = f"--per-class {per_class}"
        counts = sizes.map(lambda _: per_class or 0).where(sizes.index != "", 0)
        short = sizes[sizes < counts]
        selection.warnings += [f"{option}: there are only {size} of {label}" for label, size in short.items()]
    drawn = labels.loc[selection.drawn(seed)]
    wanted = drawn.groupby(drawn).cumcount() < drawn.map(counts)
    reasons = labels.map(lambda label: f"{option}: {'not drawn' if label else 'no label'}")
    selection.keep(wanted.sort_index(), reasons)
