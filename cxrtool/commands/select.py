"""Choose, relabel, thin out or join the rows of manifests.

The options are applied in the order of this page. With -o FILE.csv or FILE.parquet the selection is written to a
file, with -o FOLDER to a folder that also lists the excluded rows with their reasons, without -o to standard output. In
--where every column is a name, text is in single quotes, and an empty cell in a column of numbers is NULL.

Example: cxrtool select prepared --where "view = 'PA' and age >= 18" --one-per patient_id -o adults.csv
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cxrtool.data.file_names import REJECTS
from cxrtool.data.tables.manifest import (
    Manifest,
    dump_table,
    is_file_of_table,
    order_columns,
    read_manifest,
    write_manifest,
)
from cxrtool.data.tables.selection import (
    Selection,
    concatenate,
    drop_duplicates,
    exclude,
    one_per,
    parse_per_class,
    parse_relabel,
    rate,
    relabel,
    sample,
    smallest_class,
)
from cxrtool.data.tables.where import choose_where
from cxrtool.errors import InputError, UsageError, count_of
from cxrtool.flow.chain import chain_of_manifest, is_divided
from cxrtool.flow.folder import Inputs, Plan, StepFolder, touch, without_paths
from cxrtool.flow.replacing import check_file, is_manifest_file, locked_output
from cxrtool.flow.settings import RUNNING, Settings
from cxrtool.options import Options, argument, option


@dataclass(frozen=True)
class SelectOptions(Options):
    """The options of `select`, which are applied in this order."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", "root", "verify", *RUNNING)

    manifests: tuple[Path, ...] = argument(
        "Manifests or folders of steps to join, or - for standard input.", metavar="MANIFEST...", effect=False
    )
    severity_from: str | None = option(
        "Make the severity of a column with an extent of 0 to 8, as means of raters: below 0.5 normal-pcr+, below 2.5 "
        "mild, below 5.5 moderate, else severe.",
        None,
        metavar="COLUMN",
        shown="",
    )
    where: str | None = option("Keep rows for which this SQLite expression holds.", None, metavar="SQL", shown="")
    exclude: tuple[str, ...] = option(
        "Exclude rows with this value, in any case; refused where no row has it; repeatable.",
        (),
        metavar="COLUMN=VALUE",
        shown="",
    )
    relabel: tuple[str, ...] = option("Rename or join labels; repeatable.", (), metavar="OLD,OLD=NEW", shown="")
    drop_duplicates: bool = option("Keep one of each set of images with identical pixels.", False)
    one_per: str | None = option("Keep one image of each patient, study, ….", None, metavar="COLUMN", shown="")
    one_per_except: tuple[str, ...] = option(
        "Keep every image of this class in --one-per; repeatable.", (), metavar="CLASS", shown=""
    )
    per_class: str | None = option(
        "Draw N images of each class, or as many as the smallest has.", None, metavar="N|smallest", shown=""
    )
    fraction: float | None = option("Draw this share of each class.", None, shown="")


def run(options: SelectOptions, settings: Settings) -> None:
    """Select, and print the selection where no file or folder is written."""
    selection = select(options, settings)
    if selection is None:
        return
    for text in selection.warnings:
        settings.report.warn(text)
    excluded = f", {len(selection.rejects)} excluded" if selection.rejects else ""
    folder = settings.out if settings.out and not is_file_of_table(settings.out) else None
    where = f", see {folder / REJECTS}" if excluded and folder else ""
    settings.report.say(f"{count_of(len(selection), 'image')}{excluded}{where}")
    if settings.out is None:
        settings.output.write(dump_table(order_columns(selection.columns), selection.records))


def select(options: SelectOptions, settings: Settings) -> Selection | None:
    """Choose rows and write them to a `.csv` or `.parquet` file, or to a step folder that also lists the excluded rows.

    Returns:
        The selection, or None where the folder was up to date.

    Raises:
        UsageError: Options that exclude one another or that do not fit the manifest.
        InputError: A manifest cannot be read, or no row is left.
    """
    if options.per_class is not None and options.fraction is not None:
        raise UsageError("--per-class and --fraction exclude one another")
    if options.fraction is not None and not 0 < options.fraction <= 1:
        raise UsageError(f"--fraction: expected a share above 0 and up to 1, found {options.fraction:g}")
    if options.per_class is not None:
        parse_per_class(options.per_class)
    if options.one_per_except and options.one_per is None:
        raise UsageError("--one-per-except: expected --one-per COLUMN with it, such as --one-per patient_id")
    manifests = [read_manifest(argument, root=settings.root) for argument in options.manifests]
    if settings.out is None or is_file_of_table(settings.out):
        selection = _choose(options, manifests, settings.seed)
        if settings.out:
            _write_file(settings.out, selection, manifests, settings)
        return selection
    return _write_folder(options, manifests, settings)


def _choose(options: SelectOptions, manifests: list[Manifest], seed: int) -> Selection:
    draws = {
        "--drop-duplicates": options.drop_duplicates,
        "--one-per": options.one_per,
        "--per-class": options.per_class,
        "--fraction": options.fraction,
    }
    divided = next((manifest for manifest in manifests if is_divided(manifest)), None)
    for name, value in draws.items():
        if divided and value:
            raise InputError(
                f"{name}: {divided.name} has each radiograph once for every fold, so that a draw would be uneven",
                "select the images before they are enhanced for each fold",
            )
    selection = concatenate(manifests)
    if not len(selection):
        raise InputError(f"{manifests[0].name}: expected images, found none", "`cxrtool info` shows what was excluded")
    if options.severity_from and (changed := rate(selection, options.severity_from)):
        selection.warnings.append(
            f"--severity-from {options.severity_from}: {count_of(changed, 'image')} had another severity, now replaced"
        )
    if options.where:
        choose_where(selection, options.where)
    if options.where and not len(selection):
        raise InputError(f"--where: expected rows for which it holds, found none of {len(selection.rejects)}")
    for text in options.exclude:
        exclude(selection, text)
    if options.relabel:
        relabel(selection, parse_relabel(options.relabel))
    if options.drop_duplicates:
        drop_duplicates(selection)
    if options.one_per:
        one_per(selection, options.one_per, seed, options.one_per_except)
    if options.per_class is not None or options.fraction is not None:
        count = options.per_class and (parse_per_class(options.per_class) or smallest_class(selection))
        sample(selection, seed, per_class=count or None, fraction=options.fraction)
    if not len(selection):
        raise InputError(f"--per-class: expected images with a label, found none of {len(selection.rejects)}")
    return selection


def _write_file(target: Path, selection: Selection, manifests: Sequence[Manifest], settings: Settings) -> None:
    """Write the file; an identical file is not rewritten, so that Make does not repeat later steps."""
    if settings.dry_run:
        settings.report.say(f"would write {target}: {count_of(len(selection), 'row')}")
        return
    with locked_output(target):
        check_file(target, is_manifest_file, manifests, settings)
        if write_manifest(target, order_columns(selection.columns), selection.records, keep=True):
            return
        if any(m.origin and target.stat().st_mtime < m.origin.stat().st_mtime for m in manifests):
            touch(target)


def _write_folder(options: SelectOptions, manifests: list[Manifest], settings: Settings) -> Selection | None:
    out = settings.out
    plan = Plan(
        command="select",
        options=options.identity(),
        inputs=Inputs.of(*manifests, verify=settings.verify),
        libraries=(),
        seeded=True,
    )
    folder = StepFolder(out, plan, settings)
    if not folder.needs_work():
        return None
    selection = _choose(options, manifests, settings.seed)
    try:
        chain = chain_of_manifest(selection)
    except InputError as error:
        selection.warnings.append(error.message)
        chain = []
    with folder.build() as build:
        for reject in selection.rejects:
            build.reject(reject["path"], reject["reason"])
        build.finish(selection.columns, selection.records, extra={"chain": without_paths(chain)}, wanted=True)
    return selection
