"""Which image is on which side: the subsets of each fold, what a model was fitted on, and the checks for leakage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.data.digests import check, is_of_step
from cxrtool.data.file_names import FITTED_ON, SPLITS
from cxrtool.data.files import is_stream, no_such
from cxrtool.data.splitting.grouping import PATIENT, hashed
from cxrtool.data.splitting.splits import SUBSETS, Splits, known_as, overlaps, read_splits, row_digest, valid_in
from cxrtool.data.tables.manifest import Manifest, Row, read_table
from cxrtool.data.tables.views import RowView
from cxrtool.errors import ChangedError, InputError, LeakageError, count_of
from cxrtool.flow import run as runs
from cxrtool.flow.settings import Settings
from cxrtool.models.onnx_file import is_exported, read_seen

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Assignment:
    """One fold of the splits: the indices in the manifest of the labelled images of each subset."""

    repeat: str
    fold: str
    subsets: dict[str, list[int]]

    @property
    def name(self) -> str:
        """Its folder."""
        return runs.fold_name(self.repeat, self.fold)

    def seed(self, seed: int) -> int:
        """The seed of the fold, from that of the command, so that a fold can be trained alone."""
        digest = hashlib.blake2b(f"{seed} {self.name}".encode(), digest_size=7).digest()
        return int.from_bytes(digest, "big")


def splits_file(path: Path) -> Path:
    """The splits file of `--splits`, which may be a file, a run or a stream; an `InputError` where there is none."""
    file = path / SPLITS if path.is_dir() else path
    if not is_stream(file) and not file.exists():
        raise InputError(no_such(file), "`cxrtool split MANIFEST -o splits.csv` writes one")
    return file


def read_assignments(
    path: Path, manifest: Manifest, settings: Settings, *, divided: Manifest | None = None, column: str = "label"
) -> list[Assignment]:
    """Read the splits of a manifest; ids that are not in the manifest are excluded with a count.

    Where the labels are from another `column`, `divided` is the manifest with the labels that it had when it was
    divided.

    An image that was made from another is in the subset of that one; an image that was made for one fold is only in
    this fold. If images were made fold by fold, folds without any are excluded with a count.

    Raises:
        InputError: The splits are not readable, or a fold cannot be trained: a class has no training image, or the
            manifest has fewer than two classes.
        LeakageError: A patient or an image is in more than one subset, and `--allow-leakage` was not given.
    """
    manifest.require("label")
    classes = manifest.classes()
    if len(classes) < 2:
        raise InputError(
            f"{manifest.name}: expected at least two classes in the column '{column}', found {len(classes)}",
            "`cxrtool prepare` reads the class from the name of the folder, or from a column (--columns label=COLUMN)",
        )
    splits = read_splits(path)
    ids = splits.ids()
    named = dict.fromkeys(ids, "")
    known = {name: row for row in manifest.rows if (name := known_as(row, named))}
    unknown = len(ids - known.keys())
    unlabelled = sum(1 for row in known.values() if not row["label"])
    if unknown:
        text = f"{unknown} of its {count_of(len(ids), 'image')} are not in {manifest.name}; excluded"
        settings.report.say(f"{splits.name}: {text}")
    if unlabelled:
        settings.report.warn(f"{splits.name}: {unlabelled} of its images have no {column}; excluded")
    report_changes(splits, (divided or manifest).rows, settings)
    assignments, without = [], []
    for (repeat, fold), placed in splits.runs.items():
        subsets: dict[str, list[int]] = {name: [] for name in SUBSETS}
        # In the order of the manifest, so that the order of the splits file does not matter.
        for index, row in enumerate(manifest.rows):
            if row["label"] and valid_in(row, (repeat, fold)) and (name := known_as(row, placed)):
                subsets[placed[name]].append(index)
        assignment = Assignment(repeat, fold, subsets)
        if not any(subsets.values()) and any(row.get("repeat") for row in manifest.rows):
            without.append(assignment.name)
            continue
        used = [i for indices in subsets.values() for i in indices]
        refuse_twice(manifest, used, placed, assignment.name, "train on one kind of images at a time")
        present = {manifest.rows[i]["label"] for i in subsets["train"]}
        absent = [name for name in classes if name not in present]
        if absent:
            raise InputError(
                f"{splits.name}: fold {assignment.name} has no training image of class '{absent[0]}'",
                "split this manifest again: `cxrtool split` puts every class into every subset"
                + ("" if column == "label" else f" with --stratify {column}"),
            )
        check_sides(manifest, placed, assignment.name, settings)
        assignments.append(assignment)
    if not assignments:
        raise InputError(
            f"{manifest.name}: its images were made for other folds than the {len(without)} of {splits.name}",
            "use the splits with which they were made",
        )
    if without:
        text = (
            f"no images were made for {len(without)} of "
            f"{count_of(len(splits.runs), 'fold')}, such as {without[0]}; excluded"
        )
        settings.report.warn(f"{manifest.name}: {text}")
    return assignments


def report_changes(splits: Splits, rows: Sequence[Row], settings: Settings) -> None:
    """Report images that were added to a manifest, or whose label or patient was changed, after it was divided."""
    named = dict.fromkeys(splits.ids(), "")
    added, changed = [], []
    for row in rows:
        name = known_as(row, named)
        if not name and row.get("label"):
            added.append(row["image_id"])
        # The label of a twin is not that of its radiograph.
        elif name and not row.get("generator") and splits.row_digests.get(name, digest := row_digest(row)) != digest:
            changed.append(row["image_id"])
    if added:
        text = f"{count_of(len(added), 'image')} of the manifest, such as {added[0]}, not in any fold; excluded"
        settings.report.say(f"{splits.name}: {text}")
    if changed:
        settings.report.warn(
            f"{splits.name}: the label or patient_id of {count_of(len(changed), 'image')}, such as {changed[0]}, was "
            "changed after the division; `cxrtool split` divides the images as they are now"
        )


def refuse_twice(manifest: Manifest, indices: Iterable[int], placed: Mapping[str, str], fold: str, hint: str) -> None:
    """Raise an `InputError` if a radiograph is listed twice in a fold, such as an enhanced version and the original.

    Twins of one radiograph from different generators are allowed.
    """
    seen: dict[str, dict[str, str]] = {}
    for index in indices:
        row = manifest.rows[index]
        made, known = row.get("generator", ""), seen.setdefault(known_as(row, placed), {})
        other = next((name for by, name in known.items() if by == made or not (by and made)), None)
        known[made] = row["image_id"]
        if other is not None:
            raise InputError(
                f"{manifest.name}: '{other}' and '{row['image_id']}' are the same radiograph, and both are in fold "
                f"{fold}",
                f"{hint}; `cxrtool select --where` selects them",
            )


def changed_pixels(row: RowView, digest: str) -> ChangedError | None:
    """The error of an image whose pixels, of this digest, are not those of its row; None if they are, or not known.

    Only of an image outside of the folders of steps. A step keeps the digest of the radiograph whatever it does to its
    pixels; its files are checked by their own digests when they are read.
    """
    expected = row.get("sha256", "").lower()
    if not expected or not digest or expected == digest or is_of_step(Path(row["path"])):
        return None
    return ChangedError(
        f"{row['path']}: expected the pixels of '{row['image_id']}' (sha256 {expected[:12]}), found others "
        f"({digest[:12]})",
        "the image was changed or exchanged after its table was made: let `cxrtool prepare` read the images again",
    )


def check_read(row: RowView, pixels: np.ndarray) -> None:
    """Raise a `ChangedError` if the pixels that were read are not those of the row; for a worker process."""
    if row.get("sha256") and not is_of_step(Path(row["path"])):
        from cxrtool.imaging.hashing import pixel_sha256

        if (error := changed_pixels(row, pixel_sha256(pixels))) is not None:
            raise error


def check_pixels(manifest: Manifest, digests: Sequence[str]) -> None:
    """Raise a `ChangedError` where the pixels of an image are not those of its row; empty digests are not compared."""
    found = [
        error for row, digest in zip(manifest.rows, digests, strict=True) if (error := changed_pixels(row, digest))
    ]
    if found:
        more = f"; so are {len(found) - 1} more of {count_of(len(digests), 'image')}" if len(found) > 1 else ""
        raise ChangedError(found[0].message + more, found[0].hint)


def check_equal(manifest: Manifest, digests: Sequence[str], assignment: Assignment, settings: Settings) -> None:
    """Refuse a fold with equal pixels in two subsets: a `LeakageError` or, if allowed, a warning.

    Args:
        manifest: The images.
        digests: Of their pixels as they were decoded, whatever the manifest says; empty where that failed.
        assignment: The subsets of the fold.
        settings: With `--allow-leakage`.
    """
    first: dict[str, tuple[str, int]] = {}
    equal: list[tuple[tuple[str, int], tuple[str, int]]] = []
    for subset, indices in assignment.subsets.items():
        for index in indices:
            if digests[index]:
                known = first.setdefault(digests[index], (subset, index))
                if known[0] != subset:
                    equal.append((known, (subset, index)))
    if not equal:
        return
    (one, i), (other, j) = equal[0]
    name = [manifest.rows[index]["image_id"] for index in (j, i)]
    text = (
        f"{manifest.name}: fold {assignment.name}: {count_of(len(equal), 'image has', 'images have')} the same pixels "
        f"as one in another subset, such as '{name[0]}' ({other}) and '{name[1]}' ({one})"
    )
    if not settings.allow_leakage:
        raise LeakageError(
            text,
            "let `cxrtool prepare` read the images again, then `cxrtool split` keeps equal ones together; "
            "--allow-leakage uses them as they are",
        )
    settings.report.warn(text)


def check_sides(manifest: Manifest, placed: dict[str, str], fold: str, settings: Settings) -> None:
    """Refuse a fold with a patient or image in two subsets: a `LeakageError` or, if allowed, a warning."""
    groups = overlaps(manifest.rows, placed)
    if not groups:
        return
    first: Sequence[str] = [row["image_id"] for row in groups[0]]
    leaks = count_of(len(groups), "patient or duplicate image is", "patients or duplicate images are")
    text = f"fold {fold}: {leaks} in more than one subset, such as the images {', '.join(first[:3])}"
    if not settings.allow_leakage:
        raise LeakageError(text, "`cxrtool split` keeps them together; --allow-leakage trains nevertheless")
    settings.report.warn(text)


def fitted_on(model: Path) -> list[Row] | None:
    """The images that a model folder or an ONNX file was fitted on; None where that is not known."""
    if is_exported(model):
        return read_seen(model)
    # One that was removed would leave the guard blind.
    check(model / FITTED_ON)
    return read_table(model / FITTED_ON).rows if (model / FITTED_ON).is_file() else None


OWN_PREDICTIONS = "for the images of a run, use its own predictions.csv files; --allow-leakage predicts anyway"


@dataclass
class Seen:
    """The images (by digest) and patients (`hashed`) of some `fitted_on.csv`, each with the name of its folder."""

    images: dict[str, str]
    patients: dict[str, str]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Seen:
        """Read the `fitted_on.csv` of every model folder or ONNX file that has one."""
        seen = cls({}, {})
        for folder in folders:
            if (rows := fitted_on(folder)) is not None:
                for row in rows:
                    seen.images.setdefault(row.get("sha256", "").lower(), folder.name)
                    seen.patients.setdefault(hashed(row.get(PATIENT, "")), folder.name)
        seen.images.pop("", None)
        seen.patients.pop("", None)
        return seen

    def by(self, row: RowView) -> str | None:
        """The folder whose model or part was fitted on a row's image or patient, or None."""
        image, patient = row.get("sha256", "").lower(), hashed(row.get(PATIENT, ""))
        return self.images.get(image) or self.patients.get(patient)

    def refuse(self, rows: Sequence[RowView], settings: Settings, hint: str = OWN_PREDICTIONS) -> None:
        """Refuse rows whose image or patient a model was fitted on: a `LeakageError` or, if allowed, a warning."""
        found = [(row["image_id"], folder) for row in rows if (folder := self.by(row))]
        if not found:
            return
        example = f"{found[0][0]} in {found[0][1]}"
        text = (
            f"{len(found)} of {count_of(len(rows), 'image')}, or "
            f"their patients, were used in training, such as {example}"
        )
        if not settings.allow_leakage:
            raise LeakageError(text, hint)
        settings.report.warn(text)
