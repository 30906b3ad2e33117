import shutil

import pytest

from cxrtool.errors import InputError

BASE = "COVID-19_Radiography_Dataset"


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
        assert rows["COVID/images/COVID-1.png"].columns["mask"] == str(root / BASE / "COVID" / "masks" / "COVID-1.png")
        assert "mask" not in rows["COVID/images/COVID-2.png"].columns


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
