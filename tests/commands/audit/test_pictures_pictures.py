"""Reading the pictures of a manifest for an audit."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrtool.commands.audit import pictures as audit_pictures
from cxrtool.commands.audit.pictures import read_pictures
from cxrtool.data.tables.manifest import Manifest
from cxrtool.errors import InputError


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    """Eight pictures, the left half of each lighter, with masks of that half; one has 16 bits, one is damaged."""
    rows = []
    for i in range(8):
        pixels = np.full((100 + i, 140), 51, np.uint8)
        pixels[:, :70] = 204
        mask = np.zeros_like(pixels)
        mask[:, :70] = 255
        place = tmp_path / f"im{i}.png"
        cv2.imwrite(str(place), pixels.astype(np.uint16) * 257 if i == 1 else pixels)
        cv2.imwrite(str(tmp_path / f"mask{i}.png"), mask)
        rows.append(
            {
                "image_id": f"im{i}",
                "path": str(place),
                "mask": str(tmp_path / f"mask{i}.png"),
                "label": "ab"[i % 2],
                "original": f"there/im{i}.JPG" if i % 2 else "",
            }
        )
    Path(rows[2]["path"]).write_bytes(b"no picture at all")
    return Manifest(list(rows[0]), rows)


def test_each_picture_becomes_a_thumbnail_with_its_lungs(manifest, settings):
    rejected = []
    pictures = read_pictures(manifest, settings, reject=lambda path, reason: rejected.append((Path(path).name, reason)))
    assert pictures.index.tolist() == [0, 1, 3, 4, 5, 6, 7]
    assert [name for name, _ in rejected] == ["im2.png"]
    assert pictures.thumbs.shape == (7, 64, 64)
    assert pictures.thumbs.dtype == np.float32
    np.testing.assert_allclose(pictures.thumbs[:, :, :30], 0.8, atol=1e-6)
    np.testing.assert_allclose(pictures.thumbs[:, :, 34:], 0.2, atol=1e-6)
    assert (pictures.lungs[:, :, :31] == 1).all()
    assert (pictures.lungs[:, :, 33:] == 0).all()
    assert pictures.height.tolist() == [100, 101, 103, 104, 105, 106, 107]
    assert set(pictures.width.tolist()) == {140}
    assert pictures.bits.tolist() == [8, 16, 8, 8, 8, 8, 8]
    assert pictures.kind == ("png", "jpeg", "jpeg", "png", "jpeg", "png", "jpeg")
    assert pictures.rows[1] == {**manifest.rows[1], "width": "140", "height": "101", "bits": "16", "kind": "jpeg"}
    assert pictures.masks == "the masks of the manifest"


def test_more_workers_read_the_same(manifest, settings):
    one, two = (read_pictures(manifest, replace(settings, workers=count)) for count in (1, 2))
    assert (one.thumbs == two.thumbs).all()
    assert one.rows == two.rows


def test_a_mask_that_cannot_be_used_is_told(manifest, settings, listener):
    cv2.imwrite(manifest.rows[3]["mask"], np.zeros((30, 90), np.uint8))
    pictures = read_pictures(manifest, settings)
    assert (pictures.lungs[2] == 0).all()
    assert "1 mask was not used, such as that of im3: it is 90 x 30, its image 140 x 103" in listener.warned[0]


def test_without_masks_nobody_looks_in_a_hurry(manifest, settings):
    for row in manifest.rows:
        row["mask"] = ""
    pictures = read_pictures(manifest, settings, quick=True)
    assert pictures.lungs is None
    assert pictures.masks == "the manifest has no masks of the lungs"


def test_with_few_masks_the_network_is_asked_about_all(manifest, settings):
    for row in manifest.rows[3:]:
        row["mask"] = ""
    manifest.rows[2]["path"] = manifest.rows[1]["path"]
    small = Manifest(manifest.columns, manifest.rows[:2] + manifest.rows[4:8])
    pictures = read_pictures(small, settings)
    assert pictures.lungs.shape == (6, 64, 64)
    assert pictures.masks == "the lung network that comes with cxrtool, because the manifest has masks of 2 images only"
    # The masks at hand, which are half of each picture, were not taken.
    assert pictures.lungs[0].mean() != pytest.approx(0.5, abs=0.01)


def test_nothing_readable_is_an_error(manifest, settings):
    bad = Manifest(manifest.columns, manifest.rows[2:3])
    with pytest.raises(InputError, match="found none among 1, the first: "):
        read_pictures(bad, settings)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"path": "a.tif"}, "tiff"),
        ({"path": "a.png", "original": "x/b.DCM"}, "dicom"),
        ({"path": "IM1"}, "unknown"),
    ],
)
def test_the_kind_is_that_of_the_original(row, kind):
    assert audit_pictures.kind_of(row) == kind
