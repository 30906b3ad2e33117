from dataclasses import replace

import cv2
import numpy as np
import pytest

from cxrtool.commands.audit import pictures as audit_views
from cxrtool.commands.audit.pictures import Views, sample
from cxrtool.data.tables.manifest import Manifest
from cxrtool.errors import InputError


def manifest_of(folder, images=24, masks=()):
    rows = []
    for k in range(images):
        pixels = np.full((40, 40), 5 * k, np.uint8)
        cv2.imwrite(str(folder / f"{k}.png"), pixels)
        row = {"image_id": f"i{k}", "path": str(folder / f"{k}.png"), "label": "ab"[k % 2], "patient_id": f"p{k // 3}"}
        if k in masks:
            cv2.imwrite(str(folder / f"{k}_mask.png"), np.full((40, 40), 255, np.uint8))
        rows.append({**row, "mask": str(folder / f"{k}_mask.png") if k in masks else ""})
    return Manifest(list(rows[0]), rows)


def views_of(manifest, tmp_path, settings, **changes):
    return Views(manifest, {}, None, tmp_path, settings, lambda path, reason: None, **changes)


def test_a_sample_is_of_whole_patients_and_not_of_the_order_of_rows(make_rows, shuffled):
    rows = make_rows(60, per_patient=3)
    chosen = sample(rows, 0, 31)
    patients = [rows[place]["patient_id"] for place in chosen]
    assert len(chosen) == 30
    assert all(patients.count(name) == 3 for name in patients)
    other = shuffled(rows)
    assert {other[place]["image_id"] for place in sample(other, 0, 31)} == {rows[p]["image_id"] for p in chosen}
    assert sample(rows, 1, 31) != chosen
    assert sample(rows, 0, 60) == list(range(60))


def test_of_very_many_images_a_sample_is_read_and_keeps_its_places(tmp_path, settings, monkeypatch):
    manifest = manifest_of(tmp_path)
    monkeypatch.setattr(audit_views, "MOST", 9)
    monkeypatch.setattr(audit_views, "sample", lambda rows, seed: sample(rows, seed, 9))
    views = views_of(manifest, tmp_path, settings, quick=True)
    pictures = views.pictures
    assert len(pictures) == 9
    for place, thumb in zip(pictures.index, pictures.thumbs, strict=True):
        assert thumb.mean() == pytest.approx(5 * place / 255, abs=1e-4)
    # What needs no picture is asked of all.
    assert len(replace(views, quick=False).rows) == 24


def test_masks_of_two_origins_are_not_mixed(tmp_path, settings, monkeypatch):
    manifest = manifest_of(tmp_path, masks=range(6))
    views = views_of(manifest, tmp_path, settings)
    own = manifest.rows[:6]
    assert views.with_masks(own) == own
    found = views.with_masks(manifest.rows[4:8])
    assert [row["image_id"] for row in found] == ["i4", "i5", "i6", "i7"]
    assert all(row["mask"] and not row["mask"].startswith(str(tmp_path / "4_mask")) for row in found)
    views.close()
    assert not list(tmp_path.glob(".lungs*"))


def test_elsewhere_that_is_not_there(tmp_path, settings):
    with pytest.raises(InputError, match="external images"):
        _ = views_of(manifest_of(tmp_path, 2), tmp_path, settings).external_images


@pytest.mark.parametrize("known", [24, 23])
def test_sizes_are_those_of_the_originals_where_the_manifest_has_all(tmp_path, settings, known):
    manifest = manifest_of(tmp_path)
    told = [{"width": str(100 + k), "height": "90"} if k < known else {"width": "", "height": ""} for k in range(24)]
    rows = [{**row, **size} for row, size in zip(manifest.rows, told, strict=True)]
    found = audit_views.read_pictures(Manifest(list(rows[0]), rows), settings, quick=True)
    # Half of one and half of the other would be a difference that nobody made.
    assert found.width.tolist() == ([100 + k for k in range(24)] if known == 24 else [40] * 24)
    assert {row["height"] for row in found.rows} == ({"90"} if known == 24 else {"40"})
