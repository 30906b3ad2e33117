import pytest

from cxrtool.data.datasets.record import Request
from cxrtool.errors import InputError

EARLY = (
    "Patientid,offset,sex,age,finding,survival,view,date,location,filename,doi, url,license,notes\n"
    '5,,,,"COVID-19, ARDS",,PA,2017,,a.png,,https://x,,Intubated\n'
    "17,9,M,54,SARS,Y,CT,2020,Korea,d.jpg,,,,\n"
)


def test_what_it_tells_of_each_image(published, listed):
    root = published("cohen")
    rows = listed("cohen", root)
    first = rows["images/auntminnie-a.jpeg"]
    assert first.path == root / "images" / "auntminnie-a.jpeg"
    told = {name: value for name, value in first.columns.items() if value}
    assert told == {
        "label": "COVID-19",
        "finding": "Pneumonia/Viral/COVID-19",
        "patient_id": "2",
        "view": "PA",
        "age": "65",
        "sex": "M",
        "source": "cohen",
        "modality": "X-ray",
        "offset": "0",
        "rt_pcr_positive": "Y",
        "survival": "Y",
        "intubated": "N",
        "intubation_present": "N",
        "went_icu": "N",
        "in_icu": "N",
        "needed_supplemental_o2": "Y",
        "date": "January 22, 2020",
        "location": "Ho Chi Minh City, Vietnam",
        "doi": "10.1056/nejmc2001272",
        "url": "https://x",
        "clinical_notes": "Fever, cough",
        "geographic_mean": "5.3",
        "opacity_mean": "4.0",
    }
    assert rows["images/auntminnie-b.jpeg"].columns["view"] == "AP SUPINE"
    assert "geographic_mean" not in rows["images/auntminnie-b.jpeg"].columns
    assert rows["images/normal (1).png"].columns["label"] == "No Finding"
    assert {name: record.columns["label"] for name, record in rows.items()}["images/side.png"] == "Streptococcus"


def test_what_is_left_out_has_a_reason(published, listed):
    reasons = {name: record.unwanted for name, record in listed("cohen", published("cohen")).items() if record.unwanted}
    assert reasons == {
        "images/side.png": "view L, a lateral view (--view L keeps it)",
        "volumes/scan.nii.gz": "modality CT, not a radiograph",
        "images/todo.png": "finding 'todo': its class is not known",
    }


def test_laterals_can_be_asked_for(published, listed):
    rows = listed("cohen", published("cohen"), Request(views=frozenset({"L"})))
    assert rows["images/side.png"].unwanted == ""
    assert "CT" in rows["volumes/scan.nii.gz"].unwanted


def test_early_versions(tmp_path, listed):
    (tmp_path / "metadata.csv").write_text(EARLY)
    for source in (tmp_path, tmp_path / "metadata.csv"):
        rows = listed("cohen", source)
        assert rows["images/a.png"].columns["label"] == "COVID-19"
        assert rows["images/a.png"].columns["finding"] == "COVID-19, ARDS"
        assert (rows["images/a.png"].columns["url"], rows["images/a.png"].columns["patient_id"]) == ("https://x", "5")
        assert rows["images/d.jpg"].unwanted == "view CT, not a radiograph"


def test_another_set_is_told_apart(published, listed):
    root = published("actualmed")
    with pytest.raises(InputError, match=r"expected metadata.csv with a column filename.* found images/, ") as caught:
        listed("cohen", root)
    assert caught.value.hint == "it looks like --dataset actualmed"


def test_a_repository_that_was_unpacked_a_level_deeper(published, listed):
    root = published("cohen")
    assert [r.path for r in listed("cohen", root.parent).values()] == [r.path for r in listed("cohen", root).values()]
