"""Which image is trained on, validated on and tested in each fold, and whether that is honest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.splitting.splits import FILE_NAME as SPLITS
from cxrtool.data.splitting.splits import SUBSETS, known_as, overlaps, read_splits, valid_in
from cxrtool.data.tables.manifest import Manifest
from cxrtool.errors import InputError, LeakageError
from cxrtool.flow import run as runs
from cxrtool.flow.settings import Settings


@dataclass(frozen=True)
class Assignment:
    """One fold of the splits.

    Attributes:
        repeat: As it stands in the splits.
        fold: As it stands in the splits.
        subsets: Places in the manifest of the labelled images of each subset.
    """

    repeat: str
    fold: str
    subsets: dict[str, list[int]]

    @property
    def name(self) -> str:
        """Its folder."""
        return runs.fold_name(self.repeat, self.fold)

    def seed(self, seed: int) -> int:
        """The fold's own seed, from that of the command, so that any one of the folds can be trained alone."""
        digest = hashlib.blake2b(f"{seed} {self.name}".encode(), digest_size=7).digest()
        return int.from_bytes(digest, "big")


def splits_file(path: Path) -> Path:
    """The splits that `--splits` names by a file, or by a run that has them."""
    return path / SPLITS if path.is_dir() else path


def read_assignments(path: Path, manifest: Manifest, settings: Settings) -> list[Assignment]:
    """Read splits against a manifest; ids that the manifest lacks are ignored with a count.

    An image that was made of another goes where the splits put that one, and what was made for a fold into it alone.
    Folds for which none was made, where the images were made fold by fold, are left out with a count.

    Raises:
        InputError: The splits are not readable, or a fold cannot be trained: a class has no training image, or the
            manifest has fewer than two classes.
        LeakageError: A patient or a picture is on two sides, and `--allow-leakage` was not given.
    """
    manifest.require("label")
    classes = manifest.classes()
    if len(classes) < 2:
        raise InputError(
            f"{manifest.name}: expected at least two classes in the column 'label', found {len(classes)}",
            "`cxrtool prepare` takes the class from the folder's name, or from --label-column",
        )
    splits = read_splits(path)
    ids = splits.ids()
    known = {name: row for row in manifest.rows if (name := known_as(row, dict.fromkeys(ids, "")))}
    unknown = len(ids - known.keys())
    unlabelled = sum(1 for row in known.values() if not row["label"])
    if unknown:
        settings.report.say(f"{splits.name}: {unknown} of its {len(ids)} images are not in {manifest.name}; left out")
    if unlabelled:
        settings.report.warn(f"{splits.name}: {unlabelled} of its images have no label; left out")
    assignments, without = [], []
    for (repeat, fold), placed in splits.runs.items():
        subsets: dict[str, list[int]] = {name: [] for name in SUBSETS}
        # In the manifest's order, so that a splits file whose rows were shuffled gives the same run.
        for index, row in enumerate(manifest.rows):
            if row["label"] and valid_in(row, (repeat, fold)) and (name := known_as(row, placed)):
                subsets[placed[name]].append(index)
        assignment = Assignment(repeat, fold, subsets)
        if not any(subsets.values()) and any(row.get("repeat") for row in manifest.rows):
            without.append(assignment.name)
            continue
        _check_single(manifest, assignment, placed)
        present = {manifest.rows[i]["label"] for i in subsets["train"]}
        absent = [name for name in classes if name not in present]
        if absent:
            raise InputError(
                f"{splits.name}: fold {assignment.name} has no training image of class '{absent[0]}'",
                "split this manifest anew: `cxrtool split` keeps every class on every side",
            )
        check_sides(manifest, placed, assignment.name, settings)
        assignments.append(assignment)
    if not assignments:
        raise InputError(
            f"{manifest.name}: its images were made for other folds than the {len(without)} of {splits.name}",
            "give the splits by which they were made",
        )
    if without:
        settings.report.warn(
            f"{manifest.name}: no images were made for {len(without)} of {len(splits.runs)} folds, such as {without[0]}; "
            "left out"
        )
    return assignments


def _check_single(manifest: Manifest, assignment: Assignment, placed: dict[str, str]) -> None:
    """Refuse a fold in which one radiograph stands twice, such as its enhanced version beside the original.

    What different generators made of it may stand beside each other.

    Raises:
        InputError: There is one.
    """
    seen: dict[str, dict[str, str]] = {}
    for indices in assignment.subsets.values():
        for index in indices:
            row = manifest.rows[index]
            made, known = row.get("generator", ""), seen.setdefault(known_as(row, placed), {})
            other = next((name for by, name in known.items() if by == made or not (by and made)), None)
            known[made] = row["image_id"]
            if other is not None:
                raise InputError(
                    f"{manifest.name}: '{other}' and '{row['image_id']}' are the same radiograph, and both are in fold "
                    f"{assignment.name}",
                    "train on one kind of images at a time; `cxrtool select --where` chooses them",
                )


def check_sides(manifest: Manifest, placed: dict[str, str], fold: str, settings: Settings) -> None:
    """Refuse a fold that has a patient, or one and the same picture, on two sides.

    Raises:
        LeakageError: It has, and `--allow-leakage` was not given.
    """
    groups = overlaps(manifest.rows, placed)
    if not groups:
        return
    first: Sequence[str] = [row["image_id"] for row in groups[0]]
    text = (
        f"fold {fold}: {len(groups)} patients or duplicated pictures are in more than one subset, "
        f"such as the images {', '.join(first[:3])}"
    )
    if not settings.allow_leakage:
        raise LeakageError(text, "`cxrtool split` keeps them together; --allow-leakage trains all the same")
    settings.report.warn(text)
