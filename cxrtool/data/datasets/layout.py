"""Where a published data set keeps what, told by names alone: what an adapter looks for, and which one would fit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cxrtool.data.datasets.registry import ADAPTERS, Mark
from cxrtool.data.tables.manifest import Table, read_table
from cxrtool.errors import InputError

_SHOWN = 6
"""Names of what was found that a message repeats."""


def folder_of(source: Path) -> Path:
    """The folder of a data set that is named by its folder or by the table in it."""
    return source if source.is_dir() else source.parent


def within(root: Path, *names: str) -> Path:
    """The folder that holds all of these names: `root`, or the only one below it, as archives unpack themselves."""
    if all((root / name).exists() for name in names) or not root.is_dir():
        return root
    deeper = [child for child in _children(root) if child.is_dir() and all((child / name).exists() for name in names)]
    return deeper[0] if len(deeper) == 1 else root


def find(root: Path, *patterns: str) -> list[Path]:
    """The files right in `root` whose names match one of the patterns, sorted, hidden ones left out."""
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not path.name.startswith("."))


def locate(folders: Iterable[Path], name: str) -> Path:
    """The first of the folders' files of this name that exists; the first folder's where none does."""
    first = None
    for folder in folders:
        place = folder / name
        if place.is_file():
            return place
        first = first or place
    return first or Path(name)


def table_of(source: Path, adapter: str, expected: str, *patterns: str) -> Table:
    """Read the one table of a data set: the source itself where it is a file, else the one whose name matches.

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
    """The table's own spelling of columns, whatever their case; `a|b` is a column that went by either name.

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
    """The error that a layout is not the adapter's: what was expected, what is there, and who could read that."""
    root = folder_of(source)
    names = [path.name + "/" * path.is_dir() for path in _children(root)]
    found = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "") if names else "nothing"
    fitting = [name for name in fitting_adapters(root) if name != adapter]
    hint = f"it looks like --dataset {' or '.join(fitting)}" if fitting else (
        "--dataset folder reads any tree by its folders' names, --dataset csv any table that names images"
    )  # fmt: skip
    return InputError(f"{source}: expected {expected} for --dataset {adapter}, found {found}", hint)


def fitting_adapters(root: Path) -> list[str]:
    """The published sets that are laid out as this folder is."""
    return [name for name, known in ADAPTERS.items() if known.mark and _holds(known.mark, root)]


def header_of(path: Path) -> set[str]:
    """The columns of a table with commas, in lower case."""
    with path.open(encoding="latin-1") as file:
        return {cell.strip().strip('"').lower() for cell in file.readline().split(",")}


def has_columns(root: Path, *columns: str, without: str | None = None) -> bool:
    """Whether the folder has a `metadata.csv` with these columns, and without another."""
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
