import pytest

from cxrtool.data.splitting.grouping import group_images, normalised


def rows_of(*cells):
    names = ("image_id", "patient_id", "parent_id", "sha256")
    return [dict(zip(names, row, strict=True)) for row in cells]


def groups_of(rows, column="patient_id"):
    """The groups as sets of ids."""
    found = {}
    for row, number in zip(rows, group_images(rows, column), strict=True):
        found.setdefault(number, set()).add(row["image_id"])
    return sorted(map(sorted, found.values()))


def test_ids_are_compared_without_case_and_spaces():
    assert normalised(" A:12\t") == normalised("a:12")
    assert normalised("ÄRZTE  1") == normalised("ärzte 1")
    assert normalised("1 2") != normalised("12")


def test_a_patient_is_one_group_however_written():
    rows = rows_of(("a", "P1", "", ""), ("b", " p1 ", "", ""), ("c", "p2", "", ""))
    assert groups_of(rows) == [["a", "b"], ["c"]]


def test_an_empty_patient_shares_nothing():
    rows = rows_of(("a", "", "", ""), ("b", " ", "", ""), ("c", "", "", ""))
    assert groups_of(rows) == [["a"], ["b"], ["c"]]


def test_derived_images_join_their_parent_and_one_another():
    rows = rows_of(
        ("d1", "", "p", ""),
        ("p", "X", "", ""),
        ("d2", "other", "p", ""),
        ("e1", "", "gone", ""),
        ("e2", "", "gone", ""),
    )
    assert groups_of(rows) == [["d1", "d2", "p"], ["e1", "e2"]]


def test_identical_pixels_join_patients():
    rows = rows_of(("a", "p1", "", "AB"), ("b", "p2", "", "ab"), ("c", "p2", "", ""), ("d", "p3", "", ""))
    assert groups_of(rows) == [["a", "b", "c"], ["d"]]


def test_chains_join_through_one_another():
    rows = rows_of(
        ("a", "p1", "", "s1"), ("b", "p2", "", "s1"), ("c", "p2", "", "s2"), ("d", "", "", "s2"), ("e", "", "d", "")
    )
    assert groups_of(rows) == [["a", "b", "c", "d", "e"]]


def test_another_column_can_name_the_group():
    rows = [{"image_id": "a", "study": "1"}, {"image_id": "b", "study": "1"}, {"image_id": "c"}]
    assert groups_of(rows, "study") == [["a", "b"], ["c"]]


def test_numbers_follow_the_order_of_appearance():
    assert group_images(rows_of(("a", "2", "", ""), ("b", "1", "", ""), ("c", "2", "", ""))) == [0, 1, 0]
    assert group_images([]) == []


@pytest.mark.parametrize(
    ("ids", "groups"),
    [
        (["7", "7.0", "7.00", "8"], [0, 0, 0, 1]),
        (["a:7", "b:7.0", "a:7.0"], [0, 1, 0]),
        (["nan", "nan", "1"], [0, 1, 2]),
        (["c:NaN", "c:nan", "c:1"], [0, 1, 2]),
        (["None", "None", "P1", "P1"], [0, 1, 2, 2]),
        (["NA", "NA", "AB"], [0, 0, 1]),
        (["P 1", " p  1", "P1"], [0, 0, 1]),
    ],
)
def test_ids_as_programs_write_them(ids, groups):
    rows = [{"image_id": f"i{k}", "patient_id": name} for k, name in enumerate(ids)]
    assert group_images(rows) == groups
