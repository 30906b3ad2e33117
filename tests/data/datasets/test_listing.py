from pathlib import Path

import pytest

from cxrtool.data.datasets.listing import default_source, list_images
from cxrtool.data.datasets.record import Request
from cxrtool.errors import InputError


def test_several_sources_become_one_list(tmp_path):
    for name in ("a/images/covid/x.png", "b/covid/x.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b" / "t.csv").write_text("file,label,source\ncovid/x.png,c,given\n")
    sources = [tmp_path / "a" / "images", tmp_path / "b", tmp_path / "b" / "t.csv"]
    listing = list_images(sources, None, Request(), None)
    assert [record.columns["source"] for record in listing.records] == ["a", "b", "given"]
    assert [record.listed_in for record in listing.records] == sources
    assert len({record.image_id for record in listing.records}) == 3
    assert [record.columns["original"] for record in listing.records] == ["covid/x.png"] * 3
    assert [record.columns["label"] for record in listing.records] == ["covid", "covid", "c"]
    assert [table.origin for table in listing.tables] == sources
    renamed = list_images(sources, None, Request(), "all:of it")
    assert {record.columns["source"] for record in renamed.records} == {"all_of it"}


def test_ids_do_not_depend_on_where_the_data_lie(tmp_path):
    ids = []
    for place in ("here", "there/deeper"):
        for name in ("p/a.png", "q/a.png", "q/r/p/a.png"):
            path = tmp_path / place / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        listing = list_images([tmp_path / place / "set"], None, Request(), None)
        ids.append([record.image_id for record in listing.records])
    assert ids[0] == ids[1]


def test_nothing_is_said(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        list_images([tmp_path / "x"], None, Request(), None)
    with pytest.raises(InputError, match="expected images, found none"):
        list_images([tmp_path], None, Request(), None)


def test_an_id_in_the_table_is_kept(tmp_path):
    (tmp_path / "t.csv").write_text("path,image_id\na.png,../../x\nb.png,001\n")
    listing = list_images([tmp_path / "t.csv"], None, Request(), None)
    assert [record.image_id for record in listing.records] == ["x", "001"]


def test_a_record_knows_its_files_and_its_row(published, monkeypatch):
    root = published("jsrt")
    monkeypatch.chdir(root.parent)
    first = list_images([Path(root.name)], "jsrt", Request(), None).records[0]
    lungs = tuple(root / f"scr/fold1/masks/{side} lung/JPCLN001.gif" for side in ("left", "right"))
    assert (first.path, first.masks) == (root / "All247images/JPCLN001.IMG", lungs)
    assert first.beside["ribless"] == root / "BSE_JSRT/JPCLN001.png"
    assert [first.columns[name] for name in ("image_id", "path", "mask", "ribless", "label", "patient_id")] == [
        "JPCLN001",
        str(first.path),
        str(lungs[0]),
        str(first.beside["ribless"]),
        "nodule",
        "JPCLN001",
    ]


def test_a_row_that_names_no_file_has_an_empty_path(tmp_path):
    (tmp_path / "t.csv").write_text("path,mask\n,m.png\n")
    (record,) = list_images([tmp_path / "t.csv"], None, Request(), None).records
    assert (record.relative, record.columns["path"]) == ("", "")
    assert record.columns["mask"] == str(tmp_path / "m.png")


def test_the_source_is_the_folder_that_has_a_name(tmp_path):
    folder = tmp_path / "padchest" / "Images" / "png"
    folder.mkdir(parents=True)
    assert default_source(folder) == "padchest"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["person1946_bacteria_4874.jpeg", "person1947_virus_1.jpeg"], "--dataset kaggle-pneumonia reads it"),
        (["IM-0115-0001.jpeg", "IM-0117-0001.jpeg"], "--dataset kaggle-pneumonia reads it"),
        (["00000001_000.png", "00000001_001.png"], "those of NIH ChestX-ray14"),
        (["CHNCXR_0001_0.png", "CHNCXR_0002_1.png"], "a table with a column patient_id"),
        (["a.png", "b1.png"], ""),
        (["00000001_000.png", *(f"x{k}.png" for k in range(20))], ""),
    ],
)
def test_patients_in_file_names_are_pointed_out(tmp_path, names, words):
    (tmp_path / "normal").mkdir()
    for name in names:
        (tmp_path / "normal" / name).write_bytes(b"")
    remarks = list_images([tmp_path], None, Request(), None).remarks
    assert bool(remarks) == bool(words)
    assert all(words in remark and "every image counts as a patient" in remark for remark in remarks)
