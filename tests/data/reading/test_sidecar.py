"""Stored values beside their DICOM header: shown as the DICOM file itself would be."""

import json

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset

from cxrtool.data.reading.dicom import read_dicom
from cxrtool.data.reading.images import read_image
from cxrtool.errors import ImageError

STORED = (np.add.outer(np.arange(64) * 40, np.arange(48) * 30) % 4096).astype(np.uint16)


def header(**tags):
    dataset = Dataset()
    shape = {"Rows": 64, "Columns": 48, "SamplesPerPixel": 1, "PixelRepresentation": 0}
    bits = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    for name, value in (shape | bits | {"PhotometricInterpretation": "MONOCHROME2"} | tags).items():
        setattr(dataset, name, value)
    return dataset


@pytest.fixture
def read(tmp_path):
    def reader(told, stored=STORED):
        image, beside = tmp_path / "image.png", tmp_path / "image.json"
        assert cv2.imwrite(str(image), stored)
        beside.write_text(told if isinstance(told, str) else json.dumps(told))
        return read_image(image, header=beside)

    return reader


def as_dicom(dataset, tmp_path):
    """The picture that the reader of DICOM makes of the same header and values."""
    dataset.PixelData = STORED.tobytes()
    dataset["PixelData"].VR = "OW"
    path = tmp_path / "image.dcm"
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    with path.open("rb") as file:
        return read_dicom(file, max_pixels=10**6).pixels


def lookup():
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 10], (np.arange(4096) ** 2 // 16400).tolist()
    item["LUTData"].VR = "US"
    return item


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": 1500, "WindowWidth": 900},
        {"WindowCenter": [1500, 7], "WindowWidth": [900, 7], "PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": 1500, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
        {"VOILUTSequence": [lookup()]},
        {"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"},
    ],
    ids=["range", "inverted", "window", "windows", "sigmoid", "table", "padding"],
)
def test_a_pair_is_shown_as_the_dicom_file(read, tmp_path, tags):
    told = json.loads(header(**tags).to_json())
    assert np.array_equal(read(told).pixels, as_dicom(header(**tags), tmp_path))


def test_the_rescale_was_part_of_the_conversion(read):
    plain = {"WindowCenter": 1500, "WindowWidth": 900}
    scaled = json.loads(header(RescaleSlope=2, RescaleIntercept=-100, **plain).to_json())
    assert np.array_equal(read(scaled).pixels, read(json.loads(header(**plain).to_json())).pixels)


def test_a_header_by_keyword(read):
    by_keyword = {
        "PhotometricInterpretation": "MONOCHROME1",
        "BitsStored": 12,
        "WindowCenter": 1500,
        "WindowWidth": 900,
    }
    by_tag = json.loads(header(PhotometricInterpretation="MONOCHROME1", WindowCenter=1500, WindowWidth=900).to_json())
    assert np.array_equal(read(by_keyword).pixels, read(by_tag).pixels)


def test_values_beyond_the_stored_bits_are_not_wrapped(read):
    told = json.loads(header(WindowCenter=2048, WindowWidth=4096).to_json())
    beyond = STORED.copy()
    beyond[0, 0] = 5000
    pixels = read(told, beyond).pixels
    assert pixels[0, 0] == 65535
    assert np.array_equal(pixels[1:], read(told).pixels[1:])


def test_the_header_tells_age_sex_and_view(read):
    told = json.loads(header(PatientAge="045Y", PatientSex="F", ViewPosition="PA", BurnedInAnnotation="YES").to_json())
    radiograph = read(told)
    assert radiograph.tags == {"age": "45", "sex": "F", "view": "PA"}
    assert "text is burned into the pixels" in radiograph.warnings[0]


def test_a_colour_picture_is_read_as_it_is(read):
    told = json.loads(header(PhotometricInterpretation="MONOCHROME1").to_json())
    grey = (STORED >> 4).astype(np.uint8)
    radiograph = read(told, np.dstack([grey] * 3))
    assert np.array_equal(radiograph.pixels, grey)
    assert radiograph.warnings == ["its header was not applied: it is not a plain grey image"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("{", "image.json cannot be read"),
        ("[]", "image.json cannot be read"),
        ({}, "has no PhotometricInterpretation"),
        ({"PhotometricInterpretation": "RGB"}, "found RGB"),
        (
            {"PhotometricInterpretation": "MONOCHROME2", "Rows": 9, "Columns": 9},
            "has 9 x 9 pixels, the image 48",
        ),
        ({"00280004": {"vr": "CS", "Value": [["x"]]}}, "grey image|cannot be read|colour model"),
        (
            {"PhotometricInterpretation": "MONOCHROME2", "BitsStored": "many"},
            "BitsStored in its header is not a whole number",
        ),
    ],
    ids=["cut", "list", "empty", "colour", "size", "nested", "bits"],
)
def test_a_header_that_does_not_fit_is_said(read, told, words):
    with pytest.raises(ImageError, match=words):
        read(told)
    with pytest.raises(ImageError, match="is larger than"):
        read(" " * (1 << 24) + "{}")
