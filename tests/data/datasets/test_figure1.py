import pytest

from cxrtool.errors import InputError


def test_files_are_found_by_the_patient(published, listed):
    rows = listed("figure1", published("figure1"))
    told = {
        name: (record.columns["label"], record.columns["patient_id"], record.columns["view"], record.columns["age"])
        for name, record in rows.items()
    }
    assert told == {
        "images/COVID-00001.jpg": ("COVID-19", "COVID-00001", "AP ERECT", "33"),
        "images/COVID-00003a.jpg": ("", "COVID-00003", "AP ERECT", "28"),
        "images/COVID-00003b.png": ("No finding", "COVID-00003", "PA", "28"),
        "images/COVID-00021.JPG": ("Pneumonia", "COVID-00021", "", ""),
        "images/COVID-00099.jpg": ("COVID-19", "COVID-00099", "", ""),
    }
    assert rows["images/COVID-00021.JPG"].columns["age_as_given"] == "50+"
    assert rows["images/COVID-00003b.png"].columns["temperature"] == "38°"
    assert not any(record.unwanted for record in rows.values())


def test_the_table_of_actualmed_is_refused(published, listed):
    with pytest.raises(InputError, match="artifacts/distortion and without imagename") as caught:
        listed("figure1", published("actualmed"))
    assert caught.value.hint == "it looks like --dataset actualmed"
