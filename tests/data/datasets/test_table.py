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


def test_columns_can_be_named(tmp_path):
    text = "path,label,where,what,who\na.png,x,b.png,y,z\n"
    (record,) = listed(tmp_path, text, path_column="where", label_column="what", patient_column="who")
    assert record.path.name == "b.png"
    assert record.columns == {"path": "a.png", "label": "y", "patient_id": "z"}


def test_a_missing_column_names_those_that_are_there(tmp_path):
    with pytest.raises(InputError, match=r"a column of image files.*found: a, b"):
        listed(tmp_path, "a,b\n1,2\n")
    with pytest.raises(InputError, match="--label-column: expected a column 'y', found: path, x"):
        listed(tmp_path, "path,x\n1,2\n", label_column="y")


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
