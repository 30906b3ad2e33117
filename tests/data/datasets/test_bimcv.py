import pytest

from cxrtool.data.datasets.record import Request
from cxrtool.errors import InputError


def short(rows):
    return {name.rpartition("/")[2].removesuffix(".png"): record for name, record in rows.items()}


def test_tables_names_and_headers(published, listed):
    request = Request()
    rows = short(listed("bimcv", published("bimcv"), request))
    told = {
        name: tuple(record.columns[column] for column in ("label", "patient_id", "session", "view", "age", "sex"))
        for name, record in rows.items()
        if not record.unwanted
    }
    assert told == {
        "sub-S1_ses-E1_run-1_bp-chest_vp-ap_dx": ("COVID-19", "sub-S1", "ses-E1", "AP", "57", "M"),
        "sub-S2_ses-E3_acq-1_run-1_bp-chest_vp-pa_cr": ("normal", "sub-S2", "ses-E3", "PA", "", ""),
        "sub-S2_ses-E4_run-2_bp-chest_cr": ("", "sub-S2", "ses-E4", "", "", ""),
    }
    first = rows["sub-S1_ses-E1_run-1_bp-chest_vp-ap_dx"]
    assert first.header == first.path.with_suffix(".json")
    assert first.columns["cohort"] == "positive"
    assert first.columns["labels"] == "['COVID 19', 'pneumonia']"
    bare = rows["sub-S2_ses-E4_run-2_bp-chest_cr"]
    assert bare.header is None
    assert bare.columns["warning"].startswith("no .json file beside it")
    assert any(path.name.endswith("_ct.nii.gz") for path in request.skipped)


def test_what_is_left_out_has_a_reason(published, listed):
    reasons = {name: record.unwanted for name, record in short(listed("bimcv", published("bimcv"))).items()}
    assert {name: reason for name, reason in reasons.items() if reason} == {
        "sub-S2_ses-E3_run-2_bp-chest_vp-ll_cr": "view LL, a lateral view (--view LL keeps it)",
        "sub-S2_ses-E4_run-1_bp-abdomen_cr": "body part abdomen, not a chest",
    }


def test_archives_unpacked_side_by_side(published, listed):
    root = published("bimcv")
    for name in ("derivatives", "participants.tsv"):
        (root / "covid19_posi_head").mkdir(exist_ok=True)
        (root / name).rename(root / "covid19_posi_head" / name)
    (root / "covid19_posi_subjects_1").mkdir()
    (root / "sub-S1").rename(root / "covid19_posi_subjects_1" / "sub-S1")
    rows = short(listed("bimcv", root))
    assert rows["sub-S1_ses-E1_run-1_bp-chest_vp-ap_dx"].columns["label"] == "COVID-19"
    assert rows["sub-S1_ses-E1_run-1_bp-chest_vp-ap_dx"].columns["age"] == "57"


def test_without_tables_it_is_said(published, listed):
    root = published("bimcv")
    (root / "participants.tsv").unlink()
    (root / "derivatives" / "labels" / "labels_covid_posi.tsv").unlink()
    request = Request()
    assert {record.columns["label"] for record in listed("bimcv", root, request).values()} == {""}
    assert request.remarks == ["no derivatives/labels/*.tsv was found: the images are unlabelled"]
    with pytest.raises(InputError, match=r"expected sub-\*/ses-\*/mod-rx/\*.png for --dataset bimcv"):
        listed("bimcv", published("covidgr"))
