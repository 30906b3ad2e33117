"""`--where`: keep the rows of a table for which an SQLite expression over its columns holds.

The rows are in a database in memory; an authorizer allows reading them and nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from cxrtool.data.tables.missing import ALWAYS
from cxrtool.data.tables.selection import Selection
from cxrtool.errors import UsageError, count_of
from cxrtool.options import did_you_mean

TEXT_COLUMNS = frozenset(
    {"image_id", "path", "mask", "patient_id", "parent_id", "label", "severity", "source", "sha256", "dhash"}
)
"""Columns that `--where` always compares as text: the id 007 is not the number 7."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FORBIDDEN_FUNCTIONS = frozenset({"random", "randomblob", "load_extension", "readfile", "writefile"})


def choose_where(selection: Selection, expression: str) -> None:
    """Keep the rows for which an SQLite expression over the columns holds.

    In a column with numbers, numbers are compared as numbers, also with a decimal comma, and an empty cell is NULL.
    The expression can read these rows and nothing else.

    Raises:
        UsageError: The expression is not valid; the message names the columns.
    """
    import sqlite3

    names = list({column.casefold(): column for column in reversed(selection.columns)}.values())[::-1]
    numeric = {name for name in names if _is_numeric(name, selection.column(name))}
    read: set[str] = set()

    def authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
        if action == sqlite3.SQLITE_READ and first == "manifest":
            read.add(second or "")
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _FORBIDDEN_FUNCTIONS:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_OK if action == sqlite3.SQLITE_SELECT else sqlite3.SQLITE_DENY

    # The line break ends a comment in the expression, which would hide the parenthesis.
    query = f"SELECT rowid - 1 FROM manifest WHERE ({expression}\n)"
    connection = sqlite3.connect(":memory:")
    try:
        columns = ", ".join(f"{_quoted(name)} {'NUMERIC' if name in numeric else 'TEXT'}" for name in names)
        connection.execute(f"CREATE TABLE manifest ({columns})")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
        connection.set_authorizer(authorize)
        _check_quoted(expression, names)
        # On the empty table it shows which columns it reads, and only these are filled.
        connection.execute(query)
        connection.set_authorizer(None)
        used = [name for name in names if name in read] or names[:1]
        marks = ", ".join("?" * len(used))
        cells = (_values(selection.column(name)) if name in numeric else selection.column(name) for name in used)
        listed = ", ".join(map(_quoted, used))
        connection.executemany(f"INSERT INTO manifest ({listed}) VALUES ({marks})", zip(*cells, strict=True))
        connection.set_authorizer(authorize)
        found = [number for (number,) in connection.execute(query)]
    except (sqlite3.Error, sqlite3.Warning) as error:
        message = str(error).replace("\n)", "")
        told = _reserved(message, names) or f"{message}{_nearest(message, names)}"
        raise UsageError(f"--where: {told}", f"the columns: {', '.join(names)}") from None
    finally:
        connection.close()
    _warn_of_text(selection, sorted(read & numeric))
    selection.keep(selection.frame.index.isin(found), f"--where: {expression}")


def _is_numeric(name: str, cells: Sequence[str]) -> bool:
    if name in TEXT_COLUMNS:
        return False
    filled = {cell for cell in cells if cell}
    padded = any(re.fullmatch(r"0\d+", cell) for cell in filled)
    return not padded and any(_NUMBER.fullmatch(_pointed(cell)) for cell in filled)


def _pointed(cell: str) -> str:
    """A number with a point where it has a decimal comma.

    >>> _pointed("55,0"), _pointed(" 7 "), _pointed("1,2,3")
    ('55.0', '7', '1,2,3')
    """
    cell = cell.strip()
    return cell.replace(",", ".") if re.fullmatch(r"[+-]?\d+,\d+", cell) else cell


def _value(cell: str) -> str | None:
    """The cell of a column of numbers; nothing for an empty cell or a word that programs write for a missing value."""
    return None if not cell.strip() or cell.strip().casefold() in ALWAYS else _pointed(cell)


def _values(cells: Sequence[str]) -> list[str | None]:
    known = {cell: _value(cell) for cell in set(cells)}
    return [known[cell] for cell in cells]


def _warn_of_text(selection: Selection, columns: Iterable[str]) -> None:
    for name in columns:
        counts = Counter(selection.column(name))
        filled = [cell for cell in counts if _value(cell) is not None]
        others = [cell for cell in filled if not _NUMBER.fullmatch(_pointed(cell))]
        thousands = [cell for cell in filled if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", cell.strip())]
        if thousands and len(thousands) == sum("," in cell for cell in filled):
            selection.warnings.append(
                f"--where: in '{name}' the comma of cells such as '{thousands[0]}' was read as a decimal comma"
            )
        if others:
            number = sum(counts[cell] for cell in others)
            selection.warnings.append(
                f"--where: in '{name}' {count_of(number, 'cell is not a number', 'cells are not numbers')}, "
                f"such as '{others[0]}'; "
                "SQLite treats text as greater than any number"
            )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _check_quoted(expression: str, names: Sequence[str]) -> None:
    # SQLite treats an unknown name in double quotes as text, and the condition silently never holds.
    without_text = re.sub(r"'(?:[^']|'')*'", "''", expression)
    for name in re.findall(r'"((?:[^"]|"")*)"', without_text):
        if name.replace('""', '"').casefold() not in {known.casefold() for known in names}:
            raise UsageError(
                f'--where: no such column: "{name}"; write text in single quotes', f"the columns: {', '.join(names)}"
            )


def _reserved(message: str, names: Sequence[str]) -> str:
    """What to do where a word of SQL stands in the place of a column; empty for other errors."""
    found = re.fullmatch(r'near "(\w+)": syntax error', message)
    word = found[1] if found else ""
    if not word.isalpha():
        return ""
    if word.casefold() in {name.casefold() for name in names}:
        return f"'{word}' is also a word of SQL, so the column needs double quotes: --where '\"{word}\" > 40'"
    return (
        f"{message}: '{word}' is no column of this table{did_you_mean(word, names)}; a name with blanks, or that is a "
        "word of SQL, needs double quotes inside single ones: --where '\"the column\" > 40'"
    )


def _nearest(message: str, names: Sequence[str]) -> str:
    unknown = re.fullmatch(r"no such column: (.+)", message)
    return did_you_mean(unknown[1], names) if unknown else ""
