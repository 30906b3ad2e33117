"""The layouts of published data sets, by file names alone: finding files, and the adapters that fit a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cxrtool.data.datasets.registry import ADAPTERS, Mark
from cxrtool.data.files import existing
from cxrtool.data.tables.manifest import Table, read_table
from cxrtool.errors import InputError

_SHOWN = 6
"""Names of found files that a message lists."""


def folder_of(source: Path) -> Path:
    """The folder of a data set; `source` is this folder or a table in it."""
    return source if source.is_dir() else source.parent


def within(root: Path, *names: str) -> Path:
    """The folder that contains all of these names: `root`, or the only such subfolder, as archives often have one."""
    if all((root / name).exists() for name in names) or not root.is_dir():
        return root
    deeper = [child for child in _children(root) if child.is_dir() and all((child / name).exists() for name in names)]
    return deeper[0] if len(deeper) == 1 else root


def find(root: Path, *patterns: str) -> list[Path]:
    """The files directly in `root` whose names match one of the patterns, sorted, without hidden files."""
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not path.name.startswith("."))


def locate(folders: Iterable[Path], name: str) -> Path:
    """The file of this name in the first folder that has it; the path in the first folder where none has."""
    first = None
    for folder in folders:
        path = folder / name
        found = existing(path)
        if found is not None and found.is_file():
            return found
        first = first or path
    return first or Path(name)


def table_of(source: Path, adapter: str, expected: str, *patterns: str) -> Table:
    """Read the table of a data set: the source itself where it is a file, else the only file that matches.

    Raises:
        InputError: There is none, or more than one.
    """
    if source.is_file():
        return read_table(source)
    found = find(source, *patterns)
    if not found:
        raise misfit(source, adapter, expected)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{source}: expected one table for --dataset {adapter}, found {names}", "name the one to read")
    return read_table(found[0])


def columns_of(table: Table, *names: str) -> list[str]:
    """The table's own spelling of columns, whatever their case; `a|b` is a column with either name.

    Raises:
        InputError: One is missing.
    """
    known = {column.lower(): column for column in reversed(table.columns)}
    spelled = []
    for name in names:
        column = next((known[option] for option in name.lower().split("|") if option in known), None)
        if column is None:
            found = ", ".join(table.columns)
            raise InputError(f"{table.name}: expected a column {name.replace('|', ' or ')}, found: {found}")
        spelled.append(column)
    return spelled


def misfit(source: Path, adapter: str, expected: str) -> InputError:
    """The error for a layout that does not fit the adapter: expected, found, and the adapters that would fit."""
    root = folder_of(source)
    names = [path.name + "/" * path.is_dir() for path in _children(root)]
    found = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "") if names else "nothing"
    fitting = [name for name in fitting_adapters(root) if name != adapter]
    hint = "--dataset folder reads any tree of images, --dataset csv any table that lists images"
    if fitting:
        hint = f"it looks like --dataset {' or '.join(fitting)}"
    return InputError(f"{source}: expected {expected} for --dataset {adapter}, found {found}", hint)


def fitting_adapters(root: Path) -> list[str]:
    """The published sets with the layout of this folder."""
    return [name for name, known in ADAPTERS.items() if known.mark and _holds(known.mark, root)]


def header_of(path: Path) -> set[str]:
    """The columns of a comma-separated table, in lower case."""
    with path.open(encoding="latin-1") as file:
        return {cell.strip().strip('"').lower() for cell in file.readline().split(",")}


def has_columns(root: Path, *columns: str, without: str | None = None) -> bool:
    """Whether the folder has a `metadata.csv` with these columns, and without the column `without`."""
    header = header_of(root / "metadata.csv")
    return header.issuperset(columns) and without not in header


def _children(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if not path.name.startswith((".", "__MACOSX")))
    except OSError:
        return []


def _holds(mark: Mark, root: Path) -> bool:
    try:
        return mark(root)
    except (OSError, InputError):
        return False
