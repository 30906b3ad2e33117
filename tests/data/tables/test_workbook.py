import datetime
import sys
import time
import zipfile

import openpyxl
import pytest

from cxrtool.data.tables.workbook import is_workbook, read_workbook
from cxrtool.errors import InputError


@pytest.fixture
def save(tmp_path):
    def write(*rows, sheets=(), formats=None):
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        for cell, form in (formats or {}).items():
            book.active[cell].number_format = form
        for name in sheets:
            book.create_sheet(name)
        book.save(tmp_path / "t.xlsx")
        return tmp_path / "t.xlsx"

    return write


def test_cells_keep_what_excel_shows(save):
    day, moment = datetime.datetime(2020, 3, 31), datetime.datetime(2020, 3, 31, 12, 30)
    path = save(
        [" Bild ", "Nr", "Wert", "Tag", "Zeit", None],
        ["001", 7, 7.0, day, moment, "no header"],
        ["None", 7, 40.5, None, None],
        [None, None],
        ["0e1", None, True, None, None],
        formats={"B3": "000"},
    )
    table, others = read_workbook(path)
    assert others == []
    assert table.columns == ["Bild", "Nr", "Wert", "Tag", "Zeit"]
    assert [list(row.values()) for row in table.rows] == [
        ["001", "7", "7", "2020-03-31", "2020-03-31 12:30:00"],
        ["None", "007", "40.5", "", ""],
        ["0e1", "", "TRUE", "", ""],
    ]
    assert table.place(2).endswith("line 5")


def test_the_first_sheet_is_read(save):
    assert read_workbook(save(["a"], ["1"], sheets=["b", "c"]))[1] == ["b", "c"]
    with pytest.raises(InputError, match="found an empty sheet") as caught:
        read_workbook(save(sheets=["b"]))
    assert "the others are b" in caught.value.hint


@pytest.mark.parametrize("data", [b"PK\x03\x04", b"", b"a,b\n1,2\n"])
def test_what_is_no_workbook_is_one_line(tmp_path, data):
    (tmp_path / "t.xlsx").write_bytes(data)
    with pytest.raises(InputError, match="expected an Excel workbook"):
        read_workbook(tmp_path / "t.xlsx")


def test_older_formats_repeated_columns_and_missing_files(tmp_path, save):
    (tmp_path / "t.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(InputError, match="before 2007") as caught:
        read_workbook(tmp_path / "t.xls")
    assert "save it in Excel as .xlsx" in caught.value.hint
    with pytest.raises(InputError, match="row 1: the column 'a' is listed twice"):
        read_workbook(save(["a", "a"]))
    with pytest.raises(InputError, match="no such file"):
        read_workbook(tmp_path / "none.xlsx")


def test_a_workbook_is_known_by_its_content(tmp_path, save):
    save(["a"]).rename(tmp_path / "t.csv")
    (tmp_path / "u.csv").write_text("a\n")
    assert [is_workbook(tmp_path / name) for name in ("t.csv", "u.csv", "v.csv")] == [True, False, False]


def test_without_openpyxl_there_is_one_line(save, monkeypatch):
    path = save(["a"])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match="openpyxl, which is not installed") as caught:
        read_workbook(path)
    assert "pip install openpyxl" in caught.value.hint


def with_sheet(path, change):
    """The workbook with other XML in its first sheet."""
    with zipfile.ZipFile(path) as book:
        parts = {member.filename: book.read(member) for member in book.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, data in parts.items():
            book.writestr(name, change(data) if name.endswith("sheet1.xml") else data)
    return path


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (b'<row r="9">' + b"<c/>" * (1 << 24) + b"</row>", "more than 16,777,216 XML tags"),
        (b"".join(b'<row r="%d"><c r="XFD%d"><v>1</v></c></row>' % (i, i) for i in range(3, 400)), "4,194,304 cells"),
        (b"<v>" + bytes(1 << 28) + b"</v>", "at most 134,217,728 bytes when it is inflated"),
    ],
    ids=["tags", "columns", "size"],
)
def test_a_workbook_that_inflates_is_refused_at_once(save, rows, words):
    path = with_sheet(save(["label"], ["a"]), lambda sheet: sheet.replace(b"</sheetData>", rows + b"</sheetData>"))
    assert path.stat().st_size < 1 << 20
    began = time.process_time()
    with pytest.raises(InputError, match=words):
        read_workbook(path)
    assert time.process_time() - began < 5


def test_a_sheet_that_claims_all_columns_is_read(save):
    def claim(sheet):
        return sheet.replace(b'<dimension ref="A1:B2"', b'<dimension ref="A1:XFD1048576"')

    table, _ = read_workbook(with_sheet(save(["label", "score"], ["a", 1]), claim))
    assert table.rows == [{"label": "a", "score": "1"}]


@pytest.mark.parametrize(("name", "found"), [("w.pth", "a file of weights"), ("w.zip", "that is no workbook")])
def test_another_zip_file_is_called_what_it_is(tmp_path, name, found):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("data.pkl", "")
    with pytest.raises(InputError, match=found) as caught:
        read_workbook(tmp_path / name)
    assert ("weights import" in (caught.value.hint or "")) == (name == "w.pth")
