import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrtool.data.tables.manifest import Manifest, Table
from cxrtool.data.tables.views import Columns, cells_of, columns_of

ROWS = [{"image_id": "001", "label": "None"}, {"image_id": "2", "label": "", "note": "x"}]


def table():
    return Table(["image_id", "label"], [dict(row) for row in ROWS], Path("m.csv"), [2, 3])


def test_a_frame_has_every_cell_as_text_and_every_column():
    frame = table().frame
    assert list(frame.columns) == ["image_id", "label", "note"]
    assert frame.to_numpy().tolist() == [["001", "None", ""], ["2", "", "x"]]
    assert list(frame.index) == [0, 1]
    assert table().place(frame.index[frame["note"] == "x"][0]) == "m.csv, line 3"


def test_a_frame_that_nobody_could_outdate_is_made_once():
    one = table()
    assert one.frame is one.frame
    assert (len(one), one.column("note")) == (2, ["", "x"])
    assert one.frame is one.frame


def test_rows_that_are_changed_are_in_the_next_frame():
    one = table()
    assert one.frame["label"][0] == "None"
    one.rows[0]["label"] = "covid"
    one.rows.append({"image_id": "3"})
    assert list(one.frame["label"]) == ["covid", "", ""]
    one.rows = one.rows[:1]
    assert list(one.frame["image_id"]) == ["001"]


def test_rows_of_a_frame_can_be_changed_too():
    one = Manifest.of_frame(table().frame, Path("m.csv"))
    assert one.classes() == ["None"]
    one.rows[0]["label"] = "covid"
    assert list(one.frame["label"]) == ["covid", ""]
    assert one.rows[1] == {"image_id": "2", "label": "", "note": "x"}


def test_what_stands_in_a_frame_becomes_text():
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan], "c": ["x", None], "d": [True, False]}, index=[7, 3])
    one = Table.of_frame(frame)
    assert one.columns == ["a", "b", "c", "d"]
    assert one.rows == [{"a": "1", "b": "0.5", "c": "x", "d": "True"}, {"a": "2", "b": "", "c": "", "d": "False"}]
    assert list(one.frame.index) == [0, 1]
    one.frame = one.frame[["d", "a"]][one.frame["a"] == "2"]
    assert (one.columns, one.rows) == (["d", "a"], [{"d": "False", "a": "2"}])


def test_an_empty_table_keeps_its_columns():
    assert list(Table(["a", "b"], []).frame.columns) == ["a", "b"]
    empty = Table.of_frame(table().frame[:0])
    assert (empty.columns, empty.rows, len(empty)) == (["image_id", "label", "note"], [], 0)


def test_a_name_that_is_no_unicode_is_text_like_any_other():
    path = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    one = Table(["path"], [{"path": path}])
    assert Table.of_frame(one.frame[one.frame["path"] == path]).rows == [{"path": path}]


def test_tables_are_still_dataclasses():
    one = table()
    assert one == table()
    assert replace(one, rows=[]).rows == []
    assert one.rows == ROWS
    assert "'001'" in repr(one)


def by_column():
    return Table.of_columns(Columns({"image_id": ["001", "2", "3"], "label": ["None", "", "x"]}, 3), table())


def test_rows_of_columns_are_for_reading_and_copies_for_changing():
    one = by_column()
    assert (one.columns, len(one), one.name) == (["image_id", "label"], 3, "m.csv")
    first = one.records[0]
    assert first == {"image_id": "001", "label": "None"}
    assert (first.get("none", ""), first.get("none"), dict(first)["label"]) == ("", "", "None")
    assert [row["label"] for row in one.records] == one.column("label") == ["None", "", "x"]
    assert one.column("other") == ["", "", ""]
    assert [row["image_id"] for row in one.records[1:]] == ["2", "3"]
    assert one.records[-1]["image_id"] == "3"
    with pytest.raises(IndexError):
        one.records[3]
    one.rows[0]["label"] = "covid"
    assert one.records[0]["label"] == "covid"
    assert first["label"] == "None"
    assert list(one.frame["label"]) == ["covid", "", "x"]


def test_a_row_goes_to_a_worker_without_its_table():
    one = Table.of_columns(Columns({"image_id": [str(i) for i in range(10_000)]}, 10_000), table())
    assert len(pickle.dumps(one.records[5])) < 100
    assert pickle.loads(pickle.dumps(one.records[5])) == {"image_id": "5"}


def test_columns_of_rows_have_every_cell():
    found = columns_of(ROWS, ["path", "label"])
    assert found.cells == {"path": ["", ""], "label": ["None", ""], "image_id": ["001", "2"], "note": ["", "x"]}
    assert columns_of(found) is found
    assert columns_of(found, ["more"]).cells["more"] == ["", ""]
    assert found.take([1]).copies() == [{"path": "", "label": "", "image_id": "2", "note": "x"}]
    assert Columns({}, 2).copies() == [{}, {}]
    assert cells_of(ROWS, "note") == ["", "x"]
