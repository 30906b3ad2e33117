import pytest

from cxrtool.data.datasets import ADAPTERS
from cxrtool.data.datasets.listing import default_source, list_images
from cxrtool.data.datasets.record import Request
from cxrtool.errors import InputError


def test_every_adapter_is_a_generator_of_records():
    assert set(ADAPTERS) >= {"folder", "csv", "covidgr"}


def test_several_sources_become_one_list(tmp_path):
    for name in ("a/images/covid/x.png", "b/covid/x.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b" / "t.csv").write_text("file,label,source\ncovid/x.png,c,given\n")
    sources = [tmp_path / "a" / "images", tmp_path / "b", tmp_path / "b" / "t.csv"]
    listing = list_images(sources, None, Request(), None)
    assert [row["source"] for row in listing.rows] == ["a", "b", "given"]
    assert len({row["image_id"] for row in listing.rows}) == 3
    assert [row["original"] for row in listing.rows] == ["covid/x.png"] * 3
    assert [row["label"] for row in listing.rows] == ["covid", "covid", "c"]
    renamed = list_images(sources, None, Request(), "all:of it")
    assert {row["source"] for row in renamed.rows} == {"all_of it"}


def test_ids_do_not_depend_on_where_the_data_lie(tmp_path):
    ids = []
    for place in ("here", "there/deeper"):
        for name in ("p/a.png", "q/a.png", "q/r/p/a.png"):
            path = tmp_path / place / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        ids.append([row["image_id"] for row in list_images([tmp_path / place / "set"], None, Request(), None).rows])
    assert ids[0] == ids[1]


def test_nothing_is_said(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        list_images([tmp_path / "x"], None, Request(), None)
    with pytest.raises(InputError, match="expected images, found none"):
        list_images([tmp_path], None, Request(), None)


def test_an_id_in_the_table_is_kept(tmp_path):
    (tmp_path / "t.csv").write_text("path,image_id\na.png,../../x\nb.png,001\n")
    rows = list_images([tmp_path / "t.csv"], None, Request(), None).rows
    assert [row["image_id"] for row in rows] == ["x", "001"]


def test_the_source_is_the_folder_that_has_a_name(tmp_path):
    folder = tmp_path / "padchest" / "Images" / "png"
    folder.mkdir(parents=True)
    assert default_source(folder) == "padchest"
