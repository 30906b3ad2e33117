import pytest

from cxrtool.data.datasets.collection import Layout, read
from cxrtool.data.datasets.record import Request
from cxrtool.errors import InputError

LAYOUT = Layout("cohen", "filename", "imagename", lambda root, row: root / row["filename"], str.strip)


def listed(tmp_path, text):
    (tmp_path / "metadata.csv").write_text(text)
    return list(read(tmp_path, Request(), LAYOUT))


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("PA,X-ray,SARS", ""),
        ("PA,,SARS", ""),
        (",X-ray,SARS", ""),
        ("AP erect,X-ray,SARS", ""),
        ("Coronal,CT,SARS", "modality CT, not a radiograph"),
        ("PA,CT,SARS", "modality CT, not a radiograph"),
        ("PA,Ultrasound,SARS", "modality Ultrasound, not a radiograph"),
        ("PA,X-ray,Unknown", "finding 'Unknown': its class is not known"),
        ("L,X-ray,SARS", "view L, a lateral view (--view L keeps it)"),
    ],
)
def test_what_is_left_out(tmp_path, cells, reason):
    (record,) = listed(tmp_path, f"PatientID,filename,View,Modality,Finding\n7,a.png,{cells}\n")
    assert record.unwanted == reason


def test_files_that_no_row_names_are_counted(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png", ".hidden"):
        (tmp_path / "images" / name).write_bytes(b"x")
    (tmp_path / "metadata.csv").write_text("patientid,filename,view,finding\n7,images/a.png,PA,SARS\n")
    request = Request()
    list(read(tmp_path, request, LAYOUT))
    assert request.remarks == [f"1 file in {tmp_path / 'images'} not listed in metadata.csv, so not read"]


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(InputError, match="expected a column finding, found: patientid, filename, view"):
        listed(tmp_path, "patientid,filename,view\n")
