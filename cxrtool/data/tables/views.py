"""Two views of one table of text, rows and a pandas frame; each is made from the other when it is needed.

A frame groups, joins and counts; steps process rows one by one, without pandas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self, overload

if TYPE_CHECKING:
    import pandas as pd

_STORED, _FRAME = "_rows", "_frame"


class RowsField:
    """A dataclass's field `rows`: one dictionary a row.

    The caller may change the rows, so a frame that was made from them is dropped, and made again when it is needed.
    """

    @overload
    def __get__(self, table: None, owner: type) -> Self: ...
    @overload
    def __get__(self, table: object, owner: type) -> list[dict[str, str]]: ...
    def __get__(self, table: object | None, owner: type) -> Self | list[dict[str, str]]:
        if table is None:
            raise AttributeError("a field without a default")
        rows = rows_of(table)
        vars(table).pop(_FRAME, None)
        return rows

    def __set__(self, table: object, rows: list[dict[str, str]]) -> None:
        vars(table).pop(_FRAME, None)
        vars(table)[_STORED] = rows


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
            state[_FRAME] = _frame_of(state["columns"], state[_STORED])
        frame: pd.DataFrame = state[_FRAME]
        return frame

    def __set__(self, table: object, frame: pd.DataFrame) -> None:
        text = frame.astype(object).where(frame.notna(), "").map(str).astype(object).reset_index(drop=True)
        vars(table).pop(_STORED, None)
        vars(table).update({"columns": list(text.columns), _FRAME: text})


def rows_of(table: object) -> list[dict[str, str]]:
    """The rows of a table for reading only."""
    state = vars(table)
    if _STORED not in state:
        state[_STORED] = state[_FRAME].to_dict("records")
    rows: list[dict[str, str]] = state[_STORED]
    return rows


def _frame_of(columns: Iterable[str], rows: Sequence[dict[str, str]]) -> pd.DataFrame:
    import pandas as pd

    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    cells = {name: [row.get(name, "") for row in rows] for name in names}
    # Not pandas' own type for text: with pyarrow it rejects file names that are not UTF-8.
    return pd.DataFrame(cells, index=range(len(rows)), dtype=object)
