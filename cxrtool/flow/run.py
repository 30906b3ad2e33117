"""What commands read: a run, its folds and predictions, models.

A run is a folder of `rRfF/` folders (repeat R, fold F), each of them complete or absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from cxrtool.data.file_names import (
    FITTED_ON,
    IMPORT_HINT,
    MODEL,
    MODEL_WEIGHTS,
    PREDICTIONS,
    RUN_FILE,
    SPLITS,
    WEIGHTS,
)
from cxrtool.data.files import is_stream, no_such, sha256_file
from cxrtool.data.splitting.splits import read_splits, run_order
from cxrtool.data.tables.foreign import ForeignColumns, is_own, read_foreign
from cxrtool.data.tables.manifest import Row, read_table
from cxrtool.data.tables.predictions import Predictions, join, predictions_of, read_predictions
from cxrtool.data.tables.workbook import is_workbook, read_workbook
from cxrtool.errors import IncompleteError, InputError, UsageError, count_of
from cxrtool.flow.folder import read_run_file
from cxrtool.models.onnx_file import is_exported

_FOLD = re.compile(r"r(\d+)f(\d+)")
TEST = "test"


def fold_name(repeat: str | int, fold: str | int) -> str:
    """The folder of one repeat and fold: `r0f3`."""
    return f"r{repeat}f{fold}"


def all_folds(number: int) -> str:
    """The folds of a run as the subject of a sentence.

    >>> all_folds(1), all_folds(5)
    ('its only fold is', 'all 5 folds are')
    """
    return "its only fold is" if number == 1 else f"all {number} folds are"


def parse_fold(name: str) -> tuple[str, str]:
    """The repeat and fold that `r0f3` names.

    >>> parse_fold("r0f3")
    ('0', '3')
    """
    match = _FOLD.fullmatch(name.strip())
    if match is None:
        raise UsageError(f"--only: expected folds like r0f3 (repeat 0, fold 3), found '{name}'")
    return match[1], match[2]


def select_folds(available: Sequence[tuple[str, str]], only: str | None) -> list[tuple[str, str]]:
    """The folds that `--only` names, in the splits' order; all without it. A `UsageError` for an unknown fold."""
    if not only:
        return list(available)
    wanted = [parse_fold(name) for name in only.split(",") if name.strip()]
    for pair in wanted:
        if pair not in available:
            shown = ", ".join(fold_name(*known) for known in available)
            raise UsageError(f"--only: the splits have no fold {fold_name(*pair)}; they have {shown}")
    return [pair for pair in available if pair in wanted]


def folds_of(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """The distinct (repeat, fold) pairs of a splits table, in numeric order."""
    pairs = {(row.get("repeat") or "0", row.get("fold") or "0") for row in rows}
    return sorted(pairs, key=run_order)


def is_run(path: Path) -> bool:
    """Whether a folder is a run: it has splits, or folders of folds."""
    return path.is_dir() and ((path / SPLITS).exists() or any(map(is_fold, path.iterdir())))


def is_fold(path: Path) -> bool:
    """Whether the name of a path is that of a fold."""
    return _FOLD.fullmatch(path.name) is not None


def is_model(path: Path) -> bool:
    """Whether a folder is a model folder (one fold of a run is one)."""
    return (path / MODEL).is_file()


def weights_of(model: Path) -> Path:
    """The file with the weights of a model folder, or the ONNX file itself."""
    return model if is_exported(model) else model / MODEL_WEIGHTS


def model_files(model: Path) -> list[Path]:
    """The files on which the predictions of a model folder or an ONNX file depend."""
    return [model] if is_exported(model) else [model / name for name in (MODEL, MODEL_WEIGHTS, FITTED_ON)]


def model_digest(model: Path) -> str:
    """What changes when a model is trained, or exported, again; empty where it is not known."""
    return sha256_file(model) if is_exported(model) else (read_run_file(model) or {}).get("digest", "")


def whole_folds(run: Path) -> list[tuple[str, str]]:
    """The folds of a run that are complete and made as the run is now, in numeric order."""
    names = [path.name for path in run.iterdir() if is_fold(path) and (path / PREDICTIONS).exists()]
    return folds_of({"repeat": r, "fold": f} for r, f in map(parse_fold, made_alike(run, names)))


def whole_folders(run: Path) -> list[Path]:
    """The folders of these folds."""
    return [run / fold_name(*pair) for pair in whole_folds(run)]


def made_alike(run: Path, names: Sequence[str]) -> list[str]:
    """Those of a run's folds that were made with the options and data that the run has now."""
    made = read_run_file(run) or {}
    if "run_digest" not in made:
        return list(names)
    return [name for name in names if (read_run_file(run / name) or made).get("run_digest") == made["run_digest"]]


def check_whole(run: Path, *, partial: bool = False) -> list[tuple[str, str]]:
    """The complete folds of a run; an `IncompleteError` if some are missing or made otherwise, and not `partial`."""
    whole = whole_folds(run)
    splits = run / SPLITS
    expected = folds_of(read_table(splits).rows) if splits.exists() else whole
    missing = [fold_name(*pair) for pair in expected if pair not in whole]
    if not whole:
        raise IncompleteError(
            f"{run}: none of its {count_of(len(expected), 'fold')} is complete",
            f"`cxrtool train --config {run / 'run.json'} -o {run}` continues it",
        )
    if missing and not partial:
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        raise IncompleteError(
            f"{run}: {len(whole)} of {count_of(len(expected), 'fold')}; missing {shown}",
            "train them (`--only` selects single folds), or add --partial to use the complete folds",
        )
    return whole


def read_table_of_predictions(path: Path, foreign: ForeignColumns) -> Predictions:
    """The predictions of cxrtool or of another tool, as CSV or as the first sheet of an Excel workbook, or of `-`.

    Raises:
        InputError: Its columns are not known or ambiguous, or a score is no number.
    """
    notes = []
    if is_workbook(path):
        table, others = read_workbook(path)
        notes = [f"{path}: only the first sheet is read; not read: {', '.join(others)}."] if others else []
    else:
        table = read_table(path)
    if is_own(table) and not foreign.named():
        return predictions_of(table, str(path))
    predictions = read_foreign(table, foreign)
    predictions.notes += notes
    return predictions


def read_run_predictions(
    argument: Path, *, partial: bool = False, foreign: ForeignColumns | None = None
) -> Predictions:
    """The predictions of a run (all of its folds), of one fold's folder, of a CSV file, or of standard input (`-`).

    With `foreign`, tables of other tools are read, too.

    Raises:
        IncompleteError: A run lacks folds and `partial` is false.
        InputError: It is none of these.
    """
    path = Path(argument)
    table = path / PREDICTIONS if (path / PREDICTIONS).is_file() and not is_run(path) else path
    if is_stream(table) or table.is_file():
        return _complete(
            read_predictions(table) if foreign is None else read_table_of_predictions(table, foreign), table
        )
    if not path.exists():
        raise InputError(no_such(path, "run or file"), "a run is a folder that `cxrtool train -o` wrote")
    if not is_run(path):
        raise InputError(f"{path}: expected a run or a predictions.csv, found neither")
    folds = check_whole(path, partial=partial)
    tables = [path / fold_name(*pair) / PREDICTIONS for pair in folds]
    return join([_complete(read_predictions(table), table) for table in tables], str(path))


def _complete(predictions: Predictions, table: Path) -> Predictions:
    """The predictions of a fold; an `IncompleteError` if the fold has more test images than its table has rows.

    A fold of an earlier version has no digest of the table, but the counts of its subsets.
    """
    folder = table.parent
    if table.name != PREDICTIONS or not is_fold(folder):
        return predictions
    expected = (read_run_file(folder) or {}).get("counts", {}).get(TEST)
    marked = zip(predictions.column("image_id"), predictions.column("subset"), strict=True)
    found = [name for name, subset in marked if subset == TEST]
    if not isinstance(expected, int) or len(found) >= expected:
        return predictions
    splits = folder.parent / SPLITS
    subsets = read_splits(splits).runs.get(parse_fold(folder.name), {}) if splits.is_file() else {}
    missing = sorted({name for name, subset in subsets.items() if subset == TEST} - set(found))
    raise IncompleteError(
        f"{table}: expected {count_of(expected, 'test image')}, found {len(found)}"
        + (f"; missing are {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}" if missing else ""),
        f"make the fold again: `cxrtool train --config {folder.parent / RUN_FILE} --only {folder.name} --force "
        f"-o {folder.parent}`",
    )


def model_folders(argument: Path, *, partial: bool, images: Sequence[Path | str] = ()) -> list[Path]:
    """The model folders of a model or a run, or an ONNX file; `images` are the other inputs, if the order is wrong.

    Raises:
        UsageError: It is neither, and one of `images` is.
        InputError: It is neither.
        IncompleteError: A run lacks folds and `partial` is false.
    """
    if is_model(argument) or is_exported(argument):
        return [argument]
    if is_run(argument):
        return [argument / fold_name(*pair) for pair in check_whole(argument, partial=partial)]
    swapped = next((path for path in map(Path, images) if is_model(path) or is_run(path) or is_exported(path)), None)
    if swapped is not None:
        raise UsageError(f"expected the model first, found {argument}", f"the other way round: {swapped} {argument}")
    if argument.suffix.lower() in WEIGHTS and argument.is_file():
        raise InputError(f"{argument}: expected a model folder or a run, found a file of weights", IMPORT_HINT)
    raise InputError(
        f"{argument}: expected a model folder or a run, found {'another folder' if argument.is_dir() else 'neither'}",
        "`cxrtool train -o RUN` makes a run; each RUN/rRfF in it is a model folder",
    )
