"""Divide patients into training, validation and test.

Images of one patient, images derived from one another (parent_id) and identical images (sha256) stay together.
Classes and severities are spread evenly. The order of rows does not matter. Without -o, splits.csv is written to
standard output; images, patients and classes of every subset are shown on standard error. The column made_by records
this command line, for the methods text of report.

With --within no image changes sides. So a network that is trained on a balanced part of the images of another
network has seen none of its test images. The same images are drawn with and without --keep. --exclude with --keep test
leaves a part of the images out of training alone: two networks are then tested on the same images.

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
from cxrtool.data.splitting.made_by import PIPE, command_line
from cxrtool.data.splitting.splits import (
    SUBSETS,
    SYNONYMS,
    Run,
    Splits,
    from_column,
    known_as,
    overlaps,
    read_splits,
    split_rows,
    tabulate,
    with_records,
)
from cxrtool.data.tables.labels import warn_of_spellings
from cxrtool.data.tables.manifest import Manifest, dump_table, read_manifest, write_table
from cxrtool.data.tables.selection import Selection, exclude
from cxrtool.data.tables.views import Columns, RowView
from cxrtool.errors import InputError, LeakageError, UsageError, count_of
from cxrtool.flow import common_options
from cxrtool.flow.chain import is_divided
from cxrtool.flow.folder import touch
from cxrtool.flow.replacing import check_file, is_splits
from cxrtool.flow.run import fold_name
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, declared, exactly_one, flag_of, one_of, option

VALIDATION = 0.1
"""Share of the training images kept for validation in folds: early stopping on test images gives results too good."""

STRATA = ("label", "severity")

WAYS = ("holdout", "folds", "leave_out", "from_column", "within")

UNUSED = {
    "leave_out": {"repeats"},
    "from_column": {"repeats", "validation", "group", "stratify", "seed"},
    "within": {"repeats", "validation", "group", "stratify"},
}
"""Options that do not affect the result of a way to divide."""


@dataclass(frozen=True)
class SplitOptions(Options):
    """The options of `split`; exactly one of the five ways to divide is given."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", "allow_leakage", "root", "force", "dry_run", "quiet", "config")
    WRITES_FILE: ClassVar[bool] = True

    manifest: Path = common_options.manifest()
    holdout: str | None = option("One division: 60/20/20, or 80/20.", None, metavar="SHARES", shown="")
    folds: int | None = option("Cross-validation with this number of folds.", None, minimum=2, shown="")
    leave_out: str | None = option(
        "One fold for each value of this column, which is the test set.", None, metavar="COLUMN", shown=""
    )
    from_column: str | None = option("The column of subsets.", None, metavar="COLUMN", shown="")
    within: Path | None = option("Thin out this division; see --equal and --exclude.", None, metavar="SPLITS", shown="")
    equal: str | None = option(
        "With --within: keep as many images of each value as the rarest value has in each fold and subset.",
        None,
        metavar="COLUMN",
        shown="",
    )
    exclude: tuple[str, ...] = option(
        "With --within: leave out images with this value, in any case; refused where none has it; repeatable.",
        (),
        metavar="COLUMN=VALUE",
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
    """The rows of `splits.csv`, how they were made, and a summary: images, patients and classes of every subset."""

    rows: Columns
    made_by: list[str]
    images: Sequence[RowView]
    columns: list[str]
    table: list[list[str]]
    warnings: list[str] = field(default_factory=list)

    def whole(self) -> Columns:
        """The rows with the columns of how they were made."""
        return with_records(self.rows, self.made_by, self.images)

    def text(self) -> str:
        """The content of `splits.csv`."""
        whole = self.whole()
        return dump_table(list(whole.cells), whole)


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
    warnings += filter(None, [warn_of_spellings(manifest.column("label"))])
    images = _labelled(manifest, warnings)
    base = read_splits(options.within) if options.within else None
    runs, names = _divide(options, settings, images, base, warnings)
    made_by = _made_by(options, settings, images, base)
    summary = tabulate(images, runs, options.group, names)
    result = SplitResult(split_rows(runs), made_by, images.records, *summary, warnings)
    warnings += _missing_classes(images, runs, options.equal or "label")
    if settings.out and settings.dry_run:
        settings.report.say(f"would write {settings.out}: {count_of(len(result.rows), 'row')}")
    elif settings.out:
        check_file(settings.out, is_splits, [manifest, options.manifest, options.within], settings)
        _write(settings.out, result, [path for path in (manifest.origin, options.within) if path is not None])
    return result


def _write(out: Path, result: SplitResult, inputs: Sequence[Path]) -> None:
    """Write the file; an identical file is not rewritten, so that Make does not repeat later steps."""
    whole = result.whole()
    if write_table(out, list(whole.cells), whole, keep=True):
        return
    files = [path / SPLITS if path.is_dir() else path for path in inputs]
    if any(path.exists() and out.stat().st_mtime < path.stat().st_mtime for path in files):
        touch(out)


def _made_by(options: SplitOptions, settings: Settings, images: Manifest, base: Splits | None) -> list[str]:
    """The command line with its defaults and without paths; after that of the division which was thinned out."""
    values = {name: getattr(options, name) for name, (_, known) in declared(SplitOptions).items() if not known.argument}
    way = next(name for name in WAYS if values[name] is not None)
    values["stratify"] = ",".join(_strata(options, images)) or None
    values["validation"] = (options.validation or None) if options.holdout else _validation(options)
    values["seed"] = settings.seed
    if base is not None:
        values |= {"within": "-", "keep": ",".join(_kept(options)) or None}
    own = command_line({name: value for name, value in values.items() if name not in UNUSED.get(way, ())})
    return [f"{line} {PIPE} {own}" for line in base.made_by] if base and base.made_by else [own]


def _check(options: SplitOptions) -> None:
    ways = {flag_of(name): getattr(options, name) for name in WAYS}
    given = exactly_one(ways, "for five folds: --folds 5; for one division: --holdout 60/20/20")
    if options.repeats > 1 and not (options.holdout or options.folds):
        raise UsageError(f"--repeats: expected --holdout or --folds, found {given}, which does not draw")
    if options.validation is not None and not 0 <= options.validation < 1:
        raise UsageError(f"--validation: expected a share from 0 to below 1, found {options.validation:g}")
    if options.validation and options.from_column:
        raise UsageError("--validation: with --from-column the subsets are given by the column")
    if options.within is None:
        for name in ("equal", "keep", "exclude"):
            if getattr(options, name):
                raise UsageError(f"{flag_of(name)}: expected --within SPLITS too, found none")
        return
    if options.equal is None and not options.exclude:
        raise UsageError("--within: expected --equal COLUMN or --exclude too", "for instance --equal label")
    unfit = {"--validation": options.validation is not None, "--stratify": options.stratify is not None}
    for name, given_too in unfit.items():
        if given_too:
            raise UsageError(f"{name}: with --within the subsets are given by that split")


def _patient_warnings(manifest: Manifest, group: str) -> list[str]:
    empty = sum(not cell.strip() for cell in manifest.column(group))
    if not len(manifest):
        raise InputError(
            f"{manifest.name}: expected images to divide, found none", "`cxrtool info` shows what a step excluded"
        )
    if empty == len(manifest):
        return [f"no {group} in {manifest.name}: every image counts as a separate patient"]
    return (
        [f"{empty} of {count_of(len(manifest), 'image')} have no {group}; each counts as a separate patient"]
        if empty
        else []
    )


def _labelled(manifest: Manifest, warnings: list[str]) -> Manifest:
    labelled = [name for name, label in zip(*map(manifest.column, ("image_id", "label")), strict=True) if label]
    if not labelled:
        warnings.append("no image has a label: only the number of images is balanced")
        return manifest
    if len(labelled) < len(manifest):
        without = len(manifest) - len(labelled)
        warnings.append(f"{count_of(without, 'image without a label is', 'images without a label are')} excluded")
    return manifest.subset(labelled)


def _divide(
    options: SplitOptions, settings: Settings, manifest: Manifest, base: Splits | None, warnings: list[str]
) -> tuple[dict[Run, dict[str, str]], dict[Run, str]]:
    if options.from_column:
        manifest.require(options.from_column)
        subsets = from_column(manifest.records, options.from_column, manifest.place)
        _check_overlaps(options, settings, manifest, subsets, warnings)
        return {("0", "0"): subsets}, {}
    if base is not None:
        return _thin_out(options, settings, manifest, base, warnings), {}
    divider = Divider(manifest.records, options.group, _strata(options, manifest), settings.seed)
    runs: dict[Run, dict[str, str]] = {}
    validation = _validation(options)
    if options.leave_out:
        manifest.require(options.leave_out)
        missing = sum(not cell for cell in manifest.column(options.leave_out))
        if missing:
            warnings.append(f"{count_of(missing, 'image')} without a {options.leave_out}: only used for training")
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


def _strata(options: SplitOptions, manifest: Manifest) -> list[str]:
    strata = [name.strip() for name in (options.stratify or "").split(",") if name.strip()]
    manifest.require(*strata)
    return strata or [name for name in STRATA if name in manifest.columns]


def _validation(options: SplitOptions) -> float:
    return VALIDATION if options.validation is None else options.validation


def _kept(options: SplitOptions) -> list[str]:
    kept = [SYNONYMS.get(name.strip().casefold(), name) for name in (options.keep or "").split(",") if name.strip()]
    for name in kept:
        one_of("--keep", name, SUBSETS)
    return kept


def _thin_out(
    options: SplitOptions, settings: Settings, manifest: Manifest, splits: Splits, warnings: list[str]
) -> dict[Run, dict[str, str]]:
    """The split of `--within` without `--exclude`, and with as many images of each value of `--equal` in a subset."""
    column = options.equal or ""
    manifest.require(*filter(None, [column]))
    known = dict.fromkeys(splits.ids(), "")
    # Without --equal, all images count as one value.
    values = {known_as(row, known): row.get(column, "") if column else "any" for row in manifest.records}
    values.pop("", None)
    if not values:
        raise InputError(f"{splits.name}: expected images of {manifest.name}, found none of its {len(known)}")
    if len(values) < len(known):
        warnings.append(
            f"{count_of(len(known) - len(values), 'image')} of {splits.name} not in {manifest.name}: excluded"
        )
    if empty := sum(not value for value in values.values()):
        warnings.append(f"{count_of(empty, 'image')} with an empty {column}: in no subset that is thinned out")
    kept, dropped = _kept(options), _excluded(options, manifest, known)
    runs = {
        run: {name: subset for name, subset in subsets.items() if subset in kept or name not in dropped}
        for run, subsets in splits.runs.items()
    }
    return equalise(runs, values, kept, settings.seed)


def _excluded(options: SplitOptions, manifest: Manifest, known: Mapping[str, str]) -> set[str]:
    """The ids, as the splits know them, of the images that `--exclude` names."""
    if not options.exclude:
        return set()
    selection = Selection.of_frame(manifest.frame)
    for text in options.exclude:
        exclude(selection, text)
    left = set(selection.column("image_id"))
    return {known_as(row, known) for row in manifest.records if row["image_id"] not in left}


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
        warnings.append(f"{count_of(missing, 'image')} with an empty {options.from_column}: in no subset")
    found = overlaps(manifest.records, subsets, options.group)
    if not found:
        return
    first = next(row for row in found[0] if row["image_id"] in subsets)
    shown = first.get(options.group) or first["image_id"]
    text = (
        f"{options.from_column}: {count_of(len(found), 'patient is', 'patients are')} "
        f"in more than one subset, such as '{shown}'"
    )
    if not settings.allow_leakage:
        raise LeakageError(text, "divide again with --folds or --holdout, or accept this with --allow-leakage")
    warnings.append(text)


def _missing_classes(manifest: Manifest, runs: Mapping[Run, Mapping[str, str]], column: str) -> list[str]:
    cells = manifest.column(column)
    known = sorted(set(cells) - {""})
    labels = dict(zip(manifest.column("parent_id"), cells, strict=True))
    labels |= zip(manifest.column("image_id"), cells, strict=True)
    absent: dict[tuple[str, str], list[str]] = {}
    for run, subsets in runs.items():
        present = {(subset, labels[identity]) for identity, subset in subsets.items()}
        for subset in SUBSETS:
            if not any(subset == other for other, _ in present):
                continue
            for label in known:
                if (subset, label) not in present:
                    absent.setdefault((subset, label), []).append(fold_name(*run))
    same: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (subset, label), folds in absent.items():
        same.setdefault((subset, tuple(folds)), []).append(label)
    return [
        f"{subset} of {', '.join(folds[:5])}{' …' if len(folds) > 5 else ''} has no image of {', '.join(labels)}"
        for (subset, folds), labels in same.items()
    ]
