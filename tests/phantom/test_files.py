"""Files as sources write them: what is read back is what was drawn."""

import cv2
import numpy as np
import pydicom
import pytest

from cxrtool.data.reading.images import read_image
from cxrtool.phantom.files import KINDS, WINDOWS, Header, quantise
from cxrtool.phantom.sources import FILES

HEADER = Header("p000007", "AP", 4, "F", "0-7-8")


@pytest.fixture(scope="module")
def image():
    """A smooth picture from black to white, of odd sides."""
    generator = np.random.default_rng(0)
    grey = cv2.resize(generator.random((7, 6)).astype(np.float32), (71, 93), interpolation=cv2.INTER_CUBIC)
    return (grey - grey.min()) / (grey.max() - grey.min())


def write(folder, kind, image, header=HEADER):
    path = folder / f"x.{FILES[kind]}"
    assert KINDS[kind].write(path, image, header) == path.stat().st_size
    return path


def test_every_kind_that_a_source_may_have_can_be_written():
    assert set(KINDS) == set(FILES)


@pytest.mark.parametrize(("kind", "error"), [("png", 0.5 / 255), ("png16", 0.5 / 65535), ("jpeg", 0.03)])
def test_what_is_read_is_what_was_drawn(tmp_path, image, kind, error):
    read = read_image(write(tmp_path, kind, image))
    assert read.pixels.dtype.itemsize * 8 == KINDS[kind].bits
    assert np.abs(read.pixels / np.iinfo(read.pixels.dtype).max - image).max() <= error + 1e-6
    assert (read.tags, read.warnings) == ({}, [])


@pytest.mark.parametrize("kind", KINDS)
def test_values_beyond_black_and_white_do_not_wrap_round(tmp_path, image, kind):
    outside = read_image(write(tmp_path, kind, (image * 3 - 1).astype(np.float32))).pixels
    inside = read_image(write(tmp_path, kind, (image * 3 - 1).clip(0, 1).astype(np.float32))).pixels
    assert np.array_equal(outside, inside)


def test_dicom_of_either_polarity_and_any_window_reads_the_same(tmp_path, image):
    pictures, seen = {}, set()
    windows = {high - low + 1: (low, high) for low, high in WINDOWS}
    for number in range(60):
        path = write(tmp_path, "dicom", image, Header("p000007", "AP", 4, "F", f"0-{number}"))
        stored, read = pydicom.dcmread(path), read_image(path)
        low, high = windows[int(stored.WindowWidth)]
        seen.add((stored.PhotometricInterpretation, low))
        assert (int(stored.pixel_array.min()), int(stored.pixel_array.max())) == (low, high)
        pictures.setdefault(high - low, []).append(read.pixels)
        assert read.warnings == []
    assert seen == {(kind, low) for kind in ("MONOCHROME1", "MONOCHROME2") for low, _ in WINDOWS}
    for span, same in pictures.items():
        assert all(np.array_equal(same[0], other) for other in same)
        assert np.abs(same[0] / 65535 - image).max() <= 0.5 / span + 1 / 65535


def test_dicom_tells_what_the_reader_asks_for(tmp_path, image):
    read = read_image(write(tmp_path, "dicom", image))
    assert read.tags == {"patient_id": "p000007", "view": "AP", "age": "4", "sex": "F"}
    assert read.pixels.shape == (93, 71)


def test_dicom_is_valid_and_tells_no_date(tmp_path, image, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    path = write(tmp_path, "dicom", image)
    stored = pydicom.dcmread(path)
    assert stored.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert stored.SOPClassUID == stored.file_meta.MediaStorageSOPClassUID
    assert stored.SOPInstanceUID == stored.file_meta.MediaStorageSOPInstanceUID
    uids = {stored.SOPInstanceUID, stored.StudyInstanceUID, stored.SeriesInstanceUID}
    assert len(uids) == 3
    assert all(uid.is_valid and len(uid) <= 64 for uid in uids)
    assert (stored.Modality, stored.BitsStored, stored.HighBit) == ("CR", 12, 11)
    for element in stored.iterall():
        assert element.VR not in ("DA", "TM", "DT") or not element.value
    again = pydicom.dcmread(write(tmp_path, "dicom", image, Header("p000007", "AP", 4, "F", "0-7-9")))
    assert again.SOPInstanceUID not in uids


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_is_written_as_the_same_bytes(tmp_path, image, kind):
    first = write(tmp_path, kind, image).read_bytes()
    assert write(tmp_path, kind, image.copy()).read_bytes() == first


@pytest.mark.parametrize("bits", [8, 16])
def test_quantise_rounds_to_the_nearest(bits):
    full = (1 << bits) - 1
    grey = np.array([[0, 0.4 / full, 0.6 / full, 1 - 0.4 / full, 1, 1.7, -1]], np.float32)
    assert quantise(grey, bits).tolist() == [[0, 0, 1, full, full, full, 0]]
