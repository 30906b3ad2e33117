"""Three forms of one table of text: columns, rows and a pandas frame; each is made from another when it is needed.

Columns are the smallest: a million rows take a third of the memory of their dictionaries, and most questions are about
one column. A frame groups, joins and counts. Rows are for the caller who changes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

if TYPE_CHECKING:
    import pandas as pd

_STORED, _FRAME, _CELLS = "_rows", "_frame", "_cells"

RowView = Mapping[str, str]
"""A row for reading only."""


class _Row(RowView):
    """A row of `Columns`, which has no cells of its own."""

    __slots__ = ("_cells", "_index")

    def __init__(self, cells: Mapping[str, Sequence[str]], index: int) -> None:
        self._cells, self._index = cells, index

    def __getitem__(self, name: str) -> str:
        return self._cells[name][self._index]

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        column = self._cells.get(name)
        return default if column is None else column[self._index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __reduce__(self) -> tuple[type, tuple[dict[str, str]]]:
        # A worker process gets this row, not the whole table.
        return dict, (dict(self),)


class Columns(Sequence[RowView]):
    """The cells of a table by column, which is also a sequence of its rows for reading only.

    Attributes:
        cells: The cells of each column, all of one length.
        size: The number of rows.
    """

    def __init__(self, cells: Mapping[str, list[str]], size: int) -> None:
        self.cells, self.size = cells, size

    @overload
    def __getitem__(self, index: int) -> RowView: ...
    @overload
    def __getitem__(self, index: slice) -> Columns: ...
    def __getitem__(self, index: int | slice) -> RowView | Columns:
        if isinstance(index, slice):
            return self.take(range(self.size)[index])
        return _Row(self.cells, range(self.size)[index])

    def __iter__(self) -> Iterator[RowView]:
        return (_Row(self.cells, index) for index in range(self.size))

    def __len__(self) -> int:
        return self.size

    def take(self, indices: Sequence[int]) -> Columns:
        """The rows with these indices, in this order."""
        return Columns({name: [cells[i] for i in indices] for name, cells in self.cells.items()}, len(indices))

    def copies(self) -> list[dict[str, str]]:
        """The rows as dictionaries of their own."""
        if not self.cells:
            return [{} for _ in range(self.size)]
        names = list(self.cells)
        return [dict(zip(names, row, strict=True)) for row in zip(*self.cells.values(), strict=True)]


class Packed(Sequence[dict[str, str]]):
    """Rows that need not have the same columns, in the memory of columns: each is made anew when it is asked for.

    Equal cells of a column are one text in memory.

    >>> rows = Packed([{"image_id": "a"}, {"image_id": "b", "mask": "b.png"}])
    >>> rows[0], rows.columns().cells["mask"]
    ({'image_id': 'a'}, ['', 'b.png'])

    Attributes:
        cells: The cells of each column; None where a row lacks it.
    """

    def __init__(self, rows: Iterable[RowView] = ()) -> None:
        self.cells: dict[str, list[str | None]] = {}
        self._known: dict[str, dict[str, str]] = {}
        self._size = 0
        for row in rows:
            self.append(row)

    def append(self, row: RowView) -> None:
        """Add a row."""
        for name in row:
            if name not in self.cells:
                self.cells[name], self._known[name] = [None] * self._size, {}
        for name, cells in self.cells.items():
            cell, known = row.get(name), self._known.get(name)
            if cell is None or known is None:
                cells.append(cell)
                continue
            cells.append(known.setdefault(cell, cell))
            # Nearly all cells are different, as ids are.
            if len(known) > _DIFFERENT and 2 * len(known) > len(cells):
                del self._known[name]
        self._size += 1

    @overload
    def __getitem__(self, index: int) -> dict[str, str]: ...
    @overload
    def __getitem__(self, index: slice) -> Packed: ...
    def __getitem__(self, index: int | slice) -> dict[str, str] | Packed:
        if isinstance(index, slice):
            return Packed(map(self.__getitem__, range(self._size)[index]))
        index = range(self._size)[index]
        return {name: cell for name, cells in self.cells.items() if (cell := cells[index]) is not None}

    def __len__(self) -> int:
        return self._size

    def put(self, index: int, name: str, cell: str) -> None:
        """Replace a cell, or add it."""
        self.cells.setdefault(name, [None] * self._size)[index] = cell

    def columns(self, names: Iterable[str] = ()) -> Columns:
        """The rows by column: the columns `names`, then all others; a missing cell is empty."""
        return Columns({name: cells_of(self, name) for name in dict.fromkeys([*names, *self.cells])}, self._size)


_DIFFERENT = 64
"""Different cells from which on a column may be one of ids, whose cells are not compared any more."""


class RowsField:
    """A dataclass's field `rows`: one dictionary a row.

    The caller may change the rows, so other forms that were made from them are dropped, and made again when needed.
    """

    @overload
    def __get__(self, table: None, owner: type) -> Self: ...
    @overload
    def __get__(self, table: object, owner: type) -> list[dict[str, str]]: ...
    def __get__(self, table: object | None, owner: type) -> Self | list[dict[str, str]]:
        if table is None:
            raise AttributeError("a field without a default")
        state = vars(table)
        if _STORED not in state:
            state[_STORED] = _columns_in(state).copies()
        state.pop(_FRAME, None)
        state.pop(_CELLS, None)
        rows: list[dict[str, str]] = state[_STORED]
        return rows

    def __set__(self, table: object, rows: list[dict[str, str]]) -> None:
        state = vars(table)
        state.pop(_FRAME, None)
        state.pop(_CELLS, None)
        state[_STORED] = rows


ROWS = RowsField()


class FrameOfText:
    """The rows as a frame: every cell is text and none is undefined; the index is the row's number.

    Do not change it in place. A frame that is assigned is converted to text and sets `columns`.
    """

    @overload
    def __get__(self, table: None, owner: type) -> Self: ...
    @overload
    def __get__(self, table: object, owner: type) -> pd.DataFrame: ...
    def __get__(self, table: object | None, owner: type) -> Self | pd.DataFrame:
        if table is None:
            return self
        state = vars(table)
        if _FRAME not in state:
            state[_FRAME] = _frame_of(state)
        frame: pd.DataFrame = state[_FRAME]
        return frame

    def __set__(self, table: object, frame: pd.DataFrame) -> None:
        columns = {name: _texts(cells) for name, cells in frame.items()}
        set_columns(table, Columns({str(name): cells for name, cells in columns.items()}, len(frame)))


class Readable:
    """A table with a field `rows`, which is read without a dictionary a row."""

    @property
    def records(self) -> Sequence[RowView]:
        """The rows for reading only; they are not those of a later change."""
        state = vars(self)
        rows: Sequence[RowView] = state[_STORED] if _STORED in state else _columns_in(state)
        return rows

    def column(self, name: str) -> list[str]:
        """The cells of a text column, for reading only; all empty where there is none."""
        return cells_of(self.records, name)


def cells_of(rows: Sequence[RowView], name: str) -> list[str]:
    """The cells of a column, for reading only; all empty where the rows lack it."""
    if isinstance(rows, Packed):
        return [cell or "" for cell in rows.cells.get(name, [None] * len(rows))]
    if not isinstance(rows, Columns):
        return [row.get(name, "") for row in rows]
    found = rows.cells.get(name)
    return [""] * len(rows) if found is None else found


def set_columns(table: object, columns: Columns) -> None:
    """Replace all rows of a table, and its `columns`."""
    state = vars(table)
    for form in (_STORED, _FRAME):
        state.pop(form, None)
    state.update({"columns": list(columns.cells), _CELLS: columns})


def columns_of(rows: Sequence[RowView], names: Iterable[str] = ()) -> Columns:
    """Rows by column: the columns `names`, then all others that a row has; a missing cell is empty."""
    if isinstance(rows, Packed):
        return rows.columns(names)
    if isinstance(rows, Columns):
        missing = [name for name in names if name not in rows.cells]
        return Columns({**rows.cells, **{name: [""] * len(rows) for name in missing}}, len(rows)) if missing else rows
    names = dict.fromkeys([*names, *(name for row in rows for name in row)])
    return Columns({name: [row.get(name, "") for row in rows] for name in names}, len(rows))


def _columns_in(state: dict[str, Any]) -> Columns:
    columns: Columns = state[_CELLS]
    return columns


def _texts(cells: pd.Series) -> list[str]:
    """The cells as text, empty where they are undefined."""
    found: list[str] = cells.tolist()
    if set(map(type, found)) <= {str}:
        return found
    return list(cells.astype(object).where(cells.notna(), "").map(str))


def _frame_of(state: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    columns = columns_of(state[_STORED], state["columns"]) if _STORED in state else _columns_in(state)
    # Not pandas' own type for text: with pyarrow it rejects file names that are not UTF-8.
    return pd.DataFrame(columns.cells, index=range(len(columns)), dtype=object)
