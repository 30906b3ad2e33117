import pytest

from cxrtool.data.datasets.covidgr import read
from cxrtool.data.datasets.record import Request
from cxrtool.errors import InputError


@pytest.fixture
def covidgr(tmp_path):
    for name in ("P/p1.jpg", "P/P2.JPG", "P/p3.jpg", "N/n1.jpg", "N/n2.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    # p9 is listed and missing, p3 is there and not listed.
    (tmp_path / "severity.csv").write_text("Name,Severity\np1.jpg,NORMAL-PCR+\np2,SEVERE\np9.jpg,MILD\n")
    return tmp_path


def test_classes_and_severities(covidgr):
    rows = {record.relative: record.columns for record in read(covidgr, Request())}
    assert rows == {
        "P/P2.JPG": {"label": "P", "severity": "severe"},
        "P/p1.jpg": {"label": "P", "severity": "normal-pcr+"},
        "P/p3.jpg": {"label": "P", "severity": ""},
        "N/n1.jpg": {"label": "N"},
        "N/n2.jpg": {"label": "N"},
    }


def test_the_table_may_be_missing(covidgr):
    (covidgr / "severity.csv").unlink()
    assert {record.columns.get("severity", "") for record in read(covidgr, Request())} == {""}


def test_what_is_not_covidgr_is_said(covidgr, tmp_path):
    (covidgr / "severity.csv").write_text("Name,Severity\np1.jpg,AWFUL\n")
    with pytest.raises(InputError, match=r"line 2: expected a severity of normal-pcr.*found 'awful'"):
        list(read(covidgr, Request()))
    (covidgr / "severity.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="Name and Severity, found: a, b"):
        list(read(covidgr, Request()))
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="folders P and N"):
        list(read(tmp_path / "other", Request()))
