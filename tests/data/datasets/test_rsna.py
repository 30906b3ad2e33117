import json

import pytest

from cxrtool.data.datasets.record import Request
from cxrtool.errors import InputError


def test_one_row_an_image(published, listed):
    request = Request()
    rows = listed("rsna", published("rsna"), request)
    assert list(rows) == [f"stage_2_train_images/{name}.dcm" for name in ("a1", "b2", "c3", "d4")]
    assert rows["stage_2_train_images/b2.dcm"].columns == {
        "label": "Lung Opacity",
        "patient_id": "b2",
        "source": "rsna",
        "target": "1",
        "boxes": "2",
        "box": "264.0 152.0 213.0 379.0; 562.0 152.0 256.0 453.0",
    }
    assert rows["stage_2_train_images/a1.dcm"].columns["label"] == "No Lung Opacity / Not Normal"
    assert (
        rows["stage_2_train_images/c3.dcm"].columns["boxes"],
        rows["stage_2_train_images/c3.dcm"].columns["box"],
    ) == ("0", "")
    assert len(request.remarks) == 2


def test_without_the_classes_the_target_counts(published, listed):
    root = published("rsna")
    (root / "stage_2_detailed_class_info.csv").unlink()
    rows = listed("rsna", root / "stage_2_train_labels.csv")
    assert [record.columns["label"] for record in rows.values()] == [
        "no pneumonia",
        "pneumonia",
        "no pneumonia",
        "no pneumonia",
    ]


def test_the_mapping_gives_the_patients_of_nih(published, listed):
    root = published("rsna")
    mapping = root / "pneumonia-challenge-dataset-mappings_2018.json"
    entries = [{"subset_img_id": name, "img_id": "00013774_026.png", "orig_labels": []} for name in ("a1", "c3")]
    mapping.write_text(json.dumps(entries))
    rows = listed("rsna", root)
    assert [record.columns["patient_id"] for record in rows.values()] == ["nih:00013774", "b2", "nih:00013774", "d4"]
    mapping.write_text('[{"id": 1}]')
    with pytest.raises(InputError, match="objects with subset_img_id and img_id"):
        listed("rsna", root)


def test_what_contradicts_itself_is_said(published, listed):
    root = published("rsna")
    with (root / "stage_2_detailed_class_info.csv").open("a") as file:
        file.write("c3,Lung Opacity\n")
    with pytest.raises(InputError, match="line 7: 'c3' is 'Lung Opacity', and 'Normal' above"):
        listed("rsna", root)
    with pytest.raises(InputError, match=r"expected stage_2_train_labels\.csv") as caught:
        listed("rsna", published("padchest"))
    assert caught.value.hint == "it looks like --dataset padchest"
