import numpy as np

from cxrtool.data.tables.manifest import Manifest, Table
from cxrtool.data.tables.table_one import of_two_sexes, table_one


def rows_of(*cells, names=("image_id", "patient_id", "age", "sex", "label", "view")):
    return Table(list(names), [dict(zip(names, row, strict=True)) for row in cells])


ROWS = rows_of(
    ("a", "p1", "40", "F", "covid", "PA"),
    ("b", "p1", "40", "F", "covid", "AP"),
    ("c", "p2", "060Y", "M", "covid", "PA"),
    ("d", "p3", "", "", "normal", ""),
    ("e", "p4", "20", "M", "normal", "PA"),
    ("f", "p5", "30.0", "F", "normal", "PA"),
    ("z", "p9", "99", "F", "left out", "PA"),
)
SIDES = dict.fromkeys("abc", "train") | dict.fromkeys("def", "test")


def cells_of(name, **options):
    header, table = table_one(ROWS, SIDES, ["train", "test"], **options)
    assert header == ["", "train", "test", "all", "SMD"]
    return next(row[1:] for row in table if row[0] == name)


def test_images_and_patients():
    assert cells_of("images") == ["3", "3", "6", ""]
    assert cells_of("patients") == ["2", "3", "5", ""]


def test_age_and_sex_are_counted_by_patient():
    a, b = np.array([40.0, 60.0]), np.array([20.0, 30.0])
    smd = abs(a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert cells_of("age, mean ± SD") == ["50.0 ± 14.1", "25.0 ± 7.1", "37.5 ± 17.1", f"{smd:.2f}"]
    assert cells_of("age, range") == ["40 to 60", "20 to 30", "20 to 60", ""]
    p, q = 0.0, 1 / 3
    smd = abs(p - q) / np.sqrt((p * (1 - p) + q * (1 - q)) / 2)
    assert cells_of("age missing") == ["0 (0.0 %)", "1 (33.3 %)", "1 (20.0 %)", f"{smd:.2f}"]
    assert cells_of("sex F") == ["1 (50.0 %)", "1 (33.3 %)", "2 (40.0 %)", "0.34"]
    assert cells_of("sex missing")[2] == "1 (20.0 %)"


def test_the_rest_is_counted_by_image_with_what_is_missing():
    assert cells_of("view PA")[:3] == ["2 (66.7 %)", "2 (66.7 %)", "4 (66.7 %)"]
    assert cells_of("view missing")[:3] == ["0 (0.0 %)", "1 (33.3 %)", "1 (16.7 %)"]


def test_a_difference_without_spread_is_undefined_not_zero():
    assert cells_of("label covid") == ["3 (100.0 %)", "0 (0.0 %)", "3 (50.0 %)", ""]


def test_the_largest_of_several_differences_is_shown():
    rows = rows_of(*((str(i), str(i), "", "FM"[i % 4 < i // 40], "", "") for i in range(120)))
    sides = {str(i): "abc"[i // 40] for i in range(120)}
    _, table = table_one(rows, sides, ["a", "b", "c"])
    shares = [np.mean([sex == "F" for sex in rows.column("sex")[k : k + 40]]) for k in (0, 40, 80)]
    differences = [abs(p - q) / np.sqrt((p * (1 - p) + q * (1 - q)) / 2) for p in shares for q in shares if p > q]
    assert [row[-1] for row in table if row[0] == "sex F"] == [f"{max(differences):.2f}"]


def test_columns_nobody_filled_are_not_shown():
    _, table = table_one(rows_of(("a", "", "", "", "", "")), {"a": "x"}, ["x"])
    assert [row[0] for row in table] == ["images", "patients"]


def test_columns_of_very_many_values_are_only_counted():
    rows = [{"image_id": str(i), "source": f"hospital {i}"} for i in range(20)]
    _, table = table_one(Table(list(rows[0]), rows), dict.fromkeys(map(str, range(20)), "x"), ["x"])
    assert table[-1] == ["source, values", "20", "20", ""]


def test_a_patient_of_two_groups_counts_once_among_all_with_what_the_first_tells():
    rows = rows_of(("a", "p", "", "", "", ""), ("b", "p", "50", "M", "", ""), ("c", "p", "70", "F", "", ""))
    _, table = table_one(rows, {"a": "x", "b": "y", "c": "x"}, ["x", "y"])
    assert table[1] == ["patients", "1", "1", "1", ""]
    assert [row[:4] for row in table if row[0] == "age, mean ± SD"] == [["age, mean ± SD", "70.0", "50.0", "70.0"]]
    assert [row[0] for row in table if row[0].startswith("sex")] == ["sex F"]


def test_a_patient_of_two_sexes_is_warned_of():
    names = ("image_id", "path", "patient_id", "sex", "label")
    cells = [("a", "a.png", "1", "M", "x"), ("b", "b.png", "1", "f", "x"), ("c", "c.png", "2", "F", "y")]
    rows = [dict(zip(names, one, strict=True)) for one in [*cells, ("d", "d.png", "2", "f ", "y")]]
    assert of_two_sexes(Manifest(list(names), rows)) == [
        "1 patient with images of different sex; counted once, by the first"
    ]
    assert not of_two_sexes(Manifest(list(names), rows[1:]))
    assert not of_two_sexes(Manifest(list(names), [{**rows[1], "sex": "Female"}, rows[1]]))


def test_severities_are_in_their_order():
    names = ("image_id", "patient_id", "severity")
    rows = rows_of(
        *((str(k), str(k), name) for k, name in enumerate(["severe", "", "mild", "normal-pcr+"])), names=names
    )
    _, table = table_one(rows, {str(k): "x" for k in range(4)}, ["x"])
    found = [row[0] for row in table if row[0].startswith("severity")]
    assert found == ["severity normal-pcr+", "severity mild", "severity severe", "severity missing"]
