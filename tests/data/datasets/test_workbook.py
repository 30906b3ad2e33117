import io
import zipfile

import pytest

from cxrtool.data.datasets import workbook
from cxrtool.errors import InputError

SPACE = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def archive(**parts):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in parts.items():
            file.writestr({"sheet": "xl/worksheets/sheet1.xml", "shared": "xl/sharedStrings.xml"}.get(name, name), text)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    def reader(data):
        (tmp_path / "book.xlsx").write_bytes(data)
        return workbook.read_sheet(tmp_path / "book.xlsx")

    return reader


def test_texts_numbers_and_gaps(read, write_book):
    rows = [
        ["FILE NAME", "FORMAT", "SIZE", "URL"],
        ["COVID-1", "PNG", "", "https://x"],
        ["", "", "", ""],
        ["COVID-2", "", "299", ""],
    ]
    assert read(write_book(rows)) == [
        {"FILE NAME": "COVID-1", "FORMAT": "PNG", "SIZE": "", "URL": "https://x"},
        {"FILE NAME": "COVID-2", "FORMAT": "", "SIZE": "299", "URL": ""},
    ]


def test_rich_texts_inline_texts_and_phonetics(read):
    shared = f"<sst {SPACE}><si><r><t>na</t></r><r><t>me</t></r><rPh><t>no</t></rPh></si></sst>"
    cells = '<row><c r="A1" t="s"><v>0</v></c></row><row><c r="A2" t="inlineStr"><is><t>x</t></is></c></row>'
    assert read(archive(sheet=f"<worksheet {SPACE}><sheetData>{cells}</sheetData></worksheet>", shared=shared)) == [
        {"name": "x"}
    ]
    assert read(archive(sheet=f"<worksheet {SPACE}><sheetData/></worksheet>")) == []


@pytest.mark.parametrize(
    "data",
    [
        b"PK",
        b"",
        archive(other="x"),
        archive(sheet="<worksheet>"),
        archive(sheet="<!DOCTYPE x [<!ENTITY a 'b'>]><worksheet/>"),
        archive(sheet=f'<worksheet {SPACE}><row><c t="s"><v>7</v></c></row></worksheet>'),
    ],
    ids=["zip", "empty", "sheetless", "cut", "entities", "index"],
)
def test_what_is_no_workbook_is_said(read, data):
    with pytest.raises(InputError, match=r"book.xlsx"):
        read(data)


def test_a_bomb_is_refused(read, monkeypatch):
    monkeypatch.setattr(workbook, "LARGEST", 1000)
    with pytest.raises(InputError, match="larger than any table"):
        read(archive(sheet=f"<worksheet {SPACE}>{' ' * 2000}</worksheet>"))
