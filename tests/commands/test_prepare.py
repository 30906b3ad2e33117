"""`prepare` as its user meets it: folders and tables in, grey PNGs and a manifest out, whatever lies in the source."""

import csv
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

from cxrtool.commands.prepare import VERSION
from cxrtool.data.reading.images import read_image
from cxrtool.data.tables.manifest import read_manifest
from cxrtool.imaging.hashing import dhash, pixel_sha256
from cxrtool.imaging.resize import prepare_mask, prepare_pixels


def picture(seed, height=90, width=70, dtype=np.uint8):
    generator = np.random.default_rng(seed)
    coarse = generator.random((6, 5)).astype(np.float32)
    grey = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grey += generator.normal(0, 0.01, grey.shape)
    return (np.clip(grey, 0, 1) * np.iinfo(dtype).max).astype(dtype)


def dicom(pixels, **tags):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = tags.get("SOPInstanceUID", "1.2.3")
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "set"
    for index in range(6):
        save(root / ("covid", "normal")[index % 2] / f"im{index}.png", picture(index))
    save(root / "covid" / "deep.png", picture(10, dtype=np.uint16))
    save(root / "loose.jpg", picture(11))
    return root


def rows_of(folder):
    return {row["image_id"]: row for row in read_manifest(folder).rows}


def run(*arguments):
    """Call `cxrtool` in a process of its own, so that what its workers and their libraries write is heard too."""
    command = [sys.executable, "-m", "cxrtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def rejects_of(folder):
    with (folder / "rejects.csv").open(encoding="utf-8") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def fingerprint(folder):
    """Every file below a folder with its content and times, for what must not change."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def contents(folder):
    return {name: data for name, (_, data) in fingerprint(folder).items() if name != "run.json"}


def test_a_folder_of_images(cxr, tree, tmp_path):
    before = fingerprint(tree)
    done = cxr("prepare", tree, "-o", tmp_path / "out", "--workers", 2)
    assert (done.code, done.out) == (0, "")
    assert "8 images: covid 4, normal 3, unlabelled 1; patients unknown" in done.err
    rows = rows_of(tmp_path / "out")
    assert list(rows) == ["loose", "deep", "im0", "im2", "im4", "im1", "im3", "im5"]
    for row in rows.values():
        original = read_image(tree / row["original"]).pixels
        written = cv2.imread(row["path"], cv2.IMREAD_UNCHANGED)
        assert written.ndim == 2
        assert written.dtype == original.dtype
        assert np.array_equal(written, original)
        assert (row["height"], row["width"]) == ("90", "70")
        assert (row["sha256"], row["dhash"]) == (pixel_sha256(original), dhash(original))
        assert row["source"] == "set"
    made = json.loads((tmp_path / "out" / "run.json").read_text())
    assert made["chain"] == [{"step": "prepare", "version": VERSION, "size": "native", "fit": "squash"}]
    assert made["counts"] == {
        "images": 8,
        "inputs": 8,
        "skipped": 0,
        "same_pixels": 0,
        "look_alike": 0,
        "contradictions": 0,
        "rejects": 0,
    }
    assert fingerprint(tree) == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "duplicates.csv",
        "images",
        "journal.jsonl",
        "manifest.csv",
        "rejects.csv",
        "run.json",
    ]


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_size_and_fit_are_what_predict_repeats(cxr, tree, tmp_path, fit):
    assert cxr("prepare", tree, "--size", 32, "--fit", fit, "-o", tmp_path / "out").code == 0
    for row in rows_of(tmp_path / "out").values():
        original = read_image(tree / row["original"]).pixels
        assert np.array_equal(read_image(row["path"]).pixels, prepare_pixels(original, 32, fit))
        assert (row["height"], row["width"]) == ("90", "70")
        assert row["sha256"] == pixel_sha256(original)


def test_a_table_with_masks_and_columns_of_its_own(cxr, tree, tmp_path):
    mask = np.zeros((90, 70), np.uint8)
    mask[20:60, 10:30] = 1
    save(tree / "m" / "im0.png", mask)
    save(tree / "m" / "im1.png", mask[:45])
    table = tree / "t.csv"
    table.write_text(
        "file,label,patient,mask,score,view,source,warning\n"
        "covid/im0.png,covid,001,m/im0.png,=1+1,AP,clinic,old\n"
        "normal/im1.png,None,clinic:002,m/im1.png,,pa,,\n"
        "covid/im2.png,covid,,m/gone.png,NA,,,\n",
        encoding="utf-8",
    )
    done = cxr("prepare", table, "--size", 48, "--fit", "pad", "-o", tmp_path / "out")
    assert done.code == 0
    rows = rows_of(tmp_path / "out")
    assert [row["label"] for row in rows.values()] == ["covid", "None", "covid"]
    assert [row["patient_id"] for row in rows.values()] == ["clinic:001", "clinic:002", ""]
    assert [row["score"] for row in rows.values()] == ["=1+1", "", "NA"]
    assert [row["source"] for row in rows.values()] == ["clinic", "set", "set"]
    assert [row["view"] for row in rows.values()] == ["AP", "pa", ""]
    written = cv2.imread(rows["im0"]["mask"], cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written, prepare_mask(mask, 90, 70, 48, "pad"))
    assert set(np.unique(written)) == {0, 255}
    assert [bool(row["mask"]) for row in rows.values()] == [True, False, False]
    assert rows["im0"]["warning"] == "old"
    assert rows["im1"]["warning"] == "mask excluded: it is 70 x 45, its image 70 x 90"
    assert rows["im2"]["warning"] == "mask excluded: no such file"
    assert "3 patients, 1 of them images without a patient_id" in done.err


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def nasty(root):
    """Some thirty files as one meets them: damaged, disguised, hostile, and a few that are merely unusual."""
    good = picture(1)
    png = cv2.imencode(".png", good)[1].tobytes()
    jpeg = cv2.imencode(".jpg", good)[1].tobytes()
    tiff = cv2.imencode(".tif", good)[1].tobytes()
    bmp = cv2.imencode(".bmp", good)[1].tobytes()
    radiograph = dicom(picture(2, dtype=np.uint16))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0))
    files = {
        "empty.png": b"",
        "zeros.jpg": bytes(5000),
        "text.png": b"not a picture at all",
        "page.jpg": b"<!DOCTYPE html><title>404</title>",
        "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "cut.png": png[: len(png) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.tif": tiff[: len(tiff) // 2],
        "cut.bmp": bmp[: len(bmp) // 2],
        "cut.dcm": radiograph[: len(radiograph) // 2],
        "cut_header.dcm": radiograph[:300],
        "mended.jpg": jpeg[: len(jpeg) // 2] + b"\xff\xd9",
        "flipped.png": png[:200] + bytes([png[200] ^ 1]) + png[201:],
        "magic.png": png[:8],
        "magic.jpg": jpeg[:3],
        "magic.tif": b"II*\0\xff\xff\xff\xff",
        "magic.dcm": bytes(128) + b"DICM",
        "bomb.png": b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""),
        "frames.dcm": dicom(picture(2), NumberOfFrames=99),
        "image.gif": b"GIF89a" + bytes(20),
        "image.webp": b"RIFF\0\0\0\0WEBPVP8 ",
        "archive.png": b"PK\x03\x04" + bytes(30),
        "noise": np.random.default_rng(0).bytes(3000),
        b"\xff\xfename.png".decode("utf-8", "surrogateescape"): b"nothing",
        "new\nline.png": b"nothing",
        # What can be read all the same.
        "no_suffix": radiograph,
        "wrong_suffix.png": jpeg,
        "spaces and ümläuts (1).png": png,
        "trailing.jpg": jpeg + b"more" * 50,
        "CON.png": cv2.imencode(".png", picture(3))[1].tobytes(),
    }
    root.mkdir()
    for name, data in files.items():
        (root / name).write_bytes(data)
    os.mkfifo(root / "pipe.png")
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "self.png").symlink_to("self.png")
    (root / "notes.txt").write_text("by its name no image")
    return len(files) + 3


def test_nothing_nasty_ends_the_run(tmp_path):
    count = nasty(tmp_path / "nasty")
    assert count > 30
    done = run("prepare", tmp_path / "nasty", "-o", tmp_path / "out", "--workers", 2)
    assert (done.returncode, done.stdout) == (0, "")
    rows, rejects = rows_of(tmp_path / "out"), rejects_of(tmp_path / "out")
    assert len(rows) + len(rejects) == count
    assert {row["original"] for row in rows.values()} == {
        "no_suffix",
        "wrong_suffix.png",
        "spaces and ümläuts (1).png",
        "trailing.jpg",
        "CON.png",
    }
    assert set(rows) == {"no_suffix", "wrong_suffix", "spaces_and_umlauts_1", "trailing", "CON_"}
    assert all(reason and "\n" not in reason for reason in rejects.values())
    # Nothing but our own lines: the decoders' complaints are heard and kept from the user.
    lines = done.stderr.splitlines()
    assert [line[:20].rstrip() for line in lines] == [
        "files skipped becaus",
        "5 images: unlabelled",
        "  1 x same pixels as",
        "  3 images: expected",
        "  2 images: truncate",
        "  2 images: truncate",
        "  2 images: expected",
        "warning: 28 rejected",
    ], done.stderr


def test_strict_says_so_by_its_exit_code(cxr, tree, tmp_path):
    assert cxr("prepare", tree, "-o", tmp_path / "good", "--strict").code == 0
    (tree / "bad.png").write_bytes(b"no")
    done = cxr("prepare", tree, "-o", tmp_path / "out", "--strict")
    assert done.code == 3
    assert len(rows_of(tmp_path / "out")) == 8
    assert list(rejects_of(tmp_path / "out").values()) == ["expected PNG, JPEG, TIFF, BMP or DICOM, found text"]


def test_a_decoder_that_crashes_loses_its_file_alone(tree, tmp_path):
    # The crash is that of a worker: it reads a module that a test put in the way.
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(
        "import sys, os\n"
        "class Trap:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pydicom': os.kill(os.getpid(), 11)\n"
        "sys.meta_path.insert(0, Trap())\n"
    )
    (tree / "covid" / "crash.dcm").write_bytes(dicom(picture(7)))
    environment = {**os.environ, "PYTHONPATH": str(trap)}
    command = [sys.executable, "-m", "cxrtool", "prepare", str(tree), "-o", str(tmp_path / "out"), "--workers", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "out")) == 8
    (reason,) = rejects_of(tmp_path / "out").values()
    assert "crashed" in reason


def test_writing_never_leaves_the_output(cxr, tmp_path):
    source = tmp_path / "a" / "b" / "src"
    save(source / "x.png", picture(1))
    rows = ["../../x", "/etc/passwd", "..", "C:\\temp\\x", "a/b", "nul", ".hidden", "x" * 300, "x", "X"]
    lines = "".join(f"x.png,{name},{name},../../label\n" for name in rows)
    (source / "t.csv").write_text("path,image_id,patient_id,label\n" + lines)
    before = set(tmp_path.rglob("*"))
    assert cxr("prepare", source / "t.csv", "-o", tmp_path / "a" / "out").code == 0
    new = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "a" / "out") for path in new)
    manifest = rows_of(tmp_path / "a" / "out")
    assert len(manifest) == len(rows)
    assert len(list((tmp_path / "a" / "out" / "images").iterdir())) == len(rows)


def test_reading_can_be_confined(cxr, tree, tmp_path):
    save(tmp_path / "secret.png", picture(5))
    (tree / "t.csv").write_text("path\n../secret.png\ncovid/im0.png\n")
    assert cxr("prepare", tree / "t.csv", "--root", tree, "-o", tmp_path / "out").code == 0
    assert list(rows_of(tmp_path / "out")) == ["im0"]
    assert "outside --root" in next(iter(rejects_of(tmp_path / "out").values()))


def test_views_are_chosen_from_table_and_header(cxr, tmp_path):
    source = tmp_path / "set"
    source.mkdir()
    for name, tags in {"pa": {"ViewPosition": "PA"}, "ll": {"ViewPosition": "LL"}, "none": {}}.items():
        (source / f"{name}.dcm").write_bytes(dicom(picture(len(name)), **tags))
    (source / "t.csv").write_text("path,view\npa.dcm,\nll.dcm,\nnone.dcm,\nnone.dcm,AP supine\nll.dcm,L\n")
    done = cxr("prepare", source / "t.csv", "--view", "pa,ap", "--strict", "-o", tmp_path / "out")
    assert done.code == 0
    assert [row["view"] for row in rows_of(tmp_path / "out").values()] == ["PA", "AP supine"]
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2
    with (tmp_path / "out" / "rejects.csv").open() as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    assert reasons == [f"view {view}, --view is AP, PA" for view in ("LL", "unknown", "L")]
    assert cxr("prepare", source, "--view", "PA,unknown", "-o", tmp_path / "two").code == 0
    assert sorted(rows_of(tmp_path / "two")) == ["none", "pa"]


def test_duplicates_are_marked_listed_and_told(cxr, tmp_path):
    source = tmp_path / "set"
    save(source / "covid" / "a.png", picture(1))
    save(source / "normal" / "b.png", picture(1))
    save(source / "covid" / "c.png", cv2.resize(picture(1), (140, 180), interpolation=cv2.INTER_LINEAR))
    save(source / "covid" / "d.png", picture(2))
    done = cxr("prepare", source, "-o", tmp_path / "out")
    assert "1 x same pixels as an earlier image, 1 x near-duplicate of one" in done.err
    assert "warning: duplicates with DIFFERENT labels: 1; b is labelled normal, a covid" in done.err
    rows = rows_of(tmp_path / "out")
    assert rows["b"]["warning"] == "same pixels as a, which is labelled covid"
    assert rows["c"]["warning"] == "near-duplicate of a"
    assert rows["a"]["warning"] == rows["d"]["warning"] == ""
    with (tmp_path / "out" / "duplicates.csv").open() as file:
        assert {(row["image_id"], row["kind"]) for row in csv.DictReader(file)} == {
            ("b", "same pixels"),
            ("c", "near-duplicate"),
        }


PLANTED = [
    "DOE^JANE",
    "19700203",
    "GENERALHOSPITAL",
    "1.2.826.0.1.3680043.99.1",
    "1.2.826.0.1.3680043.99.2",
    "1.2.826.0.1.3680043.99.3",
    "ACC12345",
    "SMITH^DOCTOR",
    "ELMSTREET",
    "19990101",
    "ROOM77",
    "555-0199",
    "DEVICE9X",
    "STATION3",
    "OTHERID88",
    "HISTORYTEXT",
    "COMMENTTEXT",
    "JONES^OPERATOR",
    "STUDYTEXT",
    "PRIVATETEXT",
]


def planted_dicom(**tags):
    names = [
        "PatientName",
        "PatientBirthDate",
        "InstitutionName",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "PatientAddress",
        "StudyDate",
        "Occupation",
        "PatientTelephoneNumbers",
        "DeviceSerialNumber",
        "StationName",
        "OtherPatientIDs",
        "AdditionalPatientHistory",
        "PatientComments",
        "OperatorsName",
        "StudyDescription",
    ]
    values = dict(zip(names, PLANTED, strict=False))
    block = Dataset()
    block.add_new(0x00090010, "LO", PLANTED[-1])
    values["RequestAttributesSequence"] = [block]
    return dicom(picture(4, dtype=np.uint16), **values, **tags)


def test_of_a_header_only_the_allowed_is_told(tmp_path):
    source = tmp_path / "set"
    source.mkdir()
    data = planted_dicom(PatientID="P-471108154711", PatientAge="061Y", PatientSex="F", ViewPosition="AP")
    (source / "a.dcm").write_bytes(data)
    (source / "cut.dcm").write_bytes(data[:-3000])
    assert pydicom.dcmread(source / "a.dcm").PatientName == PLANTED[0]
    plain = run("prepare", source, "-o", tmp_path / "out")
    row = rows_of(tmp_path / "out")["a"]
    assert {name: row[name] for name in ("patient_id", "age", "sex", "view")} == {
        "patient_id": "set:P-471108154711",
        "age": "61",
        "sex": "F",
        "view": "AP",
    }
    salted = run("prepare", source, "--salt", "pepper", "-o", tmp_path / "salted")
    (hidden_row,) = rows_of(tmp_path / "salted").values()
    assert hidden_row["patient_id"].startswith("set:")
    written = {name: data for name, (_, data) in fingerprint(tmp_path).items() if not name.startswith("set/")}
    told = (plain.stderr + plain.stdout + salted.stderr + salted.stdout).encode()
    everything = b"".join([told, *written.values(), *(name.encode() for name in written)])
    assert b"set:P-471108154711" in everything
    assert not [text for text in PLANTED if text.encode() in everything]
    hidden = b"".join(data for name, data in written.items() if name.startswith("salted/"))
    assert b"471108154711" not in hidden
    assert b"pepper" not in hidden


def test_with_a_salt_no_name_of_a_file_or_folder_is_told(tmp_path):
    names = []
    for number in range(6):
        name, folder = f"DOE-JANE-{number}-XQ", f"ward{number}-ZQ"
        names += [name, folder]
        place = tmp_path / "set" / folder / ("covid", "normal")[number % 2]
        place.mkdir(parents=True)
        (place / f"{name}.dcm").write_bytes(planted_dicom(PatientID=f"PID-{name}"))
    broken = place / "BROKEN-NAME-XQ.dcm"
    broken.write_bytes((place / f"{name}.dcm").read_bytes()[:-3000])
    names.append("BROKEN-NAME-XQ")
    done = run("prepare", tmp_path / "set", "--source", "clinic", "--salt", "pepper", "-o", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 6
    assert {row["label"] for row in rows.values()} == {"covid", "normal"}
    for name, row in rows.items():
        assert row["original"] == f"{name}.dcm"
        assert row["path"].endswith(f"/images/{name}.png")
        assert set(name) <= set("0123456789abcdef")
    written = {name: data for name, (_, data) in fingerprint(tmp_path / "out").items()}
    everything = b"".join([(done.stdout + done.stderr).encode(), *written.values(), *map(str.encode, written)])
    assert not [text for text in (*names, *PLANTED) if text.encode() in everything]
    assert "--salt: image ids, original names and patient ids are hashes" in done.stderr
    # Single images are named on the command line, which is recorded.
    assert run("prepare", broken.with_name("DOE-JANE-5-XQ.dcm"), "--salt", "s", "-o", tmp_path / "one").returncode == 0
    assert "DOE" not in (tmp_path / "one" / "run.json").read_text()
    assert not rows_of(tmp_path / "one").keys() & rows.keys()


@pytest.mark.parametrize("arguments", [("--salt", "a"), ("--salt=a",)])
def test_the_salt_is_not_in_the_command_line_that_is_kept(tree, tmp_path, arguments):
    assert run("prepare", tree, *arguments, "-o", tmp_path / "out").returncode == 0
    argv = json.loads((tmp_path / "out" / "run.json").read_text())["argv"]
    assert "prepare" in argv
    assert not {"a", "--salt=a"} & set(argv)
    assert any("***" in word for word in argv)


def test_nothing_is_done_twice(cxr, tree, tmp_path):
    out = tmp_path / "out"
    assert cxr("prepare", tree, "-o", out).code == 0
    before = fingerprint(out)
    assert "up to date" in cxr("prepare", tree, "-o", out, "--workers", 1).err
    assert fingerprint(out) == before
    assert "8 images" in cxr("prepare", tree, "-o", out, "--size", 64).err
    save(tree / "covid" / "new.png", picture(99))
    assert "9 images" in cxr("prepare", tree, "-o", out, "--size", 64).err
    assert "9 images" in cxr("prepare", tree, "-o", out, "--size", 64, "--salt", "x").err
    assert "up to date" in cxr("prepare", tree, "-o", out, "--size", 64, "--salt", "x").err


def test_the_output_may_lie_in_the_source(cxr, tree):
    for _ in range(2):
        assert cxr("prepare", tree, "-o", tree / "prepared", "--force").code == 0
        assert len(rows_of(tree / "prepared")) == 8


def test_workers_and_order_do_not_matter(cxr, tree, tmp_path):
    cxr("prepare", tree, "-o", tmp_path / "one", "--workers", 1, "--size", 40)
    cxr("prepare", tree, "-o", tmp_path / "two", "--workers", 3, "--size", 40)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_killed_run_goes_on_to_the_same_end(tmp_path):
    source = tmp_path / "set"
    for index in range(40):
        save(source / "ab"[index % 2] / f"{index}.png", picture(index, 700, 600))
    (source / "a" / "bad.png").write_bytes(b"bad")
    command = [sys.executable, "-m", "cxrtool", "prepare", str(source), "--size", "256", "--workers", "1", "-o"]
    assert subprocess.run([*command, str(tmp_path / "clean")], capture_output=True, check=False).returncode == 0
    resumed = 0
    for attempt in range(3):
        out = tmp_path / f"out{attempt}"
        process = subprocess.Popen([*command, str(out)], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            journals = list(tmp_path.glob(f".out{attempt}.*.partial/journal.jsonl"))
            if journals and journals[0].read_bytes().count(b"\n") > 6 * attempt:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if attempt == 2:
            # A file that the journal calls whole was cut by the crash.
            (partial,) = tmp_path.glob(".out2.*.partial")
            first = sorted((partial / "images").iterdir())[0]
            first.write_bytes(first.read_bytes()[:-5])
        done = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        resumed += "going on where it stopped" in done.stderr
        assert contents(out) == contents(tmp_path / "clean")
        shutil.rmtree(out)
    assert resumed >= 2


def test_like_a_model(cxr, tree, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    chain = [{"step": "prepare", "version": VERSION, "size": 40, "fit": "pad"}, {"step": "enhance", "version": 1}]
    (model / "model.json").write_text(json.dumps({"chain": chain}))
    assert cxr("prepare", tree, "--like", model, "-o", tmp_path / "out").code == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["chain"] == chain[:1]
    assert read_image(rows_of(tmp_path / "out")["im0"]["path"]).pixels.shape == (40, 40)
    clash = cxr("prepare", tree, "--like", model, "--size", 64, "-o", tmp_path / "out")
    assert clash.code == 2
    assert "--size 64 contradicts --like" in clash.err
    (model / "model.json").write_text(json.dumps({"chain": []}))
    assert cxr("prepare", tree, "--like", model, "-o", tmp_path / "native").code == 0
    assert read_image(rows_of(tmp_path / "native")["im0"]["path"]).pixels.shape == (90, 70)
    (model / "model.json").write_text("{}")
    assert "expected the size and fit of its images" in cxr("prepare", tree, "--like", model, "-o", "x").err
    assert "found no model.json" in cxr("prepare", tree, "--like", tree, "-o", "x").err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--size", "huge"], 2, "expected native or a number from 16 to 8192, found 'huge'"),
        (["--size", "3"], 2, "found '3'"),
        (["--fit", "stretch"], 2, "expected one of squash, pad, crop, found 'stretch'"),
        (["--dataset", "imagenet"], 2, "expected one of auto, folder, csv, list, actualmed, bimcv, cohen, covidgr, "),
        (["--dataset", "covidgr"], 1, "expected the folders P and N"),
    ],
)
def test_a_wrong_option_is_one_line(cxr, tree, tmp_path, arguments, code, words):
    done = cxr("prepare", tree, *arguments, "-o", tmp_path / "out")
    assert done.code == code
    assert words in done.err
    assert len(done.err.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_without_an_output_nothing_is_read(cxr, tree):
    done = cxr("prepare", tree)
    assert done.code == 2
    assert "needs -o DIR" in done.err


def test_a_dry_run_writes_nothing(cxr, tree, tmp_path):
    before = set(tmp_path.rglob("*"))
    assert "would write" in cxr("prepare", tree, "-o", tmp_path / "out", "--dry-run").err
    assert set(tmp_path.rglob("*")) == before


def test_prepared_data_can_be_prepared_again(cxr, tree, tmp_path):
    cxr("prepare", tree, "-o", tmp_path / "first")
    cxr("prepare", tmp_path / "first" / "manifest.csv", "--size", 32, "-o", tmp_path / "second")
    first, second = rows_of(tmp_path / "first"), rows_of(tmp_path / "second")
    assert list(first) == list(second)
    for column in ("label", "patient_id", "source", "sha256", "original", "dhash"):
        assert [row[column] for row in first.values()] == [row[column] for row in second.values()]


def test_real_radiographs(cxr, real_data, tmp_path):
    def state():
        return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in real_data.rglob("*")}

    before = state()
    done = cxr("prepare", real_data / "covid-cxr-336" / "metadata.csv", "--size", 64, "-o", tmp_path / "out")
    assert done.code == 0
    manifest = read_manifest(tmp_path / "out")
    assert len(manifest) == 336
    assert manifest.classes() == ["covid", "normal", "pneumonia"]
    assert sum(map(bool, manifest.column("mask"))) == 111
    assert rejects_of(tmp_path / "out") == {}
    assert state() == before


def test_what_is_said_twice_is_said_alike(cxr):
    from cxrtool.commands import prepare as step
    from cxrtool.data.datasets import ADAPTERS
    from cxrtool.data.reading.radiograph import MAX_PIXELS
    from cxrtool.imaging.fits import FITS

    assert step.PrepareOptions(()).max_pixels == MAX_PIXELS
    page = " ".join(cxr("prepare", "--help").out.split())
    assert all(name in page for name in (*ADAPTERS, *FITS, str(MAX_PIXELS)))


def test_a_table_that_is_not_read_is_pointed_at(cxr, tree, tmp_path):
    (tree / "covid" / "metadata.csv").write_text("path\nim0.png\n")
    assert "is not read" not in cxr("prepare", tree, "-o", tmp_path / "nested").err
    (tree / "metadata.csv").write_text("path\ncovid/im0.png\n")
    done = cxr("prepare", f"{tree}/", "-o", tmp_path / "out")
    table = tree / "metadata.csv"
    assert f"{table} is not read; `cxrtool prepare {table}` reads it\n" in done.err
    assert "is not read" not in cxr("prepare", table, "-o", tmp_path / "table").err


def test_a_folder_that_describes_its_images_is_read_by_its_table(cxr, tmp_path):
    """Masks and truth beside the images are no classes, as in what `phantom` draws."""
    assert cxr("phantom", "--count", "6", "--size", "64", "-o", tmp_path / "drawn").code == 0
    done = cxr("prepare", tmp_path / "drawn", "-o", tmp_path / "out")
    assert f"{tmp_path / 'drawn'} was read by its metadata.csv" in done.err
    named = cxr("prepare", tmp_path / "drawn/metadata.csv", "-o", tmp_path / "named")
    assert done.code == named.code == 0
    rows, same = (read_manifest(tmp_path / name).rows for name in ("out", "named"))
    assert len(rows) == 6
    drop = {"path", "mask", "ribless", "opacities"}
    assert [{k: v for k, v in row.items() if k not in drop} for row in rows] == [
        {k: v for k, v in row.items() if k not in drop} for row in same
    ]
    cxr("prepare", tmp_path / "drawn", "--dataset", "folder", "-o", tmp_path / "plain")
    assert {"masks", "truth"} < set(read_manifest(tmp_path / "plain").classes())


@pytest.mark.parametrize("table", ["path,label\nmissing.png,covid\n", "path\ncovid/im0.png\n", "label\ncovid\n"])
def test_a_table_that_does_not_describe_the_images_of_its_folder_is_only_pointed_at(cxr, tree, tmp_path, table):
    (tree / "metadata.csv").write_text(table)
    done = cxr("prepare", tree, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert "metadata.csv is not read" in done.err


def test_a_mask_beside_a_turned_radiograph_is_doubted(cxr, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(dicom(picture(2, dtype=np.uint16), PatientOrientation=["R", "F"]))
    save(folder / "m.png", np.full(picture(2).shape, 255, np.uint8))
    (folder / "t.csv").write_text("path,mask\na.dcm,m.png\n")
    assert cxr("prepare", folder / "t.csv", "-o", tmp_path / "out").code == 0
    (row,) = rows_of(tmp_path / "out").values()
    assert row["warning"].startswith("turned to the usual view by its PatientOrientation; ")
    assert row["warning"].endswith("its mask is in a file of its own and was not turned with it")


def test_not_one_readable_image_is_an_error_also_again(cxr, tmp_path):
    (tmp_path / "data" / "covid").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (tmp_path / "data" / "covid" / name).write_bytes(b"no image")
    for _ in range(2):
        made = cxr("prepare", tmp_path / "data", "-o", tmp_path / "out")
        assert made.code == 1
        assert "Traceback" not in made.err
        assert "rejects.csv" in made.err


@pytest.fixture
def german(tmp_path):
    """A table as a German spreadsheet writes it, and its images in subfolders of another folder."""
    for index in range(4):
        save(tmp_path / "bilder" / ("a", "b")[index % 2] / f"r{index}.png", picture(index))
    lines = ["Bild;Befund;Patient Nr;Alter;Geschlecht;Projektion;CRP"]
    lines += [f"r{index};{('covid', 'normal')[index % 2]};00{index};4{index},5;w;PA;1,5" for index in range(4)]
    table = tmp_path / "studie" / "tabelle.csv"
    table.parent.mkdir()
    table.write_text("\n".join(lines) + "\n", encoding="latin-1")
    return table


COLUMNS = "path=Bild,label=Befund,patient_id=Patient Nr,age=Alter,sex=Geschlecht,view=Projektion"


def test_a_german_table_with_bare_names(cxr, german, tmp_path):
    done = cxr("prepare", german, "--images", tmp_path / "bilder", "--columns", COLUMNS, "-o", tmp_path / "out")
    assert (done.code, done.err) == (0, "4 images: covid 2, normal 2; 4 patients\n")
    row = rows_of(tmp_path / "out")["r1"]
    wanted = {"label": "normal", "patient_id": "studie:001", "age": "41.5", "sex": "F", "view": "PA", "CRP": "1,5"}
    assert wanted.items() <= row.items()
    assert row["original"] == "b/r1.png"


def test_a_workbook_is_read_as_its_table_is(cxr, german, tmp_path):
    import openpyxl

    book = openpyxl.Workbook()
    for line in german.read_text(encoding="latin-1").splitlines():
        book.active.append(line.split(";"))
    book.create_sheet("Notizen").append(["x"])
    book.save(tmp_path / "studie" / "tabelle.xlsx")
    given = ["--images", tmp_path / "bilder", "--columns", COLUMNS]
    assert cxr("prepare", german, *given, "-o", tmp_path / "one").code == 0
    done = cxr("prepare", tmp_path / "studie" / "tabelle.xlsx", *given, "-o", tmp_path / "two")
    assert done.code == 0
    assert "only the first sheet is read; not read: Notizen" in done.err
    assert (tmp_path / "one" / "manifest.csv").read_bytes() == (tmp_path / "two" / "manifest.csv").read_bytes()


def test_many_equal_reasons_are_one_line(cxr, german, tmp_path):
    german.write_text(german.read_text() + "".join(f"weg{index}.png;covid;9;;;;\n" for index in range(5)))
    given = ["prepare", german, "--images", tmp_path / "bilder", "--columns", COLUMNS, "-o", tmp_path / "out"]
    lines = cxr(*given).err.splitlines()
    listed = tmp_path / "out" / "rejects.csv"
    assert lines[1:] == [f"warning: 5 images: no such file, such as weg0.png; all in {listed}"]
    assert len(rejects_of(tmp_path / "out")) == 5
    assert cxr(*given, "--strict", "--force").code == 3


def test_a_name_of_several_files_is_refused_with_the_candidates(cxr, german, tmp_path):
    for name in ("r0.png", "r1.png"):
        save(tmp_path / "bilder" / "c" / name, picture(7))
    given = ["--images", tmp_path / "bilder", "--columns", COLUMNS, "-o", tmp_path / "out"]
    done = cxr("prepare", german, *given)
    assert "2 images: several files have this name, such as r0: a/r0.png, c/r0.png; name a smaller folder" in done.err
    assert sorted(rows_of(tmp_path / "out")) == ["r2", "r3"]


@pytest.mark.parametrize(
    ("columns", "code", "words"),
    [
        ("path=Bidl", 1, "--columns path=Bidl: expected this column, found: Bild, Befund, "),
        ("path=Bidl", 1, "; did you mean 'Bild'?"),
        ("pfad=Bild", 2, "--columns: expected one of image_id, path, label, "),
        ("lable=Befund", 2, "did you mean 'label'?"),
        ("Bild", 2, "expected NAME=COLUMN with commas between"),
        ("path=Bild,path=Befund", 2, "expected one column for path, found Bild and Befund"),
    ],
)
def test_a_wrong_column_is_one_line(cxr, german, tmp_path, columns, code, words):
    done = cxr("prepare", german, "--images", tmp_path / "bilder", "--columns", columns, "-o", tmp_path / "out")
    assert done.code == code
    assert words in done.err
    assert len(done.err.splitlines()) == 1


def test_the_column_of_files_is_guessed_for_the_message(cxr, german, tmp_path):
    done = cxr("prepare", german, "--images", tmp_path / "bilder", "--columns", "label=Befund", "-o", tmp_path / "out")
    assert done.code == 1
    assert done.err.splitlines()[1] == "  name it with --columns path=Bild,label=Befund"


def test_options_of_tables_need_a_table(cxr, tree, german, tmp_path):
    done = cxr("prepare", tree, "--columns", "path=Bild", "-o", tmp_path / "out")
    assert done.code == 2
    assert "--columns: expected a table (.csv, .tsv or .xlsx) as SOURCE" in done.err
    done = cxr("prepare", german, "--images", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert done.code == 2
    assert "expected the folder of the images, found no such folder" in done.err
    done = cxr("prepare", tree, "--dataset", "cohen", "--columns", "path=Bild", "-o", tmp_path / "out")
    assert "cannot be combined with --dataset cohen" in done.err


def test_a_table_without_its_images_points_at_the_option(cxr, german, tmp_path):
    done = cxr("prepare", german, "--columns", COLUMNS, "-o", tmp_path / "out")
    assert done.code == 1
    assert "--images FOLDER names the folder" in done.err


def test_the_folder_of_the_images_is_no_place_for_the_result(cxr, tree):
    before = sorted(tree.rglob("*"))
    refused = cxr("prepare", tree, "-o", tree)
    assert refused.code == 2
    assert "expected another place than the input" in refused.err
    assert sorted(tree.rglob("*")) == before


def test_the_working_directory_and_the_spelling_of_a_folder_do_not_matter(cxr, tree, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tree)
    below = next(path for path in sorted(tree.rglob("*")) if path.is_dir())
    ways = (tmp_path, tree), (tree, "."), (below, os.path.relpath(tree, below)), (tmp_path, "./link/")
    written = []
    for number, (here, source) in enumerate(ways):
        monkeypatch.chdir(here)
        assert cxr("prepare", source, "-o", tmp_path / f"out{number}", "--workers", 1).code == 0
        written.append((tmp_path / f"out{number}" / "manifest.csv").read_bytes())
    assert written == [written[0]] * len(ways)


def test_an_earlier_output_is_not_replaced_by_an_empty_one(cxr, tree, tmp_path):
    assert cxr("prepare", tree, "-o", tmp_path / "out").code == 0
    before = fingerprint(tmp_path / "out")
    done = cxr("prepare", tree, "--max-pixels", 10, "-o", tmp_path / "out")
    assert done.code == 1
    assert "out with its 8 images stays as it is" in done.err
    assert fingerprint(tmp_path / "out") == before
    # Where there was none, the reasons are listed.
    assert cxr("prepare", tree, "--max-pixels", 10, "-o", tmp_path / "new").code == 1
    assert len(rejects_of(tmp_path / "new")) == 8


def test_classes_of_one_name_in_two_spellings_are_told(cxr, tree, tmp_path):
    save(tree / "COVID" / "x.png", picture(40))
    done = cxr("prepare", tree, "-o", tmp_path / "out")
    assert "the classes 'COVID' and 'covid' differ in their spelling alone" in done.err
    assert "spelling" not in cxr("prepare", tree / "normal", "-o", tmp_path / "one").err
