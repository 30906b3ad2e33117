from cxrtool.data.tables.duplicates import COLUMNS, as_table, conflicts, find_duplicates, remark


def row(name, sha256, dhash, label="", patient=""):
    return {"image_id": name, "sha256": sha256, "dhash": dhash, "label": label, "patient_id": patient}


FAR, NEAR = "f0" * 32, "f0" * 31 + "f1"


def test_equal_pixels_and_likeness_are_told_apart():
    rows = [
        row("a", "1", FAR, "covid", "p:1"),
        row("b", "2", "0f" * 32, "normal"),
        row("c", "1", FAR, "covid"),
        row("d", "3", NEAR, "normal"),
        row("e", "1", FAR),
    ]
    found = find_duplicates(rows)
    assert [(d.later, d.earlier, d.bits) for d in found] == [(2, 0, None), (3, 0, 1), (4, 0, None)]
    assert [remark(d, rows) for d in found] == [
        "same pixels as a",
        "near-duplicate of a, which is labelled covid",
        "same pixels as a",
    ]
    assert [conflicts(d, rows) for d in found] == [False, True, False]
    table = as_table(found, rows)
    assert set(table[0]) == set(COLUMNS)
    assert table[1]["duplicate_of"] == "a"
    assert table[0]["patient_id_of_other"] == "p:1"


def test_blank_pictures_are_not_alike_for_being_blank():
    rows = [row("a", "1", "0" * 64), row("b", "2", "0" * 64), row("c", "", "")]
    assert find_duplicates(rows) == []
