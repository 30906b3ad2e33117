import unicodedata

import pytest

from cxrtool.data.datasets.record import Request
from cxrtool.data.datasets.table import read
from cxrtool.errors import InputError


def listed(tmp_path, text, **columns):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return list(read(path, Request(**columns)))


def test_columns_are_found_and_others_pass_through(tmp_path):
    (record,) = listed(tmp_path, "File;Finding;PatientID;View;offset;age\nx/a.png;None;007;PA; 3;045\n")
    assert record.path == tmp_path / "x" / "a.png"
    assert record.relative == "x/a.png"
    assert record.columns == {"label": "None", "patient_id": "007", "view": "PA", "offset": " 3", "age": "045"}


def test_columns_can_be_named_and_nothing_is_lost(tmp_path):
    text = "path,label,where,what,who\na.png,x,b.png,y,z\n"
    named = {"path": "where", "label": "what", "patient_id": "who"}
    (record,) = listed(tmp_path, text, columns=named)
    assert record.path.name == "b.png"
    assert record.columns == {"path_of_table": "a.png", "label_of_table": "x", "label": "y", "patient_id": "z"}


def test_one_column_may_have_two_meanings(tmp_path):
    text = "Nr;Alter;Seite\n007;40,5;L\n"
    (record,) = listed(tmp_path, text, columns={"path": "Nr", "patient_id": "nr ", "image_id": "Nr", "age": "Alter"})
    assert record.path.name == "007"
    assert record.columns == {"patient_id": "007", "image_id": "007", "age": "40.5", "Seite": "L"}


def test_a_missing_column_names_those_that_are_there(tmp_path):
    with pytest.raises(InputError, match=r"a column of image files.*found: a, b"):
        listed(tmp_path, "a,b\n1,2\n")
    with pytest.raises(InputError, match="--columns label=y: expected this column, found: path, x"):
        listed(tmp_path, "path,x\n1,2\n", columns={"label": "y"})


def test_names_are_found_below_a_folder(tmp_path):
    images = tmp_path / "elsewhere"
    for name in ("a.png", "x/b.jpg", "x/c.png", "y/c.png", "y/D.DCM", "out/b.png"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(b"")
    text = "path\na\nb\nc\ny/c\nd\nz.png\ny\\c.png\n"
    records = listed(tmp_path, text, images=images, exclude=frozenset({(images / "out").resolve()}))
    assert [record.relative for record in records] == [
        "a.png",
        "x/b.jpg",
        "c",
        "y/c.png",
        "y/D.DCM",
        "z.png",
        "y/c.png",
    ]
    assert [record.doubt for record in records if record.doubt] == ["several files have this name: x/c.png, y/c.png"]


def test_a_mask_is_not_searched_for(tmp_path):
    for name in ("images/a.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    (record,) = listed(tmp_path, "path,mask\na,masks/a\n", images=tmp_path / "images")
    assert record.path == tmp_path / "images" / "a.png"
    assert record.masks == (tmp_path / "masks" / "a.png",)


def test_bare_names_are_looked_for_in_images(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    first, second = listed(tmp_path, "filename,mask\na.png,m/a.png\nb.png,\n")
    assert first.path == tmp_path / "images" / "a.png"
    assert first.masks == (tmp_path / "m" / "a.png",)
    assert second.path == tmp_path / "b.png"


def test_a_row_without_a_file_is_not_lost(tmp_path):
    first, second = listed(tmp_path, "path,label\n,x\n/abs/b.png,y\n")
    assert first.relative == ""
    assert "line 2" in str(first.path)
    assert str(second.path) == "/abs/b.png"


def remarked(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    request = Request()
    return [record.columns for record in read(path, request)], request.remarks


def test_ids_that_a_program_turned_into_fractions_are_whole_again(tmp_path):
    rows, remarks = remarked(tmp_path, "path,patient_id\na.png,7.0\nb.png,\nc.png,12.0\n")
    assert [row["patient_id"] for row in rows] == ["7", "", "12"]
    assert "read as whole numbers" in remarks[0]
    rows, remarks = remarked(tmp_path, "path,patient_id\na.png,7.0\nb.png,7.1\n")
    assert [row["patient_id"] for row in rows] == ["7.0", "7.1"]
    assert not remarks


@pytest.mark.parametrize("word", ["nan", "NaN", "<NA>", "N/A", "None", "null", "NA", "unknown"])
def test_a_missing_patient_is_nobody(tmp_path, word):
    rows, remarks = remarked(tmp_path, f"path,patient_id\na.png,P1\nb.png,{word}\nc.png,{word}\n")
    assert [row["patient_id"] for row in rows] == ["P1", "", ""]
    assert remarks == [f"{tmp_path}/t.csv: 'patient_id' is '{word}' in 2 rows: these images have no patient"]


def test_a_name_that_may_be_a_patient_s_stays(tmp_path):
    rows, remarks = remarked(tmp_path, "path,patient_id\na.png,AB\nb.png,NA\n")
    assert [row["patient_id"] for row in rows] == ["AB", "NA"]
    assert not remarks


def test_a_label_none_is_a_class_unless_the_table_shows_what_it_means(tmp_path):
    rows, remarks = remarked(tmp_path, "path,label,age\na.png,covid,50\nb.png,None,60\n")
    assert [row["label"] for row in rows] == ["covid", "None"]
    assert not remarks
    rows, remarks = remarked(tmp_path, "path,label,age\na.png,covid,None\nb.png,None,60\n")
    assert [row["label"] for row in rows] == ["covid", ""]
    assert "'label' is 'None' in 1 row: these images have no label" in remarks[0]
    rows, _ = remarked(tmp_path, "path,label\na.png,covid\nb.png,nan\n")
    assert [row["label"] for row in rows] == ["covid", ""]


def test_ages_and_sexes_get_one_spelling_and_the_rest_is_counted(tmp_path):
    text = "path;age;Sex\na;045Y;Female\nb;40,5;m\nc;65;F\nd;>89;1\ne;nan;unknown\n"
    rows, remarks = remarked(tmp_path, text)
    assert [row["age"] for row in rows] == ["45", "40.5", "65", ">89", ""]
    assert [row["sex"] for row in rows] == ["F", "M", "F", "1", ""]
    assert "'age' cannot be read as years in 1 row, such as '>89'" in remarks[0]
    assert "'Sex' cannot be read as a sex in 1 row, such as '1'" in remarks[1]


def test_windows_paths_are_found(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "x.png").write_bytes(b"")
    rows = listed(tmp_path, "path\nimages\\a\\x.png\na\\x.png\nC:\\study\\images\\a\\x.png\n\\\\server\\s\\a\\x.png\n")
    assert [record.path for record in rows] == [tmp_path / "images" / "a" / "x.png"] * 4


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_both_unicode_forms_are_one_name(tmp_path, written, stored):
    folder, name = (unicodedata.normalize(stored, text) for text in ("Köln", "Übersicht é.png"))
    (tmp_path / folder).mkdir()
    (tmp_path / folder / name).write_bytes(b"")
    cell = unicodedata.normalize(written, "Köln/Übersicht é.png")
    again = unicodedata.normalize("NFD", "Pneumonié")
    first, second = listed(tmp_path, f"path,label\n{cell},{again}\n{cell},Pneumonié\n")
    assert first.path == tmp_path / folder / name
    assert first.columns["label"] == second.columns["label"]


def test_the_line_that_tells_excel_the_delimiter_is_no_row(tmp_path):
    (record,) = listed(tmp_path, 'sep=;\r\npath;label\r\na.png;"x;y"\r\n')
    assert record.columns["label"] == "x;y"
