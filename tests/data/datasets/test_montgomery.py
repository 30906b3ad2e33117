import numpy as np
import pytest

from cxrtool.data.reading.images import read_image
from cxrtool.data.tables.manifest import read_manifest
from cxrtool.errors import InputError


def test_labels_readings_and_both_masks(published, listed):
    root = published("montgomery")
    for source in (root, root / "MontgomerySet"):
        rows = listed("montgomery", source)
        told = {
            name: (row.columns["label"], row.columns["age"], row.columns["sex"], row.columns["reading"])
            for name, row in rows.items()
        }
        assert told == {
            "CXR_png/MCUCXR_0001_0.png": ("normal", "27", "F", "normal"),
            "CXR_png/MCUCXR_0002_1.png": ("tuberculosis", "28", "M", "improved TB"),
            "CXR_png/MCUCXR_0003_0.png": ("normal", "29", "F", "normal"),
        }
    row = rows["CXR_png/MCUCXR_0001_0.png"]
    folder = root / "MontgomerySet" / "ManualMask"
    assert row.masks == tuple(folder / side / "MCUCXR_0001_0.png" for side in ("leftMask", "rightMask"))
    # One lung without the other is too large for a mask of the lungs.
    assert "mask" not in rows["CXR_png/MCUCXR_0003_0.png"].columns


def test_prepare_joins_the_lungs(published, cxr, tmp_path):
    root = published("montgomery")
    call = ("prepare", root, "--dataset", "montgomery", "--size", "32", "--workers", "1", "-o", tmp_path / "out")
    assert cxr(*call).code == 0
    rows = {row["image_id"]: row for row in read_manifest(tmp_path / "out").rows}
    mask = read_image(rows["MCUCXR_0001_0"]["mask"]).pixels
    assert mask.shape == (32, 32)
    assert set(np.unique(mask)) == {0, 255}
    # A lung on either side and a mediastinum between them.
    assert mask[16, 8] == mask[16, 24] == 255
    assert mask[16, 16] == mask[2, 8] == 0
    assert rows["MCUCXR_0003_0"]["mask"] == ""
    # The second file of a mask is an input as well.
    assert "up to date" in cxr(*call).err
    other = root / "MontgomerySet" / "ManualMask" / "rightMask" / "MCUCXR_0001_0.png"
    other.write_bytes((root / "MontgomerySet" / "ManualMask" / "leftMask" / "MCUCXR_0001_0.png").read_bytes())
    assert cxr(*call).code == 0
    assert read_image(rows["MCUCXR_0001_0"]["mask"]).pixels[16, 8] == 0


def test_a_mask_outside_the_root_is_not_read(published, cxr, tmp_path):
    root = published("montgomery")
    part = root / "MontgomerySet" / "ManualMask" / "rightMask" / "MCUCXR_0001_0.png"
    part.rename(tmp_path / "outside.png")
    part.symlink_to(tmp_path / "outside.png")
    cxr("prepare", root, "--dataset", "montgomery", "--root", root, "--workers", "1", "-o", tmp_path / "out")
    row = next(row for row in read_manifest(tmp_path / "out").rows if row["image_id"] == "MCUCXR_0001_0")
    assert row["mask"] == ""
    assert "mask excluded: it is outside --root" in row["warning"]


def test_another_set_is_not_taken(published, listed):
    with pytest.raises(InputError, match="for --dataset montgomery") as caught:
        listed("montgomery", published("shenzhen"))
    assert caught.value.hint == "it looks like --dataset shenzhen"
