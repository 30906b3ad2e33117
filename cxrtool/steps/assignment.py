"""Which image is trained on, validated on and tested in each fold, and whether that is honest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.manifest import Manifest, read_table
from cxrtool.errors import InputError, LeakageError
from cxrtool.steps import run as runs
from cxrtool.steps.settings import Settings

SUBSETS = ("train", "validation", "test")


@dataclass(frozen=True)
class Assignment:
    """One fold of the splits: the manifest's rows by subset, as indices."""

    repeat: str
    fold: str
    subsets: dict[str, list[int]]

    @property
    def name(self) -> str:
        """Its folder."""
        return runs.fold_name(self.repeat, self.fold)


def read_assignments(path: Path, manifest: Manifest, settings: Settings) -> list[Assignment]:
    """Read a splits file against a manifest; ids that the manifest lacks are ignored with a count.

    Raises:
        InputError: A column is missing, a subset has another name, or no image is left in a training subset.
    """
    table = read_table(path)
    table.require("image_id", "subset")
    index = {row["image_id"]: i for i, row in enumerate(manifest.rows)}
    folds: dict[tuple[str, str], dict[str, list[int]]] = {
        pair: {name: [] for name in SUBSETS} for pair in runs.folds_of(table.rows)
    }
    unknown = unlabelled = 0
    for line, row in enumerate(table.rows):
        if row["subset"] not in SUBSETS:
            raise InputError(f"{table.place(line)}: expected a subset of {', '.join(SUBSETS)}, found '{row['subset']}'")
        where = index.get(row["image_id"])
        if where is None:
            unknown += 1
        elif not manifest.rows[where]["label"]:
            unlabelled += 1
        else:
            folds[row.get("repeat") or "0", row.get("fold") or "0"][row["subset"]].append(where)
    if unknown:
        settings.report.say(f"{path}: {unknown} rows name images that the manifest does not hold; left out")
    if unlabelled:
        settings.report.warn(f"{path}: {unlabelled} rows name images without a label; left out")
    classes = manifest.classes()
    for (repeat, fold), subsets in folds.items():
        present = {manifest.rows[i]["label"] for i in subsets["train"]}
        absent = [name for name in classes if name not in present]
        if absent:
            raise InputError(
                f"{path}: fold {runs.fold_name(repeat, fold)} has no training image of class '{absent[0]}'",
                "split the manifest anew: `cxrtool split` keeps every class on every side",
            )
    if not folds:
        raise InputError(f"{path}: expected rows that assign images to subsets, found none")
    if len(classes) < 2:
        raise InputError(
            f"{manifest.name}: expected at least two classes in the column 'label', found {len(classes)}",
            "`cxrtool prepare` takes the class from the folder's name, or from --label-column",
        )
    return [Assignment(repeat, fold, subsets) for (repeat, fold), subsets in folds.items()]


def check_leakage(manifest: Manifest, assignments: Sequence[Assignment], settings: Settings) -> None:
    """Refuse splits that put a patient, or one and the same picture, on both sides.

    Raises:
        LeakageError: They do, and `--allow-leakage` was not given.
    """
    for assignment in assignments:
        seen = [i for name in ("train", "validation") for i in assignment.subsets[name]]
        for column, what in (("patient_id", "patient"), ("sha256", "picture")):
            known = {normal for i in seen if (normal := manifest.rows[i].get(column, "").strip().casefold())}
            for i in assignment.subsets["test"]:
                value = manifest.rows[i].get(column, "")
                if value.strip().casefold() not in known or not value.strip():
                    continue
                text = (
                    f"fold {assignment.name}: the {what} {value[:24]} of test image {manifest.rows[i]['image_id']} "
                    "is among the training images too"
                )
                if not settings.allow_leakage:
                    raise LeakageError(
                        text, "`cxrtool split` keeps patients and duplicates together; or --allow-leakage"
                    )
                settings.report.warn(text)
                break
