def test_labels_readings_and_masks(published, listed):
    root = published("shenzhen")
    records = {name.rpartition("/")[2]: record for name, record in listed("shenzhen", root).items()}
    rows = {name: record.columns for name, record in records.items()}
    assert {name: (row["label"], row["age"], row["sex"], row["reading"]) for name, row in rows.items()} == {
        "CHNCXR_0001_0.png": ("normal", "45", "M", "normal"),
        "CHNCXR_0002_1.png": ("tuberculosis", "32", "F", "STB, right upper"),
        "CHNCXR_0003_1.png": ("tuberculosis", "0.2", "M", "PTB"),
    }
    assert records["CHNCXR_0001_0.png"].masks == (root / "ChinaSet_AllFiles" / "mask" / "CHNCXR_0001_0_mask.png",)
    assert records["CHNCXR_0003_1.png"].masks == ()


def test_masks_may_lie_beside_the_set(published, listed):
    root = published("shenzhen")
    (root / "ChinaSet_AllFiles" / "mask").rename(root / "masks")
    rows = listed("shenzhen", root)
    assert sum(len(row.masks) for row in rows.values()) == 2
