import io
import shutil
import zipfile

import openpyxl
import pytest

from cxrtool.data.datasets import radiography
from cxrtool.errors import InputError

BASE = "COVID-19_Radiography_Dataset"
SPACE = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
SHEET, TYPES = "xl/worksheets/sheet1.xml", "[Content_Types].xml"
KIND = 'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"'


def book(*rows, sheet="", shared=""):
    """A workbook as openpyxl writes it, with another sheet (None leaves it out), or with shared texts."""
    made, written = openpyxl.Workbook(), io.BytesIO()
    for row in rows or [["name"], ["x"]]:
        made.active.append(row)
    made.save(written)
    with zipfile.ZipFile(written) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    if sheet is None:
        del parts[SHEET]
    parts |= {SHEET: sheet} if sheet else {}
    if shared:
        parts["xl/sharedStrings.xml"] = shared
        parts[TYPES] = parts[TYPES].replace("</Types>", f'<Override PartName="/xl/sharedStrings.xml" {KIND}/></Types>')
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return written.getvalue()


@pytest.fixture
def read(tmp_path):
    def reader(data):
        (tmp_path / "book.xlsx").write_bytes(data)
        return radiography.read_book(tmp_path / "book.xlsx")

    return reader


def test_images_masks_and_origins(published, listed):
    root = published("radiography-db")
    for source in (root, root / BASE):
        rows = listed("radiography-db", source)
        assert sorted(
            (name, record.columns["label"], record.columns.get("url", "")) for name, record in rows.items()
        ) == [
            ("COVID/images/COVID-1.png", "COVID", "https://covid.org"),
            ("COVID/images/COVID-2.png", "COVID", ""),
            ("Lung_Opacity/images/Lung_Opacity-1.png", "Lung_Opacity", ""),
            ("Lung_Opacity/images/Lung_Opacity-2.png", "Lung_Opacity", ""),
            ("Normal/images/Normal-1.png", "Normal", "https://normal.org"),
            ("Normal/images/Normal-2.png", "Normal", ""),
            ("Viral Pneumonia/images/Viral Pneumonia-1.png", "Viral Pneumonia", ""),
        ]
        assert rows["COVID/images/COVID-1.png"].masks == (root / BASE / "COVID" / "masks" / "COVID-1.png",)
        assert rows["COVID/images/COVID-2.png"].masks == ()


def test_older_versions_are_flat(published, listed):
    root = published("radiography-db") / BASE
    for old, new in (("COVID", "COVID-19"), ("Normal", "NORMAL"), ("Viral Pneumonia", "Viral_Pneumonia")):
        shutil.copytree(root / old / "images", root.parent / "old" / new)
    (root.parent / "old" / "COVID-19" / "COVID-1.png").rename(root.parent / "old" / "COVID-19" / "COVID-19 (1).png")
    rows = listed("radiography-db", root.parent / "old")
    assert {record.columns["label"] for record in rows.values()} == {"COVID", "Normal", "Viral Pneumonia"}
    assert rows["COVID-19/COVID-19 (1).png"].columns == {"label": "COVID", "source": "radiography-db"}


def test_a_single_class_is_not_the_set(published, listed):
    root = published("radiography-db") / BASE
    with pytest.raises(InputError, match="the folders COVID, Lung_Opacity"):
        listed("radiography-db", root / "COVID")
    (root / "COVID.metadata.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"COVID.metadata.xlsx: expected an Excel workbook"):
        listed("radiography-db", root)


def test_a_book_is_read_as_text_with_its_gaps(read):
    rows = [
        [" FILE NAME ", "FORMAT", "SIZE", "URL"],
        ["COVID-1", "PNG", None, "https://x"],
        ["001", "NA", 299, None],
        ["nan", "None", 2.5, "=1+1"],
    ]
    assert read(book(*rows)) == [
        {"FILE NAME": "COVID-1", "FORMAT": "PNG", "SIZE": "", "URL": "https://x"},
        {"FILE NAME": "001", "FORMAT": "NA", "SIZE": "299", "URL": ""},
        {"FILE NAME": "nan", "FORMAT": "None", "SIZE": "2.5", "URL": ""},
    ]


def test_rich_texts_inline_texts_and_phonetics(read):
    shared = f"<sst {SPACE}><si><r><t>na</t></r><r><t>me</t></r><rPh sb='0' eb='1'><t>no</t></rPh></si></sst>"
    cells = '<row><c r="A1" t="s"><v>0</v></c></row><row><c r="A2" t="inlineStr"><is><t>x</t></is></c></row>'
    sheet = f"<worksheet {SPACE}><sheetData>{cells}</sheetData></worksheet>"
    assert read(book(sheet=sheet, shared=shared)) == [{"name": "x"}]
    assert read(book(sheet=f"<worksheet {SPACE}><sheetData/></worksheet>")) == []


@pytest.mark.parametrize(
    "data",
    [
        b"PK",
        b"",
        book(sheet=None),
        book(sheet="<worksheet>"),
        book(sheet="<!DOCTYPE x [<!ENTITY a 'b'>]><worksheet/>"),
        book(sheet=f'<worksheet {SPACE}><sheetData><row><c t="s"><v>7</v></c></row></sheetData></worksheet>'),
    ],
    ids=["zip", "empty", "sheetless", "cut", "entities", "index"],
)
def test_what_is_no_workbook_is_said(read, data):
    with pytest.raises(InputError, match=r"book.xlsx"):
        read(data)


def test_a_bomb_is_refused(read, monkeypatch):
    monkeypatch.setattr(radiography, "LARGEST", 20_000)
    assert read(book()) == [{"name": "x"}]
    with pytest.raises(InputError, match="expected a workbook of at most"):
        read(book(sheet=f"<worksheet {SPACE}>{' ' * 20_000}</worksheet>"))


def test_a_cell_beyond_the_last_row_does_not_keep_it_busy(read, monkeypatch):
    monkeypatch.setattr(radiography, "ROWS", 100)
    cell = '<row r="{0}"><c r="A{0}"><v>1</v></c></row>'
    cells = cell.format(1) + cell.format(99_999_999_999)
    assert read(book(sheet=f"<worksheet {SPACE}><sheetData>{cells}</sheetData></worksheet>")) == []
