"""The DICOM reader: windows, inversion, compressions, truncation, bombs, and what it must not tell."""

from __future__ import annotations

import contextlib
import io
import itertools
import zlib

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

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
        ({"PixelData": TWELVE.tobytes() * 2}, "array of 3 axes"),
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
