"""Readers meet damaged and hostile files: mutations of small valid ones.

Whatever the bytes, a reader returns or raises an error of cxrtool, within 5 seconds and 1.5 GiB, and writes nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from cxrtool.cli.main import run
from cxrtool.data.reading.images import read_image
from cxrtool.data.splitting.splits import read_splits
from cxrtool.data.structured import load_json, load_toml
from cxrtool.data.tables.manifest import read_manifest, read_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.data.tables.workbook import read_workbook
from cxrtool.errors import CxrtoolError
from cxrtool.flow.fold_training import IMPORTED, undecided
from cxrtool.flow.folder import read_run_file
from cxrtool.models.architecture import Architecture
from cxrtool.models.description import Input, ModelDescription, Normalization

SECONDS, KIBIBYTES = 5, 3 << 19
FEW, MANY = 60, int(os.environ.get("CXRTOOL_FUZZ", "10000"))

GREY = np.random.default_rng(0).integers(0, 256, (24, 20), np.uint8)
RGB = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])


def picture(form: str, pixels: np.ndarray = GREY, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def dicom(syntax: str, pixels: bytes, **tags: Any) -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Rows, data.Columns = GREY.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.WindowCenter, data.WindowWidth, data.PatientID, data.PatientAge = "100", "90", "P1", "050Y"
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = encapsulate([pixels]) if UID(syntax).is_encapsulated else pixels
    data["PixelData"].VR = "OB"
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def workbook() -> bytes:
    import openpyxl

    book, stream = openpyxl.Workbook(), io.BytesIO()
    for row in (("image_id", "label", "score"), ("001", "covid", 0.5), ("002", "normal", 7)):
        book.active.append(row)
    book.save(stream)
    return stream.getvalue()


def parquet() -> list[bytes]:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def written(compression: str, **columns: Any) -> bytes:
        stream = io.BytesIO()
        table = pa.table({"image_id": ["a1", "a2"], "path": ["1.png", "2.png"], **columns})
        pq.write_table(table, stream, compression=compression)
        return stream.getvalue()

    when = pa.array([0, None], pa.timestamp("ns"))
    return [
        written("zstd", label=["covid", None], age=[50.5, None], known=[True, False], when=when),
        written("none", subset=["train", "test"], prob_a=[0.5, 1.0], prob_b=[0.5, 0.0]),
    ]


MANIFEST = (
    "image_id,path,label,patient_id,sha256,age\n"
    'a1,images/a1.png,covid,"s:1",ab12,50\na2,images/a2.png,normal,s:2,ab13,\n'
)
SPLITS = "image_id,repeat,fold,subset,label\na1,0,0,train,covid\na2,0,0,test,normal\n"
PREDICTIONS = (
    "image_id,path,repeat,fold,subset,label,predicted,prob_covid,prob_normal\n"
    "a1,a1.png,0,0,test,covid,covid,0.75,0.25\n"
)
TOML = b'folds = 5\nseed = 3\nby = "label"\n[table]\nvalues = [1, 2.5, "x", 2020-01-01]\na.b.c = { d = true }\n'


RUN = b"""{"schema": 1, "command": "train", "argv": ["cxrtool", "train", "p"], "digest": "ab", "seed": 0, "threads": 2,
 "options": {"lr": {"value": 1e-3, "origin": "flag"}, "model": {"value": "thumbnail", "origin": "default"}},
 "chain": [{"step": "prepare", "version": 2, "size": 64, "fit": "squash"}], "counts": {"images": 3},
 "run_digest": "c"}"""


def model() -> bytes:
    description = ModelDescription(
        ["covid", "normal"],
        Architecture("thumbnail", 2, size=16).to_json(),
        [{"step": "prepare", "version": 2, "size": 64, "fit": "squash"}],
        Input(16, "squash"),
        Normalization([0.5], [0.25]),
        **undecided(IMPORTED),
        trained={"preset": None, "weights": "none", "epoch": 1},
    )
    return json.dumps(description.to_json()).encode()


def rle() -> bytes:
    rows = b"".join(struct.pack("b", len(row) - 1) + row.tobytes() for row in GREY)
    return struct.pack("<16I", 1, 64, *[0] * 14) + rows + b"\0" * (len(rows) % 2)


def a_table(path: Path) -> None:
    for reader in (read_table, read_manifest, read_predictions, read_splits):
        with contextlib.suppress(CxrtoolError):
            reader(path)


def a_json(path: Path) -> None:
    for name in ("model.json", "run.json"):
        (path.parent / name).write_bytes(path.read_bytes())
    read_run_file(path.parent)
    with contextlib.suppress(ValueError):
        load_json(path)
    with contextlib.suppress(CxrtoolError):
        ModelDescription.read(path.parent)


def a_config(path: Path) -> None:
    with contextlib.suppress(ValueError):
        load_toml(path)
    messages = io.StringIO()
    before, sys.stderr = sys.stderr, messages
    try:
        run(["split", str(path.with_name("none.csv")), "--config", str(path), "-o", str(path.with_name("o.csv"))])
    finally:
        sys.stderr = before
    assert "a bug in cxrtool" not in messages.getvalue(), messages.getvalue()


def an_image(path: Path) -> None:
    read_image(path, capture_decoder_errors=True)


READERS: dict[str, tuple[str, Callable[[Path], object], Callable[[], list[bytes]]]] = {
    "PNG": (
        "png",
        an_image,
        lambda: [
            picture("PNG"),
            picture("PNG", RGB),
            picture("PNG", GREY.astype(np.uint16) * 257),
            picture("PNG", RGB, dpi=(100, 100), icc_profile=b"0" * 100),
        ],
    ),
    "JPEG": (
        "jpg",
        an_image,
        lambda: [picture("JPEG"), picture("JPEG", RGB), picture("JPEG", RGB, progressive=True, icc_profile=b"0" * 60)],
    ),
    "TIFF": (
        "tif",
        an_image,
        lambda: [
            *(picture("TIFF", GREY, compression=c) for c in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
            picture("TIFF", RGB),
        ],
    ),
    "BMP": ("bmp", an_image, lambda: [picture("BMP"), picture("BMP", RGB)]),
    "DICOM": (
        "dcm",
        an_image,
        lambda: [
            dicom("1.2.840.10008.1.2.1", GREY.tobytes()),
            dicom("1.2.840.10008.1.2", GREY.tobytes(), RescaleSlope="2", RescaleIntercept="-5"),
            dicom("1.2.840.10008.1.2.4.50", picture("JPEG")),
            dicom("1.2.840.10008.1.2.4.90", picture("JPEG2000", no_jp2=True)),
            dicom("1.2.840.10008.1.2.5", rle()),
        ],
    ),
    "CSV": ("csv", a_table, lambda: [text.encode() for text in (MANIFEST, SPLITS, PREDICTIONS)]),
    "Parquet": ("parquet", a_table, parquet),
    "XLSX": ("xlsx", lambda path: read_workbook(path), lambda: [workbook()]),
    "JSON": ("json", a_json, lambda: [RUN, model()]),
    "TOML": ("toml", a_config, lambda: [TOML]),
}

WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

share = st.floats(0, 1, exclude_max=True)
words = st.tuples(st.sampled_from(WORDS), st.sampled_from("<>"), st.integers(1, 2))
mutations = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), share, st.integers(0, 7)),
        st.tuples(st.just("byte"), share, st.integers(0, 255)),
        st.tuples(st.just("cut"), share, st.none()),
        st.tuples(st.just("drop"), share, st.integers(1, 40)),
        st.tuples(st.just("insert"), share, st.binary(min_size=1, max_size=12)),
        st.tuples(st.just("repeat"), share, st.tuples(st.integers(1, 60), st.integers(1, 50))),
        st.tuples(st.just("length"), share, words),
    ),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, steps: list[tuple[str, float, Any]]) -> bytes:
    """A file with some changes; each is at a share of its length."""
    for kind, place, value in steps:
        at = int(place * len(data))
        if kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ (1 << value)]) + data[at + 1 :]
        elif kind == "byte" and data:
            data = data[:at] + bytes([value]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "drop":
            data = data[:at] + data[at + value :]
        elif kind == "insert":
            data = data[:at] + value + data[at:]
        elif kind == "repeat":
            data = data[:at] + data[at : at + value[0]] * value[1] + data[at:]
        elif kind == "length":
            word, order, size = value
            field = struct.pack(f"{order}{' HI'[size]}", word & (0xFFFF if size == 1 else 0xFFFFFFFF))
            data = data[:at] + field + data[at + len(field) :]
    return data


def with_right_sums(data: bytes) -> bytes:
    """A PNG with the checksums of its chunks, so that a change is not refused for them alone."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        parts += [data[at:end], struct.pack(">I", zlib.crc32(data[at + 4 : end]))]
        at = end + 4
    return b"".join([*parts, data[at:]])


_watched: list[tuple[Path, list[str]]] = []


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched or event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.symlink", "os.link"):
        return
    inside, outside = _watched[-1]
    name = arguments[0]
    if not isinstance(name, str | bytes | Path):
        return
    if event == "open" and not ((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    path = Path(os.fsdecode(name)).absolute()
    if not path.is_relative_to(inside) and path != Path(os.devnull):
        outside.append(f"{event} {path}")


sys.addaudithook(_on_event)


@contextlib.contextmanager
def bounded(inside: Path) -> Iterator[None]:
    """Fail where the block takes too long, or writes outside a folder."""

    def too_long(*_: object) -> None:
        raise AssertionError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    outside: list[str] = []
    _watched.append((inside, outside))
    try:
        yield
    finally:
        _watched.pop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not outside


def try_all(kind: str, folder: Path, examples: int, *, repeatable: bool) -> None:
    suffix, reader, make = READERS[kind]
    seeds = make()
    path = folder / f"x.{suffix}"
    for seed in seeds:
        path.write_bytes(seed)
        reader(path)
        if kind == "JSON" and b"classes" in seed:
            ModelDescription.read(folder)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=repeatable,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(seeds) - 1), mutations, st.booleans())
    def check(index: int, steps: list[tuple[str, float, Any]], sums: bool) -> None:
        data = mutated(seeds[index], steps)
        path.write_bytes(with_right_sums(data) if sums and kind == "PNG" else data)
        with bounded(folder):
            message = None
            try:
                reader(path)
            except CxrtoolError as error:
                message = error.message
        assert message is None or (message and "\n" not in message)

    check()


@pytest.mark.parametrize("kind", READERS)
def test_a_few_mutations_of_each_kind_are_read_or_refused(kind, tmp_path):
    try_all(kind, tmp_path, FEW, repeatable=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_many_mutations_of_each_kind_are_read_or_refused(kind, tmp_path):
    try_all(kind, tmp_path, MANY, repeatable=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < KIBIBYTES
