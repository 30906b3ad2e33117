import numpy as np

from cxrtool.data.reading.images import read_image
from cxrtool.data.tables.manifest import read_manifest


def test_what_lies_beside_the_films_is_found(published, listed):
    root = published("jsrt")
    rows = listed("jsrt", root)
    nodule, healthy = (rows[f"All247images/{name}.IMG"] for name in ("JPCLN001", "JPCNN001"))
    told = [tuple(row.columns[name] for name in ("label", "age", "sex", "view")) for row in (nodule, healthy)]
    assert told == [("nodule", "53", "F", "PA"), ("no nodule", "60", "M", "PA")]
    assert nodule.columns["diagnosis"] == "lung cancer(adenocarcinoma)"
    assert nodule.masks == tuple(root / f"scr/fold1/masks/{side} lung/JPCLN001.gif" for side in ("left", "right"))
    assert healthy.beside["ribless"] == root / "BSE_JSRT/JPCNN001.png"


def test_films_masks_and_rib_free_pictures_are_prepared_alike(published, cxr, tmp_path):
    root = published("jsrt")
    done = cxr("prepare", root, "--dataset", "jsrt", "--size", "64", "--workers", "1", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    rows = {row["image_id"]: row for row in read_manifest(tmp_path / "out").rows}
    assert set(rows) == {"JPCLN001", "JPCNN001"}
    row = rows["JPCLN001"]
    assert (row["width"], row["height"]) == ("2048", "2048")
    picture, mask, ribless = (read_image(row[name]).pixels for name in ("path", "mask", "ribless"))
    assert picture.shape == mask.shape == ribless.shape == (64, 64)
    assert picture.dtype == ribless.dtype == np.uint16
    assert mask[32, 10] == mask[32, 54] == 255
    assert mask[4, 10] == mask[60, 54] == 0
    # The table keeps all three paths relative, so that the folder may be moved.
    text = (tmp_path / "out" / "manifest.csv").read_text()
    assert "ribless/JPCLN001.png" in text
    assert str(tmp_path) not in text
    assert "JPCNN002.IMG" in (tmp_path / "out" / "rejects.csv").read_text()


def test_without_scr_and_bse_there_are_only_films(published, listed):
    root = published("jsrt")
    rows = listed("jsrt", root / "All247images")
    assert not any(row.masks or row.beside for row in rows.values())
