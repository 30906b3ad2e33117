"""Divide patients into training, validation and test.

Images of one patient, images derived from one another (parent_id) and identical images (sha256) stay together.
Classes and severities are spread evenly. The order of rows does not matter. Without -o, splits.csv is written to
standard output; images, patients and classes of every subset are shown on standard error.

With --within no image changes sides. So a network that is trained on a balanced part of the images of another
network has seen none of its test images. The same images are drawn with and without --keep.

Example: cxrtool split prepared --folds 5 --repeats 5 -o splits.csv
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from cxrtool.data.file_names import SPLITS
from cxrtool.data.splitting.divider import Divider, equalise, parse_holdout
from cxrtool.data.splitting.grouping import PATIENT
from cxrtool.data.splitting.splits import (
    COLUMNS,
    SUBSETS,
    SYNONYMS,
    Run,
    from_column,
    known_as,
    overlaps,
    read_splits,
    split_rows,
    tabulate,
)
from cxrtool.data.tables.manifest import Manifest, Row, dump_table, read_manifest, write_table
from cxrtool.errors import InputError, LeakageError, UsageError
from cxrtool.flow import common_options
from cxrtool.flow.chain import is_divided
from cxrtool.flow.folder import check_file, touch
from cxrtool.flow.run import fold_name
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, one_of, option

VALIDATION = 0.1
"""Share of the training images kept for validation in folds: early stopping on test images gives results too good."""

STRATA = ("label", "severity")


@dataclass(frozen=True)
class SplitOptions(Options):
    """The options of `split`; exactly one of the five ways to divide is given."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", "allow_leakage", "root", "force", "dry_run", "quiet", "config")

    manifest: Path = common_options.manifest()
    holdout: str | None = option("One division: 60/20/20, or 80/20.", None, metavar="SHARES", shown="")
    folds: int | None = option("Cross-validation with this number of folds.", None, minimum=2, shown="")
    leave_out: str | None = option(
        "One fold for each value of this column, which is the test set.", None, metavar="COLUMN", shown=""
    )
    from_column: str | None = option("The column of subsets.", None, metavar="COLUMN", shown="")
    within: Path | None = option("Thin out this division; see --equal.", None, metavar="SPLITS", shown="")
    equal: str | None = option(
        "With --within: keep as many images of each value as the rarest value has in each fold and subset.",
        None,
        metavar="COLUMN",
        shown="",
    )
    keep: str | None = option("With --within: subsets that stay whole.", None, metavar="SUBSETS", shown="")
    repeats: int = option("Number of divisions to draw.", 1, minimum=1)
    validation: float | None = option(
        "Share of the training images kept for validation.", None, shown=f"{VALIDATION} with folds"
    )
    group: str = option("Images with the same value of this column stay together.", PATIENT, metavar="COLUMN")
    stratify: str | None = option(
        "Columns to balance, each within those before it.", None, metavar="COLUMNS", shown=",".join(STRATA)
    )


def run(options: SplitOptions, settings: Settings) -> None:
    """Split, show a summary, and print the splits where no file is written."""
    result = split(options, settings)
    settings.report.say(settings.output.aligned(result.columns, result.table))
    for text in result.warnings:
        settings.report.warn(text)
    if settings.out is None:
        settings.output.write(result.text())


@dataclass
class SplitResult:
    """The rows of `splits.csv`, and a summary table: images, patients and classes of every subset."""

    rows: list[Row]
    columns: list[str]
    table: list[list[str]]
    warnings: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The content of `splits.csv`."""
        return dump_table(COLUMNS, self.rows)


def split(options: SplitOptions, settings: Settings) -> SplitResult:
    """Divide the images and write `splits.csv` where `-o` names a file.

    Raises:
        UsageError: Not exactly one way to divide, or options that exclude one another.
        InputError: The manifest cannot be divided in this way.
        LeakageError: `--from-column` has a patient on two sides, and leakage is not allowed.
    """
    _check(options)
    manifest = read_manifest(options.manifest, root=settings.root)
    if is_divided(manifest):
        raise InputError(
            f"{manifest.name}: expected original images, found images that were made for the folds of a split",
            "they belong to that split; for another one, divide the original manifest and enhance it again",
        )
    if options.group != PATIENT:
        manifest.require(options.group)
    warnings = _patient_warnings(manifest, options.group)
    images = _labelled(manifest, warnings)
    runs, names = _divide(options, settings, images, warnings)
    result = SplitResult(split_rows(runs), *tabulate(images, runs, options.group, names), warnings)
    warnings += _missing_classes(images, runs, options.equal or "label")
    if settings.out and settings.dry_run:
        settings.report.say(f"would write {settings.out}: {len(result.rows)} rows")
    elif settings.out:
        _write(settings.out, result, [path for path in (manifest.origin, options.within) if path is not None], settings)
    return result


def _write(out: Path, result: SplitResult, inputs: Sequence[Path], settings: Settings) -> None:
    """Write the file; an identical file is not rewritten, so that Make does not repeat later steps."""
    check_file(out, COLUMNS, inputs, settings, only=True)
    if out.is_file() and out.read_bytes() == result.text().encode():
        files = [path / SPLITS if path.is_dir() else path for path in inputs]
        if any(path.exists() and out.stat().st_mtime < path.stat().st_mtime for path in files):
            touch(out)
        return
    write_table(out, COLUMNS, result.rows)


def _check(options: SplitOptions) -> None:
    ways: dict[str, object] = {"--holdout": options.holdout, "--folds": options.folds, "--leave-out": options.leave_out}
    ways |= {"--from-column": options.from_column, "--within": options.within}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise UsageError(
            f"expected exactly one of --holdout, --folds, --leave-out, --from-column and --within, found {found}",
            "for five folds: --folds 5; for one division: --holdout 60/20/20",
        )
    if options.repeats > 1 and not (options.holdout or options.folds):
        raise UsageError(f"--repeats: expected --holdout or --folds, found {given[0]}, which does not draw")
    if options.validation is not None and not 0 <= options.validation < 1:
        raise UsageError(f"--validation: expected a share from 0 to below 1, found {options.validation:g}")
    if options.validation and options.from_column:
        raise UsageError("--validation: with --from-column the subsets are given by the column")
    if options.within is None:
        for name, value in (("--equal", options.equal), ("--keep", options.keep)):
            if value is not None:
                raise UsageError(f"{name}: expected --within SPLITS too, found none")
        return
    if options.equal is None:
        raise UsageError("--within: expected --equal COLUMN too", "for instance --equal label")
    unfit = {"--validation": options.validation is not None, "--stratify": options.stratify is not None}
    for name, given_too in unfit.items():
        if given_too:
            raise UsageError(f"{name}: with --within the subsets are given by that split")


def _patient_warnings(manifest: Manifest, group: str) -> list[str]:
    empty = sum(not cell.strip() for cell in manifest.column(group))
    if not manifest.rows:
        raise InputError(
            f"{manifest.name}: expected images to divide, found none", "`cxrtool info` shows what a step excluded"
        )
    if empty == len(manifest):
        return [f"no {group} in {manifest.name}: every image counts as a separate patient"]
    return [f"{empty} of {len(manifest)} images have no {group}; each counts as a separate patient"] if empty else []


def _labelled(manifest: Manifest, warnings: list[str]) -> Manifest:
    labelled = [row["image_id"] for row in manifest.rows if row.get("label")]
    if not labelled:
        warnings.append("no image has a label: only the number of images is balanced")
        return manifest
    if len(labelled) < len(manifest):
        warnings.append(f"{len(manifest) - len(labelled)} images without a label are excluded")
    return manifest.subset(labelled)


def _divide(
    options: SplitOptions, settings: Settings, manifest: Manifest, warnings: list[str]
) -> tuple[dict[Run, dict[str, str]], dict[Run, str]]:
    if options.from_column:
        manifest.require(options.from_column)
        subsets = from_column(manifest.rows, options.from_column, manifest.place)
        _check_overlaps(options, settings, manifest, subsets, warnings)
        return {("0", "0"): subsets}, {}
    if options.within:
        return _thin_out(options, settings, manifest, warnings), {}
    strata = [name.strip() for name in (options.stratify or "").split(",") if name.strip()]
    manifest.require(*strata)
    strata = strata or [name for name in STRATA if name in manifest.columns]
    divider = Divider(manifest.rows, options.group, strata, settings.seed)
    runs: dict[Run, dict[str, str]] = {}
    validation = VALIDATION if options.validation is None else options.validation
    if options.leave_out:
        manifest.require(options.leave_out)
        missing = sum(not cell for cell in manifest.column(options.leave_out))
        if missing:
            warnings.append(f"{missing} images without a {options.leave_out} are only used for training")
        parts = divider.leave_out(options.leave_out, validation)
        runs = {("0", str(fold)): subsets for fold, subsets in enumerate(parts.values())}
        return runs, {("0", str(fold)): value for fold, value in enumerate(parts)}
    for repeat in range(options.repeats):
        if options.folds:
            for fold, subsets in enumerate(divider.folds(options.folds, validation, repeat)):
                runs[str(repeat), str(fold)] = subsets
        else:
            runs[str(repeat), "0"] = divider.holdout(_shares(options), repeat)
    return runs, {}


def _thin_out(
    options: SplitOptions, settings: Settings, manifest: Manifest, warnings: list[str]
) -> dict[Run, dict[str, str]]:
    """The split of `--within`, with as many images of each value of `--equal` in every subset."""
    column = options.equal or ""
    manifest.require(column)
    splits = read_splits(options.within or "")
    known = dict.fromkeys(splits.ids(), "")
    values = {known_as(row, known): row.get(column, "") for row in manifest.rows}
    values.pop("", None)
    if not values:
        raise InputError(f"{splits.name}: expected images of {manifest.name}, found none of its {len(known)}")
    if len(values) < len(known):
        warnings.append(
            f"{len(known) - len(values)} images of {splits.name} are not in {manifest.name} and are excluded"
        )
    if empty := sum(not value for value in values.values()):
        warnings.append(f"{empty} images with an empty {column} are in no subset that is thinned out")
    kept = [SYNONYMS.get(name.strip().casefold(), name) for name in (options.keep or "").split(",") if name.strip()]
    for name in kept:
        one_of("--keep", name, SUBSETS)
    return equalise(splits.runs, values, kept, settings.seed)


def _shares(options: SplitOptions) -> dict[str, float]:
    shares = parse_holdout(options.holdout or "")
    if options.validation:
        if "validation" in shares:
            raise UsageError(f"--validation: --holdout {options.holdout} has a validation share already")
        train = shares["train"]
        shares = {"train": train * (1 - options.validation), "validation": train * options.validation} | {
            "test": shares["test"]
        }
    return shares


def _check_overlaps(
    options: SplitOptions, settings: Settings, manifest: Manifest, subsets: Mapping[str, str], warnings: list[str]
) -> None:
    if not subsets:
        raise InputError(f"{manifest.name}: expected subsets in '{options.from_column}', found only empty cells")
    if missing := len(manifest) - len(subsets):
        warnings.append(f"{missing} images with an empty {options.from_column} are in no subset")
    found = overlaps(manifest.rows, subsets, options.group)
    if not found:
        return
    first = next(row for row in found[0] if row["image_id"] in subsets)
    shown = first.get(options.group) or first["image_id"]
    text = f"{options.from_column}: {len(found)} patients are in more than one subset, such as '{shown}'"
    if not settings.allow_leakage:
        raise LeakageError(text, "divide again with --folds or --holdout, or accept this with --allow-leakage")
    warnings.append(text)


def _missing_classes(manifest: Manifest, runs: Mapping[Run, Mapping[str, str]], column: str) -> list[str]:
    labels = {row["parent_id"]: row.get(column, "") for row in manifest.rows if row.get("parent_id")}
    labels |= {row["image_id"]: row.get(column, "") for row in manifest.rows}
    absent: dict[tuple[str, str], list[str]] = {}
    for run, subsets in runs.items():
        present = {(subset, labels[identity]) for identity, subset in subsets.items()}
        for subset in SUBSETS:
            if subset not in subsets.values():
                continue
            for label in sorted(set(manifest.column(column)) - {""}):
                if (subset, label) not in present:
                    absent.setdefault((subset, label), []).append(fold_name(*run))
    same: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (subset, label), folds in absent.items():
        same.setdefault((subset, tuple(folds)), []).append(label)
    return [
        f"{subset} of {', '.join(folds[:5])}{' …' if len(folds) > 5 else ''} has no image of {', '.join(labels)}"
        for (subset, folds), labels in same.items()
    ]
