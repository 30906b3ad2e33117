"""What tells a patient, planted in 30 DICOM files and their names: where it is found in all that commands write."""

import io
import json
import os
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

IMAGES = 30
CHAIN = (
    "prepare clinic {salt} -o prepared --workers 1",
    "split prepared --folds 2 --validation 0.2 -o splits.csv",
    "select prepared --where \"label = 'covid'\" -o selected.csv",
    "train prepared --splits splits.csv --model covid-xnet --size 32 --epochs 1 --workers 1 --threads 1 --device cpu "
    "--cache cache -o trained",
    "evaluate trained -o evaluated",
    "predict trained prepared --allow-leakage -o answers.csv --device cpu",
    "explain trained/r0f0 prepared -o explained --device cpu",
    "audit prepared --run trained --quick -o audited",
    "enhance prepared --steps clahe -o enhanced --workers 1",
    "report trained -o report.html",
)
"""All that a model goes through."""


def header(number, label):
    """The tags that tell a patient, each with a text of its own; `plain` numbers are found nowhere by accident."""
    k = f"{number:02d}"
    return {
        "PatientName": f"Qzx{k}Familie^Vorname{k}",
        "PatientID": f"PID-{k}77{k}",
        "PatientBirthDate": f"19{50 + number}0{1 + number % 9}1{number % 10}",
        "PatientAddress": f"Weg{k} Xanten",
        "PatientTelephoneNumbers": f"0176-{k}55{k}",
        "OtherPatientNames": f"Rufname{k}q",
        "PatientComments": f"lives{k} alone",
        "AccessionNumber": f"ACC{k}88{k}",
        "InstitutionName": f"Klinik{k}hausen",
        "ReferringPhysicianName": f"Dr^Zuweiser{k}",
        "OperatorsName": f"Mta^Kraus{k}",
        "StudyDate": f"2020{1 + number % 12:02d}{10 + number % 18}",
        "StudyTime": f"1{number % 10}3{number % 6}5{number % 10}.1{k}",
        "StudyID": f"STU{k}66",
        "StudyInstanceUID": f"1.2.826.77.9{k}1.5",
        "SeriesInstanceUID": f"1.2.826.77.9{k}2.5",
        "SOPInstanceUID": f"1.2.826.77.9{k}3.5",
        "StationName": f"STATION{k}W",
        "DeviceSerialNumber": f"SER{k}4411",
        "StudyDescription": f"Thorax of Frau{k}",
        "ImageComments": f"note{k} for {label}",
    }


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A folder of DICOM files, as the working directory; the planted texts by tag."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    monkeypatch.chdir(tmp_path)
    generator, texts = np.random.default_rng(0), {}
    for number in range(IMAGES):
        label = ("covid", "normal")[number % 2]
        tags = header(number, label)
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
        data.file_meta.MediaStorageSOPInstanceUID = tags["SOPInstanceUID"]
        for name, value in tags.items():
            setattr(data, name, value)
        data.Rows, data.Columns = 64, 56
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.PatientAge, data.PatientSex, data.ViewPosition = f"0{30 + number}Y", "MF"[number % 2], "PA"
        smooth = cv2.resize(generator.integers(40, 220, (8, 7), np.uint8), (56, 64))
        data.PixelData = smooth.tobytes()
        data["PixelData"].VR = "OB"
        # Clinics name files and folders by the patient.
        path = Path("clinic", label, f"MUSTERMANN{number:02d}X.dcm")
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        data.save_as(stream, enforce_file_format=True)
        path.write_bytes(stream.getvalue())
        for name, value in {**tags, "file name": path.stem}.items():
            texts.setdefault(name, []).append(value)
    return texts


def found(texts, said):
    """The files, and the logs, in which each kind of text is found: names of files and contents."""
    places = {"logs": said.encode()}
    for path in sorted(Path.cwd().rglob("*")):
        name = path.relative_to(Path.cwd()).as_posix()
        if path.is_file() and not name.startswith("clinic/"):
            places[name] = name.encode() + b"\n" + path.read_bytes()
    result = {}
    for kind, values in texts.items():
        # A name may be taken apart.
        parts = {part.encode() for value in values for part in (value, *value.split("^")) if len(part) > 4}
        if names := sorted(name for name, content in places.items() if any(part in content for part in parts)):
            result[kind] = names
    return result


@pytest.mark.slow
@pytest.mark.parametrize("salt", ["--salt pepper", ""])
def test_what_tells_a_patient_is_found_only_where_it_is_said_to_be(cxr, planted, salt):
    said = ""
    for line in CHAIN:
        outcome = cxr(*shlex.split(line.format(salt=salt)))
        assert outcome.code == 0, f"{line}\n{outcome.err}"
        said += outcome.out + outcome.err
    where = found(planted, said)
    if report := os.environ.get("PRIVACY_FIGURES"):
        Path(report).write_text(json.dumps({salt: where}, indent=1))
    if salt:
        assert where == {}
        return
    # Without a salt ids and names stay what they are, so that tables can be joined; but no patient id is published
    # with a model.
    assert where.keys() == {"PatientID", "file name"}
    assert not [name for name in where["PatientID"] if name.endswith(("fitted_on.csv", ".json", ".safetensors"))]
    assert not [name for name in where["file name"] if name.endswith(("model.json", ".safetensors"))]
