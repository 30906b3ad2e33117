import pytest

from cxrtool.data.datasets.record import Request
from cxrtool.errors import InputError


def test_what_it_tells_of_each_image(published, listed):
    root = published("padchest")
    rows = listed("padchest", root)
    told = {
        name: tuple(record.columns[column] for column in ("label", "patient_id", "view", "age", "sex"))
        for name, record in rows.items()
        if not record.unwanted
    }
    assert told == {
        "0/one_1.png": ("normal", "p1", "PA", "76", "M"),
        "36/two_2.png": ("pneumonia", "p1", "AP SUPINE", "76", "M"),
        "images-224/three_3.png": ("other findings", "p2", "PA", "", "M"),
        "0/torn_8.png": ("", "p4", "AP", "64", "M"),
        "0/gone_9.png": ("", "p5", "AP", "64", "M"),
    }
    assert rows["36/two_2.png"].columns["labels"] == "['pneumonia', ' kyphosis', 'pneumonia', '']"
    assert rows["36/two_2.png"].columns["MethodLabel"] == "Physician"
    assert "Report" not in rows["36/two_2.png"].columns
    assert [name for name, record in rows.items() if "warning" in record.columns] == ["images-224/three_3.png"]


def test_what_is_left_out_has_a_reason(published, listed):
    root = published("padchest")
    excluded = "excluded by the data set: not a chest, or no usable report"
    reasons = {name: record.unwanted for name, record in listed("padchest", root).items() if record.unwanted}
    assert reasons == {
        "0/side_4.png": "view L, a lateral view (--view L keeps it)",
        "0/rib_5.png": "view COSTAL, not a frontal view (--view COSTAL keeps it)",
        "0/out_6.png": excluded,
        "0/bad_7.png": excluded,
    }
    asked = listed("padchest", root, Request(views=frozenset({"PA", "L"})))
    assert [name for name, record in asked.items() if record.unwanted] == ["0/out_6.png", "0/bad_7.png"]


def test_a_column_that_is_missing_is_named(published, listed):
    root = published("padchest")
    (table,) = root.glob("*.csv")
    table.write_text(table.read_text().replace("Projection,", "View,", 1))
    with pytest.raises(InputError, match="expected a column Projection, found: ImageID, ImageDir"):
        listed("padchest", root)
    table.rename(root / "PADCHEST_other.csv")
    (root / "PADCHEST_second.csv").write_text("a\n")
    with pytest.raises(InputError, match=r"expected one table .*found PADCHEST_other.csv, PADCHEST_second.csv"):
        listed("padchest", root)
