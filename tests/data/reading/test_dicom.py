"""The DICOM reader: windows, tables, odd headers, turns, compressions, truncation, bombs, and what it must not tell."""

from __future__ import annotations

import contextlib
import io
import itertools
import zlib

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing
from pydicom.tag import Tag

from cxrtool.data.reading.images import read_image
from cxrtool.errors import ImageError

TWELVE = (np.add.outer(np.arange(64) * 40, np.arange(48) * 30) % 4096).astype(np.uint16)
EIGHT = (TWELVE >> 4).astype(np.uint8)


def dicom(pixels: np.ndarray, *, bits: int | None = None, syntax: str = uid.ExplicitVRLittleEndian, **tags) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid.generate_uid(entropy_srcs=["cxrtool"])
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits or (12 if pixels.dtype.itemsize == 2 else 8)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def encoded(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    def reader(source: Dataset | bytes, **options):
        path = tmp_path / "picture"
        path.write_bytes(source if isinstance(source, bytes) else encoded(source))
        return read_image(path, **options)

    return reader


def test_twelve_bits_span_sixteen(read):
    pixels = read(dicom(TWELVE)).pixels
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, np.rint(TWELVE * (65535 / 4095)))


def test_eight_bits_stay_eight(read):
    pixels = read(dicom(EIGHT)).pixels
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, EIGHT)
    in_sixteen = read(dicom(EIGHT.astype(np.uint16), bits=8)).pixels
    assert in_sixteen.dtype == np.uint8
    assert np.array_equal(in_sixteen, EIGHT)


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
def test_signed_values_keep_their_order(read, bits):
    values = np.linspace(-(1 << (bits - 1)), (1 << (bits - 1)) - 1, 64 * 48).astype(np.int16).reshape(64, 48)
    pixels = read(dicom(values, bits=bits)).pixels.astype(int)
    full = 255 if bits == 8 else 65535
    assert np.array_equal(pixels, np.rint((values.astype(int) + (1 << (bits - 1))) * full / ((1 << bits) - 1)))


def test_unused_bits_are_dropped_and_said(read):
    dirty = TWELVE | 0xF000
    radiograph = read(dicom(dirty))
    assert np.array_equal(radiograph.pixels, read(dicom(TWELVE)).pixels)
    assert "more bits than BitsStored" in radiograph.warnings[0]
    negative = TWELVE.astype(np.int16) - 2048
    assert np.array_equal(read(dicom(negative & 0x0FFF)).pixels, read(dicom(negative)).pixels)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2048, 4096), (1000, 600.5), (3000.5, 2)])
@pytest.mark.parametrize("rescale", [None, (2.5, -300)])
def test_windows_agree_with_pydicom(read, function, centre, width, rescale):
    tags = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": function}
    if rescale:
        tags |= {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]}
    dataset = dicom(TWELVE, **tags)
    with np.errstate(over="ignore"):
        shown = apply_windowing(apply_modality_lut(TWELVE, dataset), dataset)
    low, high = (0, 4095) if rescale is None else (rescale[1], 4095 * rescale[0] + rescale[1])
    expected = (shown - low) / (high - low) * 65535
    assert np.abs(read(dataset).pixels - expected).max() <= 0.51


def test_the_first_of_several_windows_counts(read):
    several = dicom(TWELVE, WindowCenter=[1000, 2000], WindowWidth=[500, 4000])
    single = dicom(TWELVE, WindowCenter=1000, WindowWidth=500)
    assert np.array_equal(read(several).pixels, read(single).pixels)


def lookup(values: np.ndarray, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values), first, bits])
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    return item


def test_lookup_tables_agree_with_pydicom(read):
    curve = (np.linspace(0, 1, 3000) ** 2 * 1023).astype(np.uint16)
    dataset = dicom(TWELVE, VOILUTSequence=[lookup(curve, 500, 10)], WindowCenter=5, WindowWidth=9)
    expected = apply_voi(TWELVE, dataset) / 1023 * 65535
    assert np.abs(read(dataset).pixels - expected).max() <= 0.5
    dataset = dicom(TWELVE, ModalityLUTSequence=[lookup(curve[::-1], 0, 16)])
    shown = apply_modality_lut(TWELVE, dataset).astype(float)
    # Without a window the whole range of the transformed values is shown.
    assert np.abs(read(dataset).pixels - shown / 1023 * 65535).max() <= 0.5


@pytest.mark.parametrize("function", [None, "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("signed", [False, True])
def test_monochrome1_and_its_twin_come_out_equal(read, function, signed):
    # Centred on whole and half values, so that brightness falls on .5 and rounding shows.
    for centre, width in itertools.product([2047.5, 1500, 2222.25], [4095, 1001, 800.5]):
        shift = 2048 if signed else 0
        values = TWELVE.astype(np.int32) - shift
        window = {"WindowCenter": centre - shift, "WindowWidth": width, "VOILUTFunction": function or "LINEAR_EXACT"}
        turned = window | {"WindowCenter": 4095 - centre - shift}
        if function is None:
            window, turned = {}, {}
        dtype = np.int16 if signed else np.uint16
        second = dicom(values.astype(dtype), **window)
        first = dicom((4095 - 2 * shift - values).astype(dtype), PhotometricInterpretation="MONOCHROME1", **turned)
        assert np.array_equal(read(first).pixels, read(second).pixels)


def test_monochrome1_is_inverted_once(read):
    plain, inverted = read(dicom(TWELVE)), read(dicom(TWELVE, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(inverted.pixels, 65535 - plain.pixels.astype(int))
    shaped = dicom(TWELVE, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert np.array_equal(read(shaped).pixels, inverted.pixels)


def test_a_window_that_cannot_be_used_is_said(read):
    radiograph = read(dicom(TWELVE, WindowCenter=0, WindowWidth=0))
    assert np.array_equal(radiograph.pixels, read(dicom(TWELVE)).pixels)
    assert "window cannot be used" in radiograph.warnings[0]
    assert "blank" in read(dicom(TWELVE, WindowCenter=60000, WindowWidth=5)).warnings[0]


SYNTAXES = [uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless]


def recoded(pixels: np.ndarray, syntax: str, **tags) -> Dataset:
    if syntax in (uid.RLELossless, uid.JPEG2000Lossless):
        dataset = dicom(pixels, **tags)
        dataset.compress(syntax, generate_instance_uid=False)
        return dataset
    return dicom(pixels, syntax=syntax, **tags)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("pixels", [TWELVE, EIGHT, TWELVE.astype(np.int16) - 2048], ids=["12", "8", "signed"])
def test_every_encoding_gives_the_same_picture(read, syntax, pixels):
    assert np.array_equal(read(recoded(pixels, syntax)).pixels, read(dicom(pixels)).pixels)


def test_big_endian(read):
    dataset = dicom(TWELVE.byteswap(), syntax=uid.ExplicitVRBigEndian)
    dataset["PixelData"].VR = "OW"
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
    assert np.array_equal(read(dataset).pixels, read(dicom(TWELVE)).pixels)


def test_jpeg_baseline(read):
    stream = cv2.imencode(".jpg", EIGHT, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    dataset = dicom(EIGHT, syntax=uid.JPEGBaseline8Bit)
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    expected = cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.abs(read(dataset).pixels.astype(int) - expected).max() <= 1


def test_without_preamble_and_without_meta_group(read):
    data = encoded(dicom(TWELVE))
    expected = read(data).pixels
    assert np.array_equal(read(data[132:]).pixels, expected)
    bare = data.index(b"\x08\x00\x16\x00UI")
    assert np.array_equal(read(data[bare:]).pixels, expected)
    implicit = encoded(dicom(TWELVE, syntax=uid.ImplicitVRLittleEndian))
    assert np.array_equal(read(implicit[implicit.index(b"\x08\x00\x16\x00") :]).pixels, expected)


def test_colour_is_reduced(read):
    grey = np.dstack([EIGHT] * 3)
    assert np.array_equal(read(dicom(grey)).pixels, EIGHT)
    colour = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    assert np.abs(read(dicom(colour)).pixels - colour @ np.array([0.299, 0.587, 0.114])).max() <= 0.51


SMOOTH = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (64, 48, 3), dtype=np.uint8), (0, 0), 4)
COLOUR = cv2.normalize(SMOOTH, None, 0, 255, cv2.NORM_MINMAX)
LUMINANCE = COLOUR @ np.array([0.299, 0.587, 0.114])


def lossless(dataset: Dataset, syntax: str) -> Dataset:
    dataset.compress(syntax, generate_instance_uid=False)
    return dataset


def half_chroma() -> Dataset:
    """YBR_FULL_422, uncompressed: of two pixels two luminances, and one of each chrominance."""
    whole = convert_color_space(COLOUR, "RGB", "YBR_FULL").astype(int)
    chroma = (whole[:, 0::2, 1:] + whole[:, 1::2, 1:]) // 2
    pairs = np.stack([whole[:, 0::2, 0], whole[:, 1::2, 0], chroma[..., 0], chroma[..., 1]], axis=-1)
    return dicom(COLOUR, PhotometricInterpretation="YBR_FULL_422", PixelData=pairs.astype(np.uint8).tobytes())


def jpeg_colour(interpretation: str) -> Dataset:
    stream = cv2.imencode(".jpg", COLOUR[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    dataset = dicom(COLOUR, syntax=uid.JPEGBaseline8Bit, PhotometricInterpretation=interpretation)
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    return dataset


COLOURS = {
    "ybr": lambda: dicom(convert_color_space(COLOUR, "RGB", "YBR_FULL"), PhotometricInterpretation="YBR_FULL"),
    "planes": lambda: dicom(COLOUR, PlanarConfiguration=1, PixelData=COLOUR.transpose(2, 0, 1).tobytes()),
    "rle": lambda: lossless(dicom(COLOUR), uid.RLELossless),
    "jpeg2000": lambda: lossless(dicom(COLOUR), uid.JPEG2000Lossless),
    "ybr-422": half_chroma,
    "jpeg-ybr": lambda: jpeg_colour("YBR_FULL_422"),
    # Some writers leave RGB in the header though the stream is YBR, as JPEG streams are.
    "jpeg-rgb": lambda: jpeg_colour("RGB"),
}


@pytest.mark.parametrize("name", COLOURS)
def test_every_colour_model_gives_the_same_grey(read, name):
    lossy = 4 if "jpeg-" in name else 2 if "422" in name else 0.51
    assert np.abs(read(COLOURS[name]()).pixels - LUMINANCE).max() <= lossy


def test_padding_is_black_whatever_the_inversion(read):
    values = TWELVE.copy()
    values[values == 0] = 1
    values[:9] = 0
    plain = read(dicom(values, PhotometricInterpretation="MONOCHROME1"))
    padded = read(dicom(values, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0))
    assert (plain.pixels[:9] == 65535).all()
    assert not padded.pixels[:9].any()
    assert np.array_equal(padded.pixels[9:], plain.pixels[9:])
    assert padded.warnings == ["pixels that are padding by its header are shown as black"]
    assert read(dicom(values, PixelPaddingValue=0)).warnings == []
    ranged = read(dicom(values, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0, PixelPaddingRangeLimit=9))
    assert not ranged.pixels[values <= 9].any()
    assert np.array_equal(ranged.pixels[values > 9], plain.pixels[values > 9])


@pytest.mark.parametrize("padding", [-2000, 63536])
def test_padding_below_zero_may_be_written_as_unsigned(read, padding):
    values = TWELVE.astype(np.int16) - 2000
    dataset = dicom(values, bits=16, PhotometricInterpretation="MONOCHROME1")
    dataset.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
    assert not read(dataset).pixels[values == -2000].any()


def test_padding_that_cannot_be_stored_changes_nothing(read):
    expected = read(dicom(TWELVE, PhotometricInterpretation="MONOCHROME1")).pixels
    tags = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 65535}
    assert np.array_equal(read(dicom(TWELVE, **tags)).pixels, expected)
    everything = tags | {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}
    assert np.array_equal(read(dicom(TWELVE, **everything)).pixels, expected)


def test_a_transfer_syntax_that_is_missing_is_found_out(read):
    data = encoded(dicom(TWELVE))
    start = data.index(b"\x02\x00\x10\x00UI")
    length = 8 + data[start + 6]
    group = data.index(b"\x02\x00\x00\x00UL") + 8
    rest = int.from_bytes(data[group : group + 4], "little") - length
    without = data[:group] + rest.to_bytes(4, "little") + data[group + 4 : start] + data[start + length :]
    assert np.array_equal(read(without).pixels, read(data).pixels)


def test_jpeg_ls_where_its_decoder_is_installed(read):
    pytest.importorskip("jpeg_ls")
    dataset = lossless(dicom(TWELVE), uid.JPEGLSLossless)
    assert np.array_equal(read(dataset).pixels, read(dicom(TWELVE)).pixels)


def test_palette(read):
    ramp = np.arange(256, dtype=np.uint16)[::-1] * 257
    tags = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = ramp.astype("<u2").tobytes()
    dataset = dicom(EIGHT, **tags)
    assert np.array_equal(read(dataset).pixels, ramp[EIGHT])


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, *SYNTAXES], ids=lambda syntax: syntax.name)
def test_no_truncated_file_is_read(read, syntax):
    data = encoded(recoded(TWELVE, syntax, WindowCenter=2000, WindowWidth=3000))
    whole = read(data).pixels
    refused = 0
    cuts = [*range(0, len(data), max(1, len(data) // 50)), *range(len(data) - 40, len(data), 3)]
    for cut in cuts:
        try:
            part = read(data[:cut])
        except ImageError:
            refused += 1
        else:
            assert np.array_equal(part.pixels, whole), cut
    assert refused > 40


def test_damage_is_one_error(read):
    data = bytearray(encoded(dicom(TWELVE, WindowCenter=2000, WindowWidth=3000)))
    header = bytes(data).index(b"\xe0\x7f\x10\x00")
    generator = np.random.default_rng(3)
    for _ in range(300):
        broken = bytearray(data)
        for place in generator.integers(132, header, 3):
            broken[place] = generator.integers(256)
        with contextlib.suppress(ImageError):
            assert read(bytes(broken)).pixels.ndim == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"NumberOfFrames": 3}, "one frame, found 3"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "2 to 16 bits"),
        ({"HighBit": 15}, "highest bit is 15"),
        ({"PhotometricInterpretation": "CMYK"}, "not supported|damaged"),
        ({"Rows": 0}, "48 x 0"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "found 1 stored in 1"),
        ({"PixelData": TWELVE.tobytes() * 2}, "bytes of pixels, its header"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused(read, change, words):
    with pytest.raises(ImageError, match=words):
        read(dicom(TWELVE, **change))


def test_a_report_is_no_picture(read):
    dataset = dicom(TWELVE)
    for name in ("PixelData", "Rows", "Columns"):
        delattr(dataset, name)
    with pytest.raises(ImageError, match="no Rows and Columns"):
        read(dataset)


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (uid.JPEGLosslessSV1, r"JPEG Lossless compression needs pylibjpeg-libjpeg \(GPL\)"),
        (uid.JPEGLSLossless, "JPEG-LS compression needs pyjpegls"),
        (uid.MPEG2MPML, "needs a decoder"),
    ],
)
def test_a_missing_codec_is_named(read, syntax, words):
    if syntax != uid.MPEG2MPML and get_decoder(syntax).is_available:
        pytest.skip("its decoder is installed here")
    dataset = dicom(TWELVE, syntax=syntax)
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].VR = "OB"
    with pytest.raises(ImageError, match=words) as caught:
        read(dataset)
    assert "pip install" in caught.value.hint or "convert" in caught.value.hint


def test_only_the_allowed_tags_are_told(read):
    dataset = dicom(
        EIGHT,
        PatientID=" 00042 ",
        PatientAge="045Y",
        PatientSex="F",
        ViewPosition="PA",
        PatientName="DOE^JANE",
        PatientBirthDate="19700101",
        InstitutionName="General",
        StudyInstanceUID="1.2.3.4.5",
    )
    radiograph = read(dataset)
    assert radiograph.tags == {"patient_id": "00042", "age": "45", "sex": "F", "view": "PA"}
    assert radiograph.warnings == []


@pytest.mark.parametrize(
    ("age", "years"),
    [("045Y", "45"), ("51", "51"), ("006M", "0.5"), ("026W", "0.498"), ("003D", "0.00821"), ("old", "")],
)
def test_age_in_years(read, age, years):
    with pytest.warns() if age in ("old", "51") else contextlib.nullcontext():
        dataset = dicom(EIGHT, PatientAge=age)
    assert read(dataset).tags.get("age", "") == years


def test_what_is_odd_is_said(read):
    dataset = dicom(
        EIGHT,
        Modality="CT",
        BurnedInAnnotation="YES",
        PresentationIntentType="FOR PROCESSING",
        PixelAspectRatio=["1", "2"],
        ViewPosition="PA",
        PatientSex="N",
    )
    radiograph = read(dataset)
    assert [text.split()[0] for text in radiograph.warnings] == ["modality", "text", "raw", "its"]
    assert radiograph.tags == {"view": "PA"}


def test_errors_and_warnings_do_not_repeat_the_header(read, recwarn, capfd):
    for change in ({"PatientAge": "JANEDOE"}, {"BitsStored": 99}, {"WindowCenter": "0", "WindowWidth": "0"}):
        pydicom.config.settings.reading_validation_mode = pydicom.config.WARN
        recwarn.clear()
        dataset = dicom(EIGHT)
        with pytest.warns() if "PatientAge" in change else contextlib.nullcontext():
            for name, value in change.items():
                setattr(dataset, name, value)
        data = encoded(dataset)
        recwarn.clear()
        try:
            text = str(read(data).warnings)
        except ImageError as error:
            text = str(error)
        assert "JANEDOE" not in text
        assert not [entry for entry in recwarn if "JANEDOE" in str(entry.message)]
    assert "JANEDOE" not in "".join(capfd.readouterr())


def deflated_zeros() -> bytes:
    data = encoded(dicom(EIGHT))
    place = data.index(b"\x08\x00\x16\x00UI")
    meta = data[:place].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    at = meta.index(b"\x02\x00\x10\x00UI") + 6
    meta = meta[:at] + (22).to_bytes(2, "little") + meta[at + 2 :]
    length = meta.index(b"\x02\x00\x00\x00UL") + 8
    meta = meta[:length] + (len(meta) - length - 4).to_bytes(4, "little") + meta[length + 4 :]
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = data[place:-8] + b"\x00" * 4
    stream = compressor.compress(body) + b"".join(compressor.compress(bytes(1 << 24)) for _ in range(28))
    return meta + stream + compressor.flush()


def huge_jpeg2000() -> bytes:
    dataset = recoded(EIGHT, uid.JPEG2000Lossless)
    data = bytearray(encoded(dataset))
    place = bytes(data).index(b"\xff\x4f\xff\x51")
    data[place + 8 : place + 16] = (60_000).to_bytes(4, "big") * 2
    return bytes(data)


def nested(depth: int) -> bytes:
    data = encoded(dicom(EIGHT))
    place = data.index(b"\x28\x00\x02\x00US")
    inner = b"\x09\x00\x10\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
    return data[:place] + inner + data[place:]


BOMBS = {
    "rows": lambda: encoded(dicom(EIGHT, Rows=60_000, Columns=60_000)),
    "frames": lambda: encoded(dicom(EIGHT, NumberOfFrames=1_000_000)),
    "deflated": deflated_zeros,
    "jpeg2000": huge_jpeg2000,
    "nested": lambda: nested(5000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_quickly_and_in_little_memory(tmp_path, read_bomb, name):
    path = tmp_path / "bomb.dcm"
    path.write_bytes(BOMBS[name]())
    outcome = read_bomb(path)
    assert outcome.startswith("refused:")
    assert "MemoryError" not in outcome


# Files as they are met: lookup tables in every encoding, headers that are not what the standard says, orientation.


def sixteen(brightness: np.ndarray) -> np.ndarray:
    return np.floor(brightness * 65535 + 0.5).astype(np.uint16)


def item(table: np.ndarray, vr: str, data: bytes | list[int], bits: int, first: int = 0) -> Dataset:
    found = Dataset()
    found.add_new("LUTDescriptor", "US", [len(table) % 65536, first % 65536, bits])
    found.add_new("LUTData", vr, data)
    return found


def raw(dataset: Dataset, keyword: str, vr: str, text: bytes) -> Dataset:
    """Set the bytes of an attribute, also such as pydicom would refuse to convert."""
    tag = Tag(keyword)
    text += b" " * (len(text) % 2)
    dataset._dict[tag] = RawDataElement(tag, vr, len(text), text, 0, False, True)
    return dataset


CURVE = (255 * np.sqrt(np.arange(4096) / 4095)).astype(np.uint8)
"""A table of 8 bits an entry with more than 256 entries."""


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize(
    ("vr", "data"),
    [
        ("US", CURVE.astype(int).tolist()),
        ("OW", CURVE.astype("<u2").tobytes()),
        ("OW", CURVE.tobytes()),
        ("US", CURVE.view("<u2").astype(int).tolist()),
        ("SS", CURVE.astype(int).tolist()),
    ],
    ids=["US", "OW", "OW-packed", "US-packed", "SS"],
)
def test_a_table_of_eight_bits_is_the_same_in_every_encoding(read, keyword, vr, data):
    dataset = dicom(TWELVE)
    dataset.add_new(keyword, "SQ", [item(CURVE, vr, data, 8)])
    got = read(dataset)
    expected = CURVE[TWELVE] / 255
    assert np.abs(got.pixels / 65535 - expected).max() < 1e-4
    assert not got.warnings


def test_a_packed_table_of_an_odd_number_of_entries(read):
    table = CURVE[:4095]
    dataset = dicom(TWELVE)
    dataset.VOILUTSequence = [item(table, "OW", table.tobytes() + b"\0", 8)]
    assert np.abs(read(dataset).pixels / 65535 - table[np.minimum(TWELVE, 4094)] / 255).max() < 1e-4


def test_a_packed_table_in_big_endian(read):
    dataset = dicom(TWELVE.byteswap(), syntax=uid.ExplicitVRBigEndian)
    dataset["PixelData"].VR = "OW"
    dataset.VOILUTSequence = [item(CURVE, "OW", CURVE.reshape(-1, 2)[:, ::-1].tobytes(), 8)]
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
    assert np.abs(read(dataset).pixels / 65535 - CURVE[TWELVE] / 255).max() < 1e-4


@pytest.mark.parametrize("bits", [9, 12, 13, 14, 15])
def test_a_table_narrower_than_its_descriptor_has_its_own_range(read, bits):
    table = (np.sqrt(np.arange(4096) / 4095) * ((1 << bits) - 1)).astype(np.uint16)
    dataset = dicom(TWELVE)
    dataset.VOILUTSequence = [item(table, "OW", table.tobytes(), 16)]
    got = read(dataset)
    assert np.array_equal(got.pixels, sixteen(table[TWELVE] / ((1 << bits) - 1)))
    assert got.warnings == [f"its VOI lookup table has 16 bits by its header and uses {bits}, which counted"]


def test_a_table_wider_than_its_descriptor_has_its_own_range(read):
    table = np.arange(4096, dtype=np.uint16)
    dataset = dicom(TWELVE)
    dataset.VOILUTSequence = [item(table, "US", table.astype(int).tolist(), 8)]
    got = read(dataset)
    assert np.array_equal(got.pixels, sixteen(TWELVE / 4095))
    assert "has 8 bits by its header and uses 12" in got.warnings[0]


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_modality_table_of_any_depth_comes_before_the_window(read, bits):
    table = (np.arange(4096) ** 2 // 4100).astype(np.uint16)
    dataset = dicom(TWELVE, WindowCenter=2048, WindowWidth=4096)
    dataset.ModalityLUTSequence = [item(table, "US", table.astype(int).tolist(), bits)]
    expected = np.clip((table[TWELVE] - 2047.5) / 4095 + 0.5, 0, 1)
    assert np.abs(read(dataset).pixels / 65535 - expected).max() < 1e-4


def test_a_table_starts_at_a_negative_value_that_was_written_as_unsigned(read):
    pixels = TWELVE.astype(np.int16) - 2048
    table = np.arange(4096, dtype=np.uint16)[::-1].copy()
    dataset = dicom(pixels)
    dataset.VOILUTSequence = [item(table, "OW", table.tobytes(), 12, first=-2048)]
    assert np.array_equal(read(dataset).pixels, sixteen(table[TWELVE] / 4095))


@pytest.mark.parametrize("found", [[], [100, 0, 12], [4096, 0]], ids=["empty", "short", "incomplete"])
def test_a_table_that_cannot_be_used_leaves_the_window(read, found):
    other = Dataset()
    if found:
        other.LUTDescriptor = found
        other.add_new("LUTData", "US", [1, 2, 3])
    dataset = dicom(TWELVE, WindowCenter=2000, WindowWidth=1000)
    dataset.VOILUTSequence = [other]
    got = read(dataset)
    assert np.array_equal(got.pixels, read(dicom(TWELVE, WindowCenter=2000, WindowWidth=1000)).pixels)
    assert len(got.warnings) == (1 if found else 0)


PLAIN = sixteen(TWELVE / 4095)


@pytest.mark.parametrize(
    ("keyword", "vr", "text"),
    [
        ("RescaleSlope", "DS", b""),
        ("RescaleIntercept", "DS", b""),
        ("PixelAspectRatio", "IS", b"1"),
        ("PixelAspectRatio", "IS", b"1\\1\\1"),
        ("PixelAspectRatio", "IS", b"1.0\\1.0"),
        ("PhotometricInterpretation", "CS", b"MONOCHROME 2"),
        ("PhotometricInterpretation", "CS", b"monochrome_2"),
        ("NumberOfFrames", "IS", b""),
        ("NumberOfFrames", "IS", b"1\\1"),
        ("PatientAge", "AS", b"045Y\\046Y"),
        ("PatientSex", "CS", b"\\F"),
        ("ViewPosition", "CS", b"PA\\AP"),
        ("BurnedInAnnotation", "CS", b"NO\\NO"),
        ("PixelPaddingValue", "DS", b"x"),
        ("VOILUTFunction", "CS", b""),
        ("WindowCenter", "DS", b""),
        ("HighBit", "US", b""),
    ],
)
def test_an_attribute_with_other_values_than_the_standard_says_changes_nothing(read, keyword, vr, text):
    got = read(raw(dicom(TWELVE), keyword, vr, text))
    assert np.array_equal(got.pixels, PLAIN)
    assert not got.warnings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"WindowCenter": b"2000,5", "WindowWidth": b"1000"}, "window cannot be used"),
        ({"WindowCenter": b"2000", "WindowWidth": b""}, "window cannot be used"),
        ({"WindowCenter": b"2000", "WindowWidth": b"1e999"}, "window cannot be used"),
        ({"RescaleIntercept": b"-1024,0", "RescaleSlope": b"1", "WindowCenter": b"0"}, "rescale cannot be read"),
    ],
)
def test_a_number_that_cannot_be_read_is_not_used_and_said(read, values, words):
    dataset = dicom(TWELVE)
    for keyword, text in values.items():
        raw(dataset, keyword, "DS", text)
    got = read(dataset)
    assert np.array_equal(got.pixels, PLAIN)
    (warning,) = got.warnings
    assert words in warning


def test_the_next_window_counts_where_the_first_is_empty(read):
    dataset = raw(raw(dicom(TWELVE), "WindowCenter", "DS", b"\\2000"), "WindowWidth", "DS", b"\\1000")
    got = read(dataset)
    assert np.array_equal(got.pixels, read(dicom(TWELVE, WindowCenter=2000, WindowWidth=1000)).pixels)
    assert "first window is empty" in got.warnings[0]


@pytest.mark.parametrize(
    "keyword", ["BitsStored", "PixelRepresentation", "BitsAllocated", "HighBit", "SamplesPerPixel"]
)
def test_a_missing_attribute_is_derived(read, keyword):
    dataset = dicom(np.maximum(TWELVE, 1) | np.uint16(2048) * np.isin(TWELVE, TWELVE.max()))
    expected = read(dataset).pixels
    del dataset[keyword]
    got = read(dataset)
    assert np.array_equal(got.pixels, expected)
    assert all("is missing in its header" in warning for warning in got.warnings)
    assert len(got.warnings) == (keyword not in ("HighBit", "SamplesPerPixel"))


def test_without_any_word_on_its_bits_the_largest_value_decides(read):
    pixels = TWELVE.copy()
    pixels[0, 0] = 4095
    dataset = dicom(pixels)
    del dataset["BitsStored"], dataset["HighBit"]
    got = read(dataset)
    assert np.array_equal(got.pixels, sixteen(pixels / 4095))
    assert "12 bits, which hold its largest value" in got.warnings[0]


@pytest.mark.parametrize(
    ("keyword", "vr", "text", "reason"),
    [
        ("Rows", "US", b"\x40\0\x41\0", "expected one value of Rows, found 2"),
        ("PhotometricInterpretation", "CS", b"", "no PhotometricInterpretation"),
        ("PhotometricInterpretation", "CS", b"GREY", "colour model is not supported"),
        ("PixelRepresentation", "US", b"\x02\0", "expected 0 or 1"),
        ("NumberOfFrames", "IS", b"one", "NumberOfFrames in its header is not a whole number"),
    ],
)
def test_a_contradiction_is_refused_with_its_reason(read, keyword, vr, text, reason):
    with pytest.raises(ImageError, match=reason) as refused:
        read(raw(dicom(TWELVE), keyword, vr, text))
    assert "damaged or truncated" not in refused.value.message


def compressed(codec: str, **header) -> Dataset:
    """An eight-bit stream under a header that says otherwise."""
    syntax = {".jpg": uid.JPEGBaseline8Bit, ".jp2": uid.JPEG2000Lossless}[codec]
    dataset = dicom(TWELVE, syntax=syntax, **header)
    stream = cv2.imencode(codec, EIGHT)[1].tobytes()
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].is_undefined_length = True
    return dataset


@pytest.mark.parametrize("codec", [".jpg", ".jp2"])
@pytest.mark.parametrize("bits", [8, 12])
def test_a_stream_of_fewer_bits_than_its_header_is_read_as_it_is(read, codec, bits):
    got = read(compressed(codec, BitsStored=bits, HighBit=bits - 1))
    assert got.pixels.dtype == np.uint8
    decoded = cv2.imdecode(cv2.imencode(codec, EIGHT)[1], cv2.IMREAD_UNCHANGED)
    assert np.abs(got.pixels.astype(int) - decoded).max() <= 2
    assert bool(got.warnings) == (bits == 12)


def test_a_window_that_fits_only_the_header_is_refused(read):
    with pytest.raises(ImageError, match="12 bits a pixel and its compressed stream 8"):
        read(compressed(".jpg", WindowCenter=2048, WindowWidth=4096))


TURNS = {
    ("L", "F"): lambda a: a,
    ("R", "F"): lambda a: a[:, ::-1],
    ("R", "H"): lambda a: a[::-1, ::-1],
    ("L", "H"): lambda a: a[::-1],
    ("F", "L"): lambda a: a.T,
    ("F", "R"): lambda a: a[:, ::-1].T,
    ("H", "L"): lambda a: a[::-1].T,
    ("H", "R"): lambda a: a[::-1, ::-1].T,
    ("LP", "FA"): lambda a: a,
}
"""How a picture whose rows run to the left and columns to the feet is stored under another orientation."""


@pytest.mark.parametrize("orientation", TURNS, ids="\\".join)
def test_a_picture_is_turned_to_the_usual_view(read, orientation):
    stored = np.ascontiguousarray(TURNS[orientation](TWELVE))
    got = read(dicom(stored, PatientOrientation=list(orientation)))
    assert np.array_equal(got.pixels, PLAIN)
    turned = orientation[0][0] + orientation[1][0] != "LF"
    assert got.warnings == ["turned to the usual view by its PatientOrientation"] * turned


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (["A", "F"], lambda a: a),
        (["P", "F"], lambda a: a),
        (["P", "H"], lambda a: a[::-1, ::-1]),
        (["F", "A"], lambda a: np.rot90(a)),
        (["H", "P"], lambda a: np.rot90(a, -1)),
    ],
)
def test_a_lateral_view_is_turned_and_not_mirrored(read, orientation, stored):
    pixels = np.ascontiguousarray(stored(TWELVE))
    assert np.array_equal(read(dicom(pixels, PatientOrientation=orientation)).pixels, PLAIN)


@pytest.mark.parametrize("orientation", ["L", ["L", "P"], ["L", "R"], ["X", "Y"], ["", "F"]])
def test_another_orientation_is_left_and_said(read, orientation):
    dataset = raw(dicom(TWELVE), "PatientOrientation", "CS", "\\".join(orientation).encode())
    got = read(dataset)
    assert np.array_equal(got.pixels, PLAIN)
    assert "not that of an upright radiograph" in got.warnings[0]


@pytest.mark.parametrize(
    ("meaning", "shape", "doubted"),
    [
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME1", "INVERSE", False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "", False),
    ],
)
def test_a_presentation_table_against_the_photometric_interpretation_is_said(read, meaning, shape, doubted):
    got = read(dicom(TWELVE, PhotometricInterpretation=meaning, PresentationLUTShape=shape))
    assert any("black and white are in doubt" in warning for warning in got.warnings) == doubted
    assert np.array_equal(got.pixels, PLAIN if meaning == "MONOCHROME2" else 65535 - PLAIN)


def test_the_passes_of_a_jpeg_are_counted_before_it_is_decoded(read):
    pixels = np.zeros((5000, 5000), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    last = data.rindex(b"\xff\xda")
    dataset = dicom(pixels, syntax=uid.JPEGBaseline8Bit)
    dataset.PixelData = encapsulate([data[:last] + data[last:-2] * 300 + data[-2:]])
    dataset["PixelData"].VR = "OB"
    with pytest.raises(ImageError, match="scans would take too long"):
        read(dataset)


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_jpeg_2000_without_its_end_is_refused(read, kept):
    stream = io.BytesIO()
    Image.fromarray(EIGHT).save(stream, "JPEG2000", no_jp2=True)
    dataset = dicom(EIGHT, syntax=uid.JPEG2000Lossless)
    for data, fails in ((stream.getvalue(), False), (stream.getvalue()[: int(kept * len(stream.getvalue()))], True)):
        dataset.PixelData = encapsulate([data])
        dataset["PixelData"].VR = "OB"
        with pytest.raises(ImageError, match="has 0 of 1 tiles") if fails else contextlib.nullcontext():
            assert np.array_equal(read(dataset).pixels, EIGHT)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (100, "truncated DICOM: it has 100 of the 6,144 bytes"),
        (1 << 27, "134,217,7.. bytes follow its header of 48 x 64"),
    ],
)
def test_pixels_are_as_many_as_in_the_header(read, count, words):
    with pytest.raises(ImageError, match=words):
        read(dicom(TWELVE, PixelData=bytes(count)))


def test_an_unknown_transfer_syntax_is_not_repeated(read):
    data = encoded(dicom(EIGHT)).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1\nDOE\0")
    with pytest.raises(ImageError) as caught:
        read(data)
    assert "DOE" not in caught.value.message
    assert "\n" not in caught.value.message
