"""The facts that `cxrtool info` prints about a manifest and its folder."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from cxrtool.data.digests import FILES, altered
from cxrtool.data.file_names import REJECTS
from cxrtool.data.splitting.grouping import PATIENT, count_patients, identities, original_of
from cxrtool.data.splitting.splits import Splits, known_as, overlaps, tabulate
from cxrtool.data.tables.labels import warn_of_spellings
from cxrtool.data.tables.manifest import Manifest, read_table
from cxrtool.data.tables.people import years
from cxrtool.data.tables.table_one import of_two_sexes, table_of_study
from cxrtool.data.tables.twins import is_twin
from cxrtool.data.tables.views import RowView
from cxrtool.errors import InputError, count_of
from cxrtool.flow.chain import ALL, chain_of_manifest, describe, own_fold

SHOWN_VALUES = 8
FOLDS = 5

Table = tuple[str, list[str], list[list[str]]]
"""Title, header, and rows of text."""


@dataclass
class Description:
    """The description of a file or folder.

    Attributes:
        kind: What it is, in a few words.
        path: Its path.
        warnings: What the user should look at.
        next: The command to continue with.
    """

    kind: str
    path: str
    facts: dict[str, str] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    next: str = ""

    def add(self, name: str, value: object) -> None:
        """Add a fact, unless its value is empty."""
        if value not in (None, "", 0):
            self.facts[name] = str(value)


def values(cells: Iterable[str]) -> str:
    """How often each value occurs, the most common first.

    >>> values(["PA", "AP", "PA", ""])
    'PA 2, AP 1, missing 1'
    """
    counts = Counter(cells)
    empty = counts.pop("", 0)
    if not counts:
        return ""
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} {count}" for name, count in common[:SHOWN_VALUES]]
    rest = len(common) - SHOWN_VALUES
    return ", ".join(shown + ([f"{rest} other values"] if rest > 0 else []) + ([f"missing {empty}"] if empty else []))


def describe_manifest(manifest: Manifest, splits: Splits | None) -> Description:
    """Describe the images of a manifest: classes, patients, other columns, and warnings."""
    result = Description("manifest", manifest.name)
    whole, folds = manifest, len({own_fold(row) for row in manifest.records} - {ALL})
    if folds:
        # Each radiograph counts once, however many folds have a version of it or twins.
        named = {row["parent_id"] if is_twin(row) else original_of(row): row for row in whole.rows}
        manifest = replace(whole, rows=list(named.values()), lines=[])
    result.add(
        "images",
        f"{len(whole)}, of {count_of(len(manifest), 'radiograph')} for {count_of(folds, 'fold')}"
        if folds
        else len(manifest),
    )
    result.add("classes", values(manifest.column("label")))
    result.add("patients", _patients(manifest))
    for name in ("severity", "source", "view", "sex"):
        result.add(name, values(manifest.column(name)))
    result.add("age", _ages(manifest.column("age")))
    result.add("sizes", _sizes(manifest))
    result.add("masks", sum(map(bool, manifest.column("mask"))))
    result.add("derived", values(cell for cell in whole.column("generator") if cell))
    result.add("warnings", values(cell for cell in manifest.column("warning") if cell))
    try:
        result.add("processing", describe(chain_of_manifest(whole)))
    except InputError as error:
        result.warnings.append(error.message)
    result.warnings += _suspicions(manifest)
    if splits:
        _add_splits(result, whole, splits)
    if manifest.origin is None:
        # What was read from a stream has no name for another command.
        pass
    elif splits:
        result.next = f"cxrtool train {manifest.name} --splits {splits.name} --preset … -o run"
    elif folds:
        result.next = f"cxrtool train {whole.name} --splits … --preset … -o run"
    else:
        result.next = f"cxrtool split {manifest.name} --folds {_folds(manifest)} -o splits.csv"
    return result


def describe_table_one(manifest: Manifest, splits: Splits | None) -> Description:
    """Table 1: by subset where the splits have a single division, else by class."""
    table, warnings = table_of_study(manifest, splits)
    return Description("Table 1", manifest.name, tables=[("", *table)], warnings=[*of_two_sexes(manifest), *warnings])


def add_making(result: Description, made: Mapping[str, Any], folder: Path) -> None:
    """Add the command that made a folder, its time, and the files that it rejected."""
    result.add("made by", shlex.join(str(word) for word in made.get("argv", [])) or f"cxrtool {made.get('command')}")
    version = made.get("versions", {}).get("cxrtool", "?")
    result.add("made on", f"{made.get('started', '?')}, in {made.get('seconds', '?')} s, by cxrtool {version}")
    if FILES not in made:
        result.add("changed since", "not known: this version of cxrtool kept no digests of its files")
    elif name := altered(folder):
        result.add("changed since", f"{name}; commands that read it will refuse it")
    if (folder / REJECTS).exists():
        rejects = read_table(folder / REJECTS).records
        result.add("left out", f"{len(rejects)}: {reasons(rejects)}" if rejects else "")


def reasons(rejects: Sequence[RowView]) -> str:
    """The reasons in a table of rejects, the most common first."""
    return "; ".join(
        f"{count} × {reason[:60]}" for reason, count in Counter(row.get("reason", "") for row in rejects).most_common(4)
    )


def _folds(manifest: Manifest) -> int:
    """How many folds can have a patient of each class, at most five."""
    patients: dict[str, set[str]] = {}
    for row, patient in zip(manifest.records, identities(manifest.records), strict=True):
        patients.setdefault(row.get("label", ""), set()).add(patient or row["image_id"])
    return max(2, min(FOLDS, *map(len, patients.values()))) if patients else FOLDS


def _patients(manifest: Manifest) -> str:
    if not any(identities(manifest.records)):
        return "not known"
    patients, nameless = count_patients(manifest.records)
    return f"{patients}" + (f", {nameless} of them images without a {PATIENT}" if nameless else "")


def _ages(cells: Sequence[str]) -> str:
    ages = sorted(age for cell in cells if (age := years(cell)) is not None)
    if not ages:
        return ""
    missing = len(cells) - len(ages)
    text = f"{ages[0]:g} to {ages[-1]:g}, median {median(ages):g}"
    return text + (f", missing {missing}" if missing else "")


def _sizes(manifest: Manifest) -> str:
    sizes = set(zip(manifest.column("width"), manifest.column("height"), strict=True)) - {("", "")}
    if len(sizes) == 1:
        return "x".join(next(iter(sizes)))
    pixels = sorted(sizes, key=lambda size: tuple(int(side) if side.isdigit() else 0 for side in size))
    return f"{'x'.join(pixels[0])} to {'x'.join(pixels[-1])}, {len(pixels)} different" if pixels else ""


def _suspicions(manifest: Manifest) -> list[str]:
    found = []
    # Not by `Path`, which is slow for a million images.
    lost = [path for path in manifest.column("path") if not os.path.isfile(path)]  # noqa: PTH113
    if lost:
        found.append(f"{len(lost)} of {len(manifest)} image files are missing, such as {lost[0]}")
    found += filter(None, [warn_of_spellings(manifest.column("label"))])
    first: dict[str, RowView] = {}
    twins = [
        (row, other)
        for row in manifest.records
        if row.get("sha256") and (other := first.setdefault(row["sha256"].lower(), row)) is not row
    ]
    if twins:
        differing = sum(row.get("label") != other.get("label") for row, other in twins)
        labels = f", {differing} with another label" if differing else ""
        found.append(
            f"{count_of(len(twins), 'image has', 'images have')} the same "
            f"pixels as another{labels}, such as {twins[0][0]['image_id']} and "
            f"{twins[0][1]['image_id']}; `cxrtool select --drop-duplicates` keeps one of each"
        )
    return found


def _add_splits(result: Description, manifest: Manifest, splits: Splits) -> None:
    named = dict.fromkeys(splits.ids(), "")
    ids = {known_as(row, named) or row["image_id"] for row in manifest.records}
    result.add("splits", splits.name)
    result.tables.append(("", *tabulate(manifest, splits.runs)))
    for names, text in (
        (
            splits.ids() - ids,
            ("id of the splits is not in this manifest", "ids of the splits are not in this manifest"),
        ),
        (ids - splits.ids(), ("image is in no subset of the splits", "images are in no subset of the splits")),
    ):
        if names:
            result.warnings.append(f"{count_of(len(names), *text)}, such as {min(names)}")
    for (repeat, fold), subsets in splits.runs.items():
        leaks = overlaps(manifest.records, subsets)
        if leaks:
            shown = leaks[0][0].get(PATIENT) or leaks[0][0]["image_id"]
            result.warnings.append(
                f"r{repeat}f{fold}: {count_of(len(leaks), 'patient is', 'patients are')} "
                f"in more than one subset, such as {shown}"
            )
            break
