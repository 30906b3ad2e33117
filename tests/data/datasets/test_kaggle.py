import shutil

import pytest

from cxrtool.data.datasets.record import Request
from cxrtool.errors import InputError


def test_names_tell_cause_and_patient(published, listed):
    request = Request()
    rows = listed("kaggle-pneumonia", published("kaggle-pneumonia"), request)
    told = {
        name: (record.columns["label"], record.columns["patient_id"], record.columns["subset"])
        for name, record in rows.items()
    }
    assert told == {
        "train/PNEUMONIA/person9_bacteria_41.jpeg": ("bacterial", "person9", "train"),
        "train/PNEUMONIA/person100_virus_184.jpeg": ("virus", "person100", "train"),
        "train/NORMAL/IM-0115-0001.jpeg": ("NORMAL", "normal-0115", "train"),
        "train/NORMAL/NORMAL2-IM-0335-0001.jpeg": ("NORMAL", "normal-0335", "train"),
        "test/PNEUMONIA/person100_bacteria_475.jpeg": ("bacterial", "person100", "test"),
        "test/NORMAL/IM-0001-0001.jpeg": ("NORMAL", "normal-0001", "test"),
        "val/PNEUMONIA/unnamed.jpeg": ("PNEUMONIA", "", "validation"),
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg": ("NORMAL", "normal-1427", "validation"),
    }
    assert {record.columns["population"] for record in rows.values()} == {"paediatric, 1 to 5 years"}
    assert "paediatric" in request.remarks[0]


def test_the_copy_within_is_not_read_twice(published, listed):
    root = published("kaggle-pneumonia") / "chest_xray"
    shutil.copytree(root, root / "chest_xray")
    assert len(listed("kaggle-pneumonia", root)) == 8


def test_what_is_none_of_it_is_said(published, listed):
    with pytest.raises(
        InputError, match=r"\{train,val,test\}/\{NORMAL,PNEUMONIA\} .*found N/, P/, severity.csv"
    ) as caught:
        listed("kaggle-pneumonia", published("covidgr"))
    assert caught.value.hint == "it looks like --dataset covidgr"
